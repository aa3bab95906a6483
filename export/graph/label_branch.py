"""The label branch: taps of the generator -> masks, heatmaps, depth and uncertainty per pixel.

The taps of one extent form a level. The first layer of a member is linear over the concatenated
levels, so it is a sum over levels: each level is multiplied by its weights at its own extent
(projected), and only the h1 projected channels are resized, by the tiles of export.graph.tiles.
The finest level has the grid's extent, needs no resizing, and is projected strip by strip. A strip
is some tiles; computing by strips bounds memory. Read bottom-up: member, branch.
"""

from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.graph.ensemble import Consensus, mean_and_variance
from export.graph.spec import LabelSpec
from export.graph.tiles import TileReads, node_weights, padded_reads, tile_pixels, tile_reads
from nets.config import size_at
from nets.interpreter import EnsembleHead, Interpreter


def folded_norm(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Evaluation-mode batch norm as y = scale * x + shift: (scale, shift), float64 [features]."""
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None and var is not None
    scale = norm.weight.detach().double() / torch.sqrt(var.double() + norm.eps)
    return scale, norm.bias.detach().double() - mean.double() * scale


class Member(nn.Module):
    """One member of one head; its batch norms are folded into the linear layers behind them."""

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
        const_tap: Tensor,  # [1, C, h, w] at the coarsest level, the first features; C may be 0
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
        # The projected constant tap and the bias are the same for every image: one sum, at the
        # coarsest level.
        channels = const_tap.shape[1]
        const = const_tap[0].double().flatten(1).t() @ weight1[:channels]  # [h * w, h1]
        const = const + head.linear1.bias.detach()[rows1].double()
        self.register_buffer("const", const.to(dtype))
        for i, w in enumerate(weight1[channels:].split(level_channels)):
            self.register_buffer(f"weight1_{i}", w.to(dtype).contiguous())
        self.register_buffer("weight2", (scale1[:, None] * weight2).to(dtype))
        self.register_buffer("weight3", (scale2[:, None] * weight3).to(dtype))
        self.register_buffer("bias2", bias2[0].to(dtype))
        self.register_buffer("bias3", bias3[0].to(dtype))

    def project(self, features: Tensor, level: int, pixels: int) -> Tensor:
        """Projects level number `level`: features [N, P, C] -> its share of the layer [N, P, h1].

        Level 0 also gets the constant tap and the bias.
        """
        weight: Tensor = getattr(self, f"weight1_{level}")
        # The reshape to two dimensions keeps runtimes from fusing the transposition to channels
        # last into every member's product: reading across rows is three times slower.
        y = torch.matmul(features.reshape(-1, weight.shape[0]), weight)
        y = y.reshape(-1, pixels, weight.shape[1])
        return y + self.const if level == 0 else y

    def finish(self, sums: Tensor, finest: Tensor, level: int) -> Tensor:
        """The rest of the first layer, and the other two layers.

        sums: resized projections of the coarse levels [P, h1]. finest: features of the finest
        level [P, C], which is number `level`. Returns outputs [P, c].
        """
        x = torch.addmm(sums, finest, getattr(self, f"weight1_{level}")).relu()
        x = torch.addmm(self.bias2, x, self.weight2).relu()
        return torch.addmm(self.bias3, x, self.weight3)


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """x [N, C, h, w] -> [N, C, *size], bilinear; 2x2 means if the size is half of (h, w)."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def fitting_tile(tile: int, size: tuple[int, int]) -> int:
    """The largest power of two up to `tile` that divides both sides of a grid of this size."""
    while size[0] % tile or size[1] % tile:
        tile //= 2
    return tile


@dataclass(frozen=True)
class PixelLabels:
    """Output of the branch at the cropped pixels; None where the bundle has no such head."""

    mask: Tensor | None  # class ids as float32 [N, H, W]
    heatmaps: Tensor | None  # float32 [N, K, H, W]
    depth: Tensor | None  # float32 [N, H, W]
    uncertainty: Tensor | None  # float32 [N, H, W]


class LabelBranch(nn.Module):
    """Taps [N, C, h, w], ascending and without the constant tap -> PixelLabels of the crop.

    Levels have nominal extents r: h * w samples, which are r * r for square images.

    Example: grid 64, crop_top 5, height 43, tile 8, strip_pixels 256. The crop needs rows 0 to 5
    of the 8 rows of tiles, which are 48 tiles of 64 pixels, in 12 strips of 4 tiles.
    """

    weights: Tensor
    columns: Tensor

    def __init__(
        self,
        interpreter: Interpreter,
        spec: LabelSpec,
        const_tap: Tensor,
        level_channels: dict[int, int],  # extent -> channels of its taps together, without constant
        dtype: torch.dtype,
        *,
        # Extents of the taps without the constant one, ascending. None: two for each power of two
        # from 4 on, of which the constant tap is the first.
        tap_extents: list[int] | None = None,
        tile: int = 8,
        strip_pixels: int = 2048,
    ) -> None:
        super().__init__()
        self.spec, self.tile, self.dtype = spec, fitting_tile(tile, spec.size), dtype
        self.constant_taps = 1 if const_tap.shape[1] else 0  # taps at 4 pixels that `taps` lacks
        self.tap_extents = tap_extents
        self.strip_tiles = max(1, strip_pixels // self.tile**2)
        self.extents = tuple(sorted(level_channels))
        reads = tile_reads(self.extents[:-1], spec.grid, self.tile, spec.resize, start=spec.start)
        if dtype == torch.float16:  # tensor cores load eight float16 at once
            reads = padded_reads(reads, 8)
        self.direct, self.merged, self.nodes = reads.direct, reads.merged, reads.nodes
        self._register_geometry(reads)
        if "segmentation" in interpreter.heads:
            classes = interpreter.head("segmentation").config.outputs
            self.consensus = Consensus(classes, spec.score_measure)
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
        """Buffers for the tiles that the crop needs: rows first_tile to first_tile + tile_rows - 1.

        weights [pixels of a tile, K]; for each strip reads_<i> [tiles * K], rows of the table, and
        pixels_<i> [tiles * pixels of a tile], pixels of the grid; rows_<r> [nodes down, h] for each
        merged level, and columns [nodes across, sum of w], which are side by side.
        """
        self.first_tile = self.spec.crop_top // self.tile
        end = -(-(self.spec.crop_top + self.spec.height) // self.tile)
        self.register_buffer("weights", torch.from_numpy(reads.weights).to(self.dtype))
        self.tile_rows = end - self.first_tile
        indices = reads.indices[self.first_tile : end].reshape(-1, reads.weights.shape[1])
        pixels = tile_pixels(self.spec.size, self.tile)[self.first_tile : end]
        pixels = pixels.reshape(-1, self.tile**2)
        starts = range(0, len(indices), self.strip_tiles)
        self.strips = len(starts)
        for i, start in enumerate(starts):
            tiles = slice(start, start + self.strip_tiles)
            self.register_buffer(f"reads_{i}", torch.from_numpy(indices[tiles].ravel()))
            self.register_buffer(f"pixels_{i}", torch.from_numpy(pixels[tiles].ravel()))
        columns = []
        for extent in reads.merged:
            down, across = (
                torch.from_numpy(node_weights(samples, side, self.tile, self.spec.resize))
                for samples, side in zip(self._size(extent), self.spec.size, strict=True)
            )
            self.register_buffer(f"rows_{extent}", down.to(self.dtype))
            columns.append(across)
        if columns:
            self.register_buffer("columns", torch.cat(columns, dim=1).to(self.dtype))

    def _size(self, extent: int) -> tuple[int, int]:
        """Rows and columns of the level of this nominal extent."""
        return size_at(extent, self.spec.start)

    def forward(self, taps: list[Tensor]) -> PixelLabels:
        """One head after the other; the members of a head are summed as they are computed.

        Tensors in the order of computation; P pixels are in tile order until `_planes`:

            levels     [N, h * w, C] for each extent
            finest     [N * pixels of a strip, C] for each strip
            outputs    [N, P, c] for each member of the head
            values     [N, P] majority class, or [N, P, c] mean over the members
            score      [N, P] disagreement of the members
        """
        levels = self.levels(taps)
        finest = [
            levels[-1].index_select(1, pixels).reshape(-1, self.channels[-1])
            for pixels in self._strips("pixels")
        ]
        values: dict[str, Tensor] = {}  # kind of head -> values
        uncertainty = None
        for kind, ensemble in self.members.items():
            assert isinstance(ensemble, nn.ModuleList)
            scored = kind == self.spec.score_source
            outputs = (self._member_outputs(m, levels[:-1], finest) for m in ensemble)
            if kind == "segmentation":
                values[kind], score = self.consensus(outputs, scored)
            else:
                values[kind], score = mean_and_variance(outputs)
            uncertainty = score if scored else uncertainty
        heatmaps = values.get("keypoints")
        return PixelLabels(
            self._plane(values.get("segmentation")),
            None if heatmaps is None else self._planes(heatmaps),
            self._plane(values.get("depth")),
            self._plane(uncertainty),
        )

    def levels(self, taps: list[Tensor]) -> list[Tensor]:
        """Taps of the same extent concatenated, channels last: [N, h * w, C] for each extent.

        Taps finer than the grid are resized to it first, and so belong to the finest level.
        """
        by_extent: dict[int, list[Tensor]] = {}
        extents = self.tap_extents or [
            4 * 2 ** ((i + self.constant_taps) // 2) for i in range(len(taps))
        ]
        for extent, tap in zip(extents, taps, strict=True):
            if extent > self.spec.grid:
                tap = resized(tap, self.spec.size)
            by_extent.setdefault(min(extent, self.spec.grid), []).append(tap)
        return [
            torch.cat(by_extent[r], dim=1).reshape(-1, c, prod(self._size(r))).transpose(1, 2)
            for r, c in zip(self.extents, self.channels, strict=True)
        ]

    def _strips(self, name: str) -> list[Tensor]:
        return [getattr(self, f"{name}_{i}") for i in range(self.strips)]

    def _member_outputs(
        self, member: nn.Module, coarse: list[Tensor], finest: list[Tensor]
    ) -> Tensor:
        """A member's outputs, float32 [N, P, c], pixels in tile order.

        coarse: all levels but the finest. finest: features of the finest level by strip.
        """
        assert isinstance(member, Member)
        table = self._table(member, coarse)
        h1, outputs = member.weight2.shape[0], member.weight3.shape[1]
        strips: list[Tensor] = []
        for reads, pixels in zip(self._strips("reads"), finest, strict=True):
            windows = table.index_select(1, reads).reshape(-1, self.weights.shape[1], h1)
            sums = torch.matmul(self.weights, windows).reshape(-1, h1)
            x = member.finish(sums, pixels, len(self.extents) - 1)
            count = reads.shape[0] // self.weights.shape[1] * self.weights.shape[0]
            strips.append(x.reshape(-1, count, outputs))
        return torch.cat(strips, dim=1).to(torch.float32)

    def _table(self, member: nn.Module, coarse: list[Tensor]) -> Tensor:
        """The table that tiles read, [N, rows, h1]: a member's projected direct levels, then nodes.

        Example: grid 64, coarse levels 4, 8, 16, 32, tile 8, of which level 4 is merged.

            rows      0 to 63   64 to 319   320 to 1343   1344 to 1424
            content   level 8   level 16    level 32      9 x 9 nodes of level 4
        """
        assert isinstance(member, Member)
        projected = {
            r: member.project(x, i, prod(self._size(r)))
            for i, (r, x) in enumerate(zip(self.extents[:-1], coarse, strict=True))
        }
        parts = [projected[r] for r in self.direct]
        if self.merged:
            parts.append(self._node_sums(projected, member.weight2.shape[0]))
        return torch.cat(parts, dim=1)

    def _node_sums(self, projected: dict[int, Tensor], h1: int) -> Tensor:
        """Projections of the merged levels resized to the nodes and added: [N, nodes down * nodes
        across, h1].

        Every level is resized down its columns by rows_<r>: [N, h, w, h1] -> [N, nodes down, w,
        h1]. One product with `columns` then resizes along the rows and adds the levels.
        """
        resized_down = []
        for r in self.merged:
            rows, columns = self._size(r)
            x = projected[r].reshape(-1, rows, columns * h1)
            x = torch.matmul(getattr(self, f"rows_{r}"), x)
            resized_down.append(x.reshape(-1, self.nodes[0], columns, h1))
        sums = torch.matmul(self.columns, torch.cat(resized_down, dim=2))
        return sums.reshape(-1, prod(self.nodes), h1)

    def _plane(self, x: Tensor | None) -> Tensor | None:
        """[N, P] or [N, P, 1] in tile order -> [N, H, W]."""
        return None if x is None else self._planes(x.reshape(-1, x.shape[1], 1))[:, 0]

    def _planes(self, x: Tensor) -> Tensor:
        """[N, P, c] in tile order -> [N, c, H, W], without the tiles' rows outside the crop.

        Example: tiles of 2 x 2 pixels, grid 4, two rows of tiles, crop_top 1, height 2.

            P = 16 in tile order    rows of the grid    rows 1 and 2
            0 1 2 3 | 4 5 6 7       0 1 4 5
            8 9 a b | c d e f       2 3 6 7             2 3 6 7
                                    8 9 c d             8 9 c d
                                    a b e f
        """
        columns, t, outputs = self.spec.width, self.tile, x.shape[2]
        top = self.spec.crop_top - self.first_tile * t
        x = x.reshape(-1, self.tile_rows, columns // t, t, t, outputs).permute(0, 5, 1, 3, 2, 4)
        x = x.reshape(-1, outputs, self.tile_rows * t, columns)
        return x[:, :, top : top + self.spec.height]
