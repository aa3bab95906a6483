"""The process that draws what is reviewed, `python -m studio.wall`: weights -> labeled samples.

The samples are those of a stream whose seed is taken from the weights' hash, so that other weights
get samples that nobody has seen, and no one can choose them. The first PILOT only fix the
thresholds, unless the bundle is calibrated and has its own; those after them are the wall, which
grows with later calls. The process ends with stdin, so that it does not outlive the server.

    DIR/studio/review/wall.json  which weights, thresholds, and a row for each sample
    DIR/studio/review/00000.image.png, .mask.png, .uncertainty.png, with a depth head .depth.png
"""

import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Annotated, Literal

import click
import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from bundle.certificate import KEEP
from bundle.errors import BundleError
from bundle.files import read_regular_file, replaced_file
from bundle.manifest import Manifest, ScoreMeasure
from bundle.open import read_manifest
from bundle.records import Strict
from checkpoints import (
    CheckpointError,
    generator_from_path,
    interpreter_from_file,
    sha256_of_file,
    write_text,
)
from export.checks.certificate import (
    PILOT,
    seed_from_hash,
    thresholds_from_pilot,
    thresholds_of_bundle,
)
from studio.depth import picture_from_depth
from studio.export_run import BUNDLE
from studio.learning import bytes_from_uncertainty, learning_threads
from studio.project import WORK, tag_of_mask
from training.errors import LabelError, TrainingError
from training.images.image_set import ImageSet, image_set_from_folder
from training.images.sample import SampleConfig, drawn_w, truncated
from training.interpreter.predict import Prediction, predictions
from training.label_crop import images_from_ws

REVIEW, WALL = "review", "wall.json"
SAVED_EVERY = 4  # samples
MAX_WALL_BYTES = 64 << 20
Source = Literal["learn", "export"]
Thresholds = Annotated[list[float | None], msgspec.Meta(min_length=len(KEEP), max_length=len(KEEP))]


class Sample(Strict, frozen=True):
    """A sample of the wall."""

    uncertainty: float
    shares: list[float]  # of pixels, by class id
    tag: str  # of its mask
    depth: tuple[float, float] | None = None  # nearest and farthest; None: no such head


class Wall(Strict, frozen=True):
    """Content of wall.json."""

    weights: str  # SHA-256 of the ensemble's file
    generator: str  # and of the generator's
    source: Source
    seed: int
    psi: float
    cutoff: int
    thresholds: Thresholds  # by certificate.KEEP
    samples: list[Sample]
    score_measure: ScoreMeasure = "jensen_shannon"
    classes: list[str] | None = None  # by id; None: a wall of an earlier version


def stored_wall(folder: Path) -> Wall | None:
    """The wall in a project folder, if there is one that can be read."""
    try:
        data = read_regular_file(folder / WORK / REVIEW / WALL, MAX_WALL_BYTES)
        return msgspec.json.decode(data, type=Wall)
    except (OSError, msgspec.DecodeError, ValueError):
        return None


def sample_file(
    folder: Path, index: int, name: Literal["image", "mask", "uncertainty", "depth"]
) -> Path:
    """Path of a PNG of a sample."""
    return folder / WORK / REVIEW / f"{index:05d}.{name}.png"


def draw_wall(
    generator_path: Path, mean_latent: Path | None, folder: Path, weights: Path, expected: str,
    source: Source, count: int,
) -> None:  # fmt: skip
    """Labels samples until the wall has `count`. Raises TrainingError, CheckpointError, OSError."""
    generator, generator_card = generator_from_path(generator_path, mean_latent)
    interpreter, card = interpreter_from_file(weights)
    generator_sha = sha256_of_file(generator_path)
    if sha256_of_file(weights) != expected:
        raise LabelError("the ensemble has learned again meanwhile; draw samples of the new one")
    if card.generator_sha256 != generator_sha:
        raise LabelError(f"{weights} belongs to another generator; learn again")
    if card.segmentation is None or card.score_source is None:
        raise LabelError("the ensemble paints no masks; the review counts wrong pixels")
    images = image_set_from_folder(folder)
    config = SampleConfig(
        candidates=PILOT + count, seed=seed_from_hash(expected),
        psi=generator_card.truncation_psi, cutoff=generator_card.truncation_cutoff,
    )  # fmt: skip
    ws = truncated(generator, drawn_w(generator, config), config)
    wall = stored_wall(folder)
    measure, names = card.score_measure, [one.name for one in card.segmentation.classes]
    if wall is None or _facts(wall) != (
        expected, generator_sha, config.psi, config.cutoff, measure,
    ):  # fmt: skip
        shutil.rmtree(folder / WORK / REVIEW, ignore_errors=True)
        manifest = exported_manifest(folder, expected, measure) if source == "export" else None
        thresholds = None if manifest is None else thresholds_of_bundle(manifest)
        if thresholds is None:
            pilot = [p.uncertainty for p in predictions(generator, interpreter, card, ws[:PILOT])]
            thresholds = thresholds_from_pilot(np.array(pilot, np.float64))
        wall = Wall(expected, generator_sha, source, config.seed, config.psi, config.cutoff,
                    thresholds, [], measure, names)  # fmt: skip
    (folder / WORK / REVIEW).mkdir(parents=True, exist_ok=True)
    first, classes = len(wall.samples), len(card.segmentation.classes)
    found = predictions(generator, interpreter, card, ws[PILOT + first :])
    for index, prediction in enumerate(found, first):
        row = ws[PILOT + index][None]
        picture = images_from_ws(generator, row, images.crop)[0]
        heat = bytes_from_uncertainty(prediction, measure)
        wall.samples.append(_written(folder, index, picture, prediction, heat, classes, images))
        if (index + 1) % SAVED_EVERY == 0 or index + 1 == count:
            write_text(folder / WORK / REVIEW / WALL, msgspec.json.encode(wall).decode())
            sys.stdout.write(f"{index + 1}\n")
            sys.stdout.flush()


def exported_manifest(
    folder: Path, interpreter_sha256: str, measure: ScoreMeasure
) -> Manifest | None:
    """The manifest of the project's bundle if it was exported from these weights and scores by this
    measure, else None."""
    try:
        manifest = read_manifest(folder / BUNDLE)
    except BundleError:
        return None
    weights, heads = manifest.weights, manifest.heads
    known = weights is not None and weights.interpreter_sha256 == interpreter_sha256
    return manifest if known and heads is not None and heads.score_measure == measure else None


def _facts(wall: Wall) -> tuple[str, str, float, int, ScoreMeasure]:
    return wall.weights, wall.generator, wall.psi, wall.cutoff, wall.score_measure


def _written(
    folder: Path, index: int, picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    found: Prediction, heat: NDArray[np.uint8] | None, classes: int, images: ImageSet,
) -> Sample:  # fmt: skip
    assert found.mask is not None and found.uncertainty is not None and heat is not None
    if found.mask.shape != (images.crop.height, images.crop.width):
        raise LabelError("the ensemble was trained with another crop; learn again")
    depth = None if found.depth is None else (float(found.depth.min()), float(found.depth.max()))
    if found.depth is not None:
        with replaced_file(sample_file(folder, index, "depth")) as partial:
            picture_from_depth(found.depth).save(partial, "png")
    for path, values in (
        (sample_file(folder, index, "image"), picture),
        (sample_file(folder, index, "mask"), found.mask),
        (sample_file(folder, index, "uncertainty"), heat),
    ):
        with replaced_file(path) as partial:
            Image.fromarray(values).save(partial, "png")
    counts = np.bincount(found.mask.ravel(), minlength=classes)
    shares = (counts / found.mask.size).round(6).tolist()
    return Sample(
        uncertainty=float(found.uncertainty),
        shares=shares,
        tag=tag_of_mask(found.mask),
        depth=depth,
    )


def wall_command(generator: Path, mean_latent: Path | None, folder: Path) -> list[str]:
    """The command line of the process, without what differs between calls."""
    command = [sys.executable, "-m", "studio.wall", "--generator", str(generator)]
    if mean_latent is not None:
        command += ["--mean-latent", str(mean_latent)]
    return [*command, "--project", str(folder)]


@click.command()
@click.option("--generator", "generator_path", type=click.Path(path_type=Path), required=True)
@click.option("--mean-latent", type=click.Path(path_type=Path))
@click.option("--project", "folder", type=click.Path(path_type=Path), required=True)
@click.option("--weights", type=click.Path(path_type=Path), required=True)
@click.option("--sha256", "expected", required=True)
@click.option("--source", type=click.Choice(["learn", "export"]), required=True)
@click.option("--count", type=int, required=True)
def main(
    generator_path: Path, mean_latent: Path | None, folder: Path, weights: Path, expected: str,
    source: Source, count: int,
) -> None:  # fmt: skip
    """Draw samples for the review (the studio starts this itself)."""
    os.nice(10)  # strokes come first
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    torch.set_num_threads(learning_threads())
    try:
        draw_wall(generator_path, mean_latent, folder, weights, expected, source, count)
    except (TrainingError, CheckpointError, OSError) as error:
        sys.stdout.write(f"error: {' '.join(str(error).split())}\n")
        sys.exit(1)


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)  # the server is gone; the next one draws on from what is written


if __name__ == "__main__":
    main()
