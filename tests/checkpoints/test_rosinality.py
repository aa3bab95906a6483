"""Files of rosinality's layout give the public code's pixels and taps, or say why not."""

import pytest
import torch

from checkpoints import WeightsError
from checkpoints.foreign import TorchFile
from checkpoints.mean_latent import measured_w_avg
from checkpoints.rosinality import generator_from_rosinality
from nets.generator import Generator
from tests.checkpoints.golden import Golden, assert_same_pixels_and_taps, golden

NAMES = ("32", "64")


def loaded(name: str) -> tuple[Generator, Golden]:
    of = golden(f"rosinality/golden_{name}")
    content = {"g_ema": dict(of.weights), "latent_avg": of.inputs["latent_avg"]}
    return generator_from_rosinality(TorchFile(content), "g.pt")[0], of


@pytest.mark.parametrize("name", NAMES)
def test_image_and_taps_are_the_public_codes(name: str) -> None:
    generator, of = loaded(name)
    assert_same_pixels_and_taps(generator, of)


@pytest.mark.parametrize("name", NAMES)
def test_mapping_and_truncation_are_the_public_codes(name: str) -> None:
    generator, of = loaded(name)
    w = generator.mapping(of.inputs["z"])
    torch.testing.assert_close(w, of.inputs["w"], rtol=1e-5, atol=1e-5)
    truncated = generator.mapping.truncated(w, 0.7)
    torch.testing.assert_close(truncated, of.inputs["truncated"][:, 0], rtol=1e-5, atol=1e-5)


def test_shapes_are_read_from_the_tensors() -> None:
    config = loaded("64")[0].config
    assert (config.resolution, config.mapping_layers) == (64, 3)
    assert config.channels == (20, 20, 16, 12, 8)


def test_a_missing_mean_is_measured_and_the_card_says_so() -> None:
    of = golden("rosinality/golden_64")
    generator, card = generator_from_rosinality(TorchFile({"g_ema": of.weights}), "g.pt")
    assert isinstance(card.provenance, dict)
    assert card.provenance["w_avg"] == "measured over 8192 samples of seed 0"
    w_avg = generator.mapping.w_avg
    z = torch.randn(20000, 16, generator=torch.Generator().manual_seed(5))
    w = generator.mapping(z)
    error = (w.mean(dim=0) - w_avg).abs().max() / w.std()
    assert 0 < error < 0.1
    assert torch.equal(measured_w_avg(generator.mapping), w_avg)


@pytest.mark.parametrize(
    ("drop", "add", "words"),
    [
        ("noises.noise_3", None, "lacks noises.noise_3"),
        (None, "convs.99.conv.weight", "unexpected convs.99.conv.weight"),
        ("to_rgbs.0.conv.weight", None, "lacks to_rgbs.0.conv.weight"),
        ("style.1.weight", None, "lacks style.1.weight"),
        (None, "input.input", "b4.const is []"),
        (None, "convs.0.conv.weight", "convs.0.conv.weight has impossible shape [1]"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    drop: str | None, add: str | None, words: str
) -> None:
    tensors = dict(golden("rosinality/golden_32").weights)
    if drop:
        del tensors[drop]
    if add:
        tensors[add] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        generator_from_rosinality(TorchFile({"g_ema": tensors}), "g.pt")
    message = str(caught.value)
    assert message.startswith("g.pt") and words in message and "\n" not in message


def test_a_mean_of_another_width_is_refused() -> None:
    content = {"g_ema": golden("rosinality/golden_32").weights, "latent_avg": torch.zeros(512)}
    with pytest.raises(WeightsError, match=r"mean latent is \[512\].*16"):
        generator_from_rosinality(TorchFile(content), "g.pt")
