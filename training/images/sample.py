"""Images sampled from a generator for people to label, chosen to cover what it can generate.

A generator and a SampleConfig enter; an image set leaves.
"""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from labelmint.latents import Purpose, classes, latents
from nets.generator import Generator
from training.errors import TrainingError
from training.images.image_set import ImageEntry, ImageSet, refuse_existing_set, write_image_set
from training.label_crop import LabelCrop, images_from_ws

MAPPING_BATCH = 256
KMEANS_ITERATIONS = 50  # converges long before
SOURCE_PREFIX = "index "  # before a sample's index, in ImageEntry.source

Choice = Literal["typical", "farthest"]


@dataclass(frozen=True)
class SampleConfig:
    """How images are sampled and chosen."""

    count: int = 16  # images to write
    candidates: int = 256  # samples to choose from; equal to `count`: no choice
    seed: int = 2021
    psi: float = 1.0  # truncation psi
    cutoff: int = 0  # rows of w+ that are truncated
    choose: Choice = "typical"


def sample_images(
    generator: Generator, config: SampleConfig, crop: LabelCrop, folder: Path, generator_sha256: str
) -> ImageSet:
    """Samples candidates, chooses among their w, and writes the chosen images as an image set.

    Candidate i is sample i of a stream with the same seed. Raises TrainingError.
    """
    check_config(generator, config)
    refuse_existing_set(folder)
    w = drawn_w(generator, config)
    if config.choose == "typical":
        rows = typical_rows(w, config.count, config.seed)
    else:
        rows = spread_rows(w, config.count)
    ws = truncated(generator, w[rows], config)
    chunks = np.array_split(ws, len(ws))
    images = [
        images_from_ws(generator, chunk, crop)
        for chunk in tqdm(chunks, desc="images", unit="image")
    ]
    return write_image_set(
        folder,
        ws,
        np.concatenate(images),
        crop,
        entries_from_names(names_for_count(config.count), [f"{SOURCE_PREFIX}{i}" for i in rows]),
        generator_sha256,
        {"by": "python -m training sample", **asdict(config)},
    )


def check_config(generator: Generator, config: SampleConfig) -> None:
    """Raises TrainingError if there are too few candidates or the cutoff is out of range."""
    if config.candidates < config.count:
        raise TrainingError(
            f"{config.count} images cannot be chosen from {config.candidates} candidates; raise "
            "--candidates or lower --count"
        )
    if not 0 <= config.cutoff <= generator.config.num_ws:
        raise TrainingError(
            f"the cutoff is {config.cutoff}; it must be from 0 to {generator.config.num_ws}, this "
            "generator's rows of w+"
        )


@torch.no_grad()
def drawn_w(generator: Generator, config: SampleConfig) -> NDArray[np.float32]:
    """w of every candidate before truncation, float32 [candidates, w_dim]."""
    device = generator.mapping.w_avg.device
    indices = np.arange(config.candidates)
    z = torch.from_numpy(latents(config.seed, Purpose.OBJECT, indices, generator.config.z_dim))
    batches = list(z.to(device).split(MAPPING_BATCH))
    conditions: list[torch.Tensor | None] = [None] * len(batches)
    if c_dim := generator.config.c_dim:
        class_ids = torch.from_numpy(classes(config.seed, indices, c_dim)).to(device)
        one_hot = torch.nn.functional.one_hot(class_ids.long(), c_dim).float()
        conditions = list(one_hot.split(MAPPING_BATCH))
    w = [generator.mapping(z, c) for z, c in zip(batches, conditions, strict=True)]
    return torch.cat(w).cpu().numpy()


def typical_rows(points: NDArray[np.floating], count: int, seed: int) -> NDArray[np.int64]:
    """Rows of points [n, d] nearest to the centers of `count` k-means clusters, the row of the
    largest cluster first.

    k-means is Lloyd's, initialized as by k-means++ (Arthur and Vassilvitskii, 2007), but with the
    point nearest to the mean as its first center.
    """
    from scipy.cluster.vq import kmeans2  # a quarter of torch's time to import

    rng = np.random.Generator(np.random.Philox(key=seed))
    first = [_nearest_to_mean(points)]
    nearest = _squared_distances(points, points[first])[:, 0]
    while len(first) < count:
        squared = nearest.astype(np.float64)
        probabilities = squared / squared.sum() if squared.any() else None
        first.append(int(rng.choice(len(points), p=probabilities)))
        latest = _squared_distances(points, points[first[-1:]])[:, 0]
        nearest = np.minimum(nearest, latest)
    centers = points[first]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # equal points leave clusters empty; their centers stay
        centers, cluster = kmeans2(points, centers, KMEANS_ITERATIONS, minit="matrix")
    distances = _squared_distances(points, centers)
    chosen: list[int] = []
    for k in np.argsort(-np.bincount(cluster, minlength=count), kind="stable"):
        distances[chosen] = np.inf  # no row is chosen twice
        chosen.append(int(distances[:, k].argmin()))
    return np.array(chosen)


def spread_rows(points: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Rows of points [n, d] that cover the set: each is the farthest from those chosen before it.

    Greedy k-center (Gonzalez, 1985); the first row is the one nearest to the mean.
    """
    chosen = [_nearest_to_mean(points)]
    nearest = np.square(points - points[chosen[0]]).sum(axis=1)
    while len(chosen) < count:
        nearest[chosen] = -1  # no row is chosen twice, even among equal points
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.square(points - points[chosen[-1]]).sum(axis=1))
    return np.array(chosen)


def _nearest_to_mean(points: NDArray[np.floating]) -> int:
    return int(np.square(points - points.mean(axis=0)).sum(axis=1).argmin())


def _squared_distances(
    points: NDArray[np.floating], centers: NDArray[np.floating]
) -> NDArray[np.floating]:
    """[n, k] in the precision of the points. A cluster of two points has its center midway, so
    rounding decides which is chosen: another formula would change the images of a seed."""
    columns = [np.square(points - center).sum(axis=1) for center in centers]
    return np.stack(columns, axis=1)


def truncated(
    generator: Generator, w: NDArray[np.float32], config: SampleConfig
) -> NDArray[np.float32]:
    """Truncates w [n, w_dim] -> w+ [n, num_ws, w_dim]: the first `cutoff` rows of w+ become
    mean + psi * (w - mean)."""
    ws = np.repeat(w[:, None], generator.config.num_ws, axis=1)
    mean = generator.mapping.w_avg.cpu().numpy()
    ws[:, : config.cutoff] = mean + config.psi * (ws[:, : config.cutoff] - mean)
    return ws


def drawn_indices(images: ImageSet) -> NDArray[np.int64]:
    """Stream indices of the images of a sampled set."""
    sources = [str(entry.source) for entry in images.index.images]
    return np.array([int(source.removeprefix(SOURCE_PREFIX)) for source in sources])


def names_for_count(count: int) -> list[str]:
    """File names 000.png, 001.png, ..., all of the same length."""
    digits = max(3, len(str(count - 1)))
    return [f"{i:0{digits}d}.png" for i in range(count)]


def entries_from_names(names: Sequence[str], sources: Sequence[str | None]) -> list[ImageEntry]:
    """Index entries without hashes, which `write_image_set` fills in."""
    return [
        ImageEntry(file=name, pixels_sha256="", source=source)
        for name, source in zip(names, sources, strict=True)
    ]
