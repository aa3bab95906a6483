"""Taps -> the buffers that kernels read: the part of the label branch that stays in the graph."""

import torch
from torch import Tensor, nn

from export.kernel_arrays import HeadArrays
from export.kernel_tiles import SQUARE, KernelTiles
from export.label_spec import LabelSpec
from export.label_tiles import node_weights


class KernelTaps(nn.Module):
    """Levels float16 [N, r * r, C] by extent, ascending -> buffers by name, all float16:
    level_<r> [N, r * r, C padded] of the table's levels; finest [N, grid * grid, C padded]; and
    for each head <kind>_nodes [N, nodes * nodes, M * H1], where the coarse levels, the constant
    and the bias are summed.
    """

    def __init__(
        self,
        heads: list[HeadArrays],
        spec: LabelSpec,
        tiles: KernelTiles,
        level_channels: dict[int, int],  # real, by extent
    ) -> None:
        super().__init__()
        self.tiles, self.finest = tiles, max(level_channels)
        self.widths = {head.kind: head.members * head.hidden[0] for head in heads}
        padded = {r: heads[0].levels[r].shape[0] for r in tiles.direct}
        padded[self.finest] = heads[0].weight1.shape[0]
        for extent, channels in padded.items():
            # Widens by a product, because TensorRT 8.5 does not pad this axis. None where none is
            # needed, as with all published generators.
            missing = channels != level_channels[extent]
            identity = torch.eye(level_channels[extent], channels).half() if missing else None
            self.register_buffer(f"widen_{extent}", identity)
        for extent in tiles.merged:
            rows = node_weights(extent, spec.grid, SQUARE, spec.resize)
            self.register_buffer(f"nodes_{extent}", torch.from_numpy(rows).half())
            for head in heads:
                weights = head.levels[extent][: level_channels[extent]]
                self.register_buffer(f"weights_{head.kind}_{extent}", weights)
        for head in heads:
            self.register_buffer(f"constant_{head.kind}", head.constant)
        self.channels = level_channels

    def forward(self, levels: dict[int, Tensor]) -> dict[str, Tensor]:
        buffers = {f"level_{r}": self._widened(levels[r], r) for r in self.tiles.direct}
        buffers["finest"] = self._widened(levels[self.finest], self.finest)
        return buffers | {f"{kind}_nodes": self._nodes(kind, levels) for kind in self.widths}

    def _widened(self, x: Tensor, extent: int) -> Tensor:
        identity: Tensor | None = getattr(self, f"widen_{extent}")
        return x if identity is None else torch.matmul(x, identity)

    def _nodes(self, kind: str, levels: dict[int, Tensor]) -> Tensor:
        width, nodes = self.widths[kind], self.tiles.nodes
        parts = []
        for r in self.tiles.merged:
            rows: Tensor = getattr(self, f"nodes_{r}")
            x = levels[r].reshape(-1, self.channels[r])
            x = torch.matmul(x, getattr(self, f"weights_{kind}_{r}")).reshape(-1, r * r, width)
            if r == 4:
                x = x + getattr(self, f"constant_{kind}")
            # Down, then across.
            x = torch.matmul(rows, x.reshape(-1, r, r * width))
            x = torch.matmul(rows, x.reshape(-1, r, width))
            parts.append(x.reshape(-1, nodes * nodes, width))
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total
