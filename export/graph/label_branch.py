"""The label branch: taps -> every head's members -> labels and uncertainty, in strips of tiles.

The first layer is a sum over levels (a linear layer over concatenated features), so each level
is projected at its own resolution and only the projection is resized. The finest level needs no
resizing and is projected strip by strip. Read bottom-up: member, branch.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.graph.ensemble import Consensus, mean_and_variance
from export.graph.spec import LabelSpec
from export.graph.tiles import TileReads, node_weights, tile_pixels, tile_reads
from nets.interpreter import EnsembleHead, Interpreter


def folded_norm(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Evaluation-mode batch norm as (scale, shift), float64 [features]."""
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None and var is not None
    scale = norm.weight.detach().double() / torch.sqrt(var.double() + norm.eps)
    return scale, norm.bias.detach().double() - mean.double() * scale


class Member(nn.Module):
    """One member of one head, its batch norms multiplied into the linear layers behind them."""

    bias: Tensor
    weight2: Tensor
    bias2: Tensor
    weight3: Tensor
    bias3: Tensor
    const: Tensor

    def __init__(
        self,
        head: EnsembleHead,
        index: int,
        level_channels: list[int],  # D split by level, ascending
        const_tap: Tensor,  # [1, C, 4, 4], the leading features of the hypercolumn; C may be 0
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        h1, h2 = head.config.hidden
        rows1, rows2 = slice(index * h1, (index + 1) * h1), slice(index * h2, (index + 1) * h2)
        scale1, shift1 = (t[rows1] for t in folded_norm(head.norm1))
        scale2, shift2 = (t[rows2] for t in folded_norm(head.norm2))
        weight1 = head.linear1.weight.detach()[rows1].double().t()  # [D, h1]
        weight2 = head.weight2.detach()[index].double()  # [h1, h2]
        weight3 = head.weight3.detach()[index].double()  # [h2, c]
        bias2 = head.bias2.detach()[index].double() + shift1 @ weight2
        bias3 = head.bias3.detach()[index].double() + shift2 @ weight3
        # The constant's product, and with it the bias, is the same for every image.
        channels = const_tap.shape[1]
        const = const_tap[0].double().flatten(1).t() @ weight1[:channels]  # [16, h1]
        const = const + head.linear1.bias.detach()[rows1].double()
        self.register_buffer("const", const.to(dtype))
        for i, w in enumerate(weight1[channels:].split(level_channels)):
            self.register_buffer(f"weight1_{i}", w.to(dtype).contiguous())
        self.register_buffer("weight2", (scale1[:, None] * weight2).to(dtype))
        self.register_buffer("weight3", (scale2[:, None] * weight3).to(dtype))
        self.register_buffer("bias2", bias2[0].to(dtype))
        self.register_buffer("bias3", bias3[0].to(dtype))

    def project(self, features: Tensor, level: int, pixels: int) -> Tensor:
        """The first layer's share of one level: [N, P, C] -> [N, P, h1]."""
        weight: Tensor = getattr(self, f"weight1_{level}")
        # Through two dimensions, so that no runtime folds the transposition to channels last
        # into every member's product: reading across rows is three times slower.
        y = torch.matmul(features.reshape(-1, weight.shape[0]), weight)
        y = y.reshape(-1, pixels, weight.shape[1])
        return y + self.const if level == 0 else y

    def finish(self, sums: Tensor, finest: Tensor, level: int) -> Tensor:
        """Resized coarse levels [P, h1] and finest features [P, C] -> outputs [P, c]."""
        x = torch.addmm(sums, finest, getattr(self, f"weight1_{level}")).relu()
        x = torch.addmm(self.bias2, x, self.weight2).relu()
        return torch.addmm(self.bias3, x, self.weight3)


def resized(x: Tensor, extent: int) -> Tensor:
    """x [N, C, r, r] -> [N, C, extent, extent], bilinear; half of r is the mean of 2x2."""
    return F.interpolate(x, size=(extent, extent), mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class PixelLabels:
    """What the branch gives, for the crop [N, H, W]; None for absent heads."""

    mask: Tensor | None  # class ids as float32
    heatmaps: Tensor | None  # float32 [N, K, H, W]
    depth: Tensor | None
    uncertainty: Tensor | None  # per pixel


class LabelBranch(nn.Module):
    """Taps [N, C, r, r], ascending and without the constant -> labels of the crop."""

    weights: Tensor
    columns: Tensor

    def __init__(
        self,
        interpreter: Interpreter,
        spec: LabelSpec,
        const_tap: Tensor,
        level_channels: dict[int, int],  # extent -> channels of its taps together, no constant
        dtype: torch.dtype,
        *,
        tile: int = 8,
        strip_pixels: int = 2048,
    ) -> None:
        super().__init__()
        self.spec, self.tile, self.dtype = spec, min(tile, spec.grid), dtype
        self.left_out = 1 if const_tap.shape[1] else 0  # taps at 4 pixels that do not vary
        self.strip_tiles = max(1, strip_pixels // self.tile**2)
        self.extents = tuple(sorted(level_channels))
        reads = tile_reads(self.extents[:-1], spec.grid, self.tile, spec.resize)
        self.direct, self.merged, self.nodes = reads.direct, reads.merged, reads.nodes
        self._register_geometry(reads)
        if "segmentation" in interpreter.heads:
            self.consensus = Consensus(interpreter.head("segmentation").config.outputs)
        self.channels = channels = [level_channels[r] for r in self.extents]
        self.members = nn.ModuleDict(
            {
                kind: nn.ModuleList(
                    Member(head, i, channels, const_tap, dtype) for i in range(head.config.members)
                )
                for kind, head in ((k, interpreter.head(k)) for k in interpreter.heads)
            }
        )

    def _register_geometry(self, reads: TileReads) -> None:
        self.first_tile = self.spec.crop_top // self.tile
        end = -(-(self.spec.crop_top + self.spec.height) // self.tile)
        self.register_buffer("weights", torch.from_numpy(reads.weights).to(self.dtype))
        self.tile_rows = end - self.first_tile
        indices = reads.indices[self.first_tile : end].reshape(-1, reads.weights.shape[1])
        pixels = tile_pixels(self.spec.grid, self.tile)[self.first_tile : end]
        pixels = pixels.reshape(-1, self.tile**2)
        starts = range(0, len(indices), self.strip_tiles)
        self.strips = len(starts)
        for i, start in enumerate(starts):
            tiles = slice(start, start + self.strip_tiles)
            self.register_buffer(f"reads_{i}", torch.from_numpy(indices[tiles].ravel()))
            self.register_buffer(f"pixels_{i}", torch.from_numpy(pixels[tiles].ravel()))
        grid, resize = self.spec.grid, self.spec.resize
        nodes = [node_weights(r, grid, self.tile, resize) for r in reads.merged]
        for extent, matrix in zip(reads.merged, nodes, strict=True):
            self.register_buffer(f"rows_{extent}", torch.from_numpy(matrix).to(self.dtype))
        if nodes:
            columns = torch.cat([torch.from_numpy(m) for m in nodes], dim=1)
            self.register_buffer("columns", columns.to(self.dtype))

    def forward(self, taps: list[Tensor]) -> PixelLabels:
        levels = self.levels(taps)
        finest = [
            levels[-1].index_select(1, pixels).reshape(-1, self.channels[-1])
            for pixels in self._strips("pixels")
        ]
        mask = heatmaps = depth = uncertainty = None
        for kind, ensemble in self.members.items():
            assert isinstance(ensemble, nn.ModuleList)
            scored = kind == self.spec.score_source
            outputs = (self._outputs(m, levels[:-1], finest) for m in ensemble)
            if kind == "segmentation":
                mask, score = self.consensus(outputs, scored)
            else:
                mean, score = mean_and_variance(outputs)
                heatmaps, depth = (mean, depth) if kind == "keypoints" else (heatmaps, mean)
            uncertainty = score if scored else uncertainty
        return PixelLabels(
            self._plane(mask),
            None if heatmaps is None else self._planes(heatmaps),
            self._plane(depth),
            self._plane(uncertainty),
        )

    def _strips(self, name: str) -> list[Tensor]:
        return [getattr(self, f"{name}_{i}") for i in range(self.strips)]

    def levels(self, taps: list[Tensor]) -> list[Tensor]:
        """Taps of one extent side by side, channels last: [N, r * r, C], ascending."""
        by_extent: dict[int, list[Tensor]] = {}
        for i, tap in enumerate(taps):
            extent = 4 * 2 ** ((i + self.left_out) // 2)  # two taps for each
            if extent > self.spec.grid:
                tap = resized(tap, self.spec.grid)
            by_extent.setdefault(min(extent, self.spec.grid), []).append(tap)
        return [
            torch.cat(by_extent[r], dim=1).reshape(-1, c, r * r).transpose(1, 2)
            for r, c in zip(self.extents, self.channels, strict=True)
        ]

    def _plane(self, x: Tensor | None) -> Tensor | None:  # [N, P] -> [N, H, W]
        return None if x is None else self._planes(x.reshape(-1, x.shape[1], 1))[:, 0]

    def _planes(self, x: Tensor) -> Tensor:
        """[N, P, outputs], tile by tile -> [N, outputs, H, W], cropped to the exact rows."""
        across, t, outputs = self.spec.grid // self.tile, self.tile, x.shape[2]
        top = self.spec.crop_top - self.first_tile * t
        x = x.reshape(-1, self.tile_rows, across, t, t, outputs).permute(0, 5, 1, 3, 2, 4)
        x = x.reshape(-1, outputs, self.tile_rows * t, self.spec.grid)
        return x[:, :, top : top + self.spec.height]

    def _table(self, member: nn.Module, levels: list[Tensor]) -> Tensor:
        """A member's samples of the coarse levels, then the nodes: [N, rows, h1]."""
        assert isinstance(member, Member)
        projected = {
            r: member.project(x, i, r * r)
            for i, (r, x) in enumerate(zip(self.extents[:-1], levels, strict=True))
        }
        parts = [projected[r] for r in self.direct]
        if self.merged:
            h1, nodes = member.weight2.shape[0], self.nodes
            across = [
                torch.matmul(
                    getattr(self, f"rows_{r}"), projected[r].reshape(-1, r, r * h1)
                ).reshape(-1, nodes, r, h1)
                for r in self.merged
            ]
            merged = torch.matmul(self.columns, torch.cat(across, dim=2))
            parts.append(merged.reshape(-1, nodes * nodes, h1))
        return torch.cat(parts, dim=1)

    def _outputs(self, member: nn.Module, levels: list[Tensor], finest: list[Tensor]) -> Tensor:
        """A member's outputs, float32 [N, P, c], pixels tile by tile."""
        assert isinstance(member, Member)
        table = self._table(member, levels)
        h1, outputs = member.weight2.shape[0], member.weight3.shape[1]
        strips: list[Tensor] = []
        for reads, pixels in zip(self._strips("reads"), finest, strict=True):
            windows = table.index_select(1, reads).reshape(-1, self.weights.shape[1], h1)
            sums = torch.matmul(self.weights, windows).reshape(-1, h1)
            x = member.finish(sums, pixels, len(self.extents) - 1)
            count = reads.shape[0] // self.weights.shape[1] * self.weights.shape[0]
            strips.append(x.reshape(-1, count, outputs))
        return torch.cat(strips, dim=1).to(torch.float32)
