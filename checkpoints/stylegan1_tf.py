"""Generators from networks of the official TensorFlow StyleGAN1 (Gs, the moving average).

Their variables are those of the port that DatasetGAN uses, with other names and axes, and with
noise maps.
"""

import re

import torch
from torch import Tensor

from checkpoints.card import GeneratorCard
from checkpoints.errors import WeightsError
from checkpoints.foreign import TensorFlowNetwork
from checkpoints.stylegan1 import generator_from_stylegan1
from checkpoints.stylegan2_tf import GROWING
from checkpoints.weights import refuse_names
from nets.generator import Generator

# Arguments that change what the same variables compute, and the one value that nets implement.
SUPPORTED_VALUES: dict[str, object] = {
    "mapping_nonlinearity": "lrelu",
    "nonlinearity": "lrelu",
    "mapping_lrmul": 0.01,
    "normalize_latents": True,
    "use_wscale": True,
    "use_pixel_norm": False,
    "use_instance_norm": True,
    "use_styles": True,
    "const_input_layer": True,
    "fused_scale": "auto",
    "blur_filter": [1, 2, 1],
}
BLUR = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16
NOISE = re.compile(r"synthesis/noise(\d{1,2})\Z")
LAYERS = {"Const": "epi1", "Conv": "epi2", "Conv0_up": "epi1", "Conv1": "epi2"}
PORTED = {"Conv": "conv", "Conv0_up": "conv0_up", "Conv1": "conv1"}
LAYER = re.compile(r"synthesis/(\d+x\d+)/(Const|Conv|Conv0_up|Conv1)/(.+)\Z")


def is_stylegan1_of_tensorflow(network: TensorFlowNetwork) -> bool:
    """Whether layers are styled by normalization, as in StyleGAN1, and not by their weights."""
    return any(name.endswith("/StyleMod/weight") for name in network.variables)


def generator_from_tensorflow1(
    network: TensorFlowNetwork, source: str
) -> tuple[Generator, GeneratorCard]:
    """The generator with the file's noise maps, and its card, with the release's truncation.

    Raises WeightsError, beginning with `source`.
    """
    for name, value in SUPPORTED_VALUES.items():
        found = network.kwargs.get(name, value)
        found = list(found) if isinstance(found, tuple) else found
        if found != value:
            raise WeightsError(
                f"{source} was built with {name} {found!r}; only {value!r} is supported"
            )
    # Component names have the prefix G_ in some files.
    variables = {name.removeprefix("G_"): tensor for name, tensor in network.variables.items()}
    refuse_names(source, "lacks", {"dlatent_avg"} - variables.keys())
    mean = variables.pop("dlatent_avg")
    ported: dict[str, Tensor] = {}
    noise: dict[str, Tensor] = {}
    for name, tensor in variables.items():
        if match := NOISE.match(name):
            layer = int(match[1])
            noise[f"synthesis.b{4 << layer // 2}.epilogue{layer % 2}.noise_const"] = tensor
        elif not GROWING.fullmatch(name):
            ported[_ported_name(name)] = (
                _ported_axes(tensor) if name.endswith("/weight") else tensor
            )
    for r in {name.split(".")[2] for name in ported if ".conv0_up." in name}:
        ported[f"g_synthesis.blocks.{r}.conv0_up.intermediate.kernel"] = BLUR[None, None]
    if network.kwargs.get("use_noise", True) is False:
        ported, noise = _with_silent_noise(ported)
    maps = {name: tensor.float().reshape(tensor.shape[-2:]) for name, tensor in noise.items()}
    return generator_from_stylegan1(ported, source, mean, maps)


def _ported_name(name: str) -> str:
    """The port's name of a variable; unknown names stay, for the message that refuses them."""
    if match := re.match(r"mapping/Dense(\d+)/(weight|bias)\Z", name):
        return f"g_mapping.dense{match[1]}.{match[2]}"
    if match := re.match(r"synthesis/ToRGB_lod0/(weight|bias)\Z", name):
        return f"g_synthesis.torgb.{match[1]}"
    if match := LAYER.match(name):
        extent, layer, rest = match.groups()
        block = f"g_synthesis.blocks.{extent}"
        if rest == "Noise/weight":
            return f"{block}.{LAYERS[layer]}.top_epi.noise.weight"
        if rest in ("StyleMod/weight", "StyleMod/bias"):
            return f"{block}.{LAYERS[layer]}.style_mod.lin.{rest[9:]}"
        if layer == "Const" and rest in ("const", "bias"):
            return f"{block}.{rest}"
        if layer != "Const" and rest in ("weight", "bias"):
            return f"{block}.{PORTED[layer]}.{rest}"
    return name


def _ported_axes(tensor: Tensor) -> Tensor:
    """[in, out] -> [out, in], [k, k, in, out] -> [out, in, k, k]; vectors stay."""
    if tensor.ndim == 2:
        return tensor.t().contiguous()
    if tensor.ndim == 4:
        return tensor.permute(3, 2, 0, 1).contiguous()
    return tensor


def _with_silent_noise(ported: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Zero noise maps of strength zero, for a network that was built without noise."""
    ported, noise = dict(ported), {}
    for name in [name for name in ported if name.endswith(".style_mod.lin.bias")]:
        epilogue = name.removesuffix(".style_mod.lin.bias")
        ported[f"{epilogue}.top_epi.noise.weight"] = torch.zeros(ported[name].numel() // 2)
        extent, kind = epilogue.split(".")[2:]
        r = int(extent.split("x")[0])
        noise[f"synthesis.b{r}.epilogue{int(kind[-1]) - 1}.noise_const"] = torch.zeros(r, r)
    return ported, noise
