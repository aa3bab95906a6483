"""StyleGAN1 in DatasetGAN's layout gives the public code's pixels and taps, on either side of the
128 pixels from which doubling is another function."""

import pytest
import torch

from checkpoints import WeightsError
from checkpoints.stylegan1 import generator_from_stylegan1, noise_from_seed
from nets.generator import Generator
from tests.checkpoints.golden import Golden, assert_same_pixels_and_taps, golden

NAMES = ("32", "256")


def loaded(name: str) -> tuple[Generator, Golden]:
    """With the fixture's noise in place of the drawn one."""
    of = golden(f"stylegan1/golden_{name}")
    generator, _ = generator_from_stylegan1(of.weights, "g.pt", of.inputs["mean_latent"])
    for name_, buffer in generator.synthesis.named_buffers():
        if name_.endswith("noise_const"):
            extent, epilogue = name_.removeprefix("b").split(".")[:2]
            place = 2 * (int(extent).bit_length() - 3) + int(epilogue[-1])
            assert of.noise is not None
            buffer.copy_(of.noise[place][0, 0])
    return generator, of


@pytest.mark.parametrize("name", NAMES)
def test_image_and_taps_are_the_public_codes(name: str) -> None:
    of = golden(f"stylegan1/golden_{name}")
    generator, _ = generator_from_stylegan1(of.weights, "g.pt")
    assert_same_pixels_and_taps(generator, of)


@pytest.mark.parametrize("name", NAMES)
def test_mapping_and_truncation_are_the_public_codes(name: str) -> None:
    generator, of = loaded(name)
    w = generator.mapping(of.inputs["z"])
    torch.testing.assert_close(w, of.inputs["w"], rtol=1e-5, atol=1e-5)
    truncated = generator.mapping.truncated(w, 0.7)[:, None].expand(-1, 7, -1)
    expected = of.inputs["truncated"]  # 18 rows, whatever the size
    torch.testing.assert_close(truncated, expected[:, :7], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(w[:, None].expand(-1, 11, -1), expected[:, 7:])


def test_a_constant_of_images_that_are_not_square_is_refused() -> None:
    of = golden("stylegan1/golden_32")
    name = "g_synthesis.blocks.4x4.const"
    tall = {**of.weights, name: of.weights[name][..., :2]}
    with pytest.raises(WeightsError, match=r"^g\.pt: the constant, .* has 4 rows and 2 columns"):
        generator_from_stylegan1(tall, "g.pt")


def test_noise_is_drawn_from_the_seed_of_the_card() -> None:
    of = golden("stylegan1/golden_32")
    generator, card = generator_from_stylegan1(of.weights, "g.pt")
    assert card.noise_seed == 0
    drawn = noise_from_seed(generator.config, 0)
    assert len(drawn) == 8
    for name, noise in drawn.items():
        assert torch.equal(generator.state_dict()[name], noise)
    assert noise_from_seed(generator.config, 1)[name].ne(noise).any()
    assert abs(float(noise.std()) - 1) < 0.1


def test_the_card_has_the_releases_truncation() -> None:
    of = golden("stylegan1/golden_256")
    _, card = generator_from_stylegan1(of.weights, "g.pt")
    assert (card.family, card.truncation_psi, card.truncation_cutoff) == ("stylegan1", 0.7, 8)


@pytest.mark.parametrize(
    ("mean", "words"),
    [
        (torch.zeros(18, 512), "mean latent is [18, 512]"),
        (torch.arange(32.0).reshape(2, 16), "rows of the mean latent differ"),
        (torch.full((16,), torch.inf), "not finite"),
        (torch.zeros(0, 16), "mean latent is [0, 16]"),
    ],
)
def test_a_mean_latent_that_does_not_fit_is_refused(mean: torch.Tensor, words: str) -> None:
    of = golden("stylegan1/golden_32")
    with pytest.raises(WeightsError) as caught:
        generator_from_stylegan1(of.weights, "g.pt", mean)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("drop", "add", "words"),
    [
        ("g_synthesis.blocks.8x8.epi1.style_mod.lin.bias", None, "lacks g_synthesis.blocks.8x8"),
        (None, "g_synthesis.lod", "unexpected g_synthesis.lod"),
        ("g_synthesis.blocks.8x8.conv1.weight", None, "lacks g_synthesis.blocks.8x8.conv1"),
        ("g_mapping.dense0.weight", None, "lacks g_mapping.dense0.weight"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    drop: str | None, add: str | None, words: str
) -> None:
    tensors = dict(golden("stylegan1/golden_32").weights)
    if drop:
        del tensors[drop]
    if add:
        tensors[add] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        generator_from_stylegan1(tensors, "g.pt")
    message = str(caught.value)
    assert message.startswith("g.pt") and words in message and "\n" not in message
