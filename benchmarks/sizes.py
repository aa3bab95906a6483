"""Sizes of the measured networks; importable without torch."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Size:
    """Sizes of a generator and its segmentation ensemble."""

    resolution: int  # pixels
    channel_base: int
    grid: int  # pixels of the label grid, along one side
    hidden: tuple[int, int]
    classes: int
    members: int
    family: Literal["stylegan1", "stylegan2"] = "stylegan2"
    crop_top: int = 0  # first labeled row of the grid
    height: int | None = None  # number of labeled rows; None: all

    @property
    def rows(self) -> int:
        """Number of labeled rows."""
        return self.grid if self.height is None else self.height

    @property
    def levels(self) -> list[tuple[int, int]]:
        """Extent and feature channels, ascending."""
        exponents = range(2, int(math.log2(self.resolution)) + 1)
        return [(2**i, min(self.channel_base // 2**i, 512)) for i in exponents]
