"""Files of rosinality's layout give the public code's pixels and taps, or say why not."""

import pytest
import torch

from checkpoints import WeightsError
from checkpoints.mean_latent import measured_w_avg
from checkpoints.rosinality import generator_from_rosinality, noise_from_seed
from nets.generator import Generator
from tests.checkpoints.golden import Golden, assert_same_pixels_and_taps, golden

NAMES = ("32", "64", "32_tall")


def loaded(name: str) -> tuple[Generator, Golden]:
    of = golden(f"rosinality/golden_{name}")
    return generator_from_rosinality(of.weights, "g.pt", of.inputs["latent_avg"])[0], of


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
    generator, card = generator_from_rosinality(of.weights, "g.pt")
    assert isinstance(card.provenance, dict)
    assert card.provenance["w_avg"] == "measured over 8192 samples of seed 0"
    w_avg = generator.mapping.w_avg
    z = torch.randn(20000, 16, generator=torch.Generator().manual_seed(5))
    w = generator.mapping(z)
    error = (w.mean(dim=0) - w_avg).abs().max() / w.std()
    assert 0 < error < 0.1
    assert torch.equal(measured_w_avg(generator.mapping), w_avg)


def test_files_without_noise_maps_get_seeded_ones_and_the_card_says_so() -> None:
    of = golden("rosinality/golden_64")
    plain = {name: t for name, t in of.weights.items() if not name.startswith("noises.")}
    generator, card = generator_from_rosinality(plain, "g.pt")
    assert card.noise_seed == 0
    maps = list(noise_from_seed(generator.config, 0).values())
    stored = {f"noises.noise_{k}": noise[None, None] for k, noise in enumerate(maps)}
    expected, stated = generator_from_rosinality({**plain, **stored}, "g.pt")
    assert stated.noise_seed is None
    image = generator.synthesis(of.inputs["ws"]).image
    assert torch.equal(image, expected.synthesis(of.inputs["ws"]).image)
    given = generator.synthesis(of.inputs["ws"], [of.weights[name][0, 0] for name in stored])
    assert of.image.difference(given.image) < 1e-4


def test_drawn_noise_has_the_shape_of_images_that_are_not_square() -> None:
    of = golden("rosinality/golden_32_tall")
    plain = {name: t for name, t in of.weights.items() if not name.startswith("noises.")}
    generator, card = generator_from_rosinality(plain, "g.pt", of.inputs["latent_avg"])
    assert (card.noise_seed, generator.config.image_size) == (0, (32, 16))
    stored = [of.weights[f"noises.noise_{k}"][0, 0] for k in range(7)]
    assert of.image.difference(generator.synthesis(of.inputs["ws"], stored).image) < 1e-4


@pytest.mark.parametrize("kernels", [(".blur.kernel",), (".upsample.kernel",), (".kernel",)])
def test_copies_without_kernels_have_the_papers(kernels: tuple[str, ...]) -> None:
    of = golden("rosinality/golden_64")
    tensors = {name: t for name, t in of.weights.items() if not name.endswith(kernels)}
    assert len(tensors) < len(of.weights)
    generator, _ = generator_from_rosinality(tensors, "g.pt")
    assert_same_pixels_and_taps(generator, of)


def test_a_file_with_some_of_its_kernels_is_refused() -> None:
    tensors = dict(golden("rosinality/golden_64").weights)
    del tensors["convs.2.conv.blur.kernel"]
    with pytest.raises(WeightsError, match=r"lacks convs\.2\.conv\.blur\.kernel"):
        generator_from_rosinality(tensors, "g.pt")


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
        generator_from_rosinality(tensors, "g.pt")
    message = str(caught.value)
    assert message.startswith("g.pt") and words in message and "\n" not in message


def test_a_mean_of_another_width_is_refused() -> None:
    weights = golden("rosinality/golden_32").weights
    with pytest.raises(WeightsError, match=r"mean latent is \[512\].*16"):
        generator_from_rosinality(weights, "g.pt", torch.zeros(512))
