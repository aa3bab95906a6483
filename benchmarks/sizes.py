"""Shapes of what is measured, for processes that have no torch as well."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Size:
    """A generator and a segmentation ensemble on it."""

    resolution: int  # pixels
    channel_base: int
    grid: int  # pixels of the labels
    hidden: tuple[int, int]
    classes: int
    members: int
    family: Literal["stylegan1", "stylegan2"] = "stylegan2"
    crop_top: int = 0  # first row of the grid that has labels
    height: int | None = None  # rows that have labels; None: all

    @property
    def rows(self) -> int:
        """Label rows."""
        return self.grid if self.height is None else self.height

    @property
    def levels(self) -> list[tuple[int, int]]:
        """Extent and feature channels, ascending."""
        exponents = range(2, int(math.log2(self.resolution)) + 1)
        return [(2**i, min(self.channel_base // 2**i, 512)) for i in exponents]
