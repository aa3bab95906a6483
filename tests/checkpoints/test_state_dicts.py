"""A generator inside files of training, inversion and other projects gives the same pixels."""

import argparse
import datetime
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from checkpoints import WeightsError, generator_from_path
from export.inspect import lines_from_weights
from tests.checkpoints.golden import assert_same_pixels_and_taps, golden

Tensors = Mapping[str, Tensor]
ROSINALITY, STYLEGAN1 = golden("rosinality/golden_64"), golden("stylegan1/golden_32")
W_DIM = ROSINALITY.inputs["latent_avg"].shape[-1]


def prefixed(prefix: str, tensors: Tensors) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def inversion(tensors: Tensors) -> dict[str, object]:
    """As e4e, pSp and ReStyle save it."""
    opts = argparse.Namespace(output_size=64, exp_dir=Path("out"), when=datetime.date(2021, 1, 1))
    encoder = {
        "encoder.input_layer.0.weight": torch.ones(3),
        "encoder.count": torch.zeros(1).expand(2),
    }
    return {
        "state_dict": {**encoder, **prefixed("decoder.", tensors)},
        "latent_avg": ROSINALITY.inputs["latent_avg"].expand(14, -1).clone(),
        "opts": opts,
    }


def mmgeneration(tensors: Tensors) -> dict[str, object]:
    """Its names, in a checkpoint of its trainer."""
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, theirs in (
            (r"^style\.(\d+)\.weight", r"style_mapping.\1.linear.weight_orig"),
            (r"^style\.(\d+)\.bias", r"style_mapping.\1.bias"),
            (r"^input\.input", "constant_input.input"),
            (r"modulation\.weight", "style_modulation.linear.weight_orig"),
            (r"modulation\.bias", "style_modulation.bias"),
            (r"\.conv\.weight", ".conv.weight_orig"),
            (r"\.noise\.weight", ".noise_injector.weight"),
            (r"^noises\.noise_", "injected_noise_"),
        ):
            name = re.sub(pattern, theirs, name)
        renamed[name] = tensor
    others = prefixed("generator.", {name: tensor + 1 for name, tensor in renamed.items()})
    return {"meta": {"iter": 5}, "state_dict": {**others, **prefixed("generator_ema.", renamed)}}


def module(tensors: Tensors) -> nn.Module:
    """A module that holds these tensors as parameters, under these names."""
    root = nn.Module()
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        owner = root
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        owner.register_parameter(last, nn.Parameter(tensor.clone(), requires_grad=False))
    return root


def style_gan_pytorch(tensors: Tensors) -> dict[str, Tensor]:
    """The names of StyleGAN.pytorch, with its image layers of lower resolutions and its mean."""
    renamed = {}
    for name, tensor in tensors.items():
        name = name.replace("g_mapping.", "g_mapping.map.").replace(
            "g_synthesis.blocks.4x4.", "g_synthesis.init_block."
        )
        for k, extent in enumerate((8, 16, 32)):
            name = name.replace(f"blocks.{extent}x{extent}.", f"blocks.{k}.")
        renamed[name.replace("g_synthesis.torgb.", "g_synthesis.to_rgb.3.")] = tensor
    for k in range(3):
        renamed[f"g_synthesis.to_rgb.{k}.weight"] = torch.ones(3, 5, 1, 1)
        renamed[f"g_synthesis.to_rgb.{k}.bias"] = torch.ones(3)
    return {**renamed, "truncation.avg_latent": STYLEGAN1.inputs["mean_latent"].reshape(-1, 16)[0]}


FILES: dict[str, Callable[[Tensors], object]] = {
    "g_ema beside g": lambda t: {"g": {n: x + 1 for n, x in t.items()}, "g_ema": t},
    "DataParallel": lambda t: {"g_ema": prefixed("module.", t)},
    "only g": lambda t: {"g": t},
    "params_ema": lambda t: {"params_ema": t, "params": {n: x + 1 for n, x in t.items()}},
    "bare": lambda t: dict(t),
    "bare, DataParallel": lambda t: prefixed("module.", t),
    "in double": lambda t: {"g_ema": {n: x.double() for n, x in t.items()}},
    "in half": lambda t: {"g_ema": {n: x.half() for n, x in t.items()}},
    "inversion": inversion,
    "mmgeneration": mmgeneration,
    "module": lambda t: module(t),
    "module in a file": lambda t: {"g_ema": module(t), "d": nn.Linear(1, 1)},
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", FILES)
def test_a_generator_gives_its_pixels_from_any_file_that_holds_it(
    tmp_path: Path, name: str, zipped: bool
) -> None:
    path = tmp_path / "file.pt"
    torch.save(FILES[name](ROSINALITY.weights), path, _use_new_zipfile_serialization=zipped)
    generator, _ = generator_from_path(path)
    if name == "in half":  # noise maps and kernels are not exact there
        image = generator.synthesis(ROSINALITY.inputs["ws"]).image
        assert ROSINALITY.image.difference(image) < 1e-2
    else:
        assert_same_pixels_and_taps(generator, ROSINALITY)


def test_the_mean_of_an_inversion_file_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "e4e.pt"
    torch.save(inversion(ROSINALITY.weights), path)
    generator, card = generator_from_path(path)
    assert torch.equal(generator.mapping.w_avg, ROSINALITY.inputs["latent_avg"].reshape(-1)[:W_DIM])
    assert isinstance(card.provenance, dict)
    assert card.provenance == {"from": str(path), "part": "state_dict decoder.*"}


def test_what_was_chosen_is_said(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    for name, words in {
        "only g": "part         g, as trained: the file has no moving average",
        "mmgeneration": "BGR, not RGB",
        "bare": "w_avg        measured over",
    }.items():
        torch.save(FILES[name](ROSINALITY.weights), path)
        assert any(words in line for line in lines_from_weights(path))
    plain = {n: t for n, t in ROSINALITY.weights.items() if not n.startswith("noises.")}
    torch.save(plain, path)
    assert "  noise        drawn from seed 0" in lines_from_weights(path)


@pytest.mark.parametrize("save", [style_gan_pytorch, lambda t: prefixed("module.", t)])
def test_other_names_of_stylegan1_give_the_same_pixels(
    tmp_path: Path, save: Callable[[Tensors], dict[str, Tensor]]
) -> None:
    path = tmp_path / "stylegan1.pt"
    torch.save(save(STYLEGAN1.weights), path)
    generator, card = generator_from_path(path)
    assert_same_pixels_and_taps(generator, STYLEGAN1)
    mean = STYLEGAN1.inputs["mean_latent"].reshape(-1, 16)[0]
    assert isinstance(card.provenance, dict)
    assert ("w_avg" in card.provenance) is not torch.equal(generator.mapping.w_avg, mean)


def test_a_state_dict_of_nvidias_code_says_what_it_does_not_state(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    torch.save({"G_ema": golden("stylegan2_ada/golden_skip_32_clamp").weights}, path)
    with pytest.raises(
        WeightsError, match=r"does not state activation of mapping\.fc0.*pickle that"
    ):
        generator_from_path(path)
