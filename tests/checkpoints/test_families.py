"""Any supported file is recognised by what it holds; any other is refused in one line."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from checkpoints import WeightsError
from checkpoints.families import generator_from_foreign, generator_from_path
from checkpoints.foreign import (
    ForeignFile,
    PickledNetwork,
    TensorFlowNetwork,
    TorchFile,
    read_foreign,
)
from tests.checkpoints.golden import FIXTURES, golden, pickled_network

ADA = golden("stylegan2_ada/golden_resnet_64")
TF = golden("stylegan2_tf/golden_skip_32")
FILES: dict[str, ForeignFile] = {
    "pickled": pickled_network(ADA),
    "tensorflow": TensorFlowNetwork(TF.about["kwargs"], TF.weights),
    "rosinality": TorchFile({"g_ema": golden("rosinality/golden_32").weights}),
    "datasetgan": TorchFile(golden("stylegan1/golden_32").weights),
    "alias-free": read_foreign(FIXTURES / "stylegan3" / "file_r_classes.pkl"),
}
OTHER_FAMILIES = {"datasetgan": "stylegan1", "alias-free": "stylegan3"}


@pytest.mark.parametrize("name", FILES)
def test_every_family_is_recognised_and_takes_a_mean_latent(name: str) -> None:
    generator, card = generator_from_foreign(FILES[name], f"{name}.file")
    assert card.family == OTHER_FAMILIES.get(name, "stylegan2")
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


QUICK = ("pickled", "rosinality")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.long) for n in FILES]
)
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
            "with the layers",
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


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("mapping.embed_proj.weight", "StyleGAN-XL"),
        ("backbone.synthesis.b4.const", "EG3D"),
        ("to_rgbs.0.iwt.ll", "SWAGAN"),
        ("generator.progression.0.conv1.0.conv.weight_orig", "style-based-gan-pytorch"),
        ("feat_8.1.weight_orig", "FastGAN"),
        ("generator.gen_z.weight_orig", "BigGAN"),
        ("blocks.0.0.bn1.gain.weight", "BigGAN"),
        ("scaleLayers.0.0.module.weight", "ProGAN"),
        ("model.diffusion_model.out.2.weight", "a diffusion model"),
        ("b8.fromrgb.weight", "a discriminator; give the file with the generator"),
        ("final_conv.0.weight", "a discriminator"),
        ("encoder.input_layer.0.weight", "an encoder without its decoder"),
        ("module.layers.6.weight", "a member of a label ensemble; give it with --interpreter"),
    ],
)
@pytest.mark.parametrize("key", [None, "state_dict", "g_ema"])
def test_a_network_of_another_family_is_named(name: str, family: str, key: str | None) -> None:
    tensors = {"other.weight": torch.zeros(1), name: torch.zeros(1)}
    files: list[ForeignFile] = [TorchFile(tensors if key is None else {key: tensors, "args": None})]
    if key is None:
        files.append(PickledNetwork("Generator", {}, tensors, {}))
    for file in files:
        with pytest.raises(WeightsError, match=rf"^some\.file is .*{family}.*supported are"):
            generator_from_foreign(file, "some.file")


@pytest.mark.parametrize("name", ["FromRGB_lod0/weight", "4x4/Dense/weight"])
def test_a_tensorflow_network_of_another_family_is_named(name: str) -> None:
    with pytest.raises(WeightsError, match=r"is (a discriminator|ProGAN)"):
        generator_from_foreign(TensorFlowNetwork({}, {name: torch.zeros(1)}), "some.file")


def with_channels(file: ForeignFile, channels: list[int]) -> ForeignFile:
    """The file, with the channels of its images that are listed."""
    chosen = {}
    for key, tensor in tensors_of(file).items():
        if "torgb" in key.lower() or "to_rgb" in key or "L5_32_3" in key:
            if key.endswith("bias") and "mod" not in key and "affine" not in key:
                axis = 1 if tensor.ndim == 4 else 0  # [1, 3, 1, 1] in rosinality's layout
                tensor = tensor.index_select(axis, torch.tensor(channels))
            elif key.endswith("weight") and "mod" not in key and "affine" not in key:
                axis = {5: 1, 4: -1 if isinstance(file, TensorFlowNetwork) else 0}[tensor.ndim]
                tensor = tensor.index_select(axis % tensor.ndim, torch.tensor(channels))
        chosen[key] = tensor
    return with_tensors(file, chosen)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("channels", "rgb", "words"),
    [
        ([1], [1, 1, 1], "grey in the file, repeated to RGB"),
        ([1, 0], [1, 1, 1], "grey with alpha in the file"),
        ([2, 1, 0, 0], [2, 1, 0], "alpha left out"),
    ],
)
def test_images_of_other_channels_become_rgb_and_the_card_says_so(
    name: str, channels: list[int], rgb: list[int], words: str
) -> None:
    whole, _ = generator_from_foreign(FILES[name], "x")
    changed, card = generator_from_foreign(with_channels(FILES[name], channels), "x")
    config = whole.config
    ws = torch.randn(1, config.num_ws, config.w_dim, generator=torch.Generator().manual_seed(1))
    expected = whole.synthesis(ws).image[:, rgb]
    torch.testing.assert_close(changed.synthesis(ws).image, expected, rtol=1e-5, atol=1e-5)
    assert isinstance(card.provenance, dict) and words in str(card.provenance["colors"])
    assert card.config.img_channels == 3


def test_image_layers_of_different_channels_are_refused() -> None:
    last = max(n for n in ADA.weights if n.endswith("torgb.bias"))
    network = with_channels(FILES["pickled"], [0])
    assert isinstance(network, PickledNetwork)
    network.tensors[last] = torch.zeros(3)
    with pytest.raises(WeightsError, match=r"torgb\.bias is \[3\]; images have 1 channels"):
        generator_from_foreign(network, "x")


def test_a_folder_names_the_generator_in_it(tmp_path: Path) -> None:
    torch.save({"other": torch.zeros(1)}, tmp_path / "optimizer.pt")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="is a folder; none of its 1 files of weights"):
        generator_from_path(tmp_path)
    torch.save({"g_ema": golden("rosinality/golden_32").weights}, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"is a folder; its generator is a\.pt, give that"):
        generator_from_path(tmp_path)
    torch.save(golden("stylegan1/golden_32").weights, tmp_path / "b.bin")
    with pytest.raises(WeightsError, match=r"its generators are a\.pt, b\.bin; give one"):
        generator_from_path(tmp_path)
