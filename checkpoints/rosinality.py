"""Files of rosinality's stylegan2-pytorch (and of HandsOff, which uses it) -> generators."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from checkpoints.card import GeneratorCard
from checkpoints.errors import WeightsError
from checkpoints.foreign import TorchFile
from checkpoints.generator import generator_from_tensors
from checkpoints.mean_latent import with_w_avg
from checkpoints.renamed import Origin, extent_of, renamed, tensors_of
from nets.config import GeneratorConfig
from nets.generator import Generator
from nets.ops import resample_kernel


def is_rosinality(content: object) -> bool:
    """Whether a file's content has this layout."""
    return isinstance(content, Mapping) and "g_ema" in content


def generator_from_rosinality(
    file: TorchFile, source: str, mean_latent: Tensor | None = None
) -> tuple[Generator, GeneratorCard]:
    """The averaged generator `g_ema`; size and channels are those of its tensors.

    The mean of w is `mean_latent`, else the file's `latent_avg`, else measured. Raises
    WeightsError, beginning with `source`.
    """
    if not isinstance(file.content, Mapping) or "g_ema" not in file.content:
        raise WeightsError(f"{source} has no g_ema")
    tensors = tensors_of(file.content["g_ema"], f"{source}: g_ema")
    config = _config(tensors, source)
    ours = renamed(tensors, _origins(config), source)
    ours |= _defaults(config, ours)
    generator, card = generator_from_tensors(config, ours, source)
    stored = file.content.get("latent_avg")
    if mean_latent is None and isinstance(stored, Tensor):
        mean_latent = stored
    return generator, with_w_avg(generator, card, mean_latent, source)


def _config(tensors: Mapping[str, Tensor], source: str) -> GeneratorConfig:
    blocks = 0
    while f"to_rgbs.{blocks}.conv.weight" in tensors:
        blocks += 1
    layers = 0
    while f"style.{layers + 1}.weight" in tensors:  # style.0 normalises and has none
        layers += 1
    later = [f"convs.{2 * j + 1}.conv.weight" for j in range(blocks)]
    if not blocks:
        raise WeightsError(f"{source}: g_ema lacks to_rgbs.0.conv.weight")
    return GeneratorConfig(
        resolution=4 * 2**blocks,
        channels=tuple(
            extent_of(tensors, name, 1, source) for name in ["conv1.conv.weight", *later]
        ),
        z_dim=extent_of(tensors, "style.1.weight", -1, source),
        w_dim=extent_of(tensors, f"style.{layers}.weight", 0, source),
        mapping_layers=layers,
    )


def _origins(config: GeneratorConfig) -> dict[str, Origin]:
    """Every tensor of g_ema by our name."""
    origins = {
        f"mapping.fc{i}.{kind}": Origin(f"style.{i + 1}.{kind}")
        for i in range(config.mapping_layers)
        for kind in ("weight", "bias")
    }
    origins["synthesis.b4.const"] = Origin("input.input", lambda t: t.squeeze(0))
    origins |= _layer("synthesis.b4.conv1", "conv1", 0)
    origins |= _torgb("synthesis.b4.torgb", "to_rgb1")
    for j, r in enumerate(config.resolutions[1:]):
        for k in (0, 1):
            origins |= _layer(f"synthesis.b{r}.conv{k}", f"convs.{2 * j + k}", 2 * j + k + 1)
        origins |= _torgb(f"synthesis.b{r}.torgb", f"to_rgbs.{j}")
        # Their kernels have the gain of zero insertion in them.
        up, rgb_up = f"convs.{2 * j}.conv.blur.kernel", f"to_rgbs.{j}.upsample.kernel"
        origins[f"synthesis.b{r}.conv0.resample_filter"] = Origin(up, lambda t: t / 4)
        origins[f"synthesis.b{r}.resample_filter"] = Origin(rgb_up, lambda t: t / 4)
    return origins


def _layer(ours: str, theirs: str, noise: int) -> dict[str, Origin]:
    return {
        f"{ours}.weight": Origin(f"{theirs}.conv.weight", _scaled),
        f"{ours}.affine.weight": Origin(f"{theirs}.conv.modulation.weight"),
        f"{ours}.affine.bias": Origin(f"{theirs}.conv.modulation.bias"),
        f"{ours}.bias": Origin(f"{theirs}.activate.bias"),
        f"{ours}.noise_strength": Origin(f"{theirs}.noise.weight", lambda t: t.reshape(())),
        f"{ours}.noise_const": Origin(f"noises.noise_{noise}", lambda t: t[0, 0]),
    }


def _torgb(ours: str, theirs: str) -> dict[str, Origin]:
    return {
        f"{ours}.weight": Origin(f"{theirs}.conv.weight", lambda t: t.squeeze(0)),
        f"{ours}.affine.weight": Origin(f"{theirs}.conv.modulation.weight"),
        f"{ours}.affine.bias": Origin(f"{theirs}.conv.modulation.bias"),
        f"{ours}.bias": Origin(f"{theirs}.bias", lambda t: t.flatten()),
    }


def _scaled(weight: Tensor) -> Tensor:
    """[1, O, I, 3, 3] -> [O, I, 3, 3] by 1 / sqrt(fan-in), as they scale before demodulating:
    it cancels there, but for the weight of the epsilon."""
    return weight.squeeze(0) / math.sqrt(weight[0, 0].numel())


def _defaults(config: GeneratorConfig, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Filters of layers that do not resample, which this layout leaves out; a mean of w, too."""
    blocks = [f"synthesis.b{r}" for r in config.resolutions]
    names = [*blocks, *(f"{block}.conv1" for block in blocks)]
    filters = {f"{name}.resample_filter": resample_kernel() for name in names}
    missing = {name: kernel for name, kernel in filters.items() if name not in given}
    return missing | {"mapping.w_avg": torch.zeros(config.w_dim)}
