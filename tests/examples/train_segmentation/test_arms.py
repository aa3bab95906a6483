"""Each arm trains on its own data, and none on test images."""

from itertools import islice
from pathlib import Path

import pytest
import torch

from checkpoints import generator_from_file, sha256_of_file
from engines.fake import fake_bundle
from examples.demo.__main__ import GENERATOR
from examples.demo.labels import write_examples
from examples.train_segmentation.arms import Arm, Material, check_model, data_of_arm
from examples.train_segmentation.samples import (
    TEST,
    TRAINING,
    VALIDATION,
    SceneDraw,
    rendered,
    samples_from_folder,
    shuffled_batches,
)
from labelmint import Client
from tests.examples.train_segmentation.drawn import SMALL, generator, hashes
from tests.service.harness import FakeModel, served


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    write_examples(generator_from_file(GENERATOR)[0], folder, sha256_of_file(GENERATOR))
    return folder


@pytest.mark.long
def test_every_arm_yields_whole_batches_and_never_a_test_image(labels: Path) -> None:
    tested = hashes(rendered(SceneDraw(TEST.seed, 64)).images)
    part = SceneDraw(TRAINING.seed, 64)
    model = FakeModel(bundle=fake_bundle(resolution=64))
    with served([model]) as running:
        target = f"127.0.0.1:{running.server.port}"
        material = Material(
            lambda: samples_from_folder(labels), lambda: rendered(part), lambda: target
        )
        for arm in Arm:
            data = data_of_arm(arm, material, batch_size=6, seed=0)
            for batch in islice(data.batches, 4):
                assert batch.images.shape == (6, 3, 64, 64) and batch.images.dtype == torch.uint8
                assert batch.masks.shape == (6, 64, 64) and not batch.masks.is_floating_point()
                assert batch.keypoints.shape[::2] == (6, 3)
                assert batch.keypoints.dtype == torch.float32
                assert batch.keypoints[..., 2].min() >= 0 and batch.keypoints[..., 2].max() <= 1
                assert not hashes(batch.images) & tested
            assert (data.extra is not None) == (arm is Arm.CONSISTENCY)


def test_the_filtered_arm_s_samples_are_the_stream_s_without_some() -> None:
    model = FakeModel(bundle=fake_bundle(resolution=64))
    with served([model]) as running:
        target = f"127.0.0.1:{running.server.port}"

        def images(arm: Arm) -> list[bytes]:
            material = Material(lambda: rendered(SMALL), lambda: rendered(SMALL), lambda: target)
            batches = data_of_arm(arm, material, batch_size=8, seed=3).batches
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


@pytest.mark.long
def test_the_sets_of_scenes_are_disjoint() -> None:
    sets = [
        hashes(rendered(SceneDraw(draw.seed, 32)).images) for draw in (TRAINING, VALIDATION, TEST)
    ]
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
