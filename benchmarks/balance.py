"""Balanced streams on the demo's bundle: the shares that come, what they cost, what weights undo.

    python -m benchmarks.balance [--bundle demo/bundle] [--splits 200] [--kept 0] [--truths 50]

The first tables need no images. The content of the calibration is cut in halves, at random; coins
are fitted to one half, and the exact expected share of the other is compared with the target, so a
difference is chance in the two halves. From the other half, drawn with replacement, coins then keep
STREAMED samples. The scenes' exact truth in place of labels then tells, without images, how close
a calibration of CALIBRATED samples brings the share of STREAMED kept ones. With --kept N a stream
of another seed is made until N samples are kept, and compared with the scenes' exact truth. The
last table is the time that bounds and weights add to a sample, against the time of a sample of the
same run.
"""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import machine_name
from bundle import Bundle, open_bundle
from engines import EngineOptions
from engines.content import content_columns, is_within
from engines.errors import SamplingError
from engines.samples import BundleSamples
from engines.sampling import default_options
from engines.sampling_request import selection_from_filter
from engines.selection import (
    Balance,
    balance_of_classes,
    balance_of_shares,
    limits_of_strata,
    sides_of_condition,
)
from examples.demo.scene import Z_DIM, scene_from_latents
from labelmint.latents import Purpose, latents
from labelmint.options import StreamOptions, query_from_options

Content = NDArray[np.float32]
CLASS, SHARE = "glasses", 0.5
SEED = 7  # of the stream; the calibration has another one
STREAMED = 5000  # kept samples of a split
CALIBRATED = (2048, 4096, 16384)  # samples, by the scenes' truth
CHUNK = 64  # indices at a time


@click.command()
@click.option("--bundle", "folder", type=click.Path(path_type=Path), default=Path("demo/bundle"))
@click.option("--splits", default=200, type=click.IntRange(1), help="Random halves.")
@click.option("--kept", default=0, type=click.IntRange(0), help="Samples to stream; 0: none.")
@click.option("--truths", default=50, type=click.IntRange(2), help="Calibrations by the truth.")
def main(folder: Path, splits: int, kept: int, truths: int) -> None:
    bundle = open_bundle(folder)
    table = bundle.manifest.calibrations[0].content
    if table is None:
        raise SystemExit(f"{folder} has no content; run python -m export calibrate --replace")
    content = bundle.content(table)
    print(f"machine: {machine_name()}, load {os.getloadavg()[0]:.1f}; {len(content)} samples\n")
    print_halves(bundle, content, splits)
    print_classes(bundle, content)
    print_strata(bundle, content)
    print_strata_errors(bundle, content)
    print_truth(bundle, truths)
    print_cost(bundle, folder, content)
    if kept:
        print_stream(folder, kept)


def shows(bundle: Bundle, content: Content, name: str) -> NDArray[np.bool_]:
    met, _ = sides_of_condition("benchmark", name, bundle.manifest)
    return is_within(content, met)


def effective(probabilities: NDArray[np.float64]) -> float:
    """Share of kept samples that, equally weighted, tell as much, by Kish's formula: each is kept
    with its probability p and weighs 1 / p."""
    return float(len(probabilities) ** 2 / (1 / probabilities).sum() / probabilities.sum())


def print_halves(bundle: Bundle, content: Content, splits: int) -> None:
    draws = np.random.default_rng(0)
    columns = ("expected share", "share", "share, weighted, less that of all", "kept", "effective")
    found: dict[str, list[float]] = {name: [] for name in columns}
    for split in range(splits):
        order = draws.permutation(len(content))
        fitted, other = np.array_split(content[order], 2)
        balance = balance_of_shares({CLASS: SHARE}, bundle.manifest, fitted)
        probabilities, met = balance.probabilities(other), shows(bundle, other, CLASS)
        drawn = draws.integers(0, len(other), round(1.1 * STREAMED / probabilities.mean()))
        demanded = balance.demands(split, np.arange(len(drawn), dtype=np.uint64))[:, 0]
        passed = np.flatnonzero(~demanded | met[drawn])[:STREAMED]  # glasses are always kept
        weights, of_class = 1 / probabilities[drawn[passed]], met[drawn[passed]]
        examined = met[drawn[: passed[-1] + 1]].mean()
        values = (
            (probabilities * met).sum() / probabilities.sum(), of_class.mean(),
            (weights * of_class).sum() / weights.sum() - examined, probabilities.mean(),
            effective(probabilities),
        )  # fmt: skip
        for name, value in zip(columns, values, strict=True):
            found[name].append(float(value))
    print(f"{CLASS} at {SHARE}, fitted to {len(fitted)} samples, {splits} splits:\n")
    print("| | mean | standard deviation | from | to |")
    print("|---|---|---|---|---|")
    for name, column in found.items():
        spread = statistics.stdev(column) if splits > 1 else 0
        print(
            f"| {name} | {statistics.mean(column):.4f} | {spread:.4f} | {min(column):.4f} | "
            f"{max(column):.4f} |"
        )
    print()


def print_classes(bundle: Bundle, content: Content) -> None:
    one = balance_of_shares({CLASS: SHARE}, bundle.manifest, content)
    each = balance_of_classes(bundle.manifest, content)
    names = [c.name for c in content_columns(bundle.manifest) if c.kind == "share"]
    print(f"| share of images | all | {CLASS} at {SHARE} | classes |")
    print("|---|---|---|---|")
    for name in names:
        met = shows(bundle, content, name)
        cells = [f"{met.mean():.3f}"]
        for balance in (one, each):
            p = balance.probabilities(content)
            cells.append(f"{(p * met).sum() / p.sum():.3f}")
        print(f"| {name} | {' | '.join(cells)} |")
    for title, measure in (("kept", kept_share), ("effective share of kept", effective_share)):
        values = [measure(balance, content) for balance in (one, each)]
        print(f"| {title} | 1 | {values[0]:.3f} | {values[1]:.3f} |")
    print()


def kept_share(balance: Balance, content: Content) -> float:
    return float(balance.probabilities(content).mean())


def effective_share(balance: Balance, content: Content) -> float:
    return effective(balance.probabilities(content))


def print_strata(bundle: Bundle, content: Content) -> None:
    """Thresholds fitted to one half, and what they keep of the other."""
    fitted, other = np.array_split(np.random.default_rng(1).permutation(content), 2)
    with_class = shows(bundle, other, CLASS)
    print(f"| keep_fraction | of all | with {CLASS} | without | keep_by: with | without |")
    print("|---|---|---|---|---|---|")
    for fraction in (0.9, 0.7, 0.5):
        overall = float(np.quantile(fitted[:, 0], fraction))
        limits = limits_of_strata([CLASS], fraction, overall, bundle.manifest, fitted)
        cells = []
        for kept in (other[:, 0] <= np.float32(overall), is_within(other, limits)):
            cells += [f"{kept[with_class].mean():.3f}", f"{kept[~with_class].mean():.3f}"]
        whole = (other[:, 0] <= np.float32(overall)).mean()
        print(f"| {fraction} | {whole:.3f} | {' | '.join(cells)} |")
    print()


def print_strata_errors(bundle: Bundle, content: Content) -> None:
    """How far from keep_fraction a stratum is kept, by the samples that thresholds are from."""
    draws, fraction = np.random.default_rng(2), 0.9
    print(f"| fitted to | with {CLASS}, root mean square error | without |")
    print("|---|---|---|")
    for size in (256, 512, 1024, 2048, 4096):
        errors = []
        for _ in range(50 if size <= len(content) // 2 else 0):
            order = draws.permutation(content)
            fitted, other = order[:size], order[size:]
            overall = float(np.quantile(fitted[:, 0], fraction))
            try:
                limits = limits_of_strata([CLASS], fraction, overall, bundle.manifest, fitted)
            except SamplingError:  # fewer than 20 samples with it
                break
            kept, met = is_within(other, limits), shows(bundle, other, CLASS)
            errors.append([kept[met].mean() - fraction, kept[~met].mean() - fraction])
        if errors:
            cells = np.sqrt(np.mean(np.square(errors), axis=0))
            print(f"| {size} | {cells[0]:.3f} | {cells[1]:.3f} |")
    print()


def print_truth(bundle: Bundle, repeats: int) -> None:
    """The share of STREAMED kept samples, if labels were the scenes' truth."""
    columns = content_columns(bundle.manifest)
    column = next(n for n, c in enumerate(columns) if c.kind == "share" and c.name == CLASS)

    def content_of(seed: int, first: int, count: int) -> Content:
        found = np.zeros((count, len(columns)), np.float32)
        indices = np.arange(first, first + count, dtype=np.uint64)
        found[:, column] = 1000 * has_glasses(indices, seed)
        return found

    print(f"| calibrated on | {STREAMED} kept: mean share | standard deviation | within a point |")
    print("|---|---|---|---|")
    for size in CALIBRATED:
        shares = []
        for repeat in range(repeats):
            calibration = content_of(2 * repeat, 0, size)
            balance = balance_of_shares({CLASS: SHARE}, bundle.manifest, calibration)
            examined = 5 * STREAMED
            content = content_of(2 * repeat + 1, 0, examined)
            met = shows(bundle, content, CLASS)
            demanded = balance.demands(2 * repeat + 1, np.arange(examined, dtype=np.uint64))[:, 0]
            kept = np.flatnonzero(~demanded | met)[:STREAMED]
            assert len(kept) == STREAMED
            shares.append(float(met[kept].mean()))
        near = np.mean(np.abs(np.array(shares) - SHARE) <= 0.01)
        print(
            f"| {size} | {statistics.mean(shares):.4f} | {statistics.stdev(shares):.4f} | "
            f"{near:.0%} of {repeats} |",
            flush=True,
        )
    print()


def print_cost(bundle: Bundle, folder: Path, content: Content) -> None:
    options = default_options(bundle.manifest.generator, SEED)
    samples = BundleSamples(folder, {"outputs": ["mask"]}, EngineOptions(threads=1), verify=False)
    rows = 4 * samples.batch_size
    indices = np.arange(rows, dtype=np.uint64)
    sample_s = seconds(lambda: samples.of_indices(indices), 3) / rows
    samples.close()
    print(
        f"| CPU time | fitting, ms | bounds and weights, us a sample | of a sample's "
        f"{1e3 * sample_s:.0f} ms |"
    )
    print("|---|---|---|---|")
    asked: dict[str, StreamOptions] = {
        f"{CLASS} at {SHARE}": {"balance": {CLASS: SHARE}},
        "classes": {"balance": "classes"},
        "keep_by": {"keep_by": CLASS, "keep_fraction": 0.9},
    }
    for name, given in asked.items():
        proto = query_from_options(given).filter
        selection = selection_from_filter(proto, bundle, options)
        assert selection is not None
        fit_s = seconds(lambda: selection_from_filter(proto, bundle, options), 5)  # noqa: B023
        batch = indices[: samples.batch_size]

        def work() -> None:
            selection.boxes(SEED, batch)  # noqa: B023
            selection.weights(content[: len(batch)])  # noqa: B023

        row_s = seconds(work, 200) / len(batch)
        print(f"| {name} | {1e3 * fit_s:.1f} | {1e6 * row_s:.0f} | {row_s / sample_s:.2%} |")
    print()


def seconds(work: Callable[[], object], times: int) -> float:
    """Median CPU seconds of a run."""
    spent = []
    for _ in range(times):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return statistics.median(spent)


def print_stream(folder: Path, wanted: int) -> None:
    """A stream until `wanted` samples are kept, against the truth of every examined scene."""
    given: StreamOptions = {"seed": SEED, "balance": {CLASS: SHARE}, "outputs": ["mask", "weight"]}
    samples = BundleSamples(folder, given, EngineOptions(threads=1), verify=False)
    indices, weights, examined = np.empty(0, np.uint64), np.empty(0, np.float64), 0
    while len(indices) < wanted:
        found = samples.of_indices(range(examined, examined + CHUNK))
        examined += CHUNK
        indices = np.append(indices, found["index"])
        weights = np.append(weights, found["weight"].astype(np.float64))
    samples.close()
    truth, natural = has_glasses(indices), has_glasses(np.arange(examined, dtype=np.uint64))
    total = weights.sum()
    print(f"seed {SEED}, {len(indices)} kept of {examined}; glasses by the scene's truth:\n")
    print("| all examined | kept | kept, weighted | mean weight | effective share of kept |")
    print("|---|---|---|---|---|")
    cells = (
        natural.mean(), truth.mean(), (weights * truth).sum() / total, weights.mean(),
        total**2 / (weights**2).sum() / len(weights),
    )  # fmt: skip
    print(f"| {' | '.join(f'{cell:.3f}' for cell in cells)} |")


def has_glasses(indices: NDArray[np.uint64], seed: int = SEED) -> NDArray[np.bool_]:
    """Exact, from the latents of the scenes."""
    z = torch.from_numpy(latents(seed, Purpose.OBJECT, indices, Z_DIM))
    return np.asarray(scene_from_latents(z, z).glasses.numpy())


if __name__ == "__main__":
    main()
