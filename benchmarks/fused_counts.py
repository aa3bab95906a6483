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
            Tuning(stages=3),
            Tuning(chunk=32),
            Tuning(chunk=32, stages=3),
            Tuning(chunk=128),
            Tuning(squares=(1, 1), warps=4),
            Tuning(squares=(1, 1), warps=4, stages=3),
            Tuning(squares=(1, 1), warps=4, chunk=32),
            Tuning(squares=(1, 1), warps=4, chunk=32, stages=3),
            Tuning(squares=(2, 2), chunk=32),
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
# Published for the A100 and assumed here: NVIDIA states none for the H100.
L2_BYTES = 5120 / PROCESSORS
INSTRUCTIONS = 4.0  # of a warp: one for each scheduler
SHARED_KIB, BLOCK_KIB, REGISTERS = 228, 1, 65536  # 1 KiB of each block's share is reserved
# Not published; guessed from microbenchmarks of others.
L2_LATENCY = 300.0  # cycles
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
class Estimate:
    """One image at one size with one tuning."""

    member: MemberCycles
    blocks: int  # that fit a multiprocessor together
    seconds: float  # of all launches of label_pixels, estimated
    bound_seconds: float  # by the busiest resource
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


def member_cycles(kernel: Kernel, table_mib: float) -> MemberCycles:
    """Counts one member of `kernel`, which votes and scores, for a band's table of this size.

    Operands of the first layer come from shared memory; the left operands of the other layers are
    in registers. A product of 64 pixels reads its right operand once. Instructions by thread are
    fitted to the machine code of 12 shapes for 9.0, within 20 percent.
    """
    c = kernel.constants
    pixels, chunk, h2, outputs = (
        c["TILE_ROWS"] * c["TILE_COLUMNS"],
        c["CHUNK"],
        c["H2"],
        c["OUTPUTS"],
    )
    depth, steps, threads = (
        c["K0"] + c["K1"] + c["F0"] + c["F1"],
        c["H1"] // c["CHUNK"],
        kernel.warps * 32,
    )
    groups = pixels / 64
    # Products: FLOPs, and bytes of shared memory that they read.
    products = [
        (2 * pixels * c["H1"] * depth, steps * groups * depth / 16 * (64 + chunk) * 16 * 2),
        (2 * pixels * c["H1"] * h2, groups * c["H1"] / 16 * h2 * 16 * 2),
        (2 * pixels * h2 * outputs, groups * h2 / 16 * outputs * 16 * 2),
    ]
    tensor = sum(flops for flops, _ in products) / TENSOR_FLOPS
    waited = sum(max(f / TENSOR_FLOPS, b / SHARED_BYTES) for f, b in products)
    missed = max(0.0, 1 - L2_MIB / table_mib) * (c["K0"] + c["K1"]) * c["H1"] * 2
    loaded = (depth * c["H1"] + c["H1"] * h2) * 2  # bytes, asynchronously
    epilogue_loaded = h2 * outputs * 2 + h2 * 4 + outputs * 4
    copies = loaded / steps / 16 / threads
    by_step = 130 + 2.5 * pixels * chunk / threads + 5 * copies
    by_member = 124 + 23.6 * pixels * outputs / threads + 6.06 * pixels * h2 / threads
    slots = kernel.warps / INSTRUCTIONS
    moved = loaded / L2_BYTES + missed / MEMORY_BYTES
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
        tensor=tensor,
        shared=(sum(b for _, b in products) + loaded + h2 * outputs * 2) / SHARED_BYTES,
        l2=moved + epilogue_loaded / L2_BYTES,
        issue=(steps * by_step + by_member) * slots,
        serial=steps * step + epilogue + exposed,
    )


def estimate(launches: LaunchList, compiled: CompiledKernel) -> Estimate:
    """Estimates label_pixels for one image on an H100 or H200."""
    name = label_kernel(launches)
    kernel = launches.kernels[name]
    members = kernel.constants["MEMBERS"]
    member = member_cycles(kernel, table_mib(launches))
    registers = -(-compiled.report.registers // 8) * 8 * kernel.warps * 32
    shared_kib = compiled.binary.shared / 1024 + BLOCK_KIB
    blocks = int(min(SHARED_KIB // shared_kib, REGISTERS // registers))
    tiles = [launch.grid[0] for launch in launches.launches if launch.kernel == name]
    cycles = 0.0
    for count in tiles:
        busiest = -(-count // PROCESSORS)  # blocks of the busiest multiprocessor
        together = min(busiest, blocks)
        cycles += busiest * members * max(member.bound, member.serial / together)
    return Estimate(
        member,
        blocks,
        cycles / CLOCK_HZ,
        sum(tiles) * members * member.bound / PROCESSORS / CLOCK_HZ,
        sum(tiles) * members * member.tensor * TENSOR_FLOPS,
    )


def words(tuning: Tuning) -> str:
    """Name of a tuning in the table."""
    down, across = tuning.squares
    return (
        f"{8 * down} x {8 * across}, chunk {tuning.chunk}, {tuning.warps} warps, "
        f"{tuning.stages} stages, bands of {tuning.band_tiles}"
    )


def main(names: list[str]) -> None:
    print("Counted and estimated for an H100 or H200; nothing here has run on a GPU.")
    for name in names or SIZES:
        print(
            f"\n{name}\n\n"
            "| tuning | registers | spilled | shared KiB | blocks | table MiB | tensor | shared "
            "| L2 | issue | bound ms | estimate ms | of tensor peak |\n"
            "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
        )
        for tuning in CANDIDATES:
            launches = launches_from_size(SIZES[name], tuning)
            label = label_kernel(launches)
            try:
                compiled = compiled_kernels({label: launches.kernels[label]}, "9.0")
                reason = "too much shared memory"
            except ExportError as error:
                compiled, reason = None, str(error)
            if compiled is None:
                print(f"| {words(tuning)} | {reason}" + " |" * 12, flush=True)
                continue
            for bands in (128, 256, 512):
                _print_row(replace(tuning, band_tiles=bands), SIZES[name], compiled[label])


def _print_row(tuning: Tuning, size: Size, compiled: CompiledKernel) -> None:
    launches = launches_from_size(size, tuning)
    found, report = estimate(launches, compiled), compiled.report
    cells = [
        words(tuning),
        report.registers,
        report.spilled_bytes,
        compiled.binary.shared >> 10,
        found.blocks,
        round(table_mib(launches)),
        *(round(getattr(found.member, n)) for n in ("tensor", "shared", "l2", "issue")),
        f"{found.bound_seconds * 1e3:.2f}",
        f"{found.seconds * 1e3:.2f}",
        f"{found.peak_share:.0%}",
    ]
    print("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main(sys.argv[1:])
