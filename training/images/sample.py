"""Draws images from a generator for people to label, spread over what it can make."""

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

MAPPED_AT_ONCE = 256
INDEX_OF_SEED = "index "


Choice = Literal["typical", "farthest"]
ROUNDS = 50  # of k-means, which is done long before


@dataclass(frozen=True)
class SampleConfig:
    """How images are drawn."""

    count: int = 16
    candidates: int = 256  # drawn to choose from; `count` of them: the first ones, unchosen
    seed: int = 2021
    psi: float = 1.0  # truncation
    cutoff: int = 0  # rows that psi is applied to
    choose: Choice = "typical"


def spread_rows(points: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Rows of points [n, d] that cover the set: each is the farthest from those before it.

    Greedy k-centre (Gonzalez, 1985); the first is the one nearest to the mean.
    """
    chosen = [int(np.square(points - points.mean(axis=0)).sum(axis=1).argmin())]
    nearest = np.square(points - points[chosen[0]]).sum(axis=1)
    while len(chosen) < count:
        nearest[chosen] = -1  # equal points too are taken once each
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.square(points - points[chosen[-1]]).sum(axis=1))
    return np.array(chosen)


def typical_rows(points: NDArray[np.floating], count: int, seed: int) -> NDArray[np.int64]:
    """Rows of points [n, d] that stand for the others: the nearest to each centre of k-means
    (Lloyd, from the start of k-means++), the largest cluster's first."""
    random = np.random.Generator(np.random.Philox(key=seed))
    centres = points[[int(_squared(points, points.mean(axis=0, keepdims=True))[:, 0].argmin())]]
    while len(centres) < count:
        apart = _squared(points, centres).min(axis=1).astype(np.float64)
        share = apart / apart.sum() if apart.any() else None
        centres = np.concatenate([centres, points[[random.choice(len(points), p=share)]]])
    cluster = np.zeros(len(points), np.int64)
    for _ in range(ROUNDS):
        cluster = _squared(points, centres).argmin(axis=1)
        for k in set(cluster.tolist()):
            centres[k] = points[cluster == k].mean(axis=0)
    distance = _squared(points, centres)
    chosen: list[int] = []
    for k in np.argsort(-np.bincount(cluster, minlength=count), kind="stable"):
        distance[chosen] = np.inf
        chosen.append(int(distance[:, k].argmin()))
    return np.array(chosen)


def _squared(points: NDArray[np.floating], centres: NDArray[np.floating]) -> NDArray[np.floating]:
    """Squared distances [n, k]."""
    columns = [np.square(points - centre).sum(axis=1) for centre in centres]
    return np.stack(columns, axis=1)


def sample_images(
    generator: Generator, config: SampleConfig, crop: LabelCrop, folder: Path, generator_sha256: str
) -> ImageSet:
    """Draws candidates, chooses among their w, writes the chosen as an image set.

    Candidate i is the stream's sample i of this seed. Raises TrainingError.
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
    images = [images_from_ws(generator, chunk, crop) for chunk in tqdm(chunks, desc="images")]
    return write_image_set(
        folder,
        ws,
        np.concatenate(images),
        crop,
        entries_from_names(names_for_count(config.count), [f"{INDEX_OF_SEED}{i}" for i in rows]),
        generator_sha256,
        {"by": "python -m training sample", **asdict(config)},
    )


def check_config(generator: Generator, config: SampleConfig) -> None:
    """Raises TrainingError for counts and truncation out of range."""
    if config.candidates < config.count:
        raise TrainingError(
            f"{config.count} images cannot be chosen from {config.candidates} candidates; raise "
            "--candidates or lower --count"
        )
    if not 0 <= config.cutoff <= generator.config.num_ws:
        raise TrainingError(
            f"the cutoff is {config.cutoff}; this generator has {generator.config.num_ws} rows"
        )


@torch.no_grad()
def drawn_w(generator: Generator, config: SampleConfig) -> NDArray[np.float32]:
    """w of every candidate before truncation, float32 [candidates, w_dim]."""
    device = generator.mapping.w_avg.device
    indices = np.arange(config.candidates)
    drawn = latents(config.seed, Purpose.OBJECT, indices, generator.config.z_dim)
    z = torch.from_numpy(drawn).to(device)
    c = None
    if generator.config.c_dim:
        of_class = torch.from_numpy(classes(config.seed, indices, generator.config.c_dim)).to(
            device
        )
        c = torch.nn.functional.one_hot(of_class.long(), generator.config.c_dim).float()
    parts = [
        generator.mapping(
            z[i : i + MAPPED_AT_ONCE], None if c is None else c[i : i + MAPPED_AT_ONCE]
        )
        for i in range(0, len(z), MAPPED_AT_ONCE)
    ]
    return torch.cat(parts).cpu().numpy()


def truncated(
    generator: Generator, w: NDArray[np.float32], config: SampleConfig
) -> NDArray[np.float32]:
    """w [n, w_dim] -> w+ [n, num_ws, w_dim], the first `cutoff` rows drawn towards the mean."""
    ws = np.repeat(w[:, None], generator.config.num_ws, axis=1)
    mean = generator.mapping.w_avg.cpu().numpy()
    ws[:, : config.cutoff] = mean + config.psi * (ws[:, : config.cutoff] - mean)
    return ws


def drawn_indices(images: ImageSet) -> NDArray[np.int64]:
    """Which samples of the seed's stream the images of a drawn set are."""
    sources = [str(entry.source) for entry in images.index.images]
    return np.array([int(source.removeprefix(INDEX_OF_SEED)) for source in sources])


def names_for_count(count: int) -> list[str]:
    """000.png, 001.png ..., of one length."""
    digits = max(3, len(str(count - 1)))
    return [f"{i:0{digits}d}.png" for i in range(count)]


def entries_from_names(names: Sequence[str], sources: Sequence[str | None]) -> list[ImageEntry]:
    """Index entries without their hashes, which `write_image_set` fills in."""
    return [
        ImageEntry(file=name, pixels_sha256="", source=source)
        for name, source in zip(names, sources, strict=True)
    ]
