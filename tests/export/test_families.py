"""Exported graphs give the pixels of the public code, in every family and architecture."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from export.graph.labeller import Labeller, served_synthesis
from export.graph.spec import LabelSpec
from export.graph.to_onnx import labeller_onnx
from nets.generator import Generator
from tests.checkpoints import (
    test_rosinality,
    test_stylegan1,
    test_stylegan2_ada,
    test_stylegan2_tf,
    test_stylegan3,
)
from tests.checkpoints.golden import Golden
from tests.export.test_labeller import open_session

Load = Callable[[], tuple[Generator, Golden]]
FAMILIES: dict[str, Load] = {
    f"{module.__name__.rpartition('.test_')[2]} {name}": partial(module.loaded, name)
    for module in (
        test_stylegan2_ada,
        test_stylegan2_tf,
        test_rosinality,
        test_stylegan1,
        test_stylegan3,
    )
    for name in module.NAMES
}


QUICK = {name.partition(" ")[0]: name for name in FAMILIES}.values()  # one of each family


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.long) for n in FAMILIES]
)
def test_exported_pixels_are_the_public_codes(name: str, tmp_path: Path) -> None:
    generator, of = FAMILIES[name]()
    config = generator.config
    height, width = config.image_size
    spec = LabelSpec(config.resolution, 0, height, width, start=config.start)
    labeller = Labeller(generator, None, spec)
    labeller_onnx(labeller, tmp_path / "labeller.onnx")
    session = open_session(tmp_path / "labeller.onnx")
    everything = np.full(len(of.inputs["ws"]), np.inf, np.float32)
    feed = {"ws": of.inputs["ws"].numpy(), "max_uncertainty": everything}
    image = torch.from_numpy(session.run(["image"], feed)[0]).permute(0, 3, 1, 2)
    expected = (of.image.value * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    steps = (of.image.of(image).int() - expected.int()).abs()
    assert (steps <= 1).float().mean() >= 0.999
    assert len(expected.unique()) > 100, "a flat image proves nothing"


@pytest.mark.parametrize("name", FAMILIES)
def test_served_taps_are_the_public_codes(name: str) -> None:
    generator, of = FAMILIES[name]()
    with torch.no_grad():
        _, taps = served_synthesis(generator, torch.float32)(of.inputs["ws"])
    for tap, expected in zip(taps, of.taps[-len(taps) :], strict=True):
        assert expected.difference(tap) < 1e-4
    assert len(of.taps) - len(taps) in (0, 1)  # the constant is left out


@pytest.mark.parametrize("name", FAMILIES)
def test_half_precision_stays_close(name: str) -> None:
    generator, of = FAMILIES[name]()
    with torch.no_grad():
        image, _ = served_synthesis(generator, torch.float16)(of.inputs["ws"])
    assert torch.isfinite(image).all()
    assert of.image.difference(image) < 0.03
