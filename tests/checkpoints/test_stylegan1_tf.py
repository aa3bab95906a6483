"""TensorFlow networks of StyleGAN1 give the pixels of the port in DatasetGAN's golden files."""

import pytest
import torch
from torch import Tensor

from checkpoints import TensorFlowNetwork, WeightsError, generator_from_foreign
from tests.checkpoints.golden import Golden, golden

NAMES = ("32", "256")  # the larger one doubles in both ways


def variables_of(of: Golden) -> dict[str, Tensor]:
    """The golden network as TensorFlow names it and orders its axes, with its noise maps."""
    assert of.noise is not None
    found = {f"G_synthesis/noise{k}": noise for k, noise in enumerate(of.noise)}
    found |= {"dlatent_avg": of.inputs["mean_latent"].reshape(-1, 16)[0], "lod": torch.tensor(0.0)}
    for name, tensor in of.weights.items():
        parts = name.split(".")
        if parts[0] == "g_mapping":
            theirs = f"G_mapping/{parts[1].capitalize()}/{parts[2]}"
        elif parts[1] == "torgb":
            theirs = f"G_synthesis/ToRGB_lod0/{parts[2]}"
        elif parts[-1] == "kernel":
            continue
        else:
            theirs = f"G_synthesis/{parts[2]}/{layer(parts[2], parts[3:])}"
        if tensor.ndim == 2:
            tensor = tensor.t()
        elif tensor.ndim == 4 and parts[-1] == "weight":
            tensor = tensor.permute(2, 3, 1, 0)
        found[theirs] = tensor
    return found


def layer(extent: str, parts: list[str]) -> str:
    """Variable of a block of this extent."""
    first, second = ("Const", "Conv") if extent == "4x4" else ("Conv0_up", "Conv1")
    owner = {"epi1": first, "epi2": second}.get(parts[0])
    if owner:
        return f"{owner}/{'Noise' if 'noise' in parts else 'StyleMod'}/{parts[-1]}"
    if len(parts) == 1:
        return f"Const/{parts[0]}"
    return f"{parts[0].capitalize()}/{parts[1]}"


@pytest.mark.parametrize("name", NAMES)
def test_the_image_is_the_ports_with_the_noise_of_the_file(name: str) -> None:
    of = golden(f"stylegan1/golden_{name}")
    generator, card = generator_from_foreign(TensorFlowNetwork({}, variables_of(of)), "g.pkl")
    assert (card.family, card.noise_seed) == ("stylegan1", None)
    synthesis = generator.synthesis(of.inputs["ws"])  # no noise is injected
    assert of.image.difference(synthesis.image) < 1e-4
    for tap, expected in zip(synthesis.taps, of.taps, strict=True):
        assert expected.difference(tap) < 1e-4
    w = generator.mapping(of.inputs["z"])
    torch.testing.assert_close(w, of.inputs["w"], rtol=1e-5, atol=1e-5)
    mean = of.inputs["mean_latent"].reshape(-1, 16)[0]
    assert torch.equal(generator.mapping.w_avg, mean)


def test_a_network_without_noise_has_noise_of_no_strength() -> None:
    of = golden("stylegan1/golden_32")
    variables = {n: t for n, t in variables_of(of).items() if "oise" not in n}
    network = TensorFlowNetwork({"use_noise": False}, variables)
    generator, _ = generator_from_foreign(network, "g.pkl")
    reference, _ = generator_from_foreign(TensorFlowNetwork({}, variables_of(of)), "g.pkl")
    silent = [torch.zeros_like(noise) for noise in of.noise or []]
    ws = of.inputs["ws"]
    image = generator.synthesis(ws).image
    assert torch.equal(image, reference.synthesis(ws, silent).image)
    with pytest.raises(WeightsError, match="lacks"):
        generator_from_foreign(TensorFlowNetwork({}, variables), "g.pkl")


@pytest.mark.parametrize(
    ("drop", "add", "kwargs", "words"),
    [
        ("G_synthesis/noise3", None, {}, "lacks synthesis.b8.epilogue1.noise_const"),
        (None, "G_mapping/LabelConcat/weight", {}, "unexpected mapping/LabelConcat/weight"),
        ("dlatent_avg", None, {}, "lacks dlatent_avg"),
        (None, None, {"blur_filter": None}, "blur_filter None"),
        (None, None, {"use_styles": False}, "use_styles False"),
        (None, "G_synthesis/noise0", {}, "g.pkl"),
        (None, "G_synthesis/8x8/Conv1/weight", {}, "g.pkl"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    drop: str | None, add: str | None, kwargs: dict[str, object], words: str
) -> None:
    variables = variables_of(golden("stylegan1/golden_32"))
    if drop:
        del variables[drop]
    if add:
        variables[add] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        generator_from_foreign(TensorFlowNetwork(kwargs, variables), "g.pkl")
    message = str(caught.value)
    assert message.startswith("g.pkl") and words in message and "\n" not in message
