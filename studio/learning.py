"""The process that learns, `python -m studio.learning`: labels on disk -> weights and proposals.

It reads a line of JSON for each job from stdin, writes a line for each event to stdout, and ends
with stdin, so that it does not outlive the server. Between jobs it keeps generator and weights.

    {"cold_steps": 160, "warm_steps": 100}  a job
    {"kind": "start" | "step" | "proposal" | "done" | "failed", ...}  events
    {"kind": "estimating" | "estimated", ...}  and those after a round, until the next job
"""

import math
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Literal, TypedDict

import click
import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from bundle.files import replaced_file
from bundle.manifest import ScoreMeasure
from checkpoints import (
    CheckpointError,
    GeneratorCard,
    Strict,
    generator_from_path,
    interpreter_from_file,
    sha256_of_file,
    write_interpreter,
)
from nets.generator import Generator
from nets.interpreter import HeadKind, Interpreter
from studio.estimate import folds_of_rows, held_out_scores, with_masks
from studio.project import WORK
from training.errors import LabelError, TrainingError
from training.images.image_set import image_set_from_folder
from training.interpreter.card import card_from_fit
from training.interpreter.config import InterpreterTrainConfig
from training.interpreter.predict import Prediction, predictions
from training.interpreter.train import fit_interpreter
from training.labels.labelled_set import LabelledSet, labelled_set

INTERPRETER, PROPOSALS = "interpreter.safetensors", "proposals"
MEMBERS, PIXELS = 6, 512  # less than `training interpreter` takes: a round is for looking at
REPORT_S = 0.25  # between two reports of steps
# Uncertainty of a pixel that two classes share evenly, where a map's bytes reach 255.
FULL_HEAT: dict[ScoreMeasure, float] = {
    "jensen_shannon": math.log(2), "entropy": math.log(2), "least_confidence": 0.5,
}  # fmt: skip


class Job(Strict, frozen=True):
    """What the server asks for."""

    cold_steps: int = 160  # Adam steps without earlier weights
    warm_steps: int = 100  # and with them


class Event(TypedDict, total=False):
    """A line of stdout; which keys there are depends on `kind`."""

    kind: Literal["start", "step", "proposal", "done", "failed", "estimating", "estimated"]
    steps: int  # of the training; of "estimating", folds
    step: int  # completed
    loss: float
    classes: list[str]  # that are trained, by id
    keypoints: list[str]
    images: int  # that are trained on; of "done", that have proposals
    folds: int
    miou: float
    iou: dict[str, float | None]  # by class name; None: no labeled pixel
    stem: str
    uncertainty: float
    points: list[list[float]] | None
    seconds: float
    message: str


def bytes_from_uncertainty(found: Prediction, measure: ScoreMeasure) -> NDArray[np.uint8] | None:
    """The uncertainty map as bytes [H, W], FULL_HEAT and more as 255; None without a map."""
    if found.uncertainty_map is None:
        return None
    heat = np.clip(found.uncertainty_map * (255 / FULL_HEAT[measure]), 0, 255)
    values: NDArray[np.uint8] = heat.astype(np.uint8)
    return values


class NewWork(Exception):
    """A job is waiting."""


class Apprentice:
    """A generator, and the weights learned last."""

    def __init__(
        self, generator: Generator, card: GeneratorCard, sha256: str, folder: Path
    ) -> None:
        self.generator, self.card, self.sha256, self.folder = generator, card, sha256, folder
        self.work = folder / WORK
        self.interpreter = self._stored()

    def learn(self, job: Job) -> None:
        """Trains on the labels in the folder, then proposes labels of every image without."""
        began = time.monotonic()
        images = image_set_from_folder(self.folder)
        labels = without_depth(labelled_set(images))
        if not len(labels):
            raise LabelError(f"{self.folder} has no masks or keypoints to learn from")
        steps = job.cold_steps if self.interpreter is None else job.warm_steps
        config = InterpreterTrainConfig(members=MEMBERS, steps=steps, pixels=PIXELS)
        classes = [] if labels.classes is None else [card.name for card in labels.classes.cards]
        tell({
            "kind": "start", "steps": steps, "images": len(labels), "classes": classes,
            "keypoints": list(labels.keypoint_names),
        })  # fmt: skip
        last = 0.0

        def report(step: int, losses: dict[HeadKind, float]) -> None:
            nonlocal last
            if step == steps or time.monotonic() - last > REPORT_S:
                last = time.monotonic()
                tell({"kind": "step", "steps": steps, "step": step, "loss": sum(losses.values())})

        trained = fit_interpreter(
            self.generator, labels, config, start=self.interpreter, report=report
        )
        self.interpreter = trained
        card = card_from_fit(
            trained, labels, config, self.sha256, self.generator.config.tap_recipe,
            self.card.licences,
        )  # fmt: skip
        (self.work / PROPOSALS).mkdir(parents=True, exist_ok=True)
        write_interpreter(self.work / INTERPRETER, trained, card)
        rows = _unlabelled_rows(images.stems, labels)
        ws = images.ws[rows]
        for row, found in zip(rows, predictions(self.generator, trained, card, ws), strict=True):
            self._propose(images.stems[row], found, card.score_measure)
        seconds = time.monotonic() - began
        tell({"kind": "done", "images": len(rows), "seconds": round(seconds, 1)})

    def estimate(self, go_on: Callable[[], None]) -> None:
        """Tells how good the labels are on images that were left out, if there are enough.

        `go_on` is called often and raises NewWork, which ends it. Raises TrainingError.
        """
        labels = with_masks(labelled_set(image_set_from_folder(self.folder)))
        if labels is None:
            return
        scores = held_out_scores(
            self.generator, self.card, self.sha256, labels,
            lambda done, folds: tell({"kind": "estimating", "step": done, "steps": folds}), go_on,
        )  # fmt: skip
        assert labels.classes is not None
        iou = {
            card.name: None if np.isnan(value) else float(value)
            for card, value in zip(labels.classes.cards, scores.iou, strict=True)
        }
        folds = len(folds_of_rows(len(labels)))
        tell({
            "kind": "estimated", "images": len(labels), "folds": folds, "miou": scores.miou,
            "iou": iou,
        })  # fmt: skip

    def _propose(self, stem: str, found: Prediction, measure: ScoreMeasure) -> None:
        folder, heat = self.work / PROPOSALS, bytes_from_uncertainty(found, measure)
        for name, values in (("mask", found.mask), ("uncertainty", heat)):
            if values is not None:
                with replaced_file(folder / f"{stem}.{name}.png") as partial:
                    Image.fromarray(values).save(partial, "png")
        points = None if found.keypoints is None else found.keypoints.tolist()
        uncertainty = 0.0 if found.uncertainty is None else float(found.uncertainty)
        tell({"kind": "proposal", "stem": stem, "uncertainty": uncertainty, "points": points})

    def _stored(self) -> Interpreter | None:
        """The weights of an earlier session; None if there are none, or of another generator."""
        try:
            interpreter, card = interpreter_from_file(self.work / INTERPRETER)
        except CheckpointError:
            return None
        return interpreter if card.generator_sha256 == self.sha256 else None


def without_depth(labels: LabelledSet) -> LabelledSet:
    """The images that have a labeled pixel or keypoints, and no depth, which the studio does not
    teach."""
    taught = np.zeros(len(labels), bool)
    if labels.masks is not None:
        taught |= (labels.masks != labels.ignore_id).any(axis=(1, 2))
    if labels.keypoints is not None:
        taught |= np.isfinite(labels.keypoints).all(axis=(1, 2))
    return replace(labels, depth=None, depth_unit="").rows(np.flatnonzero(taught))


def _unlabelled_rows(stems: list[str], labels: LabelledSet) -> list[int]:
    return [row for row, stem in enumerate(stems) if stem not in labels.stems]


def tell(event: Event) -> None:
    """Writes a line to stdout."""
    sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
    sys.stdout.flush()


def learning_threads() -> int:
    """All cores but one, which serves: a torch that computes on every core waits, at each of its
    many small steps, for the thread that a stroke has pushed aside."""
    return max(1, len(os.sched_getaffinity(0)) - 1)


def _give_way(jobs: "SimpleQueue[bytes]") -> None:
    if not jobs.empty():
        raise NewWork


def _jobs_from_stdin(jobs: "SimpleQueue[bytes]") -> None:
    for line in sys.stdin.buffer:
        jobs.put(line)
    os._exit(0)  # the server is gone, or has closed the pipe; whatever is going on ends


@click.command()
@click.option("--generator", "generator_path", type=click.Path(path_type=Path), required=True)
@click.option("--mean-latent", type=click.Path(path_type=Path))
@click.option("--project", "folder", type=click.Path(path_type=Path), required=True)
def main(generator_path: Path, mean_latent: Path | None, folder: Path) -> None:
    """Learn from a project's labels, one job after the other (the studio starts this itself)."""
    os.nice(10)  # strokes come first
    jobs: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_jobs_from_stdin, args=(jobs,), daemon=True).start()
    torch.set_num_threads(learning_threads())
    network, card = generator_from_path(generator_path, mean_latent)
    apprentice = Apprentice(network, card, sha256_of_file(generator_path), folder)
    while True:
        job = msgspec.json.decode(jobs.get(), type=Job)
        try:
            apprentice.learn(job)
        except (TrainingError, CheckpointError, OSError) as error:
            tell({"kind": "failed", "message": str(error)})
            continue
        try:
            apprentice.estimate(lambda: _give_way(jobs))
        except NewWork:
            pass
        except (TrainingError, CheckpointError, OSError) as error:
            tell({"kind": "estimated", "message": str(error)})


if __name__ == "__main__":
    main()
