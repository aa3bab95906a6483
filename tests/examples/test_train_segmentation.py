"""The example that trains a U-Net: its figures, its augmentation, its arms and its loop."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from checkpoints import generator_from_file
from engines.fake import fake_bundle
from examples.demo.__main__ import GENERATOR
from examples.demo.labels import write_examples
from examples.demo.render import render
from examples.demo.scene import CLASS_NAMES, GLASSES, KEYPOINT_NAMES
from examples.demo.score import score_labels
from examples.train_segmentation.arms import Arm, Material, check_model, source_of_arm
from examples.train_segmentation.augment import (
    MIRRORED_KEYPOINTS,
    Variation,
    moved_by,
    random_maps,
    varied,
)
from examples.train_segmentation.consistency import MeanTeacher, random_boxes
from examples.train_segmentation.evaluate import evaluate, head_extents, pck, score_of
from examples.train_segmentation.fit import FitConfig, fit, gaussians
from examples.train_segmentation.samples import (
    TEST,
    TRAINING,
    VALIDATION,
    Draw,
    Samples,
    bytes_from_colours,
    rendered,
    samples_from_folder,
    shuffled_batches,
)
from examples.train_segmentation.unet import UNet, UNetConfig, points_from_heatmaps
from labelmint import Client
from tests.examples.test_scene import scenes
from tests.service.harness import FakeModel, served

SMALL = Draw(seed=5, count=20)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def literal_iou(truth: Tensor, predicted: Tensor, class_id: int) -> float:
    both = either = 0
    for a, b in zip(truth.flatten().tolist(), predicted.flatten().tolist(), strict=True):
        both += a == class_id and b == class_id
        either += a == class_id or b == class_id
    return both / either if either else float("nan")


@pytest.mark.parametrize("seed", range(4))
def test_iou_is_that_of_the_definition_over_all_pixels(seed: int) -> None:
    classes = 2 + seed * 2
    truth = torch.randint(0, classes - 1, (3, 5, 7), generator=generator(seed)).byte()
    predicted = torch.randint(0, classes, (3, 5, 7), generator=generator(seed + 9)).byte()
    points = np.zeros((3, 1, 3), np.float32)
    found = score_labels(predicted.numpy(), points, truth.numpy(), points, num_classes=classes + 1)
    expected = [literal_iou(truth, predicted, c) for c in range(classes + 1)]
    assert np.isnan(expected[-1])  # in neither: left out of the mean
    np.testing.assert_allclose(found.iou, expected, rtol=1e-12)
    assert found.miou == pytest.approx(np.mean(expected[:-1]))


def test_pck_counts_seen_keypoints_within_a_tenth_of_the_head() -> None:
    masks = torch.zeros(2, 64, 64, dtype=torch.uint8)
    masks[0, 10:50, 20:40] = 1  # 40 high, 20 wide: the limit is 4 px
    masks[0, 10, 20] = GLASSES  # any part counts
    masks[1, 30, 5:35] = 2  # 1 high, 30 wide: 3 px
    assert head_extents(masks).tolist() == [40, 30]
    truth = torch.tensor([[[10.0, 10, 1], [20, 20, 1], [30, 30, 0]], [[10, 10, 1]] * 3])
    points = truth[..., :2].clone()
    points[0, 0, 0] += 3.9  # near
    points[0, 1, 1] += 4.1  # far
    points[0, 2] += 50  # not seen
    points[1, 0, 0] += 3.1  # far
    assert pck(points, truth, 0.1 * head_extents(masks)) == pytest.approx(3 / 5)


def test_an_image_without_a_head_has_extent_zero() -> None:
    assert head_extents(torch.zeros(1, 8, 8, dtype=torch.uint8)).tolist() == [0]


def test_the_truth_itself_scores_one() -> None:
    samples = rendered(SMALL)
    score = score_of(samples.masks, samples.keypoints[..., :2], samples)
    assert score.miou == 1 and score.pck == 1 and score.keypoint_error_px == 0


def test_a_heatmap_s_point_is_where_its_target_was_put() -> None:
    points = torch.rand(5, 4, 2, generator=generator()) * torch.tensor([20.0, 12.0]) + 6
    heat = gaussians(torch.cat([points, torch.ones(5, 4, 1)], 2), torch.Size([24, 32]), 1.5).log()
    torch.testing.assert_close(points_from_heatmaps(heat), points, atol=0.2, rtol=0)


def test_left_and_right_change_places_in_a_mirror() -> None:
    swapped = [KEYPOINT_NAMES[i] for i in MIRRORED_KEYPOINTS]
    assert swapped == [
        "right_pupil", "left_pupil", "nose_tip", "mouth_right", "mouth_left", "chin", "right_ear",
        "left_ear",
    ]  # fmt: skip


def test_a_mirrored_sample_is_its_mirror_image_pixel_by_pixel() -> None:
    samples = rendered(SMALL)
    mirror = torch.tensor([[-1.0, 0, 0], [0, 1, 0]]).expand(len(samples), 2, 3)
    moved = moved_by(samples, mirror)
    assert torch.equal(moved.images, samples.images.flip(3))
    assert torch.equal(moved.masks, samples.masks.flip(2))
    partner = samples.keypoints[:, MIRRORED_KEYPOINTS]
    torch.testing.assert_close(moved.keypoints[..., 0], 64 - partner[..., 0])
    torch.testing.assert_close(moved.keypoints[..., 1:], partner[..., 1:])


def test_a_mirrored_scene_has_the_mirrored_keypoints() -> None:
    """The renderer is asked for the mirror image itself: the camera on the other side."""
    scene = scenes(16)
    other = replace(
        scene,
        azimuth=-scene.azimuth,
        gaze=scene.gaze * torch.tensor([-1.0, 1.0]),
        parting=-scene.parting,
    )
    truth, expected = render(scene, 64), render(other, 64)
    samples = Samples(bytes_from_colours(truth.image), truth.mask, truth.keypoints)
    mirror = torch.tensor([[-1.0, 0, 0], [0, 1, 0]]).expand(len(samples), 2, 3)
    moved = moved_by(samples, mirror)
    assert (moved.masks == expected.mask).float().mean() > 0.999
    seen = (moved.keypoints[..., 2] * expected.keypoints[..., 2]) > 0
    assert seen.float().mean() > 0.7
    torch.testing.assert_close(
        moved.keypoints[seen][:, :2], expected.keypoints[seen][:, :2], atol=1e-3, rtol=0
    )


def disc(x: float, y: float) -> Tensor:
    """bool [64, 64]: pixels within 5 px of a point."""
    centre = torch.arange(64) + 0.5
    return (centre[None, :] - x) ** 2 + (centre[:, None] - y) ** 2 < 25


def test_image_mask_and_keypoints_move_together() -> None:
    """The centroid of a disc in the image and in the mask is where its keypoint has gone."""
    count = 64
    places = torch.rand(count, 2, generator=generator(3)) * 16 + 24
    masks = torch.stack([disc(x, y) for x, y in places.tolist()]).byte()
    keypoints = torch.cat([places, torch.ones(count, 1)], 1)[:, None].expand(-1, 8, -1)
    samples = Samples((masks * 200)[:, None].expand(-1, 3, -1, -1), masks, keypoints)
    moved = moved_by(samples, random_maps(count, generator(4), Variation()))
    for weight in (moved.images[:, 0].float(), moved.masks.float()):
        pixel = torch.arange(64) + 0.5
        total = weight.sum(dim=(1, 2))
        x = (weight.sum(dim=1) * pixel).sum(dim=1) / total
        y = (weight.sum(dim=2) * pixel).sum(dim=1) / total
        found = torch.stack([x, y], dim=1)
        torch.testing.assert_close(found, moved.keypoints[:, 0, :2], atol=0.5, rtol=0)
    assert (moved.keypoints[:, 0, :2] - places).norm(dim=1).max() > 4  # they did move


def test_a_keypoint_that_leaves_the_frame_is_not_trusted() -> None:
    samples = rendered(SMALL)
    away = torch.tensor([[1.0, 0, 1.9], [0, 1, 0]]).expand(len(samples), 2, 3)
    assert (moved_by(samples, away).keypoints[..., 2] == 0).all()


def test_variants_keep_types_and_follow_the_seed() -> None:
    samples = rendered(SMALL)
    first, again, other = (varied(samples, generator(s)) for s in (1, 1, 2))
    assert first.images.dtype == torch.uint8 and first.masks.dtype == torch.uint8
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.keypoints, again.keypoints)
    assert not torch.equal(first.images, other.images)
    assert set(first.masks.unique().tolist()) <= set(range(len(CLASS_NAMES)))


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    write_examples(generator_from_file(GENERATOR)[0], folder)
    return folder


def hashes(images: Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_every_arm_yields_whole_batches_and_never_a_test_image(labels: Path) -> None:
    tested = hashes(rendered(Draw(TEST.seed, 64)).images)
    part = Draw(TRAINING.seed, 64)
    model = FakeModel(bundle=fake_bundle(resolution=64))
    with served([model]) as running, Client(f"127.0.0.1:{running.server.port}") as client:
        material = Material(
            lambda: samples_from_folder(labels), lambda: rendered(part), lambda: client
        )
        for arm in Arm:
            source = source_of_arm(arm, material, batch_size=6, seed=0)
            for batch in islice(source.batches, 4):
                assert batch.images.shape == (6, 3, 64, 64) and batch.images.dtype == torch.uint8
                assert batch.masks.shape == (6, 64, 64) and batch.masks.dtype == torch.uint8
                assert batch.keypoints.shape[::2] == (6, 3)
                assert batch.keypoints.dtype == torch.float32
                assert batch.keypoints[..., 2].min() >= 0 and batch.keypoints[..., 2].max() <= 1
                assert not hashes(batch.images) & tested
            assert (source.extra is not None) == (arm is Arm.CONSISTENCY)


def test_the_filtered_arm_s_samples_are_the_stream_s_without_some() -> None:
    model = FakeModel(bundle=fake_bundle(resolution=64))
    with served([model]) as running, Client(f"127.0.0.1:{running.server.port}") as client:

        def images(arm: Arm) -> list[bytes]:
            material = Material(lambda: rendered(SMALL), lambda: rendered(SMALL), lambda: client)
            batches = source_of_arm(arm, material, batch_size=8, seed=3).batches
            return [i.numpy().tobytes() for batch in islice(batches, 8) for i in batch.images]

        everything, kept = images(Arm.STREAM), images(Arm.FILTERED)
    remaining = iter(everything)
    shared = sum(1 for image in kept if image in remaining)  # in order, each once
    assert 0.7 * len(everything) < shared < len(everything)


def test_a_server_of_other_classes_is_refused_with_both_lists() -> None:
    model = FakeModel(bundle=fake_bundle(resolution=64))
    with (
        served([model]) as running,
        Client(f"127.0.0.1:{running.server.port}") as client,
        pytest.raises(ValueError, match=r"has classes .* the renderer \('background'.*make demo"),
    ):
        check_model(client, 64)


def test_the_sets_of_scenes_are_disjoint() -> None:
    sets = [hashes(rendered(Draw(draw.seed, 32)).images) for draw in (TRAINING, VALIDATION, TEST)]
    assert len(set.union(*sets)) == 96


@pytest.mark.parametrize(("size", "rounds"), [(6, 10), (20, 3), (32, 5)])
def test_every_sample_comes_once_before_any_comes_again(size: int, rounds: int) -> None:
    samples = rendered(SMALL)
    index = {image.numpy().tobytes(): i for i, image in enumerate(samples.images)}
    seen: list[int] = []
    for batch in islice(shuffled_batches(samples, size, generator()), rounds):
        assert len(batch) == size
        seen += [index[image.numpy().tobytes()] for image in batch.images]
    for start in range(0, len(seen) - 20, 20):
        assert sorted(seen[start : start + 20]) == list(range(20))


TINY = UNetConfig(len(CLASS_NAMES), len(KEYPOINT_NAMES), widths=(8, 16))


def test_training_learns_a_handful_of_images() -> None:
    samples = rendered(Draw(seed=6, count=4))
    curve: list[float] = []

    def watch(step: int, network: UNet) -> None:
        if step in (1, 60):
            curve.append(evaluate(network, samples).miou)

    config = FitConfig(steps=60, batch_size=4, warm_up=5, learning_rate=1e-2)
    fit(config, TINY, 0, shuffled_batches(samples, 4, generator()), watch=watch)
    assert curve[1] > curve[0] + 0.15


def test_equal_seeds_give_equal_networks_and_other_seeds_others() -> None:
    samples = rendered(SMALL)
    config = FitConfig(steps=3, batch_size=4)

    def trained(seed: int) -> Tensor:
        batches = shuffled_batches(samples, 4, generator())
        network = fit(
            config, TINY, seed, batches, lambda student: MeanTeacher(student, batches, seed)
        )
        return network.heads.weight.detach()

    first, again, other = trained(1), trained(1), trained(2)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_the_teacher_s_labels_never_come_from_the_images_own() -> None:
    samples = rendered(SMALL)
    emptied = Samples(
        samples.images, torch.zeros_like(samples.masks), torch.zeros_like(samples.keypoints)
    )
    student = UNet(TINY)
    losses = []
    for images in (samples, emptied):
        batches = shuffled_batches(images, 8, generator())
        teacher = MeanTeacher(student, batches, seed=1)
        student.train()
        losses.append(teacher.loss(student).item())
    assert losses[0] == losses[1]


def test_the_teacher_starts_at_the_student_and_then_follows_slowly() -> None:
    student = UNet(TINY)
    teacher = MeanTeacher(student, iter(()), seed=0)
    for value in (1.0, 0.0, 0.0, 0.0):
        torch.nn.init.constant_(student.heads.weight, value)
        teacher.after_step(student)
    # The mean of the four, while that moves faster than the average's 0.99.
    average = teacher.teacher.heads.weight
    torch.testing.assert_close(average, torch.full_like(average, 0.25))


def test_a_box_covers_about_half_of_the_image() -> None:
    boxes = random_boxes(200, torch.Size([64, 48]), generator())
    share = boxes.float().mean(dim=(1, 2))
    assert share.min() > 0.45 and share.max() < 0.55
    assert boxes.any(dim=2).float().mean(dim=1).std() > 0.1  # of many shapes
