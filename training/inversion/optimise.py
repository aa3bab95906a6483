"""Real images -> the w+ that make them: a start, then optimisation (HandsOff, CVPR 2023).

loss = 10 perceptual + 1 MSE of colours in [0, 1] + 1 MSE(w, start), by Adam, with the learning
rate of StyleGAN2's projector. It sees the cropped rows only; the published one, of a square
picture, counts the black bars of cars too. Finished batches are files, which no kill takes away.
"""

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from nets.generator import Generator
from training.errors import TrainingError
from training.inversion.distances import STRUCTURE, Distance
from training.label_crop import LabelCrop, cropped
from training.resume import Recipe, copy_tensors, load_state, write_state

UNFINISHED = "unfinished"  # the files' folder, in that of the set
POINTS = ("start", "best", "last")


@dataclass(frozen=True)
class Fit:
    """Latents of n images and how well they make them; float32 but for `step`."""

    ws: Tensor  # [n, num_ws, w_dim]
    loss: Tensor  # [n]
    perceptual: Tensor  # [n], the distance, unweighted
    psnr_db: Tensor  # [n], of colours cut to [0, 1], over the cropped rows
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


PIXELS_AT_ONCE = 8 * 256 * 256  # of the generator's images that are optimised as one batch
IMAGES_AT_ONCE = 16
SMALLEST_MSE = 1e-10  # 100 dB: equal images have a number too


@dataclass(frozen=True)
class InvertConfig:
    """How latents are optimised; the defaults are the published ones."""

    steps: int = 500
    learning_rate: float = 0.1  # Adam's at its highest
    ramp_up: float = 0.05  # share of the steps over which it grows from 0, linearly
    ramp_down: float = 0.25  # share of the steps over which it falls to 0, as a cosine
    perceptual_weight: float = 10.0
    mse_weight: float = 1.0
    latent_weight: float = 1.0
    at_once: int | None = None  # images of a batch; None: by the generator's resolution


@dataclass(frozen=True)
class Task:
    """What a batch of latents is to do."""

    generator: Generator
    targets: Tensor  # [n, 3, height, width] in [0, 1]
    start: Tensor  # [n, num_ws, w_dim]
    crop: LabelCrop
    distance: Distance
    config: InvertConfig


def learning_rate_at(step: int, config: InvertConfig) -> float:
    """Of update `step`, from 0 on; 0 at the first, as StyleGAN2's projector has it."""
    t = step / config.steps
    down = min(1.0, (1 - t) / config.ramp_down) if config.ramp_down else 1.0
    up = min(1.0, t / config.ramp_up) if config.ramp_up else 1.0
    return config.learning_rate * (0.5 - 0.5 * math.cos(math.pi * down)) * up


def images_at_once(resolution: int) -> int:
    """Images of a batch; with their gradients 5 GiB at 256 px and the official widths, and
    less at other resolutions."""
    return max(1, min(IMAGES_AT_ONCE, PIXELS_AT_ONCE // resolution**2))


def invert_images(
    generator: Generator,
    images: NDArray[np.uint8],  # [n, height, width, 3], rows of the crop
    crop: LabelCrop,
    config: InvertConfig,
    start: Tensor | None = None,  # [n, num_ws, w_dim]; None: the mean of w
    distance: Distance = STRUCTURE,
    parts: Parts | None = None,
) -> Inversion:
    """Optimises the latents of every image, each by its own loss; results are on the CPU.

    Batches that `parts` has are not optimised again, and it gets the others as they are done.

    The same arguments give the same latents on the same machine; another `at_once` changes
    them by rounding. Runs on the device of the generator. Raises TrainingError when extents
    do not fit.
    """
    mean = generator.mapping.w_avg
    shape = (len(images), generator.config.num_ws, mean.shape[0])
    start = mean.expand(shape) if start is None else start
    _check_extents(images, crop, start, shape)
    at_once = config.at_once or images_at_once(generator.config.resolution)
    done = {} if parts is None else dict(parts.done)
    begun = 0 if parts is None else parts.images * config.steps
    total = len(images) * config.steps
    with tqdm(total=total, initial=begun, desc="invert", unit="step") as progress:
        for first in range(0, len(images), at_once):
            if first in done:
                continue
            rows = slice(first, first + at_once)
            targets = colours_from_bytes(images[rows]).to(mean.device)
            task = Task(
                generator, targets, start[rows].to(mean.device).clone(), crop, distance, config
            )
            done[first] = _descend(task, progress.update)
            if parts is not None:
                parts.add(first, done[first])
    ordered = [done[first] for first in sorted(done)]
    return Inversion(
        start=_joined([part.start for part in ordered]),
        best=_joined([part.best for part in ordered]),
        last=_joined([part.last for part in ordered]),
        failed=torch.cat([part.failed.cpu() for part in ordered]),
    )


def colours_from_bytes(images: NDArray[np.uint8]) -> Tensor:
    """uint8 [n, H, W, 3] -> float32 [n, 3, H, W] in [0, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous() / 255


def colours_from_ws(generator: Generator, ws: Tensor, crop: LabelCrop) -> Tensor:
    """w+ -> float32 [n, 3, height, width], nominally in [0, 1], not cut."""
    return cropped(generator.synthesis(ws).image, crop) / 2 + 0.5


def psnr_of_images(a: Tensor, b: Tensor) -> Tensor:
    """Decibels between pairs of [n, 3, H, W], cut to [0, 1]; [n], at most 100."""
    mse = (a.clamp(0, 1) - b.clamp(0, 1)).square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(mse.clamp(min=SMALLEST_MSE))


def fit_of_ws(task: Task, ws: Tensor, step: int) -> Fit:
    """The published loss of every image at `ws`, with its gradient, and its parts."""
    colours = colours_from_ws(task.generator, ws, task.crop)
    perceptual = task.distance.between(colours, task.targets)
    mse = (colours - task.targets).square().mean(dim=(1, 2, 3))
    moved = (ws - task.start).square().mean(dim=(1, 2))
    loss = (
        task.config.perceptual_weight * perceptual
        + task.config.mse_weight * mse
        + task.config.latent_weight * moved
    )
    with torch.no_grad():
        psnr = psnr_of_images(colours, task.targets)
    return Fit(ws, loss, perceptual, psnr, torch.full_like(loss, step, dtype=torch.int64))


def _descend(task: Task, advance: Callable[[int], object]) -> Inversion:
    ws = task.start.clone().requires_grad_()
    optimizer = torch.optim.Adam([ws])
    fit = fit_of_ws(task, ws, 0)
    start = best = last = _copy(fit)
    failed = ~start.loss.isfinite()
    for step in range(task.config.steps):
        # Summed over images, each image's gradient is that of its own loss.
        (ws.grad,) = torch.autograd.grad(fit.loss.sum(), ws)
        optimizer.param_groups[0]["lr"] = learning_rate_at(step, task.config)
        optimizer.step()
        fit = fit_of_ws(task, ws, step + 1)
        last = _copy(fit)
        best = _chosen(last.loss < best.loss, last, best)
        failed |= ~last.loss.isfinite()
        advance(len(ws))
    return Inversion(start, best, last, failed)


def _tensors(fit: Fit) -> list[Tensor]:
    return [getattr(fit, field.name) for field in fields(fit)]


def _copy(fit: Fit) -> Fit:
    """Without the graph, and in storage of its own: Adam goes on to write into `ws`."""
    return Fit(*(tensor.detach().clone() for tensor in _tensors(fit)))


def _chosen(choose: Tensor, a: Fit, b: Fit) -> Fit:  # bool [n]: a's rows there, else b's
    return Fit(
        *(
            torch.where(choose.view(-1, *[1] * (x.ndim - 1)), x, y)
            for x, y in zip(_tensors(a), _tensors(b), strict=True)
        )
    )


def _joined(fits: list[Fit]) -> Fit:
    columns = zip(*(_tensors(fit) for fit in fits), strict=True)
    return Fit(*(torch.cat([part.cpu() for part in column]) for column in columns))


def _check_extents(
    images: NDArray[np.uint8], crop: LabelCrop, start: Tensor, shape: tuple[int, ...]
) -> None:
    if images.ndim != 4 or len(images) == 0 or images.shape[1:] != (crop.height, crop.width, 3):
        raise TrainingError(
            f"images are {list(images.shape)}; they must be [n, {crop.height}, {crop.width}, 3], "
            "n of at least 1"
        )
    if start.shape != shape:
        raise TrainingError(f"the start is {list(start.shape)}; it must be {list(shape)}")
