"""Weights of the heads, and tiles -> the buffers, kernels and launches that label one sample.

The result is data: bundle.fused stores it, and the engine launches it without Triton or torch.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bundle.fused import Buffer, BufferKind, Kernel, Launch, Pointer
from export.fused.tiles import Band, KernelTiles
from export.fused.weights import HeadArrays
from export.graph.spec import LabelSpec
from nets.labels import Measure

FLOAT16_BYTES, FLOAT32_BYTES = 2, 4
MEASURES: dict[Measure, int] = {"jensen_shannon": 0, "entropy": 1, "least_confidence": 2}
PROJECT_WARPS = 8  # 4 would hold 128 sums per thread, and spill


@dataclass(frozen=True)
class Tuning:
    """Settings that change the speed of the kernels but not their result."""

    squares: tuple[int, int] = (1, 2)  # height and width of a tile, in units of 8 pixels
    band_tiles: int = 128  # tiles per launch; a band's table should fit the L2 cache
    chunk: int = 64  # hidden units of the first layer that label_pixels computes at a time
    rows: int = 128  # rows of the table that a program of project_rows computes
    warps: int = 8  # warps of 32 threads per program of label_pixels
    stages: int = 2  # depth of the compiler's software pipeline


class LaunchList:
    """Buffers, constants, kernels and launches of the heads of one bundle.

    A head is labelled band by band. For each band, project_rows fills the table, once for each
    direct level; then one launch of label_pixels reads it.
    """

    def __init__(self, tiles: KernelTiles, spec: LabelSpec, tuning: Tuning) -> None:
        self.tiles, self.spec, self.tuning = tiles, spec, tuning
        self.buffers: dict[str, Buffer] = {}
        self.constants: dict[str, Tensor] = {}
        self.kernels: dict[str, Kernel] = {}
        self.launches: list[Launch] = []
        # In names of buffers, because programs of one bundle may have tiles of different sizes.
        self._tile_name = "{}x{}".format(*tiles.tile)
        self._constant(f"interpolation_{self._tile_name}", torch.from_numpy(tiles.interpolation))
        for i, band in enumerate(tiles.bands):
            self._constant(f"reads_{self._tile_name}_{i}", torch.from_numpy(band.reads))

    def add(self, head: HeadArrays) -> None:
        """Appends the buffers, constants and launches of one head."""
        self._add_buffers(head)
        for index, band in enumerate(self.tiles.bands):
            self._launch_project_rows(head, band)
            self._launch_label_pixels(head, band, index)

    def _add_buffers(self, head: HeadArrays) -> None:
        """Buffers are shared by the heads where the name lacks the head's kind."""
        width, spec = head.members * head.hidden[0], self.spec
        planes = 1 if head.kind == "segmentation" else head.outputs
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
        # The table is as wide as the widest head so far.
        table = self.buffers.pop("table", None)
        max_width = max(width, table.extents[1] if table else 0)
        self._buffer("scratch", "table", "float16", self.tiles.table_rows, max_width)

    def _launch_project_rows(self, head: HeadArrays, band: Band) -> None:
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
            first_byte = level.first_sample * channels * FLOAT16_BYTES
            self._launch(
                Kernel("project_rows", constants, PROJECT_WARPS, 3),
                (width // columns, -(-level.count // rows), 1),
                self._of_sample(f"level_{level.extent}", first_byte),
                Pointer(f"{head.kind}_weights_{level.extent}"),
                Pointer("table", level.table_row * width * FLOAT16_BYTES),
                level.count,
            )

    def _launch_label_pixels(self, head: HeadArrays, band: Band, index: int) -> None:
        """One program for each tile of the band; arguments in the order of the kernel.

        Example: a segmentation head of 10 members, hidden (128, 32), 20 classes; grid 512, tiles
        of 8 x 16, 100 samples read per tile, 64 channels of the finest level. A band of 128 tiles
        is 4 rows of 32 tiles, and band 1 starts at tile 128. Constants: K0, K1 = 128, 0;
        F0, F1 = 64, 0; H1, H2 = 128, 32; OUTPUTS = 32 (20 padded); CHUNK = 64, so that a member
        has 2 chunks.
        """
        self._launch(
            Kernel(
                "label_pixels",
                self._label_constants(head),
                self.tuning.warps,
                self.tuning.stages,
            ),
            (len(band.reads), 1, 1),
            Pointer("table"),
            self._of_sample(f"{head.kind}_nodes"),
            self._of_sample("finest"),
            Pointer(f"reads_{self._tile_name}_{index}"),
            Pointer(f"interpolation_{self._tile_name}"),
            Pointer(f"{head.kind}_weight1"),
            Pointer(f"{head.kind}_weight2"),
            Pointer(f"{head.kind}_bias2"),
            Pointer(f"{head.kind}_weight3"),
            Pointer(f"{head.kind}_bias3"),
            self._of_sample(f"{head.kind}_labels"),
            # A head that does not score writes no scores, but the kernel takes a pointer.
            self._of_sample("scores" if self._scores(head) else f"{head.kind}_labels"),
            band.table_rows,
            band.first_tile,
            head.outputs,
        )

    def _label_constants(self, head: HeadArrays) -> dict[str, int]:
        spec, tiles = self.spec, self.tiles
        return {
            "CROP_TOP": spec.crop_top,
            "HEIGHT": spec.height,
            "GRID": spec.grid,
            "TILE_ROWS": tiles.tile[0],
            "TILE_COLUMNS": tiles.tile[1],
            "K0": tiles.read_slabs[0],
            "K1": tiles.read_slabs[1],
            "F0": head.finest[0],
            "F1": head.finest[1],
            "MEMBERS": head.members,
            "H1": head.hidden[0],
            "H2": head.hidden[1],
            "OUTPUTS": head.padded_outputs,
            "CHUNK": min(self.tuning.chunk, head.hidden[0] // 2),
            "VOTES": int(head.kind == "segmentation"),
            "SCORED": int(self._scores(head)),
            "MEASURE": MEASURES[spec.score_measure],
        }

    def _scores(self, head: HeadArrays) -> bool:
        return self.spec.score_source == head.kind

    def _launch(
        self, kernel: Kernel, grid: tuple[int, int, int], *arguments: Pointer | int
    ) -> None:
        """Appends a launch; equal kernels are stored once, as <entry>-<number>."""
        same = [name for name, known in self.kernels.items() if known == kernel]
        name = same[0] if same else f"{kernel.entry}-{len(self.kernels)}"
        self.kernels[name] = kernel
        self.launches.append(Launch(name, grid, list(arguments)))

    def _of_sample(self, name: str, first_byte: int = 0) -> Pointer:
        """Address in a buffer that has a part for each sample of the batch."""
        buffer = self.buffers[name]
        bytes_each = FLOAT16_BYTES if buffer.dtype == "float16" else FLOAT32_BYTES
        return Pointer(name, first_byte, int(np.prod(buffer.extents)) * bytes_each)

    def _constant(self, name: str, value: Tensor) -> None:
        dtype = {torch.float16: "float16", torch.float32: "float32", torch.int32: "int32"}
        self._buffer("constant", name, dtype[value.dtype], *value.shape)
        self.constants[name] = value.contiguous()

    def _buffer(self, kind: BufferKind, name: str, dtype: str, *extents: int) -> None:
        """Adds a buffer, or checks that it equals the one of this name."""
        buffer = Buffer(kind, dtype, list(extents))  # type: ignore[arg-type]
        assert self.buffers.setdefault(name, buffer) == buffer, name
