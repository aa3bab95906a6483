"""An interpreter -> its kernels' launches, and the part of the branch that stays in the graph."""

import torch
from torch import Tensor

from export.kernel_arrays import head_arrays
from export.kernel_launches import LaunchList, Tuning
from export.kernel_taps import KernelTaps
from export.kernel_tiles import kernel_tiles
from export.label_spec import LabelSpec
from nets.interpreter import Interpreter


def fused_branch(
    interpreter: Interpreter,
    spec: LabelSpec,
    const_tap: Tensor,
    level_channels: dict[int, int],  # extent -> channels of its taps together, no constant
    tuning: Tuning,
) -> tuple[LaunchList, KernelTaps]:
    """Raises ValueError when the label grid is too small."""
    with torch.no_grad():
        heads = [
            head_arrays(interpreter.head(kind), level_channels, const_tap)
            for kind in interpreter.heads
        ]
    coarse = tuple(sorted(level_channels))[:-1]
    tiles = kernel_tiles(coarse, spec, tuning.squares, tuning.band_tiles)
    launches = LaunchList(tiles, spec, tuning)
    for head in heads:
        launches.add(head)
    return launches, KernelTaps(heads, spec, tiles, level_channels)
