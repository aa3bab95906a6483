"""The mean of w, the center of truncation: from the user, from the file, or measured."""

import msgspec
import torch
from torch import Tensor

from checkpoints.card import GeneratorCard
from checkpoints.errors import WeightsError
from nets.generator import Generator
from nets.mapping import MappingNetwork

MEASURED_SAMPLES = 8192
MEASURED_SEED = 0


def with_w_avg(
    generator: Generator, card: GeneratorCard, mean: Tensor | None, source: str
) -> GeneratorCard:
    """Sets the generator's mean of w, and returns its card.

    `mean` is [w_dim], or [rows, w_dim] with equal rows (published arrays have 18). If it is None,
    the mean is measured, and the provenance of the card says so. Raises WeightsError, beginning
    with `source`.
    """
    if mean is not None:
        row = _single_row(mean, generator.config.w_dim, source)
        generator.mapping.w_avg = row.to(generator.mapping.w_avg)
        return card
    generator.mapping.w_avg = measured_w_avg(generator.mapping)
    assert isinstance(card.provenance, dict)
    words = f"measured over {MEASURED_SAMPLES} samples of seed {MEASURED_SEED}"
    return msgspec.structs.replace(card, provenance={**card.provenance, "w_avg": words})


@torch.no_grad()
def measured_w_avg(mapping: MappingNetwork) -> Tensor:
    """Mean of w, [w_dim], over MEASURED_SAMPLES normal z drawn with MEASURED_SEED."""
    draws = torch.Generator().manual_seed(MEASURED_SEED)
    z = torch.randn(MEASURED_SAMPLES, mapping.config.z_dim, generator=draws)
    return torch.cat([mapping(part) for part in z.split(1024)]).mean(dim=0)


def _single_row(mean: Tensor, w_dim: int, source: str) -> Tensor:
    if mean.ndim == 0 or mean.shape[-1] != w_dim or mean.numel() == 0:
        raise WeightsError(
            f"{source}: the mean latent is {list(mean.shape)}; every row must have "
            f"{w_dim} values, the w_dim of this generator"
        )
    rows = mean.detach().to(torch.float32).reshape(-1, w_dim)
    if not torch.isfinite(rows).all():
        raise WeightsError(f"{source}: the mean latent holds values that are not finite")
    if not torch.equal(rows, rows[:1].expand_as(rows)):
        raise WeightsError(f"{source}: the rows of the mean latent differ; they must be equal")
    return rows[0]
