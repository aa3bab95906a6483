"""StyleGAN3's pickles give the public code's pixels and taps, or one line that says why not."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from checkpoints import WeightsError, generator_from_file, write_generator
from checkpoints.card import GeneratorCard
from checkpoints.families import generator_from_foreign, generator_from_path
from checkpoints.foreign import PickledNetwork, TorchFile, read_foreign
from checkpoints.stylegan3 import generator_from_alias_free
from nets.alias_free import alias_free_design, channels_of_design
from nets.generator import Generator, generator_from_config
from nets.stylegan3 import Generator as StyleGAN3
from tests.checkpoints.golden import FIXTURES, Golden, assert_same_pixels_and_taps, golden

NAMES = ("t", "r_classes")


def network_of(name: str) -> PickledNetwork:
    network = read_foreign(FIXTURES / "stylegan3" / f"file_{name}.pkl")
    assert isinstance(network, PickledNetwork)
    return network


@cache
def generator_of(name: str) -> tuple[Generator, GeneratorCard]:
    return generator_from_path(FIXTURES / "stylegan3" / f"file_{name}.pkl")


def loaded(name: str) -> tuple[Generator, Golden]:
    return generator_of(name)[0], golden(f"stylegan3/golden_{name}")


@pytest.mark.parametrize("name", NAMES)
def test_image_and_taps_are_the_public_codes(name: str) -> None:
    """The taps cover the canvas: the public code's activations without their margins.

    `t` has a stored transform, a clamp at 2 that acts on up to 22 percent of the values, an output
    scale and filters of another size; `r_classes` has classes and radial filters.
    """
    assert_same_pixels_and_taps(*loaded(name))


@pytest.mark.parametrize("name", NAMES)
def test_mapping_and_truncation_are_the_public_codes(name: str) -> None:
    mapping, inputs = loaded(name)[0].mapping, golden(f"stylegan3/golden_{name}").inputs
    w = mapping(inputs["z"], inputs.get("c"))
    torch.testing.assert_close(w, inputs["w"], rtol=1e-5, atol=1e-5)
    rows = inputs["truncated"].shape[1]
    truncated = mapping.truncated(w, 0.7)[:, None].expand(-1, rows, -1)
    torch.testing.assert_close(truncated, inputs["truncated"], rtol=1e-5, atol=1e-5)


def test_the_design_is_the_one_that_the_public_code_stored() -> None:
    """Rates, margins, bands and filters, from the hyperparameters the files were built with."""
    options = {
        "t": {"filter_size": 4, "rotation": False},
        "r_classes": {"filter_size": 6, "rotation": True},
    }
    for name, given in options.items():
        generator, _ = loaded(name)
        assert isinstance(generator, StyleGAN3) and generator.config.alias_free is not None
        design = alias_free_design(
            32,
            layers=5,
            margin=4,
            filter_size=int(given["filter_size"]),
            rotation=bool(given["rotation"]),
        )
        stored = generator.config.alias_free
        assert design.filters == stored.filters
        for ours, theirs in zip(design.bands, stored.bands, strict=True):
            assert (ours.extent, ours.rate) == (theirs.extent, theirs.rate)
            assert ours.cutoff == pytest.approx(theirs.cutoff)
            assert ours.half_width == pytest.approx(theirs.half_width)
        assert channels_of_design(design, 128, 8) == generator.config.channels
        new = generator_from_config(replace(generator.config, alias_free=design))
        state = generator.state_dict()
        filters = {n: t for n, t in new.state_dict().items() if n.endswith("_filter")}
        assert len(filters) == 10
        for key, taps in filters.items():
            torch.testing.assert_close(taps, state[key], rtol=0, atol=1e-7)


def test_a_samples_pixels_do_not_depend_on_its_batch() -> None:
    generator, ws = loaded("t")[0], golden("stylegan3/golden_t").inputs["ws"]
    together = generator.synthesis(ws).image
    alone = torch.cat([generator.synthesis(row[None]).image for row in ws])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_our_own_format_keeps_every_value(tmp_path: Path, name: str) -> None:
    generator, card = generator_of(name)
    write_generator(tmp_path / "g.safetensors", generator, card)
    again, card_again = generator_from_file(tmp_path / "g.safetensors")
    assert card_again == card and again.config == generator.config
    ws = golden(f"stylegan3/golden_{name}").inputs["ws"]
    assert torch.equal(again.synthesis(ws).image, generator.synthesis(ws).image)


def test_grey_images_become_rgb() -> None:
    network = network_of("t")
    rgb, grey = "synthesis.L5_32_3", "synthesis.L5_32_1"
    for name in [name for name in network.tensors if name.startswith(rgb)]:
        network.tensors[name.replace(rgb, grey)] = network.tensors.pop(name)
    for name in [name for name in network.fields if name.startswith(rgb)]:
        network.fields[name.replace(rgb, grey)] = network.fields.pop(name)
    for name in (f"{grey}.weight", f"{grey}.bias"):
        network.tensors[name] = network.tensors[name][:1]
    generator, card = generator_from_alias_free(network, "g.pkl")
    assert isinstance(card.provenance, dict) and "grey" in str(card.provenance["colors"])
    image = generator.synthesis(golden("stylegan3/golden_t").inputs["ws"]).image
    assert torch.equal(image[:, 0], image[:, 1]) and image.shape[1] == 3


@pytest.mark.parametrize(
    ("module", "field", "value"),
    [
        ("synthesis.L1_24_8", "conv_clamp", 3),
        ("synthesis.L1_24_8", "conv_clamp", -1),
        ("synthesis.L1_24_8", "up_factor", 4),
        ("synthesis.L1_24_8", "down_factor", 1),
        ("synthesis.L1_24_8", "padding", (5, 6, 5, 5)),
        ("synthesis.L1_24_8", "out_size", (24, 26)),
        ("synthesis.L1_24_8", "in_size", (26, 26)),
        ("synthesis.L1_24_8", "out_cutoff", float("nan")),
        ("synthesis.L1_24_8", "out_sampling_rate", 12),
        ("synthesis.L1_24_8", "tmp_sampling_rate", 40),
        ("synthesis.L1_24_8", "up_taps", 10),
        ("synthesis.L1_24_8", "down_radial", 1),
        ("synthesis.L1_24_8", "conv_kernel", 2.5),
        ("synthesis.L1_24_8", "is_torgb", True),
        ("synthesis.L1_24_8.affine", "bias_gain", 2),
        ("synthesis.L5_32_3", "conv_kernel", 3),
        ("synthesis.L5_32_3", "conv_clamp", None),
        ("synthesis.input", "size", (24,)),
        ("synthesis.input", "bandwidth", 1.0),
        ("synthesis.input.affine", "activation", "lrelu"),
        ("synthesis", "output_scale", "1"),
        ("mapping.fc1", "bias_gain", 1),
    ],
)
def test_an_attribute_that_nets_do_not_implement_is_refused(
    module: str, field: str, value: object
) -> None:
    network = network_of("t")
    assert field in network.fields[module]
    network.fields[module][field] = value
    with pytest.raises(WeightsError) as caught:
        generator_from_alias_free(network, "g.pkl")
    assert str(caught.value).startswith("g.pkl") and "\n" not in str(caught.value)


def test_a_state_dict_alone_is_refused_because_it_does_not_state_the_layers() -> None:
    content = {"G_ema": network_of("t").tensors}
    with pytest.raises(WeightsError, match=r"does not state .* of synthesis\.L0_24_8"):
        generator_from_foreign(TorchFile(content), "g.pt")
