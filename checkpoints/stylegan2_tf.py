"""Generators from networks of the official TensorFlow StyleGAN2 (Gs, the moving average)."""

import re
from collections.abc import Callable, Mapping
from math import log2

import torch
from torch import Tensor

from checkpoints.card import GeneratorCard
from checkpoints.errors import WeightsError
from checkpoints.foreign import TensorFlowNetwork
from checkpoints.foreign_tensors import (
    ForeignTensor,
    extent_of,
    extents_of_blocks,
    refuse_not_square,
    run_length,
    tensors_from_foreign,
)
from checkpoints.generator import generator_from_tensors
from checkpoints.stored_state import clamp_from_value
from nets.config import Architecture, GeneratorConfig
from nets.generator import Generator
from nets.ops import RESAMPLE_TAPS, resample_kernel

# Arguments that change what the same variables compute, and the one value that nets implement.
SUPPORTED_VALUES = {"mapping_nonlinearity": "lrelu", "nonlinearity": "lrelu", "mapping_lrmul": 0.01}
# Variables of progressive growing; a finished network does not read them.
GROWING = re.compile(r"(synthesis/)?lod|synthesis/ToRGB_lod[1-9]\d*/.*")


def generator_from_tensorflow(
    network: TensorFlowNetwork, source: str
) -> tuple[Generator, GeneratorCard]:
    """The generator, and a card without truncation, the default of the public code.

    Raises WeightsError, beginning with `source`.
    """
    for name, value in SUPPORTED_VALUES.items():
        found = network.kwargs.get(name, value)
        if found not in (None, value):
            raise WeightsError(
                f"{source} was built with {name} {found!r}; only {value!r} is supported"
            )
    taps = network.kwargs.get("resample_kernel")
    if taps is not None and (not isinstance(taps, list | tuple) or tuple(taps) != RESAMPLE_TAPS):
        raise WeightsError(f"{source} resamples with {taps!r}; only [1, 3, 3, 1] is supported")
    # Component names have the prefix G_ in some files.
    variables = {name.removeprefix("G_"): tensor for name, tensor in network.variables.items()}
    clamp = clamp_from_value(network.kwargs.get("conv_clamp"), source)
    config = _config(variables, clamp, source)
    refuse_not_square(variables, f"{_block(4)}/Const/const", source, "TensorFlow's StyleGAN2")
    if network.kwargs.get("use_noise", True) is False:
        variables |= _silent_noise(config)
    ignored = [name for name in variables if GROWING.fullmatch(name)]
    ours = tensors_from_foreign(variables, _foreign_tensors(config, variables), source, ignored)
    return generator_from_tensors(config, ours | _filters(config), source)


def _config(variables: Mapping[str, Tensor], clamp: float | None, source: str) -> GeneratorConfig:
    extents = extents_of_blocks(variables, lambda r: f"{_block(r)}/Conv1/weight", source)
    layers = run_length(variables, "mapping/Dense{}/weight".format)
    c_dim, embedded = 0, 0
    if "mapping/LabelEmbed/weight" in variables:  # [c_dim, w_dim]
        embed = "mapping/LabelEmbed/weight"
        c_dim, embedded = (extent_of(variables, embed, k, source) for k in (0, 1))
    architecture: Architecture = "orig"
    if f"{_block(4)}/ToRGB/weight" in variables:
        architecture = "skip"
    elif f"{_block(8)}/Skip/weight" in variables:
        architecture = "resnet"
    convs = [f"{_block(r)}/{'Conv' if r == 4 else 'Conv1'}/weight" for r in extents]
    return GeneratorConfig(
        resolution=extents[-1],
        channels=tuple(extent_of(variables, name, -1, source) for name in convs),
        z_dim=extent_of(variables, "mapping/Dense0/weight", 0, source) - embedded,
        w_dim=extent_of(variables, "dlatent_avg", 0, source),
        c_dim=c_dim,
        mapping_layers=layers,
        img_channels=extent_of(variables, f"{_torgb(extents[-1], variables)}/weight", -1, source),
        conv_clamp=clamp,
        architecture=architecture,
    )


def _block(resolution: int) -> str:
    return f"synthesis/{resolution}x{resolution}"


def _torgb(resolution: int, variables: Mapping[str, Tensor]) -> str:
    """Their ToRGB of a block; the name of the last one may have its level of detail, 0."""
    by_detail = "synthesis/ToRGB_lod0"
    return by_detail if f"{by_detail}/weight" in variables else f"{_block(resolution)}/ToRGB"


def _foreign_tensors(
    config: GeneratorConfig, variables: Mapping[str, Tensor]
) -> dict[str, ForeignTensor]:
    """All variables, by nets' names."""
    wanted = {"mapping.w_avg": ForeignTensor("dlatent_avg")}
    names = {f"mapping.fc{i}": f"mapping/Dense{i}" for i in range(config.mapping_layers)}
    if config.c_dim > 0:
        names["mapping.embed"] = "mapping/LabelEmbed"
    for ours, theirs in names.items():
        wanted[f"{ours}.weight"] = ForeignTensor(f"{theirs}/weight", _transposed)
        wanted[f"{ours}.bias"] = ForeignTensor(f"{theirs}/bias")
    wanted["synthesis.b4.const"] = ForeignTensor(f"{_block(4)}/Const/const", lambda t: t.squeeze(0))
    for r in config.resolutions:
        ours, theirs, noise = f"synthesis.b{r}", _block(r), 2 * int(log2(r)) - 4
        second = "Conv" if r == 4 else "Conv1"
        wanted |= _layer(f"{ours}.conv1", f"{theirs}/{second}", noise, _oihw)
        if r > 4:
            wanted |= _layer(f"{ours}.conv0", f"{theirs}/Conv0_up", noise - 1, _oihw_rotated)
            if config.architecture == "resnet":
                wanted[f"{ours}.skip.weight"] = ForeignTensor(
                    f"{theirs}/Skip/weight", _oihw_rotated
                )
        if config.architecture == "skip" or r == config.resolution:
            torgb = _torgb(r, variables) if r == config.resolution else f"{theirs}/ToRGB"
            wanted |= _modulated(f"{ours}.torgb", torgb, _oihw)
    return wanted


def _modulated(
    ours: str, theirs: str, convolution: Callable[[Tensor], Tensor]
) -> dict[str, ForeignTensor]:
    return {
        f"{ours}.weight": ForeignTensor(f"{theirs}/weight", convolution),
        f"{ours}.bias": ForeignTensor(f"{theirs}/bias"),
        f"{ours}.affine.weight": ForeignTensor(f"{theirs}/mod_weight", _transposed),
        f"{ours}.affine.bias": ForeignTensor(f"{theirs}/mod_bias", lambda t: t + 1),
    }


def _layer(
    ours: str, theirs: str, noise: int, convolution: Callable[[Tensor], Tensor]
) -> dict[str, ForeignTensor]:
    return _modulated(ours, theirs, convolution) | {
        f"{ours}.noise_const": ForeignTensor(f"synthesis/noise{noise}", lambda t: t[0, 0]),
        f"{ours}.noise_strength": ForeignTensor(
            f"{theirs}/noise_strength", lambda t: t.reshape(())
        ),
    }


def _transposed(weight: Tensor) -> Tensor:  # [in, out] -> [out, in]
    return weight.transpose(0, 1).contiguous()


def _oihw(weight: Tensor) -> Tensor:  # [k, k, I, O] -> [O, I, k, k]
    return weight.permute(3, 2, 0, 1).contiguous()


def _oihw_rotated(weight: Tensor) -> Tensor:
    """As `_oihw`, rotated by 180 degrees: they store kernels of upsampling layers so."""
    return _oihw(weight).flip((2, 3))


def _silent_noise(config: GeneratorConfig) -> dict[str, Tensor]:
    """Zero noise maps of strength zero, for a network that was built without noise."""
    variables = {}
    for k in range(config.num_noises):
        r = 4 << (k + 1) // 2
        layer = "Conv" if k == 0 else "Conv0_up" if k % 2 else "Conv1"
        variables[f"{_block(r)}/{layer}/noise_strength"] = torch.zeros([])
        variables[f"synthesis/noise{k}"] = torch.zeros(1, 1, r, r)
    return variables


def _filters(config: GeneratorConfig) -> dict[str, Tensor]:
    """Low-pass filters; in their code they are not variables."""
    filters: dict[str, Tensor] = {}
    for r in config.resolutions:
        names = ["", ".conv1"] if r == 4 else ["", ".conv0", ".conv1"]
        if r > 4 and config.architecture == "resnet":
            names.append(".skip")
        filters |= {f"synthesis.b{r}{name}.resample_filter": resample_kernel() for name in names}
    return filters
