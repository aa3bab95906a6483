"""The label ensemble's weights as the kernels read them: float16, padded, members side by side."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from export.fused.tiles import slabs
from export.graph.label_branch import Member
from nets.interpreter import EnsembleHead

NO_CLASS = -1e30  # logit of a class that only pads; finite, so that 0 times it is 0


def padded_channels(count: int) -> int:
    """Channels of a level as the kernels read it."""
    return -(-count // 32) * 32


@dataclass(frozen=True)
class HeadArrays:
    """One head. Widths are padded to powers of two; M members, H1 and H2 hidden, C outputs."""

    kind: str
    members: int
    hidden: tuple[int, int]  # padded
    finest: tuple[int, int]  # channels of the finest level, padded, as slabs
    outputs: int  # real
    padded_outputs: int
    levels: dict[int, Tensor]  # by extent, ascending: float16 [channels, M * H1]; not the finest
    constant: Tensor  # float16 [16, M * H1], to be added at 4 pixels; with it the first bias
    weight1: Tensor  # float16 [sum of finest, M * H1]
    weight2: Tensor  # float16 [M, H1, H2]
    bias2: Tensor  # float32 [M, H2]
    weight3: Tensor  # float16 [M, H2, C]
    bias3: Tensor  # float32 [M, C]


def head_arrays(
    head: EnsembleHead, level_channels: dict[int, int], const_tap: Tensor
) -> HeadArrays:
    """For taps with so many channels by extent, ascending, without the constant."""
    extents = tuple(sorted(level_channels))
    channels = [level_channels[r] for r in extents]
    config = head.config
    members = [Member(head, i, channels, const_tap, torch.float64) for i in range(config.members)]
    h1, h2 = (_power_of_two(h) for h in config.hidden)
    outputs = _power_of_two(config.outputs)
    first = [
        torch.cat([_padded(getattr(m, f"weight1_{i}"), h1) for m in members], dim=1)
        for i in range(len(extents))
    ]
    finest = slabs(channels[-1])
    classes = config.kind == "segmentation"
    return HeadArrays(
        config.kind,
        config.members,
        (h1, h2),
        finest,
        config.outputs,
        outputs,
        {
            r: _rows(w, padded_channels(c)).half()
            for r, c, w in zip(extents[:-1], channels, first, strict=False)
        },
        torch.cat([_padded(m.const, h1) for m in members], dim=1).half(),
        _rows(first[-1], sum(finest)).half(),
        torch.stack([_rows(_padded(m.weight2, h2), h1) for m in members]).half(),
        torch.stack([_padded(m.bias2[None], h2)[0] for m in members]).float(),
        torch.stack([_rows(_padded(m.weight3, outputs), h2) for m in members]).half(),
        torch.stack(
            [_padded(m.bias3[None], outputs, NO_CLASS if classes else 0)[0] for m in members]
        ).float(),
    )


def _power_of_two(count: int) -> int:
    return max(16, 1 << (count - 1).bit_length())


def _padded(x: Tensor, columns: int, value: float = 0) -> Tensor:
    return F.pad(x, (0, columns - x.shape[1]), value=value)


def _rows(x: Tensor, rows: int) -> Tensor:
    return F.pad(x, (0, 0, 0, rows - x.shape[0])).contiguous()
