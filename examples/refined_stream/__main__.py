"""Trains a U-Net on plain and on refined samples, tests it on photographs, prints the table.

    make demo
    python -m examples.refined_stream [--seeds 0,1] [--steps 800]

The oracle is trained on photographs with exact labels, which nobody has for a real camera. The
table has all results in --out.
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from statistics import fmean

import click
import torch

from examples.refined_stream.material import REAL, STREAMED, TEST, photographs, streamed_sets
from examples.train_segmentation.evaluate import evaluate
from examples.train_segmentation.fit import UNetTrainConfig, fit
from examples.train_segmentation.options import seeds_from_text
from examples.train_segmentation.picture import picture_from_networks
from examples.train_segmentation.results import (
    NETWORK,
    Run,
    network_of_run,
    runs_of_folder,
    write_run,
)
from examples.train_segmentation.samples import Samples, shuffled_batches
from labelmint.errors import LabelmintError

SHOWN = 8  # test images in the picture
ARMS = {
    "p": f"{STREAMED:,} streamed samples, plain",
    "r": f"{STREAMED:,} streamed samples, refined",
    "o": f"{REAL.count:,} photographs, exact truth",
}


@click.command(context_settings={"show_default": True})
@click.option("--seeds", callback=seeds_from_text, default="0")
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=UNetTrainConfig.steps,
    help="Training steps of each U-Net.",
)
@click.option("--demo", type=click.Path(path_type=Path), default=Path("demo"))
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo/refined"))
def main(seeds: tuple[int, ...], steps: int, demo: Path, out: Path) -> None:
    config = UNetTrainConfig(steps=steps)
    runs_folder = out / "runs"
    try:
        done = {(run.arm, run.seed) for run in runs_of_folder(runs_folder, config)}
        plain, refined = streamed_sets(demo, out)
        oracle = cache(lambda: photographs(REAL))
        sets: dict[str, Callable[[], Samples]] = {
            "p": lambda: plain,
            "r": lambda: refined,
            "o": oracle,
        }
        for seed in seeds:
            for arm, samples in sets.items():
                if (arm, seed) not in done:
                    train(arm, seed, config, samples(), runs_folder)
        report(config, runs_folder, refined, out / "refined.png")
    except (LabelmintError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error


def train(arm: str, seed: int, config: UNetTrainConfig, samples: Samples, folder: Path) -> None:
    """Trains one arm from one seed and writes the run to the folder."""
    print(f"\n({arm}) {ARMS[arm]}, seed {seed}", flush=True)
    begin = time.monotonic()
    batches = shuffled_batches(samples, config.batch_size, torch.Generator().manual_seed(seed))
    network = fit(config, NETWORK, seed, batches)
    seconds = time.monotonic() - begin
    score = evaluate(network, photographs(TEST))
    write_run(folder, Run(arm, seed, asdict(config), score, [], seconds), network)


def report(config: UNetTrainConfig, folder: Path, refined: Samples, picture: Path) -> None:
    """Prints the table and how well the labels fit refined images, and writes a picture."""
    runs = runs_of_folder(folder, config)
    print("\n| | training data | seeds | mIoU | PCK@0.1 | keypoints, px |")
    print("|---|---|---|---|---|---|")
    miou = {}
    for arm, title in ARMS.items():
        scores = [run.score for run in runs if run.arm == arm]
        miou[arm] = fmean(score.miou for score in scores)
        print(
            f"| {arm} | {title} | {len(scores)} | {100 * miou[arm]:.1f} | "
            f"{100 * fmean(s.pck for s in scores):.1f} | "
            f"{fmean(s.keypoint_error_px for s in scores):.2f} |"
        )
    closed = (miou["r"] - miou["p"]) / (miou["o"] - miou["p"])
    print(f"\nthe refiner closes {100 * closed:.0f}% of the gap in mIoU (goal 50%)")
    networks = {run.arm: network_of_run(folder, run) for run in reversed(runs)}
    seen = evaluate(networks["o"], refined)
    print(
        f"(o), which never saw a generated image, agrees with refined samples' labels at mIoU "
        f"{100 * seen.miou:.1f}, keypoints {seen.keypoint_error_px:.2f} px"
    )
    shown = photographs(TEST).rows(torch.arange(SHOWN))
    titles = [(f"({arm}) {title}", networks[arm]) for arm, title in ARMS.items()]
    picture_from_networks(shown, titles).save(picture)
    print(f"look at {picture}")


if __name__ == "__main__":
    main()
