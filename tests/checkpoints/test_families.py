"""Any supported file is recognised by what it holds; any other is refused in one line."""

from dataclasses import replace

import pytest
import torch

from checkpoints import WeightsError
from checkpoints.families import generator_from_foreign
from checkpoints.foreign import ForeignFile, PickledNetwork, TensorFlowNetwork, TorchFile
from tests.checkpoints.golden import golden, pickled_network

ADA = golden("stylegan2_ada/golden_resnet_64")
TF = golden("stylegan2_tf/golden_skip_32")
FILES: dict[str, ForeignFile] = {
    "pickled": pickled_network(ADA),
    "tensorflow": TensorFlowNetwork(TF.about["kwargs"], TF.weights),
    "rosinality": TorchFile({"g_ema": golden("rosinality/golden_32").weights}),
    "datasetgan": TorchFile(golden("stylegan1/golden_32").weights),
}


@pytest.mark.parametrize("name", FILES)
def test_every_family_is_recognised_and_takes_a_mean_latent(name: str) -> None:
    generator, card = generator_from_foreign(FILES[name], f"{name}.file")
    assert card.family == ("stylegan1" if name == "datasetgan" else "stylegan2")
    assert isinstance(card.provenance, dict) and card.provenance["from"] == f"{name}.file"
    mean = torch.arange(float(generator.config.w_dim))
    given, _ = generator_from_foreign(FILES[name], "x", mean[None].expand(18, -1))
    assert torch.equal(given.mapping.w_avg, mean)
    assert not torch.equal(generator.mapping.w_avg, mean)


def tensors_of(file: ForeignFile) -> dict[str, torch.Tensor]:
    if isinstance(file, PickledNetwork):
        return file.tensors
    if isinstance(file, TensorFlowNetwork):
        return file.variables
    assert isinstance(file.content, dict)
    inner: dict[str, torch.Tensor] = file.content.get("g_ema", file.content)
    return inner


def with_tensors(file: ForeignFile, tensors: dict[str, torch.Tensor]) -> ForeignFile:
    if isinstance(file, PickledNetwork):
        return replace(file, tensors=tensors)
    if isinstance(file, TensorFlowNetwork):
        return replace(file, variables=tensors)
    assert isinstance(file.content, dict)
    return TorchFile({"g_ema": tensors} if "g_ema" in file.content else tensors)


@pytest.mark.parametrize("name", FILES)
def test_any_tensor_of_another_shape_is_refused_in_one_line(name: str) -> None:
    whole = tensors_of(FILES[name])
    shapes = [(), (0,), (7, 7), (1, 1, 1, 1, 1, 1)]
    for i, key in enumerate(sorted(whole.keys() - {"lod"})):
        if whole[key].numel() == 1:
            continue  # a noise strength, whatever its rank
        broken = with_tensors(FILES[name], {**whole, key: torch.zeros(shapes[i % 4])})
        with pytest.raises(WeightsError) as caught:
            generator_from_foreign(broken, "some.file")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (
            PickledNetwork("Generator", {}, {"synthesis.input.freqs": torch.zeros(1)}, {}),
            "StyleGAN3",
        ),
        (PickledNetwork("Discriminator", {}, {"b4.fc.weight": torch.zeros(1)}, {}), "no StyleGAN2"),
        (TensorFlowNetwork({}, {}), "lacks synthesis/8x8/Conv1/weight"),
        (TorchFile({"state_dict": {}}), "holds no generator of a known layout (it has 'state_dict"),
        (TorchFile([1]), "holds a list"),
        (TorchFile({"g_ema": 3}), "holds no generator of a known layout (it has 'g_ema')"),
        (TorchFile({"g_ema": {}}), "holds no generator of a known layout (it has 'g_ema')"),
        (TorchFile({"g_synthesis.blocks.4x4.const": 3}), "not a dictionary of tensors"),
    ],
)
def test_anything_else_is_refused_in_one_line(file: ForeignFile, words: str) -> None:
    with pytest.raises(WeightsError) as caught:
        generator_from_foreign(file, "some.file")
    message = str(caught.value)
    assert message.startswith("some.file") and words in message and "\n" not in message
    assert len(message) < 400
