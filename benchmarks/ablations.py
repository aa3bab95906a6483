"""What of the label recipe pays: members, votes, temperature and training, by exact truth.

    python -m benchmarks.ablations [--domain heads] [--images 16] [--seeds 3] [--samples 150]
        [--out demo/uncertainty]

The ensembles of benchmarks.uncertainty_scores in --out, trained if they are missing, label fresh
samples of their seed. Arms:

    members       the first 1, 2, 3, 5 of the 10, which train apart from each other
    mean vote     the class of the largest mean probability, in place of the majority's
    temperature   logits divided by 0.5, 2, 4 before probabilities: scores change, votes do not
    trained       the published schedule; layers of other widths than 128 and 32; nearest in place
                  of bilinear features; fewer and more steps, and pixels in each

A row has the mIoU over all pixels, and the AUSE (see benchmarks.uncertainty_scores) of the mean of
the most uncertain tenth by each measure, as means over the seeds; of mIoU also the smallest and the
largest difference to the baseline, 10 members. Results are kept in --out as JSON, one file for each
seed and ensemble, and what is there is not run again.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.domains import DOMAINS
from benchmarks.few_labels import TEST_SEED
from benchmarks.machine import machine_name
from benchmarks.uncertainty_scores import TENTH, USUAL, Run, write_ensemble
from checkpoints import interpreter_from_file
from nets.generator import Generator
from nets.labels import Measure, class_uncertainty, majority, top_mean
from training.evaluate.sparsification import sparsification_from_scores
from training.interpreter.config import InterpreterTrainConfig
from training.interpreter.predict import member_networks, outputs_from_taps
from training.options import read_generator

MEMBERS = 10
BASELINE = f"{MEMBERS} members"
FEWER = (1, 2, 3, 5)
TEMPERATURES = (0.5, 2.0, 4.0)
TRAINED = {
    "": USUAL,
    "published schedule": InterpreterTrainConfig(schedule="published"),
    "hidden 64,16": InterpreterTrainConfig(hidden=(64, 16)),
    "hidden 256,64": InterpreterTrainConfig(hidden=(256, 64)),
    "nearest": InterpreterTrainConfig(resize="nearest"),
    "240 steps": InterpreterTrainConfig(steps=240),
    "1,920 steps": InterpreterTrainConfig(steps=1920),
    "4,096 pixels": InterpreterTrainConfig(pixels=4096),
}
MEASURES: tuple[Measure, ...] = ("jensen_shannon", "entropy", "least_confidence")


@click.command()
@click.option("--domain", default="heads", type=click.Choice(list(DOMAINS)), show_default=True)
@click.option("--images", default=16, type=click.IntRange(1), help="Number of labeled images.")
@click.option("--seeds", default=3, type=click.IntRange(1), help="Number of seeds.")
@click.option("--samples", default=150, help="Number of fresh samples to test each ensemble on.")
@click.option("--trained/--no-trained", default=True, help="Also the arms that need a training.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("demo/uncertainty"),
    help="Folder for results.",
)
def main(domain: str, images: int, seeds: int, samples: int, trained: bool, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    chosen = DOMAINS[domain]
    generator, _, _ = read_generator(chosen.generator, None)
    results = []
    for seed in range(seeds):
        found: dict[str, dict[str, float]] = {}
        for name, recipe in TRAINED.items():
            if name and not trained:
                continue
            stem = f"{domain}_{images:02d}_seed{seed}{name.replace(' ', '_').replace(',', '_')}"
            run = Run(chosen, images, seed, samples, out / stem, recipe)
            path = out / f"{stem}_{samples}_ablations.json"
            if not path.exists():
                path.write_text(json.dumps(measured(generator, run, name), indent=1) + "\n")
            found |= json.loads(path.read_text())
        results.append(found)
    print(f"machine: {machine_name()}; {domain}, {images} images, {seeds} seeds, {samples} samples")
    print(table(results))


@dataclass
class Arm:
    """Counts and scores of one arm."""

    confusion: np.ndarray[Any, np.dtype[np.int64]]  # [C, C], truth by label
    wrong: list[float]  # share of wrong pixels of each image
    scores: dict[Measure, list[float]]  # of each image

    def add(self, mask: Tensor, truth: Tensor, logits: Tensor) -> None:
        """One image: its mask and truth [H, W], and the logits of the scores [m, H, W, C]."""
        classes = len(self.confusion)
        pairs = classes * truth.long().flatten() + mask.long().flatten()
        self.confusion += np.bincount(pairs.numpy(), minlength=classes**2).reshape(classes, classes)
        self.wrong.append(float((mask != truth).double().mean()))
        for measure in MEASURES:
            score = top_mean(class_uncertainty(logits, measure), TENTH)
            self.scores[measure].append(float(score))

    def numbers(self) -> dict[str, float]:
        hits = np.diag(self.confusion)
        union = self.confusion.sum(axis=0) + self.confusion.sum(axis=1) - hits
        numbers = {"miou": float(np.mean(hits[union > 0] / union[union > 0]))}
        for measure, scores in self.scores.items():
            curves = sparsification_from_scores(np.array(scores), np.array(self.wrong))
            numbers[measure] = float(curves.by_score.mean() - curves.by_error.mean())
        return numbers


def measured(generator: Generator, run: Run, name: str) -> dict[str, dict[str, float]]:
    """Numbers by arm: of the baseline's ensemble all that need no other, else one of this name."""
    if not run.weights.exists():
        write_ensemble(generator, run)
    truth = run.domain.labels(generator, TEST_SEED + run.seed, np.arange(run.samples))
    assert truth.masks is not None
    interpreter, card = interpreter_from_file(run.weights)
    members = {"segmentation": member_networks(interpreter)["segmentation"]}
    classes = len(run.domain.class_names)
    arms: dict[str, Arm] = defaultdict(
        lambda: Arm(np.zeros((classes, classes), np.int64), [], {m: [] for m in MEASURES})
    )
    rows = tqdm(torch.from_numpy(truth.ws), desc=run.path.name, unit="image")
    for row, mask in zip(rows, torch.from_numpy(truth.masks), strict=True):
        with torch.no_grad():
            taps = generator.synthesis(row[None]).taps
            logits = outputs_from_taps(members, card, taps)["segmentation"]
        votes = majority(logits)
        arms[name or BASELINE].add(votes, mask, logits)
        if name:
            continue
        arms["mean vote"].add(logits.softmax(dim=-1).mean(dim=0).argmax(dim=-1), mask, logits)
        for count in FEWER:
            some = logits[:count]
            arms[f"{count} member{'s' if count > 1 else ''}"].add(majority(some), mask, some)
        for temperature in TEMPERATURES:
            arms[f"temperature {temperature:g}"].add(votes, mask, logits / temperature)
    return {arm: found.numbers() for arm, found in arms.items()}


def table(results: list[dict[str, dict[str, float]]]) -> str:
    """Markdown: a row for each arm; results by arm, one for each seed."""
    lines = [
        f"| arm | mIoU | less {BASELINE} | AUSE, divergence | entropy | least confidence |",
        "|---|---|---|---|---|---|",
    ]
    for arm in results[0]:
        miou = [100 * seed[arm]["miou"] for seed in results]
        less = [100 * (seed[arm]["miou"] - seed[BASELINE]["miou"]) for seed in results]
        ause = [f"{np.mean([seed[arm][m] for seed in results]):.3%}" for m in MEASURES]
        lines.append(
            f"| {arm} | {np.mean(miou):.1f} | {np.mean(less):+.2f} ({min(less):+.2f} to "
            f"{max(less):+.2f}) | {' | '.join(ause)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
