"""Generators and ensembles that are measured on a GPU, and the work of their graphs.

Counts the served half-precision graph, for one sample, as a sequence of stages: the label branch in
its split form, the low-pass of an up-convolution as a stage of its own. The time of a stage is the
longest of the times for its tensor FLOPs, its other FLOPs and its bytes. Weights are not counted,
because a batch reads them once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.sizes import Size

HALF = 2  # bytes of a float16
TILE = 8  # pixels along a tile of the label branch


@dataclass(frozen=True)
class Stage:
    """Work of one stage for one sample."""

    name: str
    tensor_flops: float
    other_flops: float
    bytes: float


@dataclass(frozen=True)
class Ceilings:
    """Measured peak rates of the machine, per second."""

    tensor_flops: float
    other_flops: float
    bytes: float


CONFIG_F, STYLEGAN1 = 32768, 16384  # channel bases
CASES: dict[str, Size] = {
    "config-f 256": Size(256, CONFIG_F, 256, (256, 32), 19, 10),
    "config-f 512": Size(512, CONFIG_F, 512, (256, 32), 19, 10),
    "DatasetGAN cars": Size(512, STYLEGAN1, 512, (128, 32), 20, 10, "stylegan1", 64, 384),
    "DatasetGAN faces": Size(1024, STYLEGAN1, 512, (256, 128), 34, 10, "stylegan1"),
    "HandsOff faces": Size(1024, CONFIG_F, 512, (256, 32), 19, 10),  # and config-f at 1024 px
    "HandsOff cars": Size(512, CONFIG_F, 512, (512, 256), 10, 10, "stylegan2", 64, 384),
}
GOALS = {  # labeled samples per second on one H200, with TensorRT alone
    "DatasetGAN cars": 350, "DatasetGAN faces": 130, "HandsOff faces": 130, "HandsOff cars": 85,
}  # fmt: skip


def bundle_folder(folder: Path, case: str) -> Path:
    """Folder of a case's bundle."""
    return folder / "bundles" / case.lower().replace(" ", "-")


def stages(size: Size) -> list[Stage]:
    """All stages of one sample, in order."""
    return [*_synthesis(size), *_labels(size)]


def bound_per_s(size: Size, ceilings: Ceilings) -> float:
    """Roofline: samples per second that no implementation of these stages can exceed here."""
    seconds = sum(
        max(
            stage.tensor_flops / ceilings.tensor_flops,
            stage.other_flops / ceilings.other_flops,
            stage.bytes / ceilings.bytes,
        )
        for stage in stages(size)
    )
    return 1 / seconds


def _synthesis(size: Size) -> Iterator[Stage]:
    """Two convolutions at each resolution, the first of which doubles it and is followed by a
    low-pass of each channel; every feature map is written and read again.

    The doubling is a transposed 3x3 convolution and a 4x4 low-pass for StyleGAN2, a transposed 4x4
    convolution and a 3x3 low-pass for StyleGAN1.
    """
    taps, low_pass = (9, 16) if size.family == "stylegan2" else (16, 9)  # weights of each kernel
    before = 0
    for r, c in size.levels:
        flops, moved = 2 * 9 * c * c * r * r, 2 * c * r * r * HALF
        if before:
            flops += 2 * taps * before * c * (r // 2) ** 2
            yield Stage(f"low-pass {r}", 0, 2 * low_pass * c * r * r, moved)
        yield Stage(f"synthesis {r}", flops, 2 * 10 * c * r * r, 2 * moved)
        before = c
    yield Stage("image", 2 * 3 * before * size.resolution**2, 0, 3 * size.resolution**2)


def _labels(size: Size) -> Iterator[Stage]:
    """The first layer at each level's own resolution; then resizing, the other layers and their
    activations at the pixels of the label grid, where only labels are written."""
    h1, h2 = size.hidden
    pixels, rows_share = size.rows * size.grid, size.rows / size.grid
    for r, c in size.levels:
        extent = min(r, size.grid)
        products = extent * extent * (rows_share if extent == size.grid else 1)
        flops = 2 * 2 * c * size.members * h1 * products
        projected = size.members * h1 * products * HALF if extent < size.grid else 0
        yield Stage(f"first layer {r}", flops, 0, 2 * c * extent * extent * HALF + projected)
    resizing = 2 * rows_of_a_tile(size) * size.members * h1 * pixels
    yield Stage("resizing", resizing, 0, 0)
    rest = 2 * size.members * (h1 * h2 + h2 * size.classes) * pixels
    activations = 2 * size.members * (h1 + h2) * pixels
    yield Stage("other layers", rest, activations, pixels * (1 + HALF))


def rows_of_a_tile(size: Size) -> int:
    """K of the product that resizes: rows of the table that a tile of 8 x 8 pixels reads, in a
    multiple of eight, with bilinear resizing.

    Example: grid 512. Levels 64, 128 and 256 give 9, 16 and 36 samples, the nodes of all coarser
    levels 4: 65, so 72.
    """
    coarse = [r for r, _ in size.levels if r < size.grid]
    direct = [TILE * r // size.grid for r in coarse if size.grid // r <= TILE]
    rows = sum((samples + 2) ** 2 for samples in direct) + (4 if len(direct) < len(coarse) else 0)
    return -(-rows // 8) * 8
