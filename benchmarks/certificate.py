"""How often the studio's certificate holds on the demo, and how tight it is, by exact truth.

    python -m benchmarks.certificate [--samples 5000] [--repetitions 200] [--out demo/certificate]

The demo's bundle labels fresh samples; the renderer's truth is the reviewer, who corrects every
wrong pixel, or who corrects nothing and calls masks wrong of which over 3% of the pixels are. A
repetition is one person's work: 200 samples, drawn with replacement from all that
were labeled, so that the mean error which the bounds speak of is known without an error. Thresholds
are those of an uncalibrated ensemble (32 more samples) or the bundle's own, as in the studio.

Labels are stored in --out in parts, and the next run goes on after the last one.
"""

import json
import os
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.machine import machine_name
from bundle.certificate import CONFIDENCE, KEEP, Losses, kept_losses, upper_bounds
from bundle.open import open_bundle
from engines.open import EngineOptions
from engines.samples import BundleSamples
from examples.demo.render import render
from examples.demo.scene import Z_DIM, scene_from_latents
from export.checks.certificate import thresholds_from_pilot, thresholds_of_bundle
from labelmint.latents import Purpose, latents

SEED = 7_033
PART = 50  # samples in a file of --out
PILOT = 32
REVIEWS = (50, 100, 200)
WRONG = 0.03  # share of wrong pixels over which a mask is called wrong, which is a loss of 1
DELTA = (1 - CONFIDENCE) / len(KEEP)


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), default=Path("demo/bundle"))
@click.option("--samples", default=5000, help="Number of samples to label.")
@click.option("--repetitions", default=200)
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo/certificate"))
def main(bundle: Path, samples: int, repetitions: int, out: Path) -> None:
    os.nice(10)
    losses, uncertainties = labeled(bundle, samples, out)
    manifest = open_bundle(bundle, verify=False).manifest
    verdicts, own = (losses > WRONG).astype(np.float64), thresholds_of_bundle(manifest)
    results = {
        "corrects, pilot's": repeated(losses, uncertainties, repetitions, None),
        "corrects, calibrated": repeated(losses, uncertainties, repetitions, own),
        "verdicts, pilot's": repeated(verdicts, uncertainties, repetitions, None),
        "verdicts, calibrated": repeated(verdicts, uncertainties, repetitions, own),
    }
    facts = {
        "machine": machine_name(),
        "bundle_id": manifest.bundle_id,
        "samples": samples,
        "repetitions": repetitions,
        "mean_error": float(losses.mean()),
        "called_wrong": float(verdicts.mean()),
    }
    (out / "certificate.json").write_text(json.dumps(facts | {"results": results}, indent=1) + "\n")
    figure: Any = plot(results["corrects, calibrated"])  # matplotlib does not annotate savefig
    figure.savefig(out / "certificate.png", dpi=110)
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    print(table(results))


def labeled(bundle: Path, samples: int, out: Path) -> tuple[Losses, Losses]:
    """Share of wrong pixels and uncertainty of indices 0 to samples - 1, float64 [samples] each."""
    out.mkdir(parents=True, exist_ok=True)
    parts = [out / f"{first:06d}.npz" for first in range(0, samples, PART)]
    missing = [path for path in parts if not path.exists()]
    if missing:
        torch.set_num_threads(1)
        reader = BundleSamples(
            bundle, {"seed": SEED, "outputs": ["mask", "uncertainty"]}, EngineOptions(threads=1)
        )
        for path in missing:
            first = int(path.stem)
            indices = np.arange(first, min(first + PART, samples))
            found = reader.of_indices(indices)
            z = torch.from_numpy(latents(SEED, Purpose.OBJECT, indices, Z_DIM))
            truth = render(scene_from_latents(z, z), found["mask"].shape[1], supersampling=1)
            wrong = (found["mask"] != truth.mask.numpy()).mean(axis=(1, 2))
            partial = path.with_name("partial.npz")
            np.savez(partial, losses=wrong, uncertainties=found["uncertainty"])
            partial.rename(path)
            print(f"{indices[-1] + 1} of {samples} samples", flush=True)
        reader.close()
    arrays = [np.load(path) for path in parts]
    return (
        np.concatenate([a["losses"] for a in arrays]).astype(np.float64),
        np.concatenate([a["uncertainties"] for a in arrays]).astype(np.float64),
    )


def repeated(
    losses: Losses, uncertainties: Losses, repetitions: int, fixed: list[float | None] | None
) -> dict[str, Any]:
    """Bounds of all repetitions by number of reviews, [repetitions, thresholds] each; truths."""
    bounds: dict[int, list[list[float]]] = {n: [] for n in REVIEWS}
    hoeffding: dict[int, list[list[float]]] = {n: [] for n in REVIEWS}
    truths = []
    for repetition in range(repetitions):
        rng = np.random.default_rng([SEED, repetition])
        rows = rng.integers(len(losses), size=PILOT + max(REVIEWS))
        thresholds = fixed or thresholds_from_pilot(uncertainties[rows[:PILOT]])
        truths.append([float(kept_losses(losses, uncertainties, t).mean()) for t in thresholds])
        for n in REVIEWS:
            seen = rows[PILOT : PILOT + n]
            bounds[n].append(upper_bounds(losses[seen], uncertainties[seen], thresholds))
            kept = [kept_losses(losses[seen], uncertainties[seen], t) for t in thresholds]
            hoeffding[n].append([hoeffding_bound(some) for some in kept])
    return {
        "truth": truths,
        "bounds": {str(n): rows for n, rows in bounds.items()},
        "hoeffding": {str(n): rows for n, rows in hoeffding.items()},
    }


def hoeffding_bound(losses: Losses) -> float:
    """Hoeffding's bound of the mean, for one number of losses that is fixed beforehand."""
    if not len(losses):
        return 1.0
    return float(losses.mean() + np.sqrt(np.log(1 / DELTA) / (2 * len(losses))))


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: how often all four bounds held, and by how much they are above the truth."""
    lines = [
        "| reviewer, thresholds | reviews | all bounds held | keep | true error | "
        "bound, mean (5 to 95%) | Hoeffding, mean |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, result in results.items():
        truth = np.array(result["truth"])
        for n in REVIEWS:
            bounds, plain = (
                np.array(result["bounds"][str(n)]),
                np.array(result["hoeffding"][str(n)]),
            )
            held = f"{(bounds >= truth).all(axis=1).mean():.1%}"
            for at, keep in enumerate(KEEP):
                low, high = np.quantile(bounds[:, at], (0.05, 0.95))
                lines.append(
                    f"| {kind} | {n} | {held} | {keep:.0%} | {truth[:, at].mean():.2%} | "
                    f"{bounds[:, at].mean():.2%} ({low:.2%} to {high:.2%}) | "
                    f"{plain[:, at].mean():.2%} |"
                )
    return "\n".join(lines)


def plot(result: dict[str, Any]) -> Figure:
    """Every bound of every repetition as a dot, and the truth as a line."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    truth = np.array(result["truth"])
    shared = None
    for place, n in enumerate(REVIEWS):
        axes = figure.add_subplot(1, len(REVIEWS), place + 1, sharey=shared)
        shared = shared or axes
        bounds: NDArray[np.float64] = np.array(result["bounds"][str(n)])
        spread = np.random.default_rng(0).uniform(-0.3, 0.3, len(bounds))
        for at in range(len(KEEP)):
            label = "bound of a repetition" if at == 0 else None
            axes.plot(
                at + spread, 100 * bounds[:, at], ".", color="#3a76c4", alpha=0.35, label=label
            )
            mean = 100 * truth[:, at].mean()
            label = "mean error of all kept samples" if at == 0 else None
            axes.plot([at - 0.4, at + 0.4], [mean, mean], color="#d9662b", linewidth=2, label=label)
        axes.set_xticks(range(len(KEEP)), [f"{keep:.0%}" for keep in KEEP])
        axes.set_xlabel("share of samples that are kept")
        axes.set_title(f"{n} reviews")
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(bottom=0)
    figure.axes[0].set_ylabel("wrong pixels, %")
    figure.axes[-1].legend(frameon=False)
    return figure


if __name__ == "__main__":
    main()
