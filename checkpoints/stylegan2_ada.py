"""Pickled networks of stylegan2-ada-pytorch (and of StyleGAN3's code for StyleGAN2) -> generators.

Our names are theirs, so tensors are taken as they are; extents come from the tensors, which
prevail over the keyword arguments of the construction. Those say what tensors cannot.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from checkpoints.card import GeneratorCard
from checkpoints.errors import WeightsError
from checkpoints.foreign import PickledNetwork
from checkpoints.generator import generator_from_tensors
from checkpoints.renamed import extent_of
from nets.config import Architecture, GeneratorConfig
from nets.generator import Generator

# Arguments whose other values are other functions of the same tensors, and the value we compute.
ONLY = {"activation": "lrelu", "lr_multiplier": 0.01}
LATER_CLAMP = 256.0


def generator_from_pickled(network: PickledNetwork, source: str) -> tuple[Generator, GeneratorCard]:
    """The generator, and a card with the public code's defaults (no truncation).

    Raises WeightsError, beginning with `source`.
    """
    for arguments in _parts(network.kwargs):
        for name, value in ONLY.items():
            if arguments.get(name, value) != value:
                raise WeightsError(
                    f"{source} was built with {name} {arguments[name]!r}; only {value!r} is "
                    "supported"
                )
    tensors = dict(network.tensors)
    _add_silent_noise(tensors)
    config = _config(tensors, _clamp(network.kwargs, source), source)
    return generator_from_tensors(config, tensors, source)


def _parts(kwargs: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Arguments of the whole and of its parts; later code passes all to the whole."""
    nested = (kwargs.get("mapping_kwargs"), kwargs.get("synthesis_kwargs"))
    return [kwargs, *(part for part in nested if isinstance(part, Mapping))]


def _clamp(kwargs: Mapping[str, object], source: str) -> float | None:
    """StyleGAN3's code for StyleGAN2 is known by its flat arguments; its clamp has a default."""
    nested = kwargs.get("synthesis_kwargs")
    if isinstance(nested, Mapping):
        return conv_clamp_of(nested, source)
    return conv_clamp_of({"conv_clamp": LATER_CLAMP, **kwargs}, source)


def conv_clamp_of(arguments: Mapping[str, object], source: str) -> float | None:
    """The clamp among construction arguments. Raises WeightsError, beginning with `source`."""
    clamp = arguments.get("conv_clamp")
    if clamp is None:
        return None
    if isinstance(clamp, bool) or not isinstance(clamp, int | float) or not clamp > 0:
        raise WeightsError(f"{source} has conv_clamp {clamp!r}; it must be a number over 0")
    return float(clamp)


def _add_silent_noise(tensors: dict[str, Tensor]) -> None:
    """Layers built without noise (use_noise False) become layers whose noise has no strength."""
    for name in [n for n in tensors if ".conv" in n and n.endswith(".affine.weight")]:
        layer = name.removesuffix(".affine.weight")
        block = layer.split(".")[-2]
        if f"{layer}.noise_strength" in tensors or not block[1:].isdigit():
            continue
        tensors[f"{layer}.noise_strength"] = torch.zeros([])
        tensors[f"{layer}.noise_const"] = torch.zeros(int(block[1:]), int(block[1:]))


def _config(tensors: Mapping[str, Tensor], clamp: float | None, source: str) -> GeneratorConfig:
    """The shape that the tensors have; what contradicts it shows when they are loaded."""
    extents = [4]
    while f"synthesis.b{2 * extents[-1]}.conv1.weight" in tensors:
        extents.append(2 * extents[-1])
    layers = 0
    while f"mapping.fc{layers}.weight" in tensors:
        layers += 1
    if len(extents) < 2 or not layers:
        raise WeightsError(f"{source} is no StyleGAN2 generator: its tensors have other names")
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
        conv_clamp=clamp,
        architecture=architecture,
    )
