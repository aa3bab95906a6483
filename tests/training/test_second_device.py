"""Training asked to run on a device runs there: nothing of it is left on the CPU, or meets it.

The results are the CPU's to the bit, because the second device computes with the CPU's kernels.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from checkpoints import Classes
from nets.config import GeneratorConfig
from nets.generator import generator_from_config
from nets.inverse_graphics import InverseGraphicsConfig
from nets.refiner import RefinerConfig
from tests.training.ellipsoid_sets import BANK, EXTENT, sets_of_ellipsoids
from tests.training.second_device import DEVICE, WrongDevice, second_device
from tests.training.sets import CLASSES, tiny_generator, tiny_labels
from training.evaluate.evaluation import evaluation_from_interpreter
from training.images.pool import Pool
from training.images.sample import SampleConfig, drawn_w, truncated
from training.interpreter.card import card_from_fit
from training.interpreter.config import InterpreterTrainConfig
from training.interpreter.train import fit_interpreter
from training.inverse_graphics.config import InverseGraphicsTrainConfig
from training.inverse_graphics.from_images import shapes_of_images
from training.inverse_graphics.run import mean_silhouette_iou
from training.inverse_graphics.train import InverseGraphicsTraining
from training.inversion.optimise import InvertConfig, invert_images
from training.inversion.train_encoder import EncoderTrainConfig, fit_encoder, ws_from_images
from training.label_crop import LabelCrop, images_from_ws
from training.refiner.config import RefinerTrainConfig
from training.refiner.run import RefinerRunOptions, run_refiner
from training.views.bank import small_images

pytestmark = pytest.mark.long  # every command once more, on a device that is not the CPU

CPU = torch.device("cpu")
CROP = LabelCrop(grid=16, crop_top=2, height=12)
FIT = InterpreterTrainConfig(members=2, steps=5, pixels=256, learning_rate=1e-2)
INVERSE = InverseGraphicsTrainConfig(
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


@pytest.mark.parametrize(
    "config",
    [
        GeneratorConfig(16, (8, 8, 8), z_dim=4, w_dim=6, c_dim=3, mapping_layers=2),
        GeneratorConfig(16, (8, 8, 8), z_dim=4, w_dim=6, architecture="resnet", conv_clamp=256),
        GeneratorConfig(16, (8, 8, 8), z_dim=4, w_dim=6, architecture="orig"),
        GeneratorConfig(256, (4,) * 7, z_dim=4, w_dim=6, family="stylegan1"),
    ],
)
def test_every_kind_of_generator_runs_where_it_is(
    device: torch.device, config: GeneratorConfig
) -> None:
    torch.manual_seed(0)
    generator = generator_from_config(config).eval().requires_grad_(False)
    there = copy.deepcopy(generator).to(device)
    z, c = torch.randn(2, 4), torch.eye(3)[:2] if config.c_dim else None
    w = generator.mapping(z, c)
    assert torch.equal(there.mapping(z.to(device), c if c is None else c.to(device)).cpu(), w)
    ws = w[:, None].repeat(1, config.num_ws, 1)
    expected, found = generator.synthesis(ws), there.synthesis(ws.to(device))
    assert torch.equal(found.image.cpu(), expected.image)
    assert all(torch.equal(a.cpu(), b) for a, b in zip(found.taps, expected.taps, strict=True))


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
    config = EncoderTrainConfig(latent_steps=2, image_steps=2, batch=4, iterations=2)
    images = np.random.default_rng(0).integers(0, 256, (3, 12, 16, 3), np.uint8)
    here, there = tiny_generator(), tiny_generator().to(device)
    expected = fit_encoder(here, CROP, config)
    found = fit_encoder(there, CROP, config)
    assert next(found.parameters()).device == device
    ws = ws_from_images(found, there, images, CROP)
    assert torch.equal(ws, ws_from_images(expected, here, images, CROP))
    assert same(found.cpu(), expected)


def test_images_are_inverted_where_the_generator_is(device: torch.device) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 12, 16, 3), np.uint8)
    config = InvertConfig(steps=4, at_once=2)
    expected = invert_images(tiny_generator(), images, CROP, config)
    found = invert_images(tiny_generator().to(device), images, CROP, config)
    assert torch.equal(found.best.ws, expected.best.ws) and found.failed.device.type == "cpu"


def test_a_refiner_is_fitted_and_judged_where_it_is_told(
    device: torch.device, tmp_path: Path
) -> None:
    random = torch.Generator().manual_seed(0)
    source, real = (
        Pool(
            torch.randint(0, 256, (8, 3, 32, 32), generator=random, dtype=torch.uint8),
            torch.randint(0, 3, (8, 32, 32), generator=random, dtype=torch.uint8),
        )
        for _ in range(2)
    )
    config = RefinerTrainConfig(
        RefinerConfig(width=8, blocks=1, grain=2), steps=2, warm_up=1, critic_warm_up=1,
        batch_size=4, crop=24, critic_width=12, history=6,
    )  # fmt: skip
    found = []
    for name, first, then in (("a", CPU, CPU), ("b", device, device), ("c", CPU, device)):
        out = tmp_path / name / "r.safetensors"
        out.parent.mkdir()
        run = RefinerRunOptions(out, 2, math.inf, -1, -1, 2, ["CC0-1.0"], first)
        run_refiner(replace(config, steps=0), source, real, run, resume=False)
        run_refiner(config, source, real, replace(run, device=then), resume=True)
        found.append({path.name: path.read_bytes() for path in out.parent.iterdir()})
    assert found[0] == found[1] == found[2] and len(found[0]) == 5


def test_images_are_drawn_and_labelled_where_the_generator_is(device: torch.device) -> None:
    config = SampleConfig(count=2, candidates=4, psi=0.7, cutoff=6)
    here, there = tiny_generator(), tiny_generator().to(device)
    ws = truncated(here, drawn_w(here, config), config)
    codes = ws[:, :2]
    assert (truncated(there, drawn_w(there, config), config) == ws).all()
    assert (images_from_ws(there, ws, CROP) == images_from_ws(here, ws, CROP)).all()
    assert (small_images(there, codes) == small_images(here, codes)).all()


def test_an_interpreter_is_evaluated_where_it_is(device: torch.device) -> None:
    labels, generator = tiny_labels(), tiny_generator()
    trained = fit_interpreter(generator, labels, FIT)
    card = card_from_fit(trained, labels, FIT, "0" * 64, "styledconv+const", [])
    expected = evaluation_from_interpreter(generator, trained, card, labels)
    found = evaluation_from_interpreter(generator.to(device), trained.to(device), card, labels)
    assert str(found) == str(expected)


def test_shapes_are_learnt_and_made_where_the_network_is(device: torch.device) -> None:
    sets = sets_of_ellipsoids(4)
    here, there = (InverseGraphicsTraining(INVERSE, sets, BANK, d) for d in (CPU, device))
    assert [there.advance() for _ in range(3)] == [here.advance() for _ in range(3)]
    assert mean_silhouette_iou(there) == mean_silhouette_iou(here)
    points = [
        shapes_of_images(sets.images[:, 0], t.network, t.device).points for t in (here, there)
    ]
    assert torch.equal(*points)
