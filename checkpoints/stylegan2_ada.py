"""Generators from pickled networks of stylegan2-ada-pytorch, and of StyleGAN3's code for StyleGAN2.

nets use the same tensor names, so tensors are taken unchanged. Sizes come from the tensors. What
tensors cannot tell, such as the clamp, comes from the attributes that each module was stored with,
else from the arguments of the constructor; what neither states is refused, because the default
values differ between versions of the code.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeGuard

import torch
from torch import Tensor

from checkpoints.card import GeneratorCard
from checkpoints.errors import WeightsError
from checkpoints.foreign import PickledNetwork
from checkpoints.foreign_tensors import extent_of, extents_of_blocks, run_length
from checkpoints.generator import generator_from_tensors
from nets.config import Architecture, GeneratorConfig
from nets.generator import Generator

MAPPING_RATE = 0.01  # learning rate multiplier of the mapping network, a factor of its weights
GAIN_TOLERANCE = 1e-5  # relative; gains are stored in single or double precision


def generator_from_pickled(network: PickledNetwork, source: str) -> tuple[Generator, GeneratorCard]:
    """The generator, and a card without truncation, the default of the public code.

    Raises WeightsError, beginning with `source`.
    """
    state = StoredState(network, source)
    tensors = dict(network.tensors)
    config = _config(tensors, source)
    _check_mapping(state, config)
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
                tensors[f"{name}.noise_const"] = torch.zeros(r, r)
        if f"{block}.torgb.weight" in tensors:
            name = f"{block}.torgb"
            state.check(name, "weight_gain", 1 / math.sqrt(max(out_channels, 1)))
            _check_linear(state, f"{name}.affine", config.w_dim)
            clamps[name] = state.clamp(name)
        if f"{block}.skip.weight" in tensors:
            _check_skip(
                state, f"{block}.skip", extent_of(tensors, f"{block}.skip.weight", 1, source)
            )
    config = replace(config, conv_clamp=_only_clamp(clamps, source))
    return generator_from_tensors(config, tensors, source)


@dataclass(frozen=True)
class StoredState:
    """What a pickled network states about itself beside its tensors."""

    network: PickledNetwork
    source: str  # of messages

    def value(self, module: str, name: str, arguments: tuple[str, ...] = ()) -> object:
        """An attribute of a module, else the constructor argument of one of these names.

        Raises WeightsError if neither is stated.
        """
        fields = self.network.fields.get(module, {})
        if name in fields:
            return fields[name]
        for stated in _parts(self.network.kwargs, module.split(".")[0]):
            for argument in arguments:
                if argument in stated:
                    return stated[argument]
        raise WeightsError(
            f"{self.source} does not state {name} of {module}: no attribute of the stored module, "
            "nor an argument of its constructor, tells it; build the generator with the public "
            "code of NVIDIA, load the weights, and pickle that"
        )

    def check(
        self, module: str, name: str, expected: object, arguments: tuple[str, ...] = ()
    ) -> None:
        """Raises WeightsError unless the value is the one that nets implement."""
        found = self.value(module, name, arguments)
        if isinstance(expected, float) and _is_number(found):
            assert isinstance(found, int | float)
            same = math.isclose(found, expected, rel_tol=GAIN_TOLERANCE)
        else:
            same = found == expected
        if not same:
            raise WeightsError(
                f"{self.source}: {module} has {name} {found!r}; only {expected!r} is supported"
            )

    def clamp(self, module: str) -> float | None:
        """conv_clamp of a module. Raises WeightsError unless it is None or a number over 0."""
        return clamp_from_value(
            self.value(module, "conv_clamp", ("conv_clamp",)), f"{self.source}: {module}"
        )

    def flag(self, module: str, name: str) -> bool:
        """A value that must be True or False, which the arguments may state by the same name."""
        found = self.value(module, name, (name,))
        if not isinstance(found, bool):
            raise WeightsError(
                f"{self.source}: {module} has {name} {found!r}; it must be True or False"
            )
        return found


def clamp_from_value(clamp: object, source: str) -> float | None:
    """A stated conv_clamp. Raises WeightsError, beginning with `source`."""
    if clamp is None:
        return None
    if not _is_number(clamp) or not clamp > 0:
        raise WeightsError(f"{source} has conv_clamp {clamp!r}; it must be a number over 0")
    return float(clamp)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _parts(kwargs: Mapping[str, object], part: str) -> list[Mapping[str, object]]:
    """Arguments that reach one part of the generator, "mapping" or "synthesis", inner ones first.

    Either code nests them: mapping_kwargs, synthesis_kwargs and, within these, block_kwargs and
    layer_kwargs. StyleGAN3's code gives those of the synthesis network to the generator.
    """
    nested = kwargs.get(f"{part}_kwargs")
    own = nested if isinstance(nested, Mapping) else {}
    inner = [own.get("layer_kwargs"), own.get("block_kwargs")]
    return [*(given for given in inner if isinstance(given, Mapping)), own, kwargs]


def _only_clamp(clamps: Mapping[str, float | None], source: str) -> float | None:
    """The clamp that all layers share."""
    (first, clamp), *others = clamps.items()
    different = next((name for name, other in others if other != clamp), None)
    if different is not None:
        raise WeightsError(
            f"{source} has conv_clamp {clamps[different]} in {different} and {clamp} in {first}; "
            "only one clamp for all layers is supported"
        )
    return clamp


def _check_mapping(state: StoredState, config: GeneratorConfig) -> None:
    for i in range(config.mapping_layers):
        name = f"mapping.fc{i}"
        into = extent_of(state.network.tensors, f"{name}.weight", 1, state.source)
        state.check(name, "activation", "lrelu", ("activation",))
        state.check(name, "weight_gain", MAPPING_RATE / math.sqrt(max(into, 1)))
        state.check(name, "bias_gain", MAPPING_RATE, ("lr_multiplier",))
    if config.c_dim:
        _check_linear(state, "mapping.embed", config.c_dim)


def _check_linear(state: StoredState, name: str, into: int) -> None:
    state.check(name, "activation", "linear")
    state.check(name, "weight_gain", 1 / math.sqrt(max(into, 1)))
    state.check(name, "bias_gain", 1.0)


def _check_layer(state: StoredState, name: str, up: int) -> None:
    into = extent_of(state.network.tensors, f"{name}.affine.weight", 1, state.source)
    state.check(name, "activation", "lrelu", ("activation",))
    state.check(name, "act_gain", math.sqrt(2))
    state.check(name, "up", up)
    state.check(name, "padding", 1)
    _check_linear(state, f"{name}.affine", into)


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
    )
