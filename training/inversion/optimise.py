"""Real images -> the w+ that reproduce them, by optimization from a start (HandsOff, CVPR 2023).

loss = 10 * perceptual distance + 1 * MSE of colors in [0, 1] + 1 * MSE(w+, start), minimized with
Adam under the learning-rate ramps of StyleGAN2's projector. The loss covers the label crop only;
the published one is computed on the square image and so counts the black bars of cars.

Images are optimized in batches. Each finished batch is written to a file, and so is the unfinished
one when a signal ends the command; a kill loses at most one batch.
"""

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from checkpoints import HeldSignal, signals_held
from nets.generator import Generator
from training.errors import TrainingError
from training.inversion.distances import STRUCTURE, Distance
from training.label_crop import LabelCrop, cropped
from training.resume import (
    Recipe,
    adam_with_moments,
    copy_tensors,
    load_state,
    tensors_of_trained,
    write_state,
)

MAX_BATCH = 16  # images
MAX_BATCH_PIXELS = 8 * 256 * 256  # pixels of all generated images of a batch
MIN_MSE = 1e-10  # MSE of equal images, so that their PSNR is 100 dB and not infinite

UNFINISHED = "unfinished"  # subfolder of the image set that holds the finished batches
POINTS = ("start", "best", "last")  # the estimates of an Inversion, by field name


@dataclass(frozen=True)
class InvertConfig:
    """Settings of the optimization; the defaults are the published ones."""

    steps: int = 500
    learning_rate: float = 0.1  # Adam's, at its highest
    ramp_up: float = 0.05  # share of the steps with a linear rise from 0
    ramp_down: float = 0.25  # share of the steps with a cosine fall to 0
    perceptual_weight: float = 10.0
    mse_weight: float = 1.0
    latent_weight: float = 1.0
    at_once: int | None = None  # images per batch; None: chosen by the generator's resolution


@dataclass(frozen=True)
class LatentEstimate:
    """Latents of n images and how well they reproduce them; float32 except for `step`."""

    ws: Tensor  # [n, num_ws, w_dim]
    loss: Tensor  # [n]
    perceptual: Tensor  # [n], the distance, unweighted
    psnr_db: Tensor  # [n], from colors clamped to [0, 1], over the label crop
    step: Tensor  # int64 [n], updates before this estimate


@dataclass(frozen=True)
class Inversion:
    """Three estimates for each of n images."""

    start: LatentEstimate
    best: LatentEstimate  # at the lowest loss
    last: LatentEstimate
    failed: Tensor  # bool [n], a loss was not finite: the latents are unusable


class FinishedBatches:
    """Finished batches of an interrupted inversion, in memory and as files, and the file of the
    batch that it was interrupted in.

    `done` maps the index of a batch's first image to its result. Files are written atomically.
    Files of another recipe are refused.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        shape: tuple[int, int, int],  # [n, num_ws, w_dim] of all images
        batch_size: int,
    ) -> None:
        """Reads the files that exist. Raises WeightsError, TrainingError."""
        self.folder, self.recipe = folder, recipe
        self.done: dict[int, Inversion] = {}
        images, num_ws, w_dim = shape
        for first in range(0, images, batch_size):
            if (path := self._path(first)).exists():
                batch = empty_inversion(min(batch_size, images - first), num_ws, w_dim)
                self._load(path, tensors_from_inversion(batch))
                self.done[first] = batch

    @property
    def images(self) -> int:
        """Number of images in the finished batches."""
        return sum(len(batch.failed) for batch in self.done.values())

    def add(self, first: int, batch: Inversion) -> None:
        """Stores the batch that begins at image `first`. Raises WeightsError, OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_state(self._path(first), tensors_from_inversion(batch), self.recipe)
        self._path(first, "partial").unlink(missing_ok=True)
        self.done[first] = batch

    def add_partial(self, first: int, tensors: Mapping[str, Tensor]) -> Path:
        """Writes the state of the unfinished batch that begins at image `first`, and returns its
        path. Raises WeightsError, OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_state(self._path(first, "partial"), tensors, self.recipe)
        return self._path(first, "partial")

    def load_partial(self, first: int, tensors: Mapping[str, Tensor]) -> bool:
        """Copies a state of `add_partial` into `tensors`; False if there is none. Raises
        WeightsError, TrainingError."""
        path = self._path(first, "partial")
        if not path.exists():
            return False
        self._load(path, tensors)
        return True

    def remove(self) -> None:
        """Deletes all files."""
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def _load(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        remedy = f"remove {self.folder}, or name another --out"
        load_state(path, self.recipe, partial(copy_tensors, tensors), remedy)

    def _path(self, first: int, suffix: str = "safetensors") -> Path:
        return self.folder / f"{first:06d}.{suffix}"


def tensors_from_inversion(inversion: Inversion) -> dict[str, Tensor]:
    """Tensors by the names of the file format: start.ws, best.loss, ..., failed."""
    found = {
        f"{point}.{field.name}": getattr(getattr(inversion, point), field.name)
        for point in POINTS
        for field in fields(LatentEstimate)
    }
    return found | {"failed": inversion.failed}


def empty_inversion(n: int, num_ws: int, w_dim: int) -> Inversion:
    """Uninitialised tensors for n images, for a file to fill."""

    def estimate() -> LatentEstimate:
        loss, perceptual, psnr_db = torch.empty(3, n)
        ws, step = torch.empty(n, num_ws, w_dim), torch.empty(n, dtype=torch.int64)
        return LatentEstimate(ws, loss, perceptual, psnr_db, step)

    return Inversion(estimate(), estimate(), estimate(), torch.empty(n, dtype=torch.bool))


def invert_images(
    generator: Generator,
    images: NDArray[np.uint8],  # [n, height, width, 3], already cropped
    crop: LabelCrop,
    config: InvertConfig,
    start: Tensor | None = None,  # [n, num_ws, w_dim]; None: the mean of w
    distance: Distance = STRUCTURE,
    finished: FinishedBatches | None = None,
) -> Inversion:
    """Optimises the latents of every image by its own loss; results are on the CPU.

    Batches in `finished` are not optimized again; new ones are added to it.

    Runs on the generator's device. Equal arguments give equal latents on one machine; another
    batch size changes them by rounding. Raises TrainingError when sizes do not match.
    """
    mean = generator.mapping.w_avg
    shape = (len(images), generator.config.num_ws, mean.shape[0])
    start = mean.expand(shape) if start is None else start
    _check_sizes(images, crop, start, shape)
    batch_size = config.at_once or images_at_once(*generator.config.image_size)
    done = {} if finished is None else dict(finished.done)
    images_done = 0 if finished is None else finished.images
    total, initial = len(images) * config.steps, images_done * config.steps
    progress = tqdm(total=total, initial=initial, desc="invert", unit="step")
    with signals_held() as held, progress:
        for first in range(0, len(images), batch_size):
            if first in done:
                continue
            rows = slice(first, first + batch_size)
            targets = colors_from_bytes(images[rows]).to(mean.device)
            task = InversionTask(
                generator, targets, start[rows].to(mean.device).clone(), crop, distance, config
            )
            done[first] = _invert_batch(task, first, finished, held, progress.update)
            if finished is not None:
                finished.add(first, done[first])
    batches = [done[first] for first in sorted(done)]
    return Inversion(
        start=_concatenated([batch.start for batch in batches]),
        best=_concatenated([batch.best for batch in batches]),
        last=_concatenated([batch.last for batch in batches]),
        failed=torch.cat([batch.failed.cpu() for batch in batches]),
    )


def images_at_once(height: int, width: int) -> int:
    """Default batch size for a generator's images of this size, in pixels.

    With gradients a batch takes 5 GiB at 256 px and the official widths, and less at other
    sizes.
    """
    return max(1, min(MAX_BATCH, MAX_BATCH_PIXELS // (height * width)))


@dataclass(frozen=True)
class InversionTask:
    """Inputs of one batch, on the generator's device."""

    generator: Generator
    targets: Tensor  # [n, 3, height, width] in [0, 1]
    start: Tensor  # [n, num_ws, w_dim]
    crop: LabelCrop
    distance: Distance
    config: InvertConfig


def _invert_batch(
    task: InversionTask,
    first: int,
    finished: FinishedBatches | None,
    held: HeldSignal,
    advance: Callable[[int], object],
) -> Inversion:
    """Optimizes the batch that begins at image `first`, from its state in `finished` if there is
    one; a signal saves it there and raises Interrupted."""
    ws = task.start.clone().requires_grad_()
    optimizer = adam_with_moments([ws], task.config.learning_rate)
    estimate = estimate_of_ws(task, ws, 0)
    start = best = last = _detached(estimate)
    failed = ~start.loss.isfinite()

    def tensors(batch: Inversion) -> dict[str, Tensor]:
        return {**tensors_from_inversion(batch), **tensors_of_trained({"ws": ws}, optimizer)}

    saved, step = empty_inversion(*ws.shape), 0
    if finished is not None and finished.load_partial(first, tensors(saved)):
        start, best, last = (_to(e, ws.device) for e in (saved.start, saved.best, saved.last))
        failed, step = saved.failed.to(ws.device), int(last.step[0])
        estimate = estimate_of_ws(task, ws, step)
        advance(step * len(ws))
    while step < task.config.steps:
        # An image's latents appear in its own loss only, so the gradient of the sum is each
        # image's own gradient.
        (ws.grad,) = torch.autograd.grad(estimate.loss.sum(), ws)
        optimizer.param_groups[0]["lr"] = learning_rate_at(step, task.config)
        optimizer.step()
        step += 1
        estimate = estimate_of_ws(task, ws, step)
        last = _detached(estimate)
        best = _where(last.loss < best.loss, last, best)
        failed |= ~last.loss.isfinite()
        advance(len(ws))
        if held and finished is not None:
            path = finished.add_partial(first, tensors(Inversion(start, best, last, failed)))
            images = f"{finished.images} images and step {step} of the next {len(ws)}"
            held.end(f"{images} are saved in {path.parent}; the same command goes on from there")
        held.end("nothing was saved")
    return Inversion(start, best, last, failed)


def learning_rate_at(step: int, config: InvertConfig) -> float:
    """Learning rate of update `step`, counted from 0; 0 at the first, as in StyleGAN2's projector.

    torch.optim.lr_scheduler has no schedule with both ramps.
    """
    t = step / config.steps
    down = min(1.0, (1 - t) / config.ramp_down) if config.ramp_down else 1.0
    up = min(1.0, t / config.ramp_up) if config.ramp_up else 1.0
    return config.learning_rate * (0.5 - 0.5 * math.cos(math.pi * down)) * up


def estimate_of_ws(task: InversionTask, ws: Tensor, step: int) -> LatentEstimate:
    """Loss of every image at `ws`, differentiable, with its parts."""
    colors = colors_from_ws(task.generator, ws, task.crop)
    perceptual = task.distance.between(colors, task.targets)
    mse = (colors - task.targets).square().mean(dim=(1, 2, 3))
    moved = (ws - task.start).square().mean(dim=(1, 2))
    loss = (
        task.config.perceptual_weight * perceptual
        + task.config.mse_weight * mse
        + task.config.latent_weight * moved
    )
    with torch.no_grad():
        psnr = psnr_of_images(colors, task.targets)
    return LatentEstimate(
        ws, loss, perceptual, psnr, torch.full_like(loss, step, dtype=torch.int64)
    )


def colors_from_bytes(images: NDArray[np.uint8]) -> Tensor:
    """uint8 [n, H, W, 3] -> float32 [n, 3, H, W] in [0, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous() / 255


def colors_from_ws(generator: Generator, ws: Tensor, crop: LabelCrop) -> Tensor:
    """w+ -> float32 [n, 3, height, width], nominally in [0, 1], not clamped."""
    return cropped(generator.synthesis(ws).image, crop) / 2 + 0.5


def psnr_of_images(a: Tensor, b: Tensor) -> Tensor:
    """PSNR in dB [n], at most 100, of pairs [n, 3, H, W] clamped to [0, 1]."""
    mse = (a.clamp(0, 1) - b.clamp(0, 1)).square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(mse.clamp(min=MIN_MSE))


def _tensors(estimate: LatentEstimate) -> list[Tensor]:
    return [getattr(estimate, field.name) for field in fields(estimate)]


def _detached(estimate: LatentEstimate) -> LatentEstimate:
    """A copy without the graph and with its own storage: Adam updates `ws` in place."""
    return LatentEstimate(*(tensor.detach().clone() for tensor in _tensors(estimate)))


def _to(estimate: LatentEstimate, device: torch.device) -> LatentEstimate:
    return LatentEstimate(*(tensor.to(device) for tensor in _tensors(estimate)))


def _where(choose: Tensor, a: LatentEstimate, b: LatentEstimate) -> LatentEstimate:
    """Rows of `a` where `choose`, bool [n], is true, else rows of `b`."""
    return LatentEstimate(
        *(
            torch.where(choose.view(-1, *[1] * (x.ndim - 1)), x, y)
            for x, y in zip(_tensors(a), _tensors(b), strict=True)
        )
    )


def _concatenated(estimates: list[LatentEstimate]) -> LatentEstimate:
    columns = zip(*(_tensors(estimate) for estimate in estimates), strict=True)
    return LatentEstimate(*(torch.cat([part.cpu() for part in column]) for column in columns))


def _check_sizes(
    images: NDArray[np.uint8], crop: LabelCrop, start: Tensor, shape: tuple[int, ...]
) -> None:
    if images.ndim != 4 or len(images) == 0 or images.shape[1:] != (crop.height, crop.width, 3):
        raise TrainingError(
            f"images are {list(images.shape)}; they must be [n, {crop.height}, {crop.width}, 3], "
            "n of at least 1"
        )
    if start.shape != shape:
        raise TrainingError(f"the start is {list(start.shape)}; it must be {list(shape)}")
