"""Any supported file is recognised by what it holds; any other is refused in one line."""

import pytest
import torch

from checkpoints import WeightsError
from checkpoints.families import generator_from_foreign
from checkpoints.foreign import ForeignFile, PickledNetwork, TensorFlowNetwork, TorchFile
from tests.checkpoints.golden import golden

ADA = golden("stylegan2_ada/golden_resnet_64")
TF = golden("stylegan2_tf/golden_skip_32")
FILES: dict[str, ForeignFile] = {
    "pickled": PickledNetwork("Generator", ADA.about["kwargs"], ADA.weights),
    "tensorflow": TensorFlowNetwork(TF.about["kwargs"], TF.weights),
    "rosinality": TorchFile({"g_ema": golden("rosinality/golden_32").weights}),
    "datasetgan": TorchFile(golden("stylegan1/golden_32").weights),
}


@pytest.mark.parametrize("name", FILES)
def test_every_family_is_recognised_and_takes_a_mean_latent(name: str) -> None:
    generator, card = generator_from_foreign(FILES[name], f"{name}.file")
    assert card.family == ("stylegan1" if name == "datasetgan" else "stylegan2")
    assert isinstance(card.made, dict) and card.made["from"] == f"{name}.file"
    mean = torch.arange(float(generator.config.w_dim))
    given, _ = generator_from_foreign(FILES[name], "x", mean[None].expand(18, -1))
    assert torch.equal(given.mapping.w_avg, mean)
    assert not torch.equal(generator.mapping.w_avg, mean)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (PickledNetwork("Generator", {}, {"synthesis.input.freqs": torch.zeros(1)}), "StyleGAN3"),
        (PickledNetwork("Discriminator", {}, {"b4.fc.weight": torch.zeros(1)}), "no StyleGAN2"),
        (TensorFlowNetwork({}, {}), "lacks synthesis/8x8/Conv1/weight"),
        (TorchFile({"state_dict": {}}), "holds no generator of a known layout (it has 'state_dict"),
        (TorchFile([1]), "holds a list"),
        (TorchFile({"g_ema": 3}), "g_ema is no dictionary of tensors"),
        (TorchFile({"g_ema": {}}), "lacks to_rgbs.0.conv.weight"),
        (TorchFile({"g_synthesis.blocks.4x4.const": 3}), "no dictionary of tensors"),
    ],
)
def test_anything_else_is_refused_in_one_line(file: ForeignFile, words: str) -> None:
    with pytest.raises(WeightsError) as caught:
        generator_from_foreign(file, "some.file")
    message = str(caught.value)
    assert message.startswith("some.file") and words in message and "\n" not in message
    assert len(message) < 400
