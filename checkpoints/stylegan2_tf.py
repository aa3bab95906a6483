"""Networks of the official TensorFlow StyleGAN2 (the averaged Gs) -> generators."""

import re
from collections.abc import Callable, Mapping
from math import log2

from torch import Tensor

from checkpoints.card import GeneratorCard
from checkpoints.errors import WeightsError
from checkpoints.foreign import TensorFlowNetwork
from checkpoints.generator import generator_from_tensors
from checkpoints.renamed import Origin, extent_of, renamed
from checkpoints.stylegan2_ada import conv_clamp_of
from nets.config import Architecture, GeneratorConfig
from nets.generator import Generator
from nets.ops import RESAMPLE_TAPS, resample_kernel

# Arguments whose other values are other functions of the same variables, and the value we compute.
ONLY = {"mapping_nonlinearity": "lrelu", "nonlinearity": "lrelu", "mapping_lrmul": 0.01}
# Variables of progressive growing, which a finished network does not read.
FADING = re.compile(r"(synthesis/)?lod|synthesis/ToRGB_lod[1-9]\d*/.*")


def generator_from_tensorflow(
    network: TensorFlowNetwork, source: str
) -> tuple[Generator, GeneratorCard]:
    """The generator, and a card with the public code's defaults (no truncation).

    Raises WeightsError, beginning with `source`.
    """
    for name, value in ONLY.items():
        found = network.kwargs.get(name, value)
        if found not in (None, value):
            raise WeightsError(
                f"{source} was built with {name} {found!r}; only {value!r} is supported"
            )
    taps = network.kwargs.get("resample_kernel")
    if taps is not None and (not isinstance(taps, list | tuple) or tuple(taps) != RESAMPLE_TAPS):
        raise WeightsError(f"{source} resamples with {taps!r}; only [1, 3, 3, 1] is supported")
    # Parts are called by their own name or by their owner's name for them.
    variables = {name.removeprefix("G_"): tensor for name, tensor in network.variables.items()}
    config = _config(variables, conv_clamp_of(network.kwargs, source), source)
    ignored = [name for name in variables if FADING.fullmatch(name)]
    ours = renamed(variables, _origins(config, variables), source, ignored)
    return generator_from_tensors(config, ours | _filters(config), source)


def _config(variables: Mapping[str, Tensor], clamp: float | None, source: str) -> GeneratorConfig:
    extents = [4]
    while f"{_block(2 * extents[-1])}/Conv1/weight" in variables:
        extents.append(2 * extents[-1])
    if len(extents) < 2:
        raise WeightsError(f"{source} lacks {_block(8)}/Conv1/weight")
    layers = 0
    while f"mapping/Dense{layers}/weight" in variables:
        layers += 1
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
    """Their ToRGB of a block; the last one may be called by its level of detail, none."""
    by_detail = "synthesis/ToRGB_lod0"
    return by_detail if f"{by_detail}/weight" in variables else f"{_block(resolution)}/ToRGB"


def _origins(config: GeneratorConfig, variables: Mapping[str, Tensor]) -> dict[str, Origin]:
    """Every variable by our name."""
    origins = {"mapping.w_avg": Origin("dlatent_avg")}
    names = {f"mapping.fc{i}": f"mapping/Dense{i}" for i in range(config.mapping_layers)}
    if config.c_dim > 0:
        names["mapping.embed"] = "mapping/LabelEmbed"
    for ours, theirs in names.items():
        origins[f"{ours}.weight"] = Origin(f"{theirs}/weight", _transposed)
        origins[f"{ours}.bias"] = Origin(f"{theirs}/bias")
    origins["synthesis.b4.const"] = Origin(f"{_block(4)}/Const/const", lambda t: t.squeeze(0))
    for r in config.resolutions:
        ours, theirs, noise = f"synthesis.b{r}", _block(r), 2 * int(log2(r)) - 4
        second = "Conv" if r == 4 else "Conv1"
        origins |= _layer(f"{ours}.conv1", f"{theirs}/{second}", noise, _oihw)
        if r > 4:
            origins |= _layer(f"{ours}.conv0", f"{theirs}/Conv0_up", noise - 1, _oihw_turned)
            if config.architecture == "resnet":
                origins[f"{ours}.skip.weight"] = Origin(f"{theirs}/Skip/weight", _oihw_turned)
        if config.architecture == "skip" or r == config.resolution:
            torgb = _torgb(r, variables) if r == config.resolution else f"{theirs}/ToRGB"
            origins |= _modulated(f"{ours}.torgb", torgb, _oihw)
    return origins


def _modulated(
    ours: str, theirs: str, convolution: Callable[[Tensor], Tensor]
) -> dict[str, Origin]:
    return {
        f"{ours}.weight": Origin(f"{theirs}/weight", convolution),
        f"{ours}.bias": Origin(f"{theirs}/bias"),
        f"{ours}.affine.weight": Origin(f"{theirs}/mod_weight", _transposed),
        f"{ours}.affine.bias": Origin(f"{theirs}/mod_bias", lambda t: t + 1),
    }


def _layer(
    ours: str, theirs: str, noise: int, convolution: Callable[[Tensor], Tensor]
) -> dict[str, Origin]:
    return _modulated(ours, theirs, convolution) | {
        f"{ours}.noise_const": Origin(f"synthesis/noise{noise}", lambda t: t[0, 0]),
        f"{ours}.noise_strength": Origin(f"{theirs}/noise_strength", lambda t: t.reshape(())),
    }


def _transposed(weight: Tensor) -> Tensor:  # [in, out] -> [out, in]
    return weight.transpose(0, 1).contiguous()


def _oihw(weight: Tensor) -> Tensor:  # [k, k, I, O] -> [O, I, k, k]
    return weight.permute(3, 2, 0, 1).contiguous()


def _oihw_turned(weight: Tensor) -> Tensor:
    """As `_oihw`, and turned by 180 degrees: kernels of doubling layers are stored so."""
    return _oihw(weight).flip((2, 3))


def _filters(config: GeneratorConfig) -> dict[str, Tensor]:
    """The low-passes, which are no variables there."""
    filters: dict[str, Tensor] = {}
    for r in config.resolutions:
        names = ["", ".conv1"] if r == 4 else ["", ".conv0", ".conv1"]
        if r > 4 and config.architecture == "resnet":
            names.append(".skip")
        filters |= {f"synthesis.b{r}{name}.resample_filter": resample_kernel() for name in names}
    return filters
