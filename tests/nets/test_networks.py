"""Eager networks match the papers' formulas, and gathered features match the hypercolumn."""

import pytest
import torch

from nets.features import Resize, gather_features, hypercolumn
from nets.generator import generator_from_config
from nets.interpreter import HeadConfig, Interpreter, member_as_sequential, published_hidden
from nets.ops import demodulation, modulated_conv2d
from nets.stylegan2 import GeneratorConfig, channels_from_base
from tests.export.networks import random_generator, random_interpreter, random_ws
from tests.export.reference import literal_synthesis


def test_eager_synthesis_is_the_literal_one() -> None:
    generator = random_generator(16)
    ws = random_ws(generator, 3)
    eager = generator.synthesis(ws)
    image, taps = literal_synthesis(generator, ws)
    torch.testing.assert_close(eager.image, image, atol=1e-4, rtol=1e-4)
    for tap, other in zip(eager.taps, taps, strict=True):
        torch.testing.assert_close(tap, other, atol=1e-4, rtol=1e-4)


def test_demodulation_makes_outputs_of_unit_variance() -> None:
    torch.manual_seed(0)
    weight, styles = torch.randn(8, 16, 3, 3) * 7, torch.rand(2, 16) * 5
    y = modulated_conv2d(torch.randn(2, 16, 64, 64), weight, styles)
    assert y[:, :, 1:-1, 1:-1].var().item() == pytest.approx(1, rel=0.1)
    assert demodulation(weight, styles).shape == (2, 8)


def test_injected_noise_replaces_the_buffers() -> None:
    generator = random_generator(8)
    ws = random_ws(generator, 1)
    own = [layer.noise_const for b in generator.synthesis.blocks() for layer in b.children()
           if hasattr(layer, "noise_const")]  # fmt: skip
    with_own = generator.synthesis(ws, [torch.as_tensor(n) for n in own]).image
    torch.testing.assert_close(with_own, generator.synthesis(ws).image, rtol=0, atol=0)
    silent = generator.synthesis(ws, [torch.zeros_like(torch.as_tensor(n)) for n in own]).image
    assert (silent - with_own).abs().max() > 1e-3


@pytest.mark.parametrize("resize", ["bilinear", "nearest"])
@pytest.mark.parametrize("grid", [8, 16, 32])
def test_gathered_pixels_are_those_of_the_hypercolumn(grid: int, resize: Resize) -> None:
    generator = random_generator(16)
    taps = [t.detach() for t in generator.synthesis(random_ws(generator, 2)).taps]
    rows, columns = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    every = [t.reshape(1, -1).expand(2, -1) for t in (rows, columns)]
    gathered = gather_features(taps, every[0], every[1], (grid, grid), resize)
    whole = hypercolumn(taps, (grid, grid), resize).flatten(2).transpose(1, 2)
    torch.testing.assert_close(gathered, whole, atol=1e-5, rtol=1e-5)


def test_a_batched_member_is_the_plain_network() -> None:
    interpreter = random_interpreter(20)
    x = torch.randn(50, 20)
    for kind, outputs in interpreter(x).items():
        head = interpreter.head(kind)
        for k in range(head.config.members):
            torch.testing.assert_close(outputs[k], member_as_sequential(head, k)(x))


def test_widths_follow_the_release() -> None:
    assert published_hidden(31) == (128, 32)
    assert published_hidden(32) == (256, 128)
    assert channels_from_base(64, 16384) == (512, 512, 512, 512, 256)


def test_impossible_shapes_are_refused_with_the_numbers() -> None:
    with pytest.raises(ValueError, match="resolution is 24"):
        GeneratorConfig(24, (8, 8, 8))
    with pytest.raises(ValueError, match="channels has 2 entries; resolution 16 needs 3"):
        GeneratorConfig(16, (8, 8))
    with pytest.raises(ValueError, match="a stylegan1 has no c_dim, conv_clamp or architecture"):
        GeneratorConfig(8, (4, 4), conv_clamp=256, family="stylegan1")
    with pytest.raises(ValueError, match="noise has 1 tensors; expected 4"):
        config = GeneratorConfig(8, (4, 4), w_dim=6, family="stylegan1")
        generator_from_config(config).synthesis(torch.zeros(1, 4, 6), [torch.zeros(4, 4)])
    with pytest.raises(ValueError, match="each kind once"):
        Interpreter((HeadConfig("depth", 8, (4, 4), 1), HeadConfig("depth", 8, (4, 4), 1)))
    with pytest.raises(ValueError, match=r"\[8, 9\] features"):
        Interpreter((HeadConfig("depth", 8, (4, 4), 1), HeadConfig("keypoints", 9, (4, 4), 1)))
    with pytest.raises(ValueError, match=r"\(1, 3, 16\); expected \[N, 4, 16\]"):
        random_generator(8).synthesis(torch.zeros(1, 3, 16))
