"""StyleGAN1 generators from files of DatasetGAN's release: one flat dictionary of tensors.

The files have no noise maps (the release draws noise for every image) and no mean of w (a separate
file). Here noise maps are drawn once, from the seed in the card. Without a mean latent it is
measured, and the provenance of the card says so.
"""

import math
from collections.abc import Mapping

import msgspec
import torch
from torch import Tensor

from checkpoints.card import GeneratorCard
from checkpoints.foreign_tensors import (
    ForeignTensor,
    extent_of,
    extents_of_blocks,
    refuse_not_square,
    run_length,
    tensors_from_foreign,
)
from checkpoints.generator import generator_from_tensors
from checkpoints.mean_latent import with_w_avg
from nets.config import GeneratorConfig
from nets.generator import Generator

NOISE_SEED = 0
PSI, CUTOFF = 0.7, 8  # truncation of the release, for cards without a recipe


def generator_from_stylegan1(
    tensors: Mapping[str, Tensor],
    source: str,
    mean_latent: Tensor | None = None,
    noise: Mapping[str, Tensor] | None = None,  # maps by nets' names; None: from NOISE_SEED
) -> tuple[Generator, GeneratorCard]:
    """The generator and its card, with the release's truncation.

    Raises WeightsError, beginning with `source`.
    """
    config = _config(tensors, source)
    refuse_not_square(tensors, f"{_block(4)}.const", source, "StyleGAN1")
    ours = tensors_from_foreign(tensors, _foreign_tensors(config), source)
    ours |= noise_from_seed(config, NOISE_SEED) if noise is None else noise
    ours["mapping.w_avg"] = torch.zeros(config.w_dim)
    generator, card = generator_from_tensors(
        config, ours, source, NOISE_SEED if noise is None else None
    )
    card = with_w_avg(generator, card, mean_latent, source)
    cutoff = min(CUTOFF, config.num_ws)
    return generator, msgspec.structs.replace(card, truncation_psi=PSI, truncation_cutoff=cutoff)


def noise_from_seed(config: GeneratorConfig, seed: int) -> dict[str, Tensor]:
    """Noise maps, float32 [r, r], for both epilogues of each resolution r.

    Normal numbers of one torch CPU generator with this seed, drawn from low to high resolution,
    first epilogue before second.
    """
    draws = torch.Generator().manual_seed(seed)
    return {
        f"synthesis.b{r}.epilogue{k}.noise_const": torch.randn(r, r, generator=draws)
        for r in config.resolutions
        for k in (0, 1)
    }


def _config(tensors: Mapping[str, Tensor], source: str) -> GeneratorConfig:
    extents = extents_of_blocks(tensors, lambda r: f"{_block(r)}.conv1.weight", source)
    layers = run_length(tensors, "g_mapping.dense{}.weight".format)
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
    """Their name of the convolution between the two epilogues."""
    return "conv" if resolution == 4 else "conv1"


def _foreign_tensors(config: GeneratorConfig) -> dict[str, ForeignTensor]:
    """All tensors of the file, by nets' names."""
    wanted = {"synthesis.b4.const": ForeignTensor(f"{_block(4)}.const", lambda t: t.squeeze(0))}
    wanted["synthesis.b4.bias"] = ForeignTensor(f"{_block(4)}.bias")
    for i in range(config.mapping_layers):
        theirs = f"g_mapping.dense{i}"
        wanted[f"mapping.fc{i}.weight"] = ForeignTensor(f"{theirs}.weight")
        # nets' activation has the gain sqrt(2); theirs is part of the weights, not of the biases.
        wanted[f"mapping.fc{i}.bias"] = ForeignTensor(f"{theirs}.bias", lambda t: t / math.sqrt(2))
    for kind in ("weight", "bias"):
        wanted[f"synthesis.torgb.{kind}"] = ForeignTensor(f"g_synthesis.torgb.{kind}")
    for r in config.resolutions:
        ours, theirs = f"synthesis.b{r}", _block(r)
        for kind in ("weight", "bias"):
            wanted[f"{ours}.conv1.{kind}"] = ForeignTensor(f"{theirs}.{_second(r)}.{kind}")
            if r > 4:
                wanted[f"{ours}.conv0.{kind}"] = ForeignTensor(f"{theirs}.conv0_up.{kind}")
        if r > 4:
            # They correlate with the kernel, nets convolve.
            wanted[f"{ours}.conv0.blur_kernel"] = ForeignTensor(
                f"{theirs}.conv0_up.intermediate.kernel", lambda t: t[0, 0].flip((0, 1))
            )
        for k in (0, 1):
            wanted |= _epilogue(f"{ours}.epilogue{k}", f"{theirs}.epi{k + 1}")
    return wanted


def _epilogue(ours: str, theirs: str) -> dict[str, ForeignTensor]:
    return {
        f"{ours}.noise_strength": ForeignTensor(f"{theirs}.top_epi.noise.weight"),
        f"{ours}.affine.weight": ForeignTensor(f"{theirs}.style_mod.lin.weight"),
        f"{ours}.affine.bias": ForeignTensor(f"{theirs}.style_mod.lin.bias"),
    }
