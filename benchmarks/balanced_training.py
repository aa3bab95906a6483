"""A U-Net on a balanced stream, weighted and not, against one on the plain stream.

    python -m benchmarks.balanced_training [--bundle demo/bundle] [--images 1200] [--steps 150]

All arms have the same number of images, steps and initial weights. They are tested on plain samples
of another seed, by the bundle's own labels, so that nothing but the choice of the training's images
differs. IoU is from the confusion matrix over all test pixels, for each training seed.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.machine import machine_name
from bundle import open_bundle
from engines import EngineOptions
from engines.samples import BundleSamples
from examples.train_segmentation.unet import UNet, UNetConfig
from labelmint.options import StreamOptions

CLASS, SHARE = "glasses", 0.5
BATCH, RATE = 16, 2e-3
TRAINING_SEED, TEST_SEED = 7, 8  # of the streams
CHUNK = 64  # indices at a time


@dataclass(frozen=True)
class Images:
    """Labeled samples in order of their indices."""

    images: Tensor  # uint8 [n, 3, H, W]
    masks: Tensor  # int64 [n, H, W]
    weights: Tensor  # float32 [n]


@click.command()
@click.option("--bundle", "folder", type=click.Path(path_type=Path), default=Path("demo/bundle"))
@click.option("--images", default=1200, type=click.IntRange(BATCH), help="Of each arm.")
@click.option("--test", default=400, type=click.IntRange(1), help="Test images.")
@click.option("--steps", default=150, type=click.IntRange(1), help="Steps of each training.")
@click.option("--seeds", default=3, type=click.IntRange(1), help="Trainings of each arm.")
@click.option("--threads", default=1, type=click.IntRange(1))
def main(folder: Path, images: int, test: int, steps: int, seeds: int, threads: int) -> None:
    torch.set_num_threads(threads)
    print(f"machine: {machine_name()}, load {os.getloadavg()[0]:.1f}", flush=True)
    head = open_bundle(folder).manifest.heads
    assert head is not None and head.segmentation is not None
    names = [label.name for label in head.segmentation.classes]
    number = names.index(CLASS)
    plain = streamed(folder, images, {"seed": TRAINING_SEED})
    balanced = streamed(folder, images, {"seed": TRAINING_SEED, "balance": {CLASS: SHARE}})
    tested = streamed(folder, test, {"seed": TEST_SEED})
    for name, given in (("plain", plain), ("balanced", balanced), ("test", tested)):
        shown = ((given.masks == number).float().mean(dim=(1, 2)) >= 0.001).float().mean()
        print(f"{name}: {len(given.images)} images, {shown:.1%} with {CLASS}", flush=True)
    equal = Images(balanced.images, balanced.masks, torch.ones_like(balanced.weights))
    arms = {"plain": plain, "balanced, weighted": balanced, "balanced, unweighted": equal}
    print(f"\n| training data | seed | mIoU | {' | '.join(names)} |")
    print(f"|---|---|---|{'---|' * len(names)}")
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in arms}
    for seed in range(seeds):
        for name, given in arms.items():
            ious = tested_ious(trained(given, len(names), steps, seed), tested, len(names))
            found[name].append(ious)
            row(name, str(seed), ious)
    for name, rows in found.items():
        row(name, "mean", np.mean(rows, axis=0))
    pairs = zip(found["balanced, weighted"], found["plain"], strict=True)
    gains = [float(a[number] - b[number]) for a, b in pairs]
    print(f"\n{CLASS}, weighted less plain: {', '.join(f'{100 * gain:+.1f}' for gain in gains)}")


def row(name: str, seed: str, ious: NDArray[np.float64]) -> None:
    cells = " | ".join(f"{100 * iou:.1f}" for iou in ious)
    print(f"| {name} | {seed} | {100 * ious.mean():.1f} | {cells} |", flush=True)


def streamed(folder: Path, wanted: int, options: dict[str, Any]) -> Images:
    """The first `wanted` samples that a stream with these options delivers."""
    given = StreamOptions(outputs=["image", "mask", "weight"], **options)  # type: ignore[typeddict-item]
    samples = BundleSamples(folder, given, EngineOptions(threads=1), verify=False)
    parts, kept, examined = [], 0, 0
    while kept < wanted:
        parts.append(samples.of_indices(range(examined, examined + CHUNK)))
        kept, examined = kept + len(parts[-1]["index"]), examined + CHUNK
    samples.close()
    joined = {
        name: np.concatenate([part[name] for part in parts])[:wanted]
        for name in ("image", "mask", "weight")
    }
    return Images(
        torch.from_numpy(np.moveaxis(joined["image"], -1, 1).copy()),
        torch.from_numpy(joined["mask"].astype(np.int64)),
        torch.from_numpy(joined["weight"]),
    )


def trained(given: Images, classes: int, steps: int, seed: int) -> UNet:
    """A network of this seed, which also decides the order of the images."""
    torch.manual_seed(seed)
    network = UNet(UNetConfig(classes=classes, keypoints=0))
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = torch.Generator().manual_seed(seed)
    network.train()
    rows = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(rows) < BATCH:
            rows = torch.cat([rows, torch.randperm(len(given.images), generator=order)])
        batch, rows = rows[:BATCH], rows[BATCH:]
        logits = network(given.images[batch]).classes
        losses = F.cross_entropy(logits, given.masks[batch], reduction="none").mean(dim=(1, 2))
        weights = given.weights[batch]
        loss = (weights * losses).sum() / weights.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def tested_ious(network: UNet, tested: Images, classes: int) -> NDArray[np.float64]:
    """IoU of each class, [classes]."""
    counts = torch.zeros(classes * classes, dtype=torch.int64)
    with torch.no_grad():
        for start in range(0, len(tested.images), 32):
            part = slice(start, start + 32)
            predicted = network(tested.images[part]).classes.argmax(dim=1)
            pairs = tested.masks[part] * classes + predicted
            counts += torch.bincount(pairs.ravel(), minlength=classes * classes)
    confusion = counts.view(classes, classes).double()
    both = confusion.diag()
    ious: NDArray[np.float64] = (both / (confusion.sum(0) + confusion.sum(1) - both)).numpy()
    return ious


if __name__ == "__main__":
    main()
