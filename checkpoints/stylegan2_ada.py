"""Generators from pickled networks of stylegan2-ada-pytorch, and of StyleGAN3's code for StyleGAN2.

nets use the same tensor names, so tensors are taken unchanged. Sizes come from the tensors. What
tensors cannot tell, such as the clamp, comes from the attributes that each module was stored with,
else from the arguments of the constructor; what neither states is refused, because the default
values differ between versions of the code.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from checkpoints.card import GeneratorCard
from checkpoints.errors import WeightsError
from checkpoints.foreign import PickledNetwork
from checkpoints.foreign_tensors import extent_of, extents_of_blocks, run_length, start_of
from checkpoints.generator import generator_from_tensors
from checkpoints.stored_state import StoredState, check_linear, check_mapping, only_clamp
from nets.config import Architecture, GeneratorConfig, size_at
from nets.generator import Generator


def generator_from_pickled(network: PickledNetwork, source: str) -> tuple[Generator, GeneratorCard]:
    """The generator, and a card without truncation, the default of the public code.

    Raises WeightsError, beginning with `source`.
    """
    state = StoredState(network, source)
    tensors = dict(network.tensors)
    config = _config(tensors, source)
    check_mapping(state, config.mapping_layers, config.c_dim)
    clamps: dict[str, float | None] = {}
    for r, out_channels in zip(config.resolutions, config.channels, strict=True):
        block = f"synthesis.b{r}"
        state.check(block, "architecture", config.architecture, ("architecture",))
        for layer in ["conv1"] if r == 4 else ["conv0", "conv1"]:
            name = f"{block}.{layer}"
            _check_layer(state, name, 2 if layer == "conv0" else 1)
            clamps[name] = state.clamp(name)
            if not state.flag(name, "use_noise"):
                tensors[f"{name}.noise_strength"] = torch.zeros([])
                tensors[f"{name}.noise_const"] = torch.zeros(size_at(r, config.start))
        if f"{block}.torgb.weight" in tensors:
            name = f"{block}.torgb"
            state.check(name, "weight_gain", 1 / math.sqrt(max(out_channels, 1)))
            check_linear(state, f"{name}.affine", config.w_dim)
            clamps[name] = state.clamp(name)
        if f"{block}.skip.weight" in tensors:
            _check_skip(
                state, f"{block}.skip", extent_of(tensors, f"{block}.skip.weight", 1, source)
            )
    config = replace(config, conv_clamp=only_clamp(clamps, source))
    return generator_from_tensors(config, tensors, source)


def _check_layer(state: StoredState, name: str, up: int) -> None:
    into = extent_of(state.network.tensors, f"{name}.affine.weight", 1, state.source)
    state.check(name, "activation", "lrelu", ("activation",))
    state.check(name, "act_gain", math.sqrt(2))
    state.check(name, "up", up)
    state.check(name, "padding", 1)
    check_linear(state, f"{name}.affine", into)


def _check_skip(state: StoredState, name: str, into: int) -> None:
    """The 1x1 convolution beside a residual block."""
    expected = {"activation": "linear", "act_gain": 1.0, "up": 2, "down": 1, "padding": 0}
    for field, value in {**expected, "conv_clamp": None}.items():
        state.check(name, field, value)
    state.check(name, "weight_gain", 1 / math.sqrt(max(into, 1)))


def _config(tensors: Mapping[str, Tensor], source: str) -> GeneratorConfig:
    """Configuration from the shapes of tensors; loading checks the shapes of all the others."""
    layers = run_length(tensors, "mapping.fc{}.weight".format)
    if not layers or "synthesis.b8.conv1.weight" not in tensors:
        raise WeightsError(f"{source} is no StyleGAN2 generator: its tensors have other names")
    extents = extents_of_blocks(tensors, "synthesis.b{}.conv1.weight".format, source)
    embedded, c_dim = 0, 0
    if "mapping.embed.weight" in tensors:  # [w_dim, c_dim]
        embedded, c_dim = (extent_of(tensors, "mapping.embed.weight", k, source) for k in (0, 1))
    architecture: Architecture = "orig"
    if "synthesis.b4.torgb.weight" in tensors:
        architecture = "skip"
    elif "synthesis.b8.skip.weight" in tensors:
        architecture = "resnet"
    return GeneratorConfig(
        resolution=extents[-1],
        channels=tuple(
            extent_of(tensors, f"synthesis.b{r}.conv1.weight", 0, source) for r in extents
        ),
        z_dim=extent_of(tensors, "mapping.fc0.weight", 1, source) - embedded,
        w_dim=extent_of(tensors, "mapping.w_avg", 0, source),
        c_dim=c_dim,
        mapping_layers=layers,
        img_channels=extent_of(tensors, f"synthesis.b{extents[-1]}.torgb.weight", 0, source),
        architecture=architecture,
        start=start_of(tensors, "synthesis.b4.const", source),
    )
