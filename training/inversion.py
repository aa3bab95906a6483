"""What an inversion found, and the files of its batches that are done, which no kill takes away."""

import shutil
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from training.state_file import Recipe, copy_tensors, load_state, write_state

UNFINISHED = "unfinished"  # the files' folder, in that of the set
POINTS = ("start", "best", "last")


@dataclass(frozen=True)
class Fit:
    """Latents of n images and how well they make them; float32 but for `step`."""

    ws: Tensor  # [n, num_ws, w_dim]
    loss: Tensor  # [n]
    perceptual: Tensor  # [n], the distance, unweighted
    psnr_db: Tensor  # [n], of colours cut to [0, 1], over the framed rows
    step: Tensor  # int64 [n], updates before it


@dataclass(frozen=True)
class Inversion:
    """Where n images started, the point of the lowest loss, and the last one."""

    start: Fit
    best: Fit
    last: Fit
    failed: Tensor  # bool [n]: a loss was not finite, the latents are of no use


class Parts:
    """Batches of an inversion that are done, `done`, by their first image. Each is a file, written
    in one step; the files of another recipe are refused."""

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        shape: tuple[int, int, int],  # of all latents, [n, num_ws, w_dim]
        at_once: int,  # images of a batch
    ) -> None:
        """Reads what is there. Raises WeightsError, TrainingError."""
        self.folder, self.recipe = folder, recipe
        self.done: dict[int, Inversion] = {}
        images, num_ws, w_dim = shape
        for first in range(0, images, at_once):
            if (path := self._path(first)).exists():
                part = empty_inversion(min(at_once, images - first), num_ws, w_dim)
                load = partial(copy_tensors, tensors_from_inversion(part))
                load_state(path, recipe, load, f"remove {folder}, or name another --out")
                self.done[first] = part

    @property
    def images(self) -> int:
        """Images that are done."""
        return sum(len(part.failed) for part in self.done.values())

    def add(self, first: int, part: Inversion) -> None:
        """Keeps a batch. Raises WeightsError, OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_state(self._path(first), tensors_from_inversion(part), self.recipe)
        self.done[first] = part

    def remove(self) -> None:
        """Removes all files."""
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def _path(self, first: int) -> Path:
        return self.folder / f"{first:06d}.safetensors"


def tensors_from_inversion(inversion: Inversion) -> dict[str, Tensor]:
    """Its tensors by name, as best.loss."""
    found = {
        f"{point}.{field.name}": getattr(getattr(inversion, point), field.name)
        for point in POINTS
        for field in fields(Fit)
    }
    return found | {"failed": inversion.failed}


def empty_inversion(n: int, num_ws: int, w_dim: int) -> Inversion:
    """Of n images, to be filled."""

    def fit() -> Fit:
        loss, perceptual, psnr_db = torch.empty(3, n)
        ws, step = torch.empty(n, num_ws, w_dim), torch.empty(n, dtype=torch.int64)
        return Fit(ws, loss, perceptual, psnr_db, step)

    return Inversion(fit(), fit(), fit(), torch.empty(n, dtype=torch.bool))
