"""Weights of a head -> arrays for the fused kernels: float16, padded, members side by side.

Example: 10 members with hidden (36, 20), 7 classes and 24 channels at 32 pixels. The widths are
padded to H1 = 64, H2 = 32 and 16 classes, and the weights of level 32 are [32, 10 * 64].
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from export.fused.tiles import slabs
from export.graph.label_branch import Member
from nets.interpreter import EnsembleHead

MIN_CHUNK = 16  # the smallest size that tensor cores take
PADDED_LOGIT = -1e30  # logit of a padded class; finite, because 0 * inf is NaN


def padded_channels(count: int) -> int:
    """Channels of a level as the kernels read them: the next multiple of 32."""
    return -(-count // 32) * 32


@dataclass(frozen=True)
class HeadArrays:
    """One head of M members; H1, H2 and C are its hidden widths and outputs, as powers of two."""

    kind: str
    members: int
    hidden: tuple[int, int]  # (H1, H2)
    finest: tuple[int, int]  # channels of the finest level, padded, as two powers of two
    outputs: int  # without padding
    padded_outputs: int  # C
    levels: dict[int, Tensor]  # float16 [channels, M * H1] by extent, ascending, but the finest
    constant: Tensor  # float16 [16, M * H1], added at 4 pixels: constant tap and first bias
    weight1: Tensor  # float16 [sum of finest, M * H1], for the finest level
    weight2: Tensor  # float16 [M, H1, H2]
    bias2: Tensor  # float32 [M, H2]
    weight3: Tensor  # float16 [M, H2, C]
    bias3: Tensor  # float32 [M, C]


def arrays_from_head(
    head: EnsembleHead, level_channels: dict[int, int], const_tap: Tensor
) -> HeadArrays:
    """Folds batch norms, converts and pads the weights of a head.

    level_channels: channels of the taps by extent, ascending, without the constant tap.
    """
    extents = tuple(sorted(level_channels))
    channels = [level_channels[r] for r in extents]
    config = head.config
    members = [Member(head, i, channels, const_tap, torch.float64) for i in range(config.members)]
    # With two chunks or more of the first layer: ptxas serializes the products of some kernels with
    # one (C7511).
    h1, h2 = _power_of_two(max(config.hidden[0], 2 * MIN_CHUNK)), _power_of_two(config.hidden[1])
    outputs = _power_of_two(config.outputs)
    weight1 = {  # [channels, M * H1] by extent
        r: torch.cat([_padded(getattr(m, f"weight1_{i}"), c, h1) for m in members], dim=1)
        for i, (r, c) in enumerate(zip(extents, channels, strict=True))
    }
    finest = slabs(channels[-1])
    padded_logit = PADDED_LOGIT if config.kind == "segmentation" else 0
    return HeadArrays(
        kind=config.kind,
        members=config.members,
        hidden=(h1, h2),
        finest=finest,
        outputs=config.outputs,
        padded_outputs=outputs,
        levels={
            r: _padded(weight1[r], padded_channels(level_channels[r]), len(members) * h1).half()
            for r in extents[:-1]
        },
        constant=torch.cat([_padded(m.const, 16, h1) for m in members], dim=1).half(),
        weight1=_padded(weight1[extents[-1]], sum(finest), len(members) * h1).half(),
        weight2=torch.stack([_padded(m.weight2, h1, h2) for m in members]).half(),
        bias2=torch.cat([_padded(m.bias2[None], 1, h2) for m in members]).float(),
        weight3=torch.stack([_padded(m.weight3, h2, outputs) for m in members]).half(),
        bias3=torch.cat(
            [_padded(m.bias3[None], 1, outputs, padded_logit) for m in members]
        ).float(),
    )


def _power_of_two(count: int) -> int:
    """The next power of two, at least MIN_CHUNK."""
    return max(MIN_CHUNK, 1 << (count - 1).bit_length())


def _padded(x: Tensor, rows: int, columns: int, value: float = 0) -> Tensor:
    return F.pad(x, (0, columns - x.shape[1], 0, rows - x.shape[0]), value=value).contiguous()
