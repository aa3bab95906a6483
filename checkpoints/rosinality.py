"""Generators with the tensors of rosinality's stylegan2-pytorch, which many projects copied.

Among them are HandsOff, e4e, pSp, ReStyle and, with other names, mmgeneration.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from checkpoints.card import GeneratorCard
from checkpoints.errors import WeightsError
from checkpoints.foreign_tensors import (
    ForeignTensor,
    extent_of,
    run_length,
    start_of,
    tensors_from_foreign,
)
from checkpoints.generator import generator_from_tensors
from checkpoints.mean_latent import with_w_avg
from nets.config import GeneratorConfig, size_at
from nets.generator import Generator
from nets.ops import resample_kernel

KERNELS = (".blur.kernel", ".upsample.kernel")  # some copies do not store them
NOISE_SEED = 0  # of files without noise maps


def generator_from_rosinality(
    tensors: Mapping[str, Tensor], source: str, mean_latent: Tensor | None = None
) -> tuple[Generator, GeneratorCard]:
    """The generator and its card; sizes follow from the shapes of its tensors.

    Files without noise maps get maps from NOISE_SEED, as the card says. The mean of w is
    `mean_latent`, or else measured. Raises WeightsError, beginning with `source`.
    """
    config = _config(tensors, source)
    has_noise = any(name.startswith("noises.") for name in tensors)
    wanted = _foreign_tensors(config)
    absent = {kernel for kernel in KERNELS if not any(name.endswith(kernel) for name in tensors)}
    for name, foreign in list(wanted.items()):
        noise = foreign.name.startswith("noises.")
        if (noise and not has_noise) or foreign.name.endswith(tuple(absent)):
            del wanted[name]
    ours = tensors_from_foreign(tensors, wanted, source)
    seed = None if has_noise else NOISE_SEED
    ours |= {} if has_noise else noise_from_seed(config, NOISE_SEED)
    ours |= _defaults(config, ours)
    generator, card = generator_from_tensors(config, ours, source, seed)
    return generator, with_w_avg(generator, card, mean_latent, source)


def noise_from_seed(config: GeneratorConfig, seed: int) -> dict[str, Tensor]:
    """Noise maps, float32 [h, w], of one torch CPU generator with this seed, first layer first."""
    draws = torch.Generator().manual_seed(seed)
    layers = [(r, k) for r in config.resolutions for k in (0, 1) if (r, k) != (4, 0)]
    return {
        f"synthesis.b{r}.conv{k}.noise_const": torch.randn(
            size_at(r, config.start), generator=draws
        )
        for r, k in layers
    }


def _config(tensors: Mapping[str, Tensor], source: str) -> GeneratorConfig:
    blocks = run_length(tensors, "to_rgbs.{}.conv.weight".format)
    # style.0 normalizes, without weights
    layers = run_length(tensors, lambda k: f"style.{k + 1}.weight")
    later = [f"convs.{2 * j + 1}.conv.weight" for j in range(blocks)]
    if not blocks:
        raise WeightsError(f"{source} lacks to_rgbs.0.conv.weight")
    return GeneratorConfig(
        resolution=4 * 2**blocks,
        channels=tuple(
            extent_of(tensors, name, 1, source) for name in ["conv1.conv.weight", *later]
        ),
        z_dim=extent_of(tensors, "style.1.weight", -1, source),
        w_dim=extent_of(tensors, f"style.{layers}.weight", 0, source),
        mapping_layers=layers,
        img_channels=extent_of(tensors, "to_rgb1.conv.weight", 1, source),
        start=start_of(tensors, "input.input", source),
    )


def _foreign_tensors(config: GeneratorConfig) -> dict[str, ForeignTensor]:
    """All tensors of the file, by nets' names."""
    wanted = {
        f"mapping.fc{i}.{kind}": ForeignTensor(f"style.{i + 1}.{kind}")
        for i in range(config.mapping_layers)
        for kind in ("weight", "bias")
    }
    wanted["synthesis.b4.const"] = ForeignTensor("input.input", lambda t: t.squeeze(0))
    wanted |= _layer("synthesis.b4.conv1", "conv1", 0)
    wanted |= _torgb("synthesis.b4.torgb", "to_rgb1")
    for j, r in enumerate(config.resolutions[1:]):
        for k in (0, 1):
            wanted |= _layer(f"synthesis.b{r}.conv{k}", f"convs.{2 * j + k}", 2 * j + k + 1)
        wanted |= _torgb(f"synthesis.b{r}.torgb", f"to_rgbs.{j}")
        # Their kernels include the gain 4 of zero insertion; nets' do not.
        up, rgb_up = f"convs.{2 * j}.conv.blur.kernel", f"to_rgbs.{j}.upsample.kernel"
        wanted[f"synthesis.b{r}.conv0.resample_filter"] = ForeignTensor(up, lambda t: t / 4)
        wanted[f"synthesis.b{r}.resample_filter"] = ForeignTensor(rgb_up, lambda t: t / 4)
    return wanted


def _layer(ours: str, theirs: str, noise: int) -> dict[str, ForeignTensor]:
    return {
        f"{ours}.weight": ForeignTensor(f"{theirs}.conv.weight", _scaled),
        f"{ours}.affine.weight": ForeignTensor(f"{theirs}.conv.modulation.weight"),
        f"{ours}.affine.bias": ForeignTensor(f"{theirs}.conv.modulation.bias"),
        f"{ours}.bias": ForeignTensor(f"{theirs}.activate.bias"),
        f"{ours}.noise_strength": ForeignTensor(f"{theirs}.noise.weight", lambda t: t.reshape(())),
        f"{ours}.noise_const": ForeignTensor(f"noises.noise_{noise}", lambda t: t[0, 0]),
    }


def _torgb(ours: str, theirs: str) -> dict[str, ForeignTensor]:
    return {
        f"{ours}.weight": ForeignTensor(f"{theirs}.conv.weight", lambda t: t.squeeze(0)),
        f"{ours}.affine.weight": ForeignTensor(f"{theirs}.conv.modulation.weight"),
        f"{ours}.affine.bias": ForeignTensor(f"{theirs}.conv.modulation.bias"),
        f"{ours}.bias": ForeignTensor(f"{theirs}.bias", lambda t: t.flatten()),
    }


def _scaled(weight: Tensor) -> Tensor:
    """[1, O, I, 3, 3] to [O, I, 3, 3], divided by sqrt(fan-in).

    Their layers scale so before demodulation, which cancels the scale except beside its epsilon.
    """
    return weight.squeeze(0) / math.sqrt(weight[0, 0].numel())


def _defaults(config: GeneratorConfig, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that files lack: filters, where none is stored, and a zero mean of w."""
    blocks = [f"synthesis.b{r}" for r in config.resolutions]
    names = [*blocks, *(f"{block}.conv{k}" for block in blocks for k in (0, 1))]
    names.remove("synthesis.b4.conv0")
    filters = {f"{name}.resample_filter": resample_kernel() for name in names}
    missing = {name: kernel for name, kernel in filters.items() if name not in given}
    return missing | {"mapping.w_avg": torch.zeros(config.w_dim)}
