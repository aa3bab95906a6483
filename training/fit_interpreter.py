"""Labelled images -> a trained interpreter: all members of all heads in one batched model.

Features are gathered per sampled pixel from the taps at their own resolution; the
hypercolumn is never built.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import trange

from nets.features import gather_features
from nets.generator import Generator
from nets.interpreter import HeadConfig, Interpreter, published_hidden
from training.errors import LabelError
from training.labelled_set import LabelledSet


@dataclass(frozen=True)
class FitConfig:
    """How an interpreter is trained."""

    members: int = 10
    steps: int = 480
    pixels_per_image: int = 64  # in every step, half of them spread evenly over the classes
    learning_rate: float = 2e-3  # Adam's at the start, cosine to zero
    sigma_px: float = 1.5  # of the keypoints' Gaussian targets, in label pixels
    seed: int = 0


def fit_interpreter(generator: Generator, labels: LabelledSet, config: FitConfig) -> Interpreter:
    """Trains segmentation and, where the set has them, keypoints; deterministic for a seed.

    Raises LabelError when the labels do not fit the generator.
    """
    check_labels(generator, labels)
    torch.manual_seed(config.seed)
    with torch.no_grad():
        taps = generator.synthesis(torch.from_numpy(labels.ws)).taps
    sampler = PixelSampler(labels, config)
    interpreter = Interpreter(head_configs(labels, config, sum(t.shape[1] for t in taps)))

    optimizer = torch.optim.Adam(interpreter.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    interpreter.train()
    for _ in trange(config.steps, desc="interpreter", unit="step"):
        rows, columns = sampler.draw()  # [n, P] each
        features = gather_features(taps, rows, columns, sampler.grid).flatten(0, 1)
        loss = torch.zeros(())
        for kind, prediction in interpreter(features).items():  # [m, n*P, c]
            error = sampler.pixel_loss(kind, prediction, rows, columns)  # [m, n * P]
            loss = loss + error.mean(dim=1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return interpreter.eval()


def check_labels(generator: Generator, labels: LabelledSet) -> None:
    """Raises LabelError unless latents and mask sizes fit the generator."""
    expected = (generator.config.num_ws, generator.config.w_dim)
    if labels.ws.shape[1:] != expected:
        raise LabelError(
            f"latents are {list(labels.ws.shape[1:])} per image; this generator reads "
            f"{list(expected)} (num_ws, w_dim)"
        )
    if labels.masks.shape[1] != labels.masks.shape[2]:
        raise LabelError(
            f"masks are {labels.masks.shape[2]}x{labels.masks.shape[1]} pixels; they must be square"
        )


def head_configs(labels: LabelledSet, config: FitConfig, features: int) -> tuple[HeadConfig, ...]:
    """Segmentation, then keypoints where the set has them, at the published widths."""
    num_classes = len(labels.names.classes)
    hidden = published_hidden(num_classes)
    heads = [HeadConfig("segmentation", features, hidden, num_classes, config.members)]
    if labels.keypoints is not None:
        count = labels.keypoints.shape[1]
        heads.append(HeadConfig("keypoints", features, hidden, count, config.members))
    return tuple(heads)


class PixelSampler:
    """Draws training pixels of every image and knows their targets."""

    def __init__(self, labels: LabelledSet, config: FitConfig) -> None:
        self.grid = labels.masks.shape[1]
        self.masks = torch.from_numpy(labels.masks.astype(np.int64))  # [n, G, G]
        self.keypoints = None if labels.keypoints is None else torch.from_numpy(labels.keypoints)
        self.sigma_px = config.sigma_px
        self.random = torch.Generator().manual_seed(config.seed)
        self.uniform = config.pixels_per_image // 2
        self.balanced = config.pixels_per_image - self.uniform
        # Each image's pixels weighted so that every class in it has the same total.
        flat = self.masks.flatten(1)
        counts = torch.zeros(len(flat), len(labels.names.classes)).scatter_add_(
            1, flat, torch.ones_like(flat, dtype=torch.float32)
        )
        self.class_even = 1 / counts.gather(1, flat)  # [n, G*G]

    def draw(self) -> tuple[Tensor, Tensor]:
        """Rows and columns, int64 [n, P]: half uniform, half even over the image's classes."""
        n, pixels = self.class_even.shape
        uniform = torch.randint(pixels, (n, self.uniform), generator=self.random)
        balanced = torch.multinomial(
            self.class_even, self.balanced, replacement=True, generator=self.random
        )
        chosen = torch.cat([uniform, balanced], dim=1)
        return chosen // self.grid, chosen % self.grid

    def pixel_loss(self, kind: str, prediction: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """prediction [m, n*P, c] -> loss of every member at every drawn pixel, [m, n * P]."""
        members = prediction.shape[0]
        image = torch.arange(len(rows))[:, None]
        if kind == "segmentation":
            target = self.masks[image, rows, columns].flatten()  # [n*P]
            loss = F.cross_entropy(
                prediction.flatten(0, 1), target.repeat(members), reduction="none"
            )
        else:
            loss = (prediction - self.heatmap(rows, columns).flatten(0, 1)).square().sum(dim=2)
        return loss.view(members, -1)

    def heatmap(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Gaussian targets at the pixels' centres, [n, P, K]; zero for invisible keypoints."""
        assert self.keypoints is not None
        x, y, visible = self.keypoints[:, None].unbind(dim=3)  # [n, 1, K] each
        squared = (columns[..., None] + 0.5 - x).square() + (rows[..., None] + 0.5 - y).square()
        return visible * torch.exp(squared / (-2 * self.sigma_px**2))
