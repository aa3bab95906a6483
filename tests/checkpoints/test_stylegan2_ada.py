"""Official PyTorch networks give the public code's pixels and taps, or one line that says why."""

import pytest
import torch

from checkpoints import WeightsError
from checkpoints.foreign import PickledNetwork
from checkpoints.stylegan2_ada import generator_from_pickled
from nets.generator import Generator
from tests.checkpoints.golden import Golden, assert_same_pixels_and_taps, golden

NAMES = ("skip_32_clamp", "skip_32_later", "resnet_64", "orig_32_classes")


def pickled(of: Golden) -> PickledNetwork:
    return PickledNetwork("Generator", of.about["kwargs"], dict(of.weights))


def loaded(name: str) -> tuple[Generator, Golden]:
    of = golden(f"stylegan2_ada/golden_{name}")
    return generator_from_pickled(pickled(of), "g.pkl")[0], of


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
    network = PickledNetwork("Generator", kwargs, of.weights)
    config = generator_from_pickled(network, "g.pkl")[0].config
    assert (config.resolution, config.w_dim, config.c_dim) == (32, 16, 3)
    assert (config.architecture, config.mapping_layers, config.conv_clamp) == ("orig", 2, None)


def test_later_code_clamps_unless_told_otherwise() -> None:
    generator, of = loaded("skip_32_later")
    assert "conv_clamp" not in of.about["kwargs"] and generator.config.conv_clamp == 256
    for clamp in (None, 2):
        kwargs = of.about["kwargs"] | {"conv_clamp": clamp}
        generator, _ = generator_from_pickled(
            PickledNetwork("Generator", kwargs, of.weights), "g.pkl"
        )
        assert generator.config.conv_clamp == clamp


def test_layers_without_noise_have_noise_of_no_strength() -> None:
    of = golden("stylegan2_ada/golden_resnet_64")
    tensors = {k: t for k, t in of.weights.items() if ".noise_" not in k}
    generator, _ = generator_from_pickled(PickledNetwork("Generator", {}, tensors), "g.pkl")
    strengths = [p for n, p in generator.named_parameters() if n.endswith("noise_strength")]
    assert len(strengths) == 9 and not any(strengths)


@pytest.mark.parametrize(
    ("drop", "add", "kwargs", "words"),
    [
        ("synthesis.b8.conv1.bias", None, {}, "lacks synthesis.b8.conv1.bias"),
        (None, "synthesis.b8.conv1.extra", {}, "unexpected synthesis.b8.conv1.extra"),
        ("mapping.w_avg", None, {}, "lacks mapping.w_avg"),
        ("mapping.fc0.weight", None, {}, "no StyleGAN2 generator"),
        (None, None, {"mapping_kwargs": {"activation": "relu"}}, "activation 'relu'"),
        (None, None, {"mapping_kwargs": {"lr_multiplier": 1}}, "lr_multiplier 1"),
        (None, None, {"synthesis_kwargs": {"conv_clamp": -1}}, "conv_clamp -1"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    drop: str | None, add: str | None, kwargs: dict[str, object], words: str
) -> None:
    tensors = dict(golden("stylegan2_ada/golden_skip_32_clamp").weights)
    if drop:
        del tensors[drop]
    if add:
        tensors[add] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        generator_from_pickled(PickledNetwork("Generator", kwargs, tensors), "g.pkl")
    message = str(caught.value)
    assert message.startswith("g.pkl") and words in message and "\n" not in message
