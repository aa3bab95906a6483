"""Official TensorFlow networks give the public code's pixels and taps, or say why not."""

import pytest
import torch

from checkpoints import WeightsError
from checkpoints.foreign import TensorFlowNetwork
from checkpoints.stylegan2_tf import generator_from_tensorflow
from nets.generator import Generator
from tests.checkpoints.golden import Golden, assert_same_pixels_and_taps, golden

NAMES = ("skip_32", "resnet_32_classes")


def loaded(name: str) -> tuple[Generator, Golden]:
    of = golden(f"stylegan2_tf/golden_{name}")
    network = TensorFlowNetwork(of.about["kwargs"], dict(of.weights))
    return generator_from_tensorflow(network, "g.pkl")[0], of


@pytest.mark.parametrize("name", NAMES)
def test_image_and_taps_are_the_public_codes(name: str) -> None:
    generator, of = loaded(name)
    assert_same_pixels_and_taps(generator, of)


@pytest.mark.parametrize("name", NAMES)
def test_mapping_and_truncation_are_the_public_codes(name: str) -> None:
    generator, of = loaded(name)
    w = generator.mapping(of.inputs["z"], of.inputs.get("c"))
    torch.testing.assert_close(w, of.inputs["w"], rtol=1e-5, atol=1e-5)
    truncated = generator.mapping.truncated(w, 0.7)
    torch.testing.assert_close(truncated, of.inputs["truncated"][:, 0], rtol=1e-5, atol=1e-5)


def test_parts_may_be_called_by_their_owners_name() -> None:
    of = golden("stylegan2_tf/golden_skip_32")
    plain = {name.removeprefix("G_"): tensor for name, tensor in of.weights.items()}
    generator, _ = generator_from_tensorflow(TensorFlowNetwork({}, plain), "g.pkl")
    assert of.image.difference(generator.synthesis(of.inputs["ws"]).image) < 1e-4


def test_an_image_layer_called_by_its_level_of_detail_is_the_last() -> None:
    of = golden("stylegan2_tf/golden_resnet_32_classes")
    last = "G_synthesis/32x32/ToRGB/"
    renamed = {
        name.replace(last, "G_synthesis/ToRGB_lod0/"): tensor for name, tensor in of.weights.items()
    }
    renamed["G_synthesis/ToRGB_lod1/weight"] = torch.zeros(1)  # read while growing alone
    network = TensorFlowNetwork(of.about["kwargs"], renamed)
    generator, _ = generator_from_tensorflow(network, "g.pkl")
    assert of.image.difference(generator.synthesis(of.inputs["ws"]).image) < 1e-4


def test_a_network_without_noise_has_noise_of_no_strength() -> None:
    of = golden("stylegan2_tf/golden_skip_32")
    silent = {n: torch.zeros_like(t) if "noise_strength" in n else t for n, t in of.weights.items()}
    absent = {name: tensor for name, tensor in of.weights.items() if "noise" not in name}
    networks = (TensorFlowNetwork({}, silent), TensorFlowNetwork({"use_noise": False}, absent))
    generators = [generator_from_tensorflow(network, "g.pkl")[0] for network in networks]
    images = [generator.synthesis(of.inputs["ws"]).image for generator in generators]
    assert torch.equal(images[0], images[1])


@pytest.mark.parametrize(
    ("drop", "add", "kwargs", "words"),
    [
        ("G_synthesis/noise3", None, {}, "lacks synthesis/noise3"),
        (None, "G_synthesis/8x8/Conv2/weight", {}, "unexpected synthesis/8x8/Conv2/weight"),
        ("G_synthesis/8x8/Conv1/weight", None, {}, "lacks synthesis/8x8/Conv1/weight"),
        (None, None, {"nonlinearity": "relu"}, "nonlinearity 'relu'"),
        (None, None, {"resample_kernel": [1, 2, 1]}, "resamples with [1, 2, 1]"),
        (None, "G_mapping/Dense0/weight", {}, "Dense0/weight has impossible shape [1]"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    drop: str | None, add: str | None, kwargs: dict[str, object], words: str
) -> None:
    variables = dict(golden("stylegan2_tf/golden_skip_32").weights)
    if drop:
        del variables[drop]
    if add:
        variables[add] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        generator_from_tensorflow(TensorFlowNetwork(kwargs, variables), "g.pkl")
    message = str(caught.value)
    assert message.startswith("g.pkl") and words in message and "\n" not in message
