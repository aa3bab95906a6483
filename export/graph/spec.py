"""`LabelSpec`: what the labeller must know apart from the weights."""

from dataclasses import dataclass
from typing import Literal

from nets.config import SQUARE, TapRecipe, size_at
from nets.features import Resize
from nets.labels import Measure


@dataclass(frozen=True)
class LabelSpec:
    """Geometry and rules of the labeller's outputs; sizes in pixels. Raises ValueError."""

    grid: int  # nominal extent that every tap and the image are resized to
    crop_top: int  # first row of the grid in the output
    height: int  # rows of the output
    width: int  # columns of the grid
    score_source: Literal["segmentation", "keypoints", "depth"] | None = None
    score_fraction: float = 0.1  # share of the most uncertain pixels that the score averages
    keypoint_window_px: int = 3  # radius of the centroid's square window
    tap_recipe: TapRecipe = "styledconv+const"
    resize: Resize = "bilinear"  # for taps coarser than the grid
    start: tuple[int, int] = SQUARE  # rows and columns of the generator's learned constant
    # Of a pixel's class, for the score_source segmentation; others score by the members' variance.
    score_measure: Measure = "jensen_shannon"

    def __post_init__(self) -> None:
        if self.grid < 8 or self.grid & (self.grid - 1):
            raise ValueError(f"grid is {self.grid}; it must be a power of two of at least 8")
        rows, columns = self.size
        if self.width != columns:
            raise ValueError(f"width is {self.width}; it must equal the grid's, {columns}")
        if self.height < 1 or self.crop_top < 0 or self.crop_top + self.height > rows:
            raise ValueError(
                f"rows {self.crop_top} to {self.crop_top + self.height} are not within "
                f"the grid of {rows} rows"
            )
        if not 0 < self.score_fraction <= 1:
            raise ValueError(f"score_fraction is {self.score_fraction}; it must be in (0, 1]")
        if self.keypoint_window_px < 0:
            raise ValueError(
                f"keypoint_window_px is {self.keypoint_window_px}; it must be 0 or more"
            )

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the grid."""
        return size_at(self.grid, self.start)

    @property
    def score_pixels(self) -> int:
        """Number of pixels that the score averages."""
        return max(1, int(self.height * self.width * self.score_fraction))
