"""StyleGAN1 as DatasetGAN's release stores it: one flat dictionary of tensors -> generator.

The layout has no noise (the release draws it anew for every image) and no mean of w (a file of
its own). Noise maps are drawn once, from a seed that the card names; without a mean latent one is
measured, and the card's `made` says so.
"""

import math
from collections.abc import Mapping

import msgspec
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

NOISE_SEED = 0
# The release truncates these rows of w+, this far; a recipe may say otherwise.
PSI, CUTOFF = 0.7, 8


def is_stylegan1(content: object) -> bool:
    """Whether a file's content has this layout."""
    return isinstance(content, Mapping) and "g_synthesis.blocks.4x4.const" in content


def generator_from_stylegan1(
    file: TorchFile, source: str, mean_latent: Tensor | None = None
) -> tuple[Generator, GeneratorCard]:
    """The generator, its noise drawn; truncation is the release's.

    Raises WeightsError, beginning with `source`.
    """
    tensors = tensors_of(file.content, source)
    config = _config(tensors, source)
    ours = renamed(tensors, _origins(config), source)
    ours |= noise_from_seed(config, NOISE_SEED)
    ours["mapping.w_avg"] = torch.zeros(config.w_dim)
    generator, card = generator_from_tensors(config, ours, source, NOISE_SEED)
    card = with_w_avg(generator, card, mean_latent, source)
    cutoff = min(CUTOFF, config.num_ws)
    return generator, msgspec.structs.replace(card, truncation_psi=PSI, truncation_cutoff=cutoff)


def noise_from_seed(config: GeneratorConfig, seed: int) -> dict[str, Tensor]:
    """The noise maps, float32 [r, r], two for each resolution: normal numbers of one torch CPU
    generator of that seed, ascending, first epilogue before second."""
    draws = torch.Generator().manual_seed(seed)
    return {
        f"synthesis.b{r}.epilogue{k}.noise_const": torch.randn(r, r, generator=draws)
        for r in config.resolutions
        for k in (0, 1)
    }


def _config(tensors: Mapping[str, Tensor], source: str) -> GeneratorConfig:
    extents = [4]
    while f"{_block(2 * extents[-1])}.conv1.weight" in tensors:
        extents.append(2 * extents[-1])
    if len(extents) < 2:
        raise WeightsError(f"{source} lacks {_block(8)}.conv1.weight")
    layers = 0
    while f"g_mapping.dense{layers}.weight" in tensors:
        layers += 1
    return GeneratorConfig(
        resolution=extents[-1],
        channels=tuple(
            extent_of(tensors, f"{_block(r)}.{_second(r)}.weight", 0, source) for r in extents
        ),
        z_dim=extent_of(tensors, "g_mapping.dense0.weight", 1, source),
        w_dim=extent_of(tensors, f"g_mapping.dense{layers - 1}.weight", 0, source),
        mapping_layers=layers,
        img_channels=extent_of(tensors, "g_synthesis.torgb.weight", 0, source),
        family="stylegan1",
    )


def _block(resolution: int) -> str:
    return f"g_synthesis.blocks.{resolution}x{resolution}"


def _second(resolution: int) -> str:
    """Their name of the convolution between the epilogues."""
    return "conv" if resolution == 4 else "conv1"


def _origins(config: GeneratorConfig) -> dict[str, Origin]:
    """Every tensor of the file by our name."""
    origins = {"synthesis.b4.const": Origin(f"{_block(4)}.const", lambda t: t.squeeze(0))}
    origins["synthesis.b4.bias"] = Origin(f"{_block(4)}.bias")
    for i in range(config.mapping_layers):
        theirs = f"g_mapping.dense{i}"
        origins[f"mapping.fc{i}.weight"] = Origin(f"{theirs}.weight")
        # Our activation has the gain sqrt(2) that their weights have, and they alone.
        origins[f"mapping.fc{i}.bias"] = Origin(f"{theirs}.bias", lambda t: t / math.sqrt(2))
    for kind in ("weight", "bias"):
        origins[f"synthesis.torgb.{kind}"] = Origin(f"g_synthesis.torgb.{kind}")
    for r in config.resolutions:
        ours, theirs = f"synthesis.b{r}", _block(r)
        for kind in ("weight", "bias"):
            origins[f"{ours}.conv1.{kind}"] = Origin(f"{theirs}.{_second(r)}.{kind}")
            if r > 4:
                origins[f"{ours}.conv0.{kind}"] = Origin(f"{theirs}.conv0_up.{kind}")
        if r > 4:
            # They correlate with the kernel, we convolve.
            origins[f"{ours}.conv0.blur_kernel"] = Origin(
                f"{theirs}.conv0_up.intermediate.kernel", lambda t: t[0, 0].flip((0, 1))
            )
        for k in (0, 1):
            origins |= _epilogue(f"{ours}.epilogue{k}", f"{theirs}.epi{k + 1}")
    return origins


def _epilogue(ours: str, theirs: str) -> dict[str, Origin]:
    return {
        f"{ours}.noise_strength": Origin(f"{theirs}.top_epi.noise.weight"),
        f"{ours}.affine.weight": Origin(f"{theirs}.style_mod.lin.weight"),
        f"{ours}.affine.bias": Origin(f"{theirs}.style_mod.lin.bias"),
    }
