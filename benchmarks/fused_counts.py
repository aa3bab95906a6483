"""What the fused kernel costs at the published sizes, counted without a GPU.

    python -m benchmarks.fused_counts [SIZE...]

Compiles label_pixels for compute capability 9.0 with each tuning, and prints for one image: what
ptxas reports, the time that each resource of an H100 or H200 alone would take, and an estimate of
the whole. Every figure is counted or computed from published peak rates; none was measured.

The estimate: within a block, products, instructions and the exposed part of the loads follow one
another, because Triton waits behind each product; blocks on one multiprocessor overlap, up to the
rate of the busiest resource. A band of tiles gives each multiprocessor only a few blocks.
"""

import sys
from dataclasses import dataclass, replace

import torch

from benchmarks.gpu_cases import CASES, STYLEGAN1
from benchmarks.sizes import Size
from bundle.fused import Kernel
from export.errors import ExportError
from export.fused.bundle import TUNINGS
from export.fused.compile import CompiledKernel, compiled_kernels
from export.fused.launches import LaunchList, Tuning
from export.fused.tiles import kernel_tiles
from export.fused.weights import arrays_from_head
from export.graph.spec import LabelSpec
from nets.interpreter import EnsembleHead, HeadConfig

SIZES = CASES | {
    "DatasetGAN cats": Size(256, STYLEGAN1, 256, (128, 32), 16, 10, "stylegan1"),
}
CANDIDATES = tuple(
    dict.fromkeys(
        (
            *TUNINGS,
            Tuning(),
            Tuning(band_tiles=256),
            Tuning(stages=3),
            Tuning(chunk=128),
            Tuning(squares=(1, 1), band_tiles=256, warps=4),
            Tuning(squares=(1, 1), band_tiles=256, warps=4, stages=3),
            Tuning(squares=(1, 1), band_tiles=512, chunk=32, warps=4, stages=3),
            Tuning(squares=(2, 2), chunk=32),
            Tuning(squares=(2, 2)),
        )
    )
)

# One multiprocessor of an H100 or H200 (SXM), by clock cycle; they differ in device memory only.
PROCESSORS = 132  # NVIDIA's H100 architecture paper, as all figures without another source
CLOCK_HZ = 1.83e9  # at which NVIDIA states 989.4 TFLOP/s for dense float16
TENSOR_FLOPS = 4096.0
SHARED_BYTES = 128.0  # 32 banks of 4 bytes, CUDA C++ Programming Guide
L2_MIB = 40.0  # of 50 MB; the rest is for weights and features
MEMORY_BYTES = 3.35e12 / CLOCK_HZ / PROCESSORS  # of the H100; an H200's is 4.8e12
# NVIDIA states no rate of the H100's L2 cache. The first is the A100's, the second is guessed from
# microbenchmarks of others.
L2_BYTES = (5120 / PROCESSORS, 5.6e12 / CLOCK_HZ / PROCESSORS)
INSTRUCTIONS = 4.0  # of a warp: one for each scheduler
SHARED_KIB, BLOCK_KIB, REGISTERS = 228, 1, 65536  # 1 KiB of each block's share is reserved
# Not published; guessed from microbenchmarks of others.
L2_LATENCY = 300.0  # cycles
CONSUMER_REGISTERS = 240  # of a thread, if a third warpgroup needs few
SECOND_SHARE = 0.75  # of the bound; FlashAttention-3 reaches it with the same structure
ISSUE_SHARE = 0.6  # of the schedulers' slots that the warps of a lone block can fill


@dataclass(frozen=True)
class MemberCycles:
    """Cycles of one member and one tile of pixels on one multiprocessor, by resource."""

    tensor: float
    shared: float
    l2: float  # and device memory, for the part of a band's table that exceeds the L2 cache
    issue: float
    serial: float  # from beginning to end, for a block that is alone

    @property
    def bound(self) -> float:
        """No schedule is faster."""
        return max(self.tensor, self.shared, self.l2, self.issue)


@dataclass(frozen=True)
class Shape:
    """Sizes of label_pixels for one tile."""

    pixels: int
    reads: int  # rows of the table and nodes, padded
    finest: int  # channels, padded
    h1: int
    h2: int
    outputs: int
    chunk: int

    @staticmethod
    def of(kernel: Kernel) -> "Shape":
        c = kernel.constants
        return Shape(
            pixels=c["TILE_ROWS"] * c["TILE_COLUMNS"],
            reads=c["K0"] + c["K1"],
            finest=c["F0"] + c["F1"],
            h1=c["H1"],
            h2=c["H2"],
            outputs=c["OUTPUTS"],
            chunk=c["CHUNK"],
        )

    @property
    def gathered(self) -> int:
        """Bytes of the table and the nodes that a member reads for a tile."""
        return self.reads * self.h1 * 2

    @property
    def weights(self) -> int:
        """Bytes of a member's first and second layer."""
        return (self.finest + self.h2) * self.h1 * 2

    @property
    def last_weights(self) -> int:
        """Bytes of a member's third layer."""
        return self.h2 * self.outputs * 2

    def products(self, left_in_registers: bool) -> list[tuple[float, float]]:
        """FLOPs of each layer of a member, and bytes of shared memory that it reads.

        An instruction multiplies 64 pixels: left operand 64 x 16, right operand 16 x columns. Only
        the first layer may have its left operand in shared memory.
        """
        groups, depth = self.pixels / 64, self.reads + self.finest
        left = 0 if left_in_registers else 64
        return [
            (
                2 * self.pixels * self.h1 * depth,
                groups * self.h1 / self.chunk * depth * (left + self.chunk) * 2,
            ),
            (2 * self.pixels * self.h1 * self.h2, groups * self.h1 * self.h2 * 2),
            (2 * self.pixels * self.h2 * self.outputs, groups * self.h2 * self.outputs * 2),
        ]


@dataclass(frozen=True)
class Estimate:
    """One image at one size with one tuning."""

    member: MemberCycles
    blocks: int  # that fit a multiprocessor together
    seconds: float  # of all launches of label_pixels
    flops: float  # of the tensor cores, including padding

    @property
    def peak_share(self) -> float:
        """Estimated rate of the tensor cores, as a share of their peak."""
        return self.flops / self.seconds / (TENSOR_FLOPS * PROCESSORS * CLOCK_HZ)


def launches_from_size(size: Size, tuning: Tuning) -> LaunchList:
    """The launches for a segmentation ensemble of this size. Its weights have no values."""
    levels: dict[int, int] = {}
    for extent, channels in size.levels:
        reduced = min(extent, size.grid)
        levels[reduced] = levels.get(reduced, 0) + 2 * channels
    constant = size.levels[0][1] if size.family == "stylegan2" else 0
    levels[4] -= constant
    features = sum(levels.values()) + constant
    with torch.device("meta"):
        config = HeadConfig("segmentation", features, size.hidden, size.classes, size.members)
        head = arrays_from_head(EnsembleHead(config), levels, torch.zeros(1, constant, 4, 4))
    spec = LabelSpec(size.grid, size.crop_top, size.rows, size.grid, "segmentation")
    tiles = kernel_tiles(tuple(sorted(levels))[:-1], spec, tuning.squares, tuning.band_tiles)
    launches = LaunchList(tiles, spec, tuning)
    launches.add(head)
    return launches


def label_kernel(launches: LaunchList) -> str:
    """Name of the only label_pixels kernel."""
    (name,) = (n for n, kernel in launches.kernels.items() if kernel.entry == "label_pixels")
    return name


def table_mib(launches: LaunchList) -> float:
    """Size of the largest band's table."""
    rows, width = launches.buffers["table"].extents
    return rows * width * 2 / (1 << 20)


def member_cycles(kernel: Kernel, table_mib: float, l2_bytes: float) -> MemberCycles:
    """Counts one member of `kernel`, which votes and scores.

    table_mib: size of a band's table. l2_bytes: rate of the L2 cache for one multiprocessor, by
    cycle. Operands of the first layer come from shared memory; the left operands of the other
    layers are in registers. Instructions of a thread are fitted to the machine code of 12 shapes
    for 9.0, within 20 percent.
    """
    shape = Shape.of(kernel)
    steps, slots = shape.h1 // shape.chunk, kernel.warps / INSTRUCTIONS
    products = shape.products(left_in_registers=False)
    waited = sum(max(f / TENSOR_FLOPS, b / SHARED_BYTES) for f, b in products)
    missed = max(0.0, 1 - L2_MIB / table_mib) * shape.gathered
    loaded = shape.gathered + shape.weights  # asynchronously
    threads = kernel.warps * 32
    by_step = 130 + 2.5 * shape.pixels * shape.chunk / threads + 5 * loaded / steps / 16 / threads
    by_member = 124 + shape.pixels * (23.6 * shape.outputs + 6.06 * shape.h2) / threads
    moved = loaded / l2_bytes + missed / MEMORY_BYTES
    load = L2_LATENCY + moved / steps
    step = waited / steps + by_step * slots / ISSUE_SHARE
    epilogue = by_member * slots / ISSUE_SHARE + L2_LATENCY  # its weights are loaded on the spot
    # The loads of the next step are issued behind the products of this one, and before the
    # epilogue of a member; with three stages they are issued a step earlier.
    if kernel.stages == 1:
        exposed = steps * load
    elif kernel.stages == 2:
        exposed = (steps - 1) * load + max(0.0, load - epilogue)
    else:
        exposed = steps * max(0.0, load - step)
    return MemberCycles(
        tensor=sum(flops for flops, _ in products) / TENSOR_FLOPS,
        shared=(sum(b for _, b in products) + loaded + shape.last_weights) / SHARED_BYTES,
        l2=moved + shape.last_weights / l2_bytes,
        issue=(steps * by_step + by_member) * slots,
        serial=steps * step + epilogue + exposed,
    )


def second_design(kernel: Kernel, reads: int, l2_bytes: float) -> MemberCycles:
    """Counts the second design of decision 19; `kernel` has tiles of 8 x 16, `reads` samples each.

    Two blocks of a cluster share the weights by multicast; two warpgroups of 64 pixels share the
    gathered rows, and keep the left operands in registers if there is room; a third one loads.
    """
    shape = replace(Shape.of(kernel), chunk=64, reads=-(-reads // 16) * 16)
    registers = (shape.reads + shape.finest) / 4 + 32 + shape.h2 / 2 + 1.5 * shape.outputs + 30
    products = shape.products(left_in_registers=registers <= CONSUMER_REGISTERS)
    loaded = shape.gathered + shape.weights + shape.last_weights
    steps, threads = shape.h1 // shape.chunk, 256
    by_step = 100 + 2.5 * shape.pixels * shape.chunk / threads
    by_member = 124 + shape.pixels * (23.6 * shape.outputs + 6.06 * shape.h2) / threads
    return MemberCycles(
        tensor=sum(flops for flops, _ in products) / TENSOR_FLOPS,
        shared=(sum(b for _, b in products) + loaded) / SHARED_BYTES,
        l2=(shape.gathered + (shape.weights + shape.last_weights) / 2) / l2_bytes,
        issue=(steps * by_step + by_member) * 8 / INSTRUCTIONS,
        serial=0,
    )


def estimate(launches: LaunchList, compiled: CompiledKernel, l2_bytes: float) -> Estimate:
    """Estimates label_pixels for one image on an H100 or H200."""
    name = label_kernel(launches)
    kernel = launches.kernels[name]
    members = kernel.constants["MEMBERS"]
    member = member_cycles(kernel, table_mib(launches), l2_bytes)
    registers = -(-compiled.report.registers // 8) * 8 * kernel.warps * 32
    shared_kib = compiled.binary.shared / 1024 + BLOCK_KIB
    blocks = int(min(SHARED_KIB // shared_kib, REGISTERS // registers))
    tiles = [launch.grid[0] for launch in launches.launches if launch.kernel == name]
    cycles = 0.0
    for count in tiles:
        busiest = -(-count // PROCESSORS)  # blocks of the busiest multiprocessor
        together = min(busiest, blocks)
        cycles += busiest * members * max(member.bound, member.serial / together)
    flops = sum(tiles) * members * member.tensor * TENSOR_FLOPS
    return Estimate(member, blocks, cycles / CLOCK_HZ, flops)


def projection_gflop(launches: LaunchList) -> float:
    """Work of all launches of project_rows for one image, GFLOP."""
    flops = 0
    for launch in launches.launches:
        c = launches.kernels[launch.kernel].constants
        if "CHANNELS" in c:
            rows = launch.arguments[-1]
            assert isinstance(rows, int)
            flops += 2 * rows * c["CHANNELS"] * c["WIDTH"]
    return flops / 1e9


def words(tuning: Tuning) -> str:
    """Name of a tuning in the table."""
    down, across = tuning.squares
    return (
        f"{8 * down} x {8 * across}, chunk {tuning.chunk}, {tuning.warps} warps, "
        f"{tuning.stages} stages, bands of {tuning.band_tiles}"
    )


def main(names: list[str]) -> None:
    print("Counted and estimated for an H100 or H200; nothing here has run on a GPU.")
    print("Cycles are those of one member and tile. Two estimates: two rates of the L2 cache.")
    for name in names or SIZES:
        print(
            f"\n{name}\n\n"
            "| tuning | registers | spilled | shared KiB | blocks | table MiB | tensor | shared "
            "| L2 | issue | ms | tensor cores busy |\n"
            "|---|---|---|---|---|---|---|---|---|---|---|---|"
        )
        for tuning in CANDIDATES:
            _print_tuning(tuning, SIZES[name])
        _print_second(SIZES[name])


def _print_tuning(tuning: Tuning, size: Size) -> None:
    launches = launches_from_size(size, tuning)
    label = label_kernel(launches)
    try:
        compiled = compiled_kernels({label: launches.kernels[label]}, "9.0")
        reason = "too much shared memory"
    except ExportError as error:
        compiled, reason = None, str(error)[:100]
    if compiled is None:
        print(f"| {words(tuning)} | {reason}" + " |" * 11, flush=True)
        return
    kernel = compiled[label]
    found = [estimate(launches, kernel, rate) for rate in L2_BYTES]
    cells = [
        words(tuning),
        kernel.report.registers,
        kernel.report.spilled_bytes,
        kernel.binary.shared >> 10,
        found[0].blocks,
        round(table_mib(launches)),
        *_cycles([one.member for one in found]),
        ", ".join(f"{one.seconds * 1e3:.2f}" for one in found),
        ", ".join(f"{one.peak_share:.0%}" for one in found),
    ]
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def _cycles(members: list[MemberCycles]) -> list[str]:
    """Cells with the cycles of each resource."""
    first = members[0]
    l2 = ", ".join(f"{one.l2:.0f}" for one in members)
    return [f"{first.tensor:.0f}", f"{first.shared:.0f}", l2, f"{first.issue:.0f}"]


def _print_second(size: Size) -> None:
    launches = launches_from_size(size, Tuning())
    name = label_kernel(launches)
    kernel = launches.kernels[name]
    interpolation = launches.constants["interpolation_8x16"]
    reads = int((interpolation != 0).any(0).sum())
    found = [second_design(kernel, reads, rate) for rate in L2_BYTES]
    tiles = sum(launch.grid[0] for launch in launches.launches if launch.kernel == name)
    rounds = tiles / PROCESSORS * kernel.constants["MEMBERS"] / CLOCK_HZ / SECOND_SHARE
    times = ", ".join(f"{rounds * one.bound * 1e3:.2f}" for one in found)
    busy = ", ".join(f"{SECOND_SHARE * one.tensor / one.bound:.0%}" for one in found)
    cells = ["second design, on paper", *[""] * 5, *_cycles(found), times, busy]
    print("| " + " | ".join(cells) + " |")
    work = projection_gflop(launches)
    peak = TENSOR_FLOPS * PROCESSORS * CLOCK_HZ
    print(f"\nproject_rows: {work:.0f} GFLOP, {work * 1e12 / peak:.2f} ms at the tensor peak")


if __name__ == "__main__":
    main(sys.argv[1:])
