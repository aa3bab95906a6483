"""Official PyTorch networks give the public code's pixels and taps, or one line that says why."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from checkpoints import WeightsError
from checkpoints.families import generator_from_path
from checkpoints.foreign import PickledNetwork
from checkpoints.networks import OtherValue
from checkpoints.stylegan2_ada import generator_from_pickled
from nets.generator import Generator
from nets.stylegan2 import Generator as StyleGAN2
from tests.checkpoints.golden import (
    FIXTURES,
    Golden,
    assert_same_pixels_and_taps,
    golden,
    pickled_network,
    stored_fields,
)
from tests.export.reference import literal_synthesis

NAMES = (
    "skip_32_clamp", "skip_32_later", "resnet_64", "orig_32_classes", "skip_32_tall",
    "resnet_16_wide",
)  # fmt: skip


def loaded(name: str) -> tuple[Generator, Golden]:
    of = golden(f"stylegan2_ada/golden_{name}")
    return generator_from_pickled(pickled_network(of), "g.pkl")[0], of


@pytest.mark.parametrize("name", NAMES)
def test_image_and_taps_are_the_public_codes(name: str) -> None:
    generator, of = loaded(name)
    assert_same_pixels_and_taps(generator, of)


@pytest.mark.parametrize("name", NAMES)
def test_mapping_and_truncation_are_the_public_codes(name: str) -> None:
    generator, of = loaded(name)
    w = generator.mapping(of.inputs["z"], of.inputs.get("c"))
    torch.testing.assert_close(w, of.inputs["w"], rtol=1e-5, atol=1e-5)
    rows = generator.config.num_ws // 2
    truncated = generator.mapping.truncated(w, 0.7)[:, None].expand(-1, rows, -1)
    expected = of.inputs["truncated"]
    torch.testing.assert_close(truncated, expected[:, :rows], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(w[:, None].expand(-1, rows, -1), expected[:, rows:])


def test_the_shape_is_read_from_the_tensors() -> None:
    of = golden("stylegan2_ada/golden_orig_32_classes")
    kwargs = of.about["kwargs"] | {"img_resolution": 1024, "w_dim": 512}  # as after an upgrade
    network = replace(pickled_network(of), kwargs=kwargs)
    config = generator_from_pickled(network, "g.pkl")[0].config
    assert (config.resolution, config.w_dim, config.c_dim) == (32, 16, 3)
    assert (config.architecture, config.mapping_layers, config.conv_clamp) == ("orig", 2, None)


def test_the_shape_of_images_is_that_of_the_stored_constant() -> None:
    tall, wide = (loaded(name)[0].config for name in ("skip_32_tall", "resnet_16_wide"))
    assert (tall.start, tall.image_size) == ((4, 2), (32, 16))
    assert (wide.start, wide.image_size) == ((3, 5), (12, 20))
    of = golden("stylegan2_ada/golden_skip_32_tall")
    square = {**of.weights, "synthesis.b4.const": torch.zeros(12, 4, 4)}
    with pytest.raises(WeightsError, match=r"noise_const is \[16, 8\]; .* must be \[16, 16\]"):
        generator_from_pickled(replace(pickled_network(of), tensors=square), "g.pkl")
    large = {**of.weights, "synthesis.b4.const": torch.zeros(12, 4, 17)}
    with pytest.raises(WeightsError, match=r"b4.const has 4 rows and 17 columns; .* from 1 to 16"):
        generator_from_pickled(replace(pickled_network(of), tensors=large), "g.pkl")


def clamped_at(of: Golden, clamp: float | None) -> Tensor:
    """The image of the paper's formulas, with every layer clamped."""
    plain, _ = generator_from_pickled(pickled_network(of), "g.pkl")
    assert isinstance(plain, StyleGAN2)
    reference = StyleGAN2(replace(plain.config, conv_clamp=clamp))
    reference.load_state_dict(plain.state_dict())
    with torch.no_grad():
        return literal_synthesis(reference, of.inputs["ws"])[0]


@pytest.mark.parametrize("name", ["skip_32_clamp", "skip_32_later"])
@pytest.mark.parametrize("stored", [None, 1, 2.0, 256])
@pytest.mark.parametrize("argued", ["as built", {}, {"synthesis_kwargs": {"conv_clamp": 3}}])
def test_the_clamp_of_the_stored_layers_wins_over_the_arguments(
    name: str, stored: float | None, argued: object
) -> None:
    of = golden(f"stylegan2_ada/golden_{name}")
    network = pickled_network(of, conv_clamp=stored)
    if isinstance(argued, dict):
        network = replace(network, kwargs=argued)
    generator, card = generator_from_pickled(network, "g.pkl")
    assert card.config.conv_clamp == stored
    image, expected = generator.synthesis(of.inputs["ws"]).image, clamped_at(of, stored)
    assert (image - expected).abs().max() < 1e-4 * expected.abs().max()


def test_a_clamp_that_no_attribute_states_is_taken_from_the_arguments() -> None:
    network = pickled_network(golden("stylegan2_ada/golden_skip_32_clamp"))
    without = {
        name: {k: v for k, v in fields.items() if k != "conv_clamp"}
        for name, fields in network.fields.items()
    }
    assert generator_from_pickled(replace(network, fields=without), "g")[0].config.conv_clamp == 2
    with pytest.raises(WeightsError, match=r"^g does not state conv_clamp of synthesis\.b4\.conv1"):
        generator_from_pickled(replace(network, fields=without, kwargs={}), "g")


@pytest.mark.parametrize("name", ["file_protocol3", "file_protocol4"])
def test_files_of_the_public_code_state_their_clamp(name: str) -> None:
    """The first was built without synthesis_kwargs, where that code clamps nothing."""
    path = FIXTURES / "stylegan2_ada" / f"{name}.pkl"
    generator, _ = generator_from_path(path)
    assert generator.config.conv_clamp == {"file_protocol3": None, "file_protocol4": 256}[name]


def test_layers_without_noise_have_noise_of_no_strength() -> None:
    of = golden("stylegan2_ada/golden_resnet_64")
    tensors = {k: t for k, t in of.weights.items() if ".noise_" not in k}
    built = PickledNetwork("Generator", {}, tensors, stored_fields(tensors, 4.0))
    switched_off = pickled_network(of, use_noise=False)
    for network in (built, switched_off):
        generator, _ = generator_from_pickled(network, "g.pkl")
        strengths = [p for n, p in generator.named_parameters() if n.endswith("noise_strength")]
        assert len(strengths) == 9 and not any(strengths)


@pytest.mark.parametrize(
    ("module", "field", "value"),
    [
        ("synthesis.b8.conv0", "conv_clamp", 3),
        ("synthesis.b8.torgb", "conv_clamp", None),
        ("synthesis.b8.conv0", "conv_clamp", OtherValue("os.system")),
        ("synthesis.b8.conv0", "activation", "swish"),
        ("synthesis.b8.conv0", "act_gain", 1.0),
        ("synthesis.b8.conv0", "act_gain", True),
        ("synthesis.b8.conv0", "up", 1),
        ("synthesis.b8.conv1", "padding", 0),
        ("synthesis.b8.conv1", "use_noise", 1.5),
        ("synthesis.b8.conv1.affine", "weight_gain", 0.5),
        ("synthesis.b8.torgb", "weight_gain", 0.5),
        ("synthesis.b8", "architecture", "resnet"),
        ("mapping.fc1", "activation", "linear"),
        ("mapping.fc1", "weight_gain", 1.0),
        ("mapping.fc1", "bias_gain", 1),
    ],
)
def test_an_attribute_that_nets_do_not_implement_is_refused(
    module: str, field: str, value: object
) -> None:
    network = pickled_network(golden("stylegan2_ada/golden_skip_32_clamp"))
    assert field in network.fields[module]
    network.fields[module][field] = value
    with pytest.raises(WeightsError, match=rf"^g\.pkl.*{module}.*") as caught:
        generator_from_pickled(network, "g.pkl")
    assert field in str(caught.value) and "\n" not in str(caught.value)


def test_a_residual_path_with_another_gain_is_refused() -> None:
    for field in ("weight_gain", "act_gain", "activation", "up", "down", "padding", "conv_clamp"):
        network = pickled_network(golden("stylegan2_ada/golden_resnet_64"))
        network.fields["synthesis.b8.skip"][field] = 7
        with pytest.raises(WeightsError, match=rf"synthesis\.b8\.skip has {field} 7"):
            generator_from_pickled(network, "g.pkl")


@pytest.mark.parametrize(
    ("drop", "add", "words"),
    [
        ("synthesis.b8.conv1.bias", None, "lacks synthesis.b8.conv1.bias"),
        (None, "synthesis.b8.conv1.extra", "unexpected synthesis.b8.conv1.extra"),
        ("mapping.w_avg", None, "lacks mapping.w_avg"),
        ("mapping.fc0.weight", None, "no StyleGAN2 generator"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    drop: str | None, add: str | None, words: str
) -> None:
    network = pickled_network(golden("stylegan2_ada/golden_skip_32_clamp"))
    tensors = network.tensors
    if drop:
        del tensors[drop]
    if add:
        tensors[add] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        generator_from_pickled(network, "g.pkl")
    message = str(caught.value)
    assert message.startswith("g.pkl") and words in message and "\n" not in message
