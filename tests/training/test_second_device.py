"""Training asked to run on a device runs there: nothing of it is left on the CPU, or meets it.

The results are the CPU's to the bit, because the second device computes with the CPU's kernels.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from checkpoints import Classes
from nets.inverse_graphics import InverseGraphicsConfig
from tests.training.ellipsoid_sets import BANK, EXTENT, sets_of_ellipsoids
from tests.training.second_device import DEVICE, WrongDevice, second_device
from tests.training.sets import CLASSES, tiny_generator, tiny_labels
from training.encode import ws_from_images
from training.fit_config import FitConfig
from training.fit_encoder import EncoderFitConfig, fit_encoder
from training.fit_interpreter import fit_interpreter
from training.frame import Frame
from training.invert import InvertConfig, invert_images
from training.shapes.config import InverseFit
from training.shapes.fit import InverseTraining
from training.shapes.from_images import shapes_of_images
from training.shapes.run import silhouettes_met

FRAME = Frame(grid=16, crop_top=2, height=12)
FIT = FitConfig(members=2, steps=5, pixels=256, learning_rate=1e-2)
INVERSE = InverseFit(
    InverseGraphicsConfig(extent=EXTENT, hidden=32, texture=8, camera=True),
    steps=3, batch=2, resolution=24, refine_cameras=True,
)  # fmt: skip


@pytest.fixture
def device() -> Iterator[torch.device]:
    with second_device():
        yield DEVICE


def same(one: nn.Module, other: nn.Module) -> bool:
    """Bit for bit, both on the CPU."""
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_second_device_refuses_what_cuda_would(device: torch.device) -> None:
    there, here = torch.ones(3, device=device), torch.ones(3)
    assert (there + torch.tensor(1.0)).device == device and there.sum().item() == 3
    with pytest.raises(WrongDevice, match="tensors of the CPU"):
        there + here
    with pytest.raises(WrongDevice, match="indexed by one of the device"):
        here[there.long()]
    with pytest.raises(WrongDevice, match="generator of the CPU"):
        torch.randn(3, device=device, generator=torch.Generator())
    with pytest.raises((RuntimeError, TypeError), match="numpy"):
        there.numpy()
    assert torch.equal((there * 2).cpu(), here * 2)


@pytest.mark.parametrize("schedule", ["cosine", "published"])
def test_an_interpreter_is_fitted_where_its_generator_is(
    device: torch.device, schedule: Literal["cosine", "published"]
) -> None:
    labels, config = tiny_labels(), replace(FIT, schedule=schedule)
    if schedule == "published":  # goes over all labelled pixels again and again
        assert labels.masks is not None
        masks = np.full_like(labels.masks, 255)
        masks[:, :1] = labels.masks[:, :1]
        classes = Classes(CLASSES.cards, 255)
        labels = replace(labels, masks=masks, classes=classes, keypoints=None, depth=None)
    expected = fit_interpreter(tiny_generator(), labels, config)
    assert same(fit_interpreter(tiny_generator().to(device), labels, config), expected)


def test_an_encoder_is_fitted_and_used_where_its_generator_is(device: torch.device) -> None:
    config = EncoderFitConfig(latent_steps=2, image_steps=2, batch=4, iterations=2)
    images = np.random.default_rng(0).integers(0, 256, (3, 12, 16, 3), np.uint8)
    here, there = tiny_generator(), tiny_generator().to(device)
    expected = fit_encoder(here, FRAME, config)
    found = fit_encoder(there, FRAME, config)
    assert next(found.parameters()).device == device
    ws = ws_from_images(found, there, images, FRAME)
    assert torch.equal(ws, ws_from_images(expected, here, images, FRAME))
    assert same(found.cpu(), expected)


def test_images_are_inverted_where_the_generator_is(device: torch.device) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 12, 16, 3), np.uint8)
    config = InvertConfig(steps=4, at_once=2)
    expected = invert_images(tiny_generator(), images, FRAME, config)
    found = invert_images(tiny_generator().to(device), images, FRAME, config)
    assert torch.equal(found.best.ws, expected.best.ws) and found.failed.device.type == "cpu"


def test_shapes_are_learnt_and_made_where_the_network_is(device: torch.device) -> None:
    sets = sets_of_ellipsoids(4)
    here, there = (InverseTraining(INVERSE, sets, BANK, d) for d in (torch.device("cpu"), device))
    assert [there.advance() for _ in range(3)] == [here.advance() for _ in range(3)]
    assert silhouettes_met(there) == silhouettes_met(here)
    points = [
        shapes_of_images(sets.images[:, 0], t.network, t.device).points for t in (here, there)
    ]
    assert torch.equal(*points)
