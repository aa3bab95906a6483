"""The two graphs around the fused kernels.

FusedTaps: ws -> image and the buffers that the kernels read.
FusedFilter: image and the buffers that the kernels write -> outputs of the labeller.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from bundle.fused import PICTURE
from export.fused.launches import LaunchList, Tuning
from export.fused.tiles import SQUARE, KernelTiles, kernel_tiles
from export.fused.weights import HeadArrays, arrays_from_head
from export.graph.label_branch import LabelBranch, PixelLabels
from export.graph.labeller import Labeller
from export.graph.spec import LabelSpec
from export.graph.tiles import node_weights
from export.graph.to_onnx import write_onnx
from nets.interpreter import Interpreter


class KernelTaps(nn.Module):
    """Levels float16 [N, r * r, C] by extent, ascending -> buffers of the kernels, float16 by name.

    level_<r>      [N, r * r, C padded] for each direct level
    finest         [N, grid * grid, C padded]
    <kind>_nodes   [N, nodes * nodes, M * H1] for each head: sum, at the nodes, of the projected
                   merged levels, the constant tap and the bias of the first layer
    """

    def __init__(
        self,
        heads: list[HeadArrays],
        spec: LabelSpec,
        tiles: KernelTiles,
        level_channels: dict[int, int],  # extent -> channels without padding
    ) -> None:
        super().__init__()
        self.tiles, self.finest = tiles, max(level_channels)
        self.widths = {head.kind: head.members * head.hidden[0] for head in heads}
        padded = {r: heads[0].levels[r].shape[0] for r in tiles.direct}
        padded[self.finest] = heads[0].weight1.shape[0]
        for extent, channels in padded.items():
            # Pads channels by a matrix product, because TensorRT 8.5 cannot pad this axis. None if
            # no padding is needed, as for all published generators.
            needed = channels != level_channels[extent]
            identity = torch.eye(level_channels[extent], channels).half() if needed else None
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
        buffers = {f"level_{r}": self._padded(levels[r], r) for r in self.tiles.direct}
        buffers["finest"] = self._padded(levels[self.finest], self.finest)
        return buffers | {f"{kind}_nodes": self._node_sums(kind, levels) for kind in self.widths}

    def _padded(self, x: Tensor, extent: int) -> Tensor:
        identity: Tensor | None = getattr(self, f"widen_{extent}")
        return x if identity is None else torch.matmul(x, identity)

    def _node_sums(self, kind: str, levels: dict[int, Tensor]) -> Tensor:
        width, nodes = self.widths[kind], self.tiles.nodes
        parts = []
        for r in self.tiles.merged:
            rows: Tensor = getattr(self, f"nodes_{r}")
            x = levels[r].reshape(-1, self.channels[r])
            x = torch.matmul(x, getattr(self, f"weights_{kind}_{r}")).reshape(-1, r * r, width)
            if r == 4:
                x = x + getattr(self, f"constant_{kind}")
            # Resize down the columns, then along the rows.
            x = torch.matmul(rows, x.reshape(-1, r, r * width))
            x = torch.matmul(rows, x.reshape(-1, r, width))
            parts.append(x.reshape(-1, nodes * nodes, width))
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total


def fused_branch(
    interpreter: Interpreter,
    spec: LabelSpec,
    const_tap: Tensor,
    level_channels: dict[int, int],  # extent -> channels of its taps together, without constant
    tuning: Tuning,
) -> tuple[LaunchList, KernelTaps]:
    """Launches for an interpreter, and the module that makes the buffers they read.

    const_tap: the constant tap [1, C, 4, 4]. Raises ValueError if the label grid is too small.
    """
    with torch.no_grad():
        heads = [
            arrays_from_head(interpreter.head(kind), level_channels, const_tap)
            for kind in interpreter.heads
        ]
    coarse = tuple(sorted(level_channels))[:-1]
    tiles = kernel_tiles(coarse, spec, tuning.squares, tuning.band_tiles)
    launches = LaunchList(tiles, spec, tuning)
    for head in heads:
        launches.add(head)
    return launches, KernelTaps(heads, spec, tiles, level_channels)


class FusedTaps(nn.Module):
    """ws float32 [N, num_ws, w_dim] -> image float32 [N, 3, H, W], then KernelTaps' buffers."""

    def __init__(self, labeller: Labeller, taps: KernelTaps) -> None:
        super().__init__()
        self.labeller, self.taps = labeller, taps

    def by_name(self, ws: Tensor) -> dict[str, Tensor]:
        """Outputs by name, in the order of `forward`."""
        image, taps = self.labeller.images_and_taps(ws)
        branch = self.labeller.labels
        assert isinstance(branch, LabelBranch)
        levels = dict(zip(branch.extents, branch.levels(taps), strict=True))
        buffers: dict[str, Tensor] = self.taps(levels)
        return {PICTURE: image} | buffers

    def forward(self, ws: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.by_name(ws).values())


class FusedFilter(nn.Module):
    """image, the labeller's filter_inputs, scores if the bundle has a score, then labels of each
    head -> outputs of the labeller."""

    def __init__(self, labeller: Labeller) -> None:
        super().__init__()
        self.labeller = labeller

    def forward(
        self, image: Tensor, max_uncertainty: Tensor, *boxes_scores_and_labels: Tensor
    ) -> tuple[Tensor, ...]:
        rest = list(boxes_scores_and_labels)
        boxes = rest.pop(0) if self.labeller.content is not None else None
        scores = rest.pop(0) if self.labeller.spec.score_source is not None else None
        planes = dict(zip(self.labeller.head_outputs, rest, strict=True))  # [N, outputs, H, W]
        mask, depth = (planes[k][:, 0] if k in planes else None for k in ("segmentation", "depth"))
        labels = PixelLabels(mask, planes.get("keypoints"), depth, scores)
        return self.labeller.filtered_outputs(image, labels, max_uncertainty, boxes)


def taps_onnx(labeller: Labeller, taps: KernelTaps, path: Path) -> None:
    """Writes FusedTaps as ONNX: input ws, outputs as `FusedTaps.by_name` names them."""
    synthesis = labeller.synthesis
    ws = torch.zeros(1, synthesis.num_ws, synthesis.w_dim)
    module = FusedTaps(labeller, taps)
    with torch.no_grad():
        outputs = {name: tuple(value.shape[1:]) for name, value in module.by_name(ws).items()}
    write_onnx(module, {"ws": ws}, outputs, path)


def filter_onnx(labeller: Labeller, path: Path) -> None:
    """Writes FusedFilter as ONNX: inputs named like the buffers, outputs like the labeller's."""
    spec = labeller.spec
    pixels = (spec.height, spec.width)
    inputs = {PICTURE: torch.zeros(1, 3, *pixels), **labeller.filter_inputs}
    if spec.score_source is not None:
        inputs["scores"] = torch.zeros(1, *pixels)
    for kind, outputs in labeller.head_outputs.items():
        planes = 1 if kind == "segmentation" else outputs
        inputs[f"{kind}_labels"] = torch.zeros(1, planes, *pixels)
    write_onnx(FusedFilter(labeller), inputs, labeller.output_extents, path)
