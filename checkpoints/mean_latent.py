"""The mean of w where a file lacks it: given by the user, or measured."""

import torch
from torch import Tensor

from checkpoints.errors import WeightsError
from nets.mapping import MappingNetwork

MEASURED_SAMPLES = 8192
MEASURED_SEED = 0


def w_avg_from_mean_latent(mean: Tensor, w_dim: int, source: str) -> Tensor:
    """[w_dim], or that many equal rows of it, as published arrays of 18 rows -> float32 [w_dim].

    Raises WeightsError, beginning with `source`.
    """
    if mean.ndim == 0 or mean.shape[-1] != w_dim or mean.numel() == 0:
        raise WeightsError(
            f"{source}: the mean latent is {list(mean.shape)}; this generator's w has {w_dim} "
            "values, and so must every row of it"
        )
    rows = mean.detach().to(torch.float32).reshape(-1, w_dim)
    if not torch.isfinite(rows).all():
        raise WeightsError(f"{source}: the mean latent holds values that are not finite")
    if not torch.equal(rows, rows[:1].expand_as(rows)):
        raise WeightsError(
            f"{source}: the rows of the mean latent differ; a single mean of w is needed"
        )
    return rows[0].clone()


@torch.no_grad()
def measured_w_avg(mapping: MappingNetwork) -> Tensor:
    """Mean of w over MEASURED_SAMPLES normal z of torch's generator at MEASURED_SEED, [w_dim]."""
    draws = torch.Generator().manual_seed(MEASURED_SEED)
    z = torch.randn(MEASURED_SAMPLES, mapping.config.z_dim, generator=draws)
    return torch.cat([mapping(part) for part in z.split(1024)]).mean(dim=0)


def measured_note() -> str:
    """How `measured_w_avg` came about, for a card."""
    return f"measured over {MEASURED_SAMPLES} samples of seed {MEASURED_SEED}"
