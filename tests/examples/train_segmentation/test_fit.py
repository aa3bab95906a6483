"""The loop learns, is reproducible from its seed, and does not read labels of unlabeled images."""

import torch
from torch import Tensor

from examples.demo.scene import CLASS_NAMES, KEYPOINT_NAMES
from examples.train_segmentation.consistency import MeanTeacher, random_boxes
from examples.train_segmentation.evaluate import evaluate
from examples.train_segmentation.fit import UNetTrainConfig, fit
from examples.train_segmentation.samples import (
    Samples,
    SceneDraw,
    rendered,
    shuffled_batches,
)
from examples.train_segmentation.unet import UNet, UNetConfig
from tests.examples.train_segmentation.drawn import SMALL, generator

TINY = UNetConfig(len(CLASS_NAMES), len(KEYPOINT_NAMES), widths=(8, 16))


def test_training_learns_a_handful_of_images() -> None:
    samples = rendered(SceneDraw(seed=6, count=4))
    curve: list[float] = []

    def watch(step: int, network: UNet) -> None:
        if step in (1, 60):
            curve.append(evaluate(network, samples).miou)

    config = UNetTrainConfig(steps=60, batch_size=4, warm_up=5, learning_rate=1e-2)
    fit(config, TINY, 0, shuffled_batches(samples, 4, generator()), watch=watch)
    assert curve[1] > curve[0] + 0.15


def test_equal_seeds_give_equal_networks_and_other_seeds_others() -> None:
    samples = rendered(SMALL)
    config = UNetTrainConfig(steps=3, batch_size=4)

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
