"""Heads and tiles -> the buffers, kernels and launches that label one sample."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bundle.fused import Buffer, BufferKind, Kernel, Launch, Pointer
from export.fused.tiles import Band, KernelTiles
from export.fused.weights import HeadArrays
from export.graph.spec import LabelSpec

HALF, WORD = 2, 4  # bytes


@dataclass(frozen=True)
class Tuning:
    """What changes the speed and not the result."""

    squares: tuple[int, int] = (1, 2)  # of 8 x 8 pixels in a tile, down and across
    band_tiles: int = 128  # of a launch: a wave of programs, and a table for the L2 cache
    chunk: int = 64  # of the first layer's width at a time
    rows: int = 128  # of the table in one block
    warps: int = 8
    stages: int = 2


class LaunchList:
    """Collects what the heads of one bundle need, in the order of launches."""

    def __init__(self, tiles: KernelTiles, spec: LabelSpec, tuning: Tuning) -> None:
        self.tiles, self.spec, self.tuning = tiles, spec, tuning
        self.buffers: dict[str, Buffer] = {}
        self.constants: dict[str, Tensor] = {}
        self.kernels: dict[str, Kernel] = {}
        self.launches: list[Launch] = []
        # Named by the tile, because a bundle may hold programs of several.
        self._tile = "{}x{}".format(*tiles.tile)
        self._constant(f"interpolation_{self._tile}", torch.from_numpy(tiles.interpolation))
        for i, band in enumerate(tiles.bands):
            self._constant(f"reads_{self._tile}_{i}", torch.from_numpy(band.reads))

    def add(self, head: HeadArrays) -> None:
        """All bands of one head."""
        width, spec = head.members * head.hidden[0], self.spec
        votes = head.kind == "segmentation"
        planes = 1 if votes else head.outputs
        for name in ("weight1", "weight2", "bias2", "weight3", "bias3"):
            self._constant(f"{head.kind}_{name}", getattr(head, name))
        for extent in self.tiles.direct:
            weights = head.levels[extent]
            self._constant(f"{head.kind}_weights_{extent}", weights)
            self._buffer("features", f"level_{extent}", "float16", extent**2, weights.shape[0])
        self._buffer("features", "finest", "float16", spec.grid**2, head.weight1.shape[0])
        self._buffer("features", f"{head.kind}_nodes", "float16", self.tiles.nodes**2, width)
        self._buffer("labels", f"{head.kind}_labels", "float32", planes, spec.height, spec.grid)
        if spec.score_source == head.kind:
            self._buffer("labels", "scores", "float32", spec.height, spec.grid)
        known = self.buffers.get("table")
        widest = max(width, known.extents[1] if known else 0)
        self.buffers.pop("table", None)
        self._buffer("scratch", "table", "float16", self.tiles.table_rows, widest)
        for index, band in enumerate(self.tiles.bands):
            self._project(head, band)
            self._label(head, band, index)

    def _project(self, head: HeadArrays, band: Band) -> None:
        width, rows = head.members * head.hidden[0], self.tuning.rows
        columns = min(128, head.hidden[0])
        for level in band.levels:
            channels = head.levels[level.extent].shape[0]
            constants = {
                "CHANNELS": channels,
                "WIDTH": width,
                "ROWS": rows,
                "COLUMNS": columns,
                "STEP": 64 if channels % 64 == 0 else 32,
            }
            self._launch(
                Kernel("project_rows", constants, self.tuning.warps, 3),
                (width // columns, -(-level.count // rows), 1),
                self._sample(f"level_{level.extent}", level.first * channels * HALF),
                Pointer(f"{head.kind}_weights_{level.extent}"),
                Pointer("table", level.place * width * HALF),
                level.count,
            )

    def _label(self, head: HeadArrays, band: Band, index: int) -> None:
        spec, tiles, kind = self.spec, self.tiles, head.kind
        scored = spec.score_source == kind
        constants = {
            "CROP_TOP": spec.crop_top,
            "HEIGHT": spec.height,
            "GRID": spec.grid,
            "TILE_ROWS": tiles.tile[0],
            "TILE_COLUMNS": tiles.tile[1],
            "K0": tiles.reads[0],
            "K1": tiles.reads[1],
            "F0": head.finest[0],
            "F1": head.finest[1],
            "MEMBERS": head.members,
            "H1": head.hidden[0],
            "H2": head.hidden[1],
            "OUTPUTS": head.padded_outputs,
            "CHUNK": min(self.tuning.chunk, head.hidden[0]),
            "VOTES": int(kind == "segmentation"),
            "SCORED": int(scored),
        }
        self._launch(
            Kernel("label_pixels", constants, self.tuning.warps, self.tuning.stages),
            (len(band.reads), 1, 1),
            Pointer("table"),
            self._sample(f"{kind}_nodes"),
            self._sample("finest"),
            Pointer(f"reads_{self._tile}_{index}"),
            Pointer(f"interpolation_{self._tile}"),
            *(Pointer(f"{kind}_{n}") for n in ("weight1", "weight2", "bias2", "weight3", "bias3")),
            self._sample(f"{kind}_labels"),
            # Without a score nothing is written there.
            self._sample("scores" if scored else f"{kind}_labels"),
            band.table_rows,
            band.first_tile,
            head.outputs,
        )

    def _launch(
        self, kernel: Kernel, grid: tuple[int, int, int], *arguments: Pointer | int
    ) -> None:
        same = [name for name, known in self.kernels.items() if known == kernel]
        name = same[0] if same else f"{kernel.entry}-{len(self.kernels)}"
        self.kernels[name] = kernel
        self.launches.append(Launch(name, grid, list(arguments)))

    def _sample(self, name: str, first: int = 0) -> Pointer:
        buffer = self.buffers[name]
        size = int(np.prod(buffer.extents)) * (HALF if buffer.dtype == "float16" else WORD)
        return Pointer(name, first, size)

    def _constant(self, name: str, value: Tensor) -> None:
        dtype = {torch.float16: "float16", torch.float32: "float32", torch.int32: "int32"}
        self._buffer("constant", name, dtype[value.dtype], *value.shape)
        self.constants[name] = value.contiguous()

    def _buffer(self, kind: BufferKind, name: str, dtype: str, *extents: int) -> None:
        buffer = Buffer(kind, dtype, list(extents))  # type: ignore[arg-type]
        assert self.buffers.setdefault(name, buffer) == buffer, name
