"""Which uncertainty of an ensemble finds wrong labels best, by exact truth.

    python -m benchmarks.uncertainty_scores [--domain heads] [--images 16 ...] [--seeds 3]
        [--samples 500] [--out demo/uncertainty]

Ensembles of parts trained on 1, 4 and 16 typical images of a domain (benchmarks.domains) label
fresh samples. A seed chooses the images to label, the training and the fresh samples. Measures of a
pixel, from the probabilities p_m of its members m (mean p):

    divergence    H(p) - mean H(p_m), Jensen-Shannon and the mutual information: what is served
    entropy       H(p)
    confidence    1 - max p
    margin        1 - (largest - second of p)
    votes         share of members that do not vote with the majority

A score of an image is the mean of a measure over its pixels, or over its largest tenth. Scores are
compared by AURC, the mean error of the images that remain while the most uncertain are dropped one
by one (area under the risk-coverage curve; Geifman et al., ICLR 2019), and AUSE, the same less that
of an oracle (Ilg et al., ECCV 2018); pixels by the AUROC of finding wrong ones. Figures are means
over the seeds, with the smallest and the largest. Trained ensembles and results are kept in --out,
one JSON for each seed and number of images, and what is there is not run again.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor
from tqdm import tqdm

from benchmarks.domains import DOMAINS, Domain
from benchmarks.few_labels import LABEL_SEED, TEST_SEED
from benchmarks.machine import machine_name
from checkpoints import interpreter_from_file, sha256_of_file, write_interpreter
from nets.generator import Generator
from nets.labels import jensen_shannon, majority, top_mean
from training.evaluate.sparsification import sparsification_from_scores
from training.images.sample import SampleConfig, drawn_w, typical_rows
from training.interpreter.card import card_from_fit
from training.interpreter.config import InterpreterTrainConfig
from training.interpreter.predict import member_networks, outputs_from_taps
from training.interpreter.train import fit_interpreter
from training.options import read_generator

IMAGES = (1, 4, 16)
SERVED = "divergence, largest tenth"
TENTH = 0.1
BOOTSTRAPS = 2000
BINS = 15  # of the reliability diagram
USUAL = InterpreterTrainConfig()


@click.command()
@click.option("--domain", default="heads", type=click.Choice(list(DOMAINS)), show_default=True)
@click.option(
    "--images",
    "counts",
    multiple=True,
    type=click.IntRange(1),
    default=IMAGES,
    show_default=True,
    help="Number of labeled images; may be repeated.",
)
@click.option("--seeds", default=3, type=click.IntRange(1), help="Number of seeds.")
@click.option("--samples", default=500, help="Number of fresh samples to test each ensemble on.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("demo/uncertainty"),
    help="Folder for results.",
)
def main(domain: str, counts: tuple[int, ...], seeds: int, samples: int, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    chosen = DOMAINS[domain]
    generator, _, _ = read_generator(chosen.generator, None)
    results: dict[int, list[dict[str, Any]]] = {images: [] for images in counts}
    for seed in range(seeds):
        for images in counts:
            run = Run(chosen, images, seed, samples, out / f"{domain}_{images:02d}_seed{seed}")
            path = out / f"{run.weights.stem}_{samples}.json"
            if not path.exists():
                path.write_text(json.dumps(measured(generator, run), indent=1) + "\n")
            results[images].append(json.loads(path.read_text()))
    print(f"machine: {machine_name()}; {domain}, {seeds} seeds, {samples} fresh samples each")
    print(table(results, chosen.class_names))
    draw({n: rows[0] for n, rows in results.items()}, chosen.class_names, out / f"{domain}.png")


@dataclass(frozen=True)
class Run:
    """An ensemble of so many typical images, and what it is tested on."""

    domain: Domain
    images: int
    seed: int
    samples: int
    path: Path  # without suffix
    recipe: InterpreterTrainConfig = USUAL  # its seed is not read

    @property
    def weights(self) -> Path:
        """File of the trained ensemble."""
        return self.path.with_suffix(".safetensors")


def write_ensemble(generator: Generator, run: Run) -> None:
    """Labels typical images of the seed, trains the ensemble on them and writes it."""
    seed = LABEL_SEED + run.seed
    config = SampleConfig(count=run.images, candidates=16 * run.images, seed=seed)
    rows = typical_rows(drawn_w(generator, config), run.images, seed)
    labels = run.domain.labels(generator, seed, rows)
    settings = replace(run.recipe, seed=run.seed)
    interpreter = fit_interpreter(generator, labels, settings)
    recipe, sha256 = generator.config.tap_recipe, sha256_of_file(run.domain.generator)
    write_interpreter(
        run.weights, interpreter, card_from_fit(interpreter, labels, settings, sha256, recipe, [])
    )


def measured(generator: Generator, run: Run) -> dict[str, Any]:
    """Everything about one ensemble."""
    if not run.weights.exists():
        write_ensemble(generator, run)
    truth = run.domain.labels(generator, TEST_SEED + run.seed, np.arange(run.samples))
    assert truth.masks is not None
    interpreter, card = interpreter_from_file(run.weights)
    members = {"segmentation": member_networks(interpreter)["segmentation"]}
    images_found = Images.of(run.samples)
    pixels = Pixels(len(run.domain.class_names))
    rows = tqdm(torch.from_numpy(truth.ws), desc=run.path.name, unit="image")
    for i, (row, mask) in enumerate(zip(rows, torch.from_numpy(truth.masks), strict=True)):
        with torch.no_grad():
            taps = generator.synthesis(row[None]).taps
            logits = outputs_from_taps(members, card, taps)["segmentation"]
        wrong = majority(logits) != mask
        maps = pixel_measures(logits)
        images_found.add(i, maps, wrong)
        pixels.add(maps, wrong, logits, mask)
    return {"images": images_found.results(), "pixels": pixels.results()}


def pixel_measures(logits: Tensor) -> dict[str, Tensor]:
    """Logits [m, H, W, C] -> each measure, [H, W], larger where less certain."""
    p = logits.softmax(dim=-1)
    mean = p.mean(dim=0)
    largest = mean.topk(2, dim=-1).values
    votes = (logits.argmax(dim=-1) == majority(logits)).double().mean(dim=0)
    return {
        "divergence": jensen_shannon(logits),
        "entropy": torch.special.entr(mean).sum(dim=-1),
        "confidence": 1 - largest[..., 0],
        "margin": 1 - (largest[..., 0] - largest[..., 1]),
        "votes": 1 - votes,
    }


@dataclass
class Images:
    """Scores and errors of all images."""

    scores: dict[str, NDArray[np.float64]]  # [n] each
    errors: NDArray[np.float64]  # share of wrong pixels, [n]

    @classmethod
    def of(cls, samples: int) -> "Images":
        return cls({}, np.empty(samples))

    def add(self, i: int, maps: dict[str, Tensor], wrong: Tensor) -> None:
        self.errors[i] = wrong.double().mean()
        for name, values in maps.items():
            for how, score in (("mean", values.mean()), ("largest tenth", top_mean(values, TENTH))):
                rows = self.scores.setdefault(f"{name}, {how}", np.empty(len(self.errors)))
                rows[i] = score

    def results(self) -> dict[str, Any]:
        """Measures of each score, with intervals of the differences to what is served."""
        rng = np.random.default_rng(0)
        picks = rng.integers(len(self.errors), size=(BOOTSTRAPS, len(self.errors)))
        served = np.array([aurc(self.scores[SERVED][p], self.errors[p]) for p in picks])
        found = {}
        for name, scores in self.scores.items():
            whole = sparsification_from_scores(scores, self.errors)
            own = np.array([aurc(scores[p], self.errors[p]) for p in picks])
            found[name] = {
                "spearman": whole.correlation,
                "error_without_tenth": whole.error_without_tenth,
                "aurc": float(whole.by_score.mean()),
                "ause": float(whole.by_score.mean() - whole.by_error.mean()),
                "aurc_less_served": [float(q) for q in np.quantile(own - served, (0.025, 0.975))],
            }
        return {
            "error": whole.error,
            "oracle_without_tenth": whole.oracle_without_tenth,
            "oracle_aurc": float(whole.by_error.mean()),
            "scores": found,
        }


def aurc(scores: NDArray[np.float64], errors: NDArray[np.float64]) -> float:
    """Mean over 1 to n of the mean error of so many most certain images."""
    ordered = errors[np.argsort(scores, kind="stable")]
    return float((np.cumsum(ordered) / np.arange(1, len(ordered) + 1)).mean())


class Pixels:
    """Every eighth pixel of all images, and the confidence of each class."""

    def __init__(self, classes: int) -> None:
        self._values: dict[str, list[Tensor]] = {}
        self._wrong: list[Tensor] = []
        self._sums = np.zeros((3, classes, BINS))  # pixels, confidence, of that class

    def add(self, maps: dict[str, Tensor], wrong: Tensor, logits: Tensor, mask: Tensor) -> None:
        part = slice(len(self._wrong) % 8, None, 8)
        self._wrong.append(wrong.flatten()[part])
        for name, values in maps.items():
            self._values.setdefault(name, []).append(values.flatten()[part])
        mean = logits.softmax(dim=-1).mean(dim=0).flatten(0, 1).double().numpy()  # [P, C]
        bins = np.minimum((mean * BINS).astype(int), BINS - 1)
        for c in range(self._sums.shape[1]):
            is_class = (mask.flatten() == c).numpy()
            for row, weights in enumerate((None, mean[:, c], is_class)):
                self._sums[row, c] += np.bincount(bins[:, c], weights, BINS)

    def results(self) -> dict[str, Any]:
        """AUROC of each measure; reliability and its expected error for each class."""
        wrong = torch.cat(self._wrong).numpy()
        count, confidence, right = self._sums
        some = count > 0
        gap = np.abs(confidence - right)
        return {
            "auroc": {n: auroc(torch.cat(v).numpy(), wrong) for n, v in self._values.items()},
            # Of pixels whose probability of the class is at least 1/15: nearly all others are 0.
            "calibration_error": (gap[:, 1:].sum(axis=1) / count[:, 1:].sum(axis=1)).tolist(),
            "confidence": np.divide(confidence, count, where=some, out=np.full_like(gap, np.nan))
            .round(5)
            .tolist(),
            "frequency": np.divide(right, count, where=some, out=np.full_like(gap, np.nan))
            .round(5)
            .tolist(),
        }


def auroc(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Chance that a wrong pixel has a larger score than a right one, ties half."""
    ranks = rankdata(scores)
    positives = int(positive.sum())
    negatives = len(positive) - positives
    return float(
        (ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives)
    )


def table(results: dict[int, list[dict[str, Any]]], class_names: tuple[str, ...]) -> str:
    """Markdown tables: images, then pixels. Results by number of images, one for each seed."""
    lines = [
        "| trained on | score | Spearman | error without a tenth | AURC | AUSE "
        "| AURC less the served one's | seeds in which it is less, by bootstrap in all |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for images, seeds in results.items():
        found = [seed["images"] for seed in seeds]
        errors, oracles, best = (
            ranged([f[key] for f in found])
            for key in ("error", "oracle_without_tenth", "oracle_aurc")
        )
        lines.append(
            f"| {images} | none: error of all; oracle | | {errors}; {oracles} | {best} | 0 | | |"
        )
        for name in found[0]["scores"]:
            rows = [f["scores"][name] for f in found]
            served = [f["scores"][SERVED]["aurc"] for f in found]
            less = [row["aurc"] - s for row, s in zip(rows, served, strict=True)]
            certain = sum(row["aurc_less_served"][1] < 0 for row in rows)
            cells = [
                ranged([row[k] for row in rows]) for k in ("error_without_tenth", "aurc", "ause")
            ]
            spearman = np.mean([row["spearman"] for row in rows])
            lines.append(
                f"| {images} | {name} | {spearman:.3f} | {' | '.join(cells)} | {ranged(less)} "
                f"| {sum(d < 0 for d in less)}, {certain} of {len(less)} |"
            )
    names = list(next(iter(results.values()))[0]["pixels"]["auroc"])
    lines += ["", f"| trained on | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for images, seeds in results.items():
        values = [np.mean([seed["pixels"]["auroc"][n] for seed in seeds]) for n in names]
        lines.append(f"| {images} | {' | '.join(f'{v:.4f}' for v in values)} |")
    lines += ["", f"| trained on | {' | '.join(class_names)} |"]
    lines.append("|---" * (len(class_names) + 1) + "|")
    for images, seeds in results.items():
        errors_of_classes = np.mean([seed["pixels"]["calibration_error"] for seed in seeds], axis=0)
        lines.append(f"| {images} | {' | '.join(f'{v:.3f}' for v in errors_of_classes)} |")
    return "\n".join(lines)


def ranged(values: list[float]) -> str:
    """Mean of the seeds, and the smallest and the largest, in percent."""
    return f"{np.mean(values):.3%} ({min(values):.3%} to {max(values):.3%})"


def draw(results: dict[int, dict[str, Any]], class_names: tuple[str, ...], path: Path) -> None:
    """Reliability diagrams of the first seed, one for each ensemble: a line for each class."""
    figure, axes = plt.subplots(
        1, len(results), figsize=(4 * len(results), 4), sharey=True, layout="constrained"
    )
    for axis, (images, result) in zip(np.atleast_1d(axes), results.items(), strict=True):
        axis.plot([0, 1], [0, 1], color="black", linestyle=":", linewidth=1)
        for c, name in enumerate(class_names):
            pixels = result["pixels"]
            axis.plot(pixels["confidence"][c], pixels["frequency"][c], label=name, linewidth=1)
        axis.set_title(f"trained on {images} image{'s' if images > 1 else ''}")
        axis.set_xlabel("mean probability of the class")
    np.atleast_1d(axes)[0].set_ylabel("share of pixels of the class")
    np.atleast_1d(axes)[-1].legend(fontsize=7)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
