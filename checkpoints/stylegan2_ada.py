"""Generators from pickled networks of stylegan2-ada-pytorch, and of StyleGAN3's code for StyleGAN2.

nets use the same tensor names, so tensors are taken unchanged. Sizes come from the tensors; the
keyword arguments of the constructor give only what tensors cannot, such as the clamp.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from checkpoints.card import GeneratorCard
from checkpoints.errors import WeightsError
from checkpoints.foreign import PickledNetwork
from checkpoints.foreign_tensors import extent_of, extents_of_blocks, run_length
from checkpoints.generator import generator_from_tensors
from nets.config import Architecture, GeneratorConfig
from nets.generator import Generator

# Arguments that change what the same tensors compute, and the one value that nets implement.
SUPPORTED_VALUES = {"activation": "lrelu", "lr_multiplier": 0.01}
STYLEGAN3_CODE_CLAMP = 256.0  # default of StyleGAN3's code


def generator_from_pickled(network: PickledNetwork, source: str) -> tuple[Generator, GeneratorCard]:
    """The generator, and a card without truncation, the default of the public code.

    Raises WeightsError, beginning with `source`.
    """
    for arguments in _parts(network.kwargs):
        for name, value in SUPPORTED_VALUES.items():
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
    """Arguments of the generator and of its two parts.

    StyleGAN3's code gives all arguments to the generator.
    """
    nested = (kwargs.get("mapping_kwargs"), kwargs.get("synthesis_kwargs"))
    return [kwargs, *(part for part in nested if isinstance(part, Mapping))]


def _clamp(kwargs: Mapping[str, object], source: str) -> float | None:
    """The clamp; StyleGAN3's code, which has no synthesis_kwargs, has a default for it."""
    nested = kwargs.get("synthesis_kwargs")
    if isinstance(nested, Mapping):
        return conv_clamp_of(nested, source)
    return conv_clamp_of({"conv_clamp": STYLEGAN3_CODE_CLAMP, **kwargs}, source)


def conv_clamp_of(arguments: Mapping[str, object], source: str) -> float | None:
    """conv_clamp of constructor arguments. Raises WeightsError, beginning with `source`."""
    clamp = arguments.get("conv_clamp")
    if clamp is None:
        return None
    if isinstance(clamp, bool) or not isinstance(clamp, int | float) or not clamp > 0:
        raise WeightsError(f"{source} has conv_clamp {clamp!r}; it must be a number over 0")
    return float(clamp)


def _add_silent_noise(tensors: dict[str, Tensor]) -> None:
    """Gives layers built without noise (use_noise False) zero noise maps of strength zero."""
    for name in [n for n in tensors if ".conv" in n and n.endswith(".affine.weight")]:
        layer = name.removesuffix(".affine.weight")
        block = layer.split(".")[-2]
        if f"{layer}.noise_strength" in tensors or not block[1:].isdigit():
            continue
        tensors[f"{layer}.noise_strength"] = torch.zeros([])
        tensors[f"{layer}.noise_const"] = torch.zeros(int(block[1:]), int(block[1:]))


def _config(tensors: Mapping[str, Tensor], clamp: float | None, source: str) -> GeneratorConfig:
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
        conv_clamp=clamp,
        architecture=architecture,
    )
