"""Trains a U-Net in each arm, tests it on rendered images and prints the table.

    make demo
    python -m examples.train_segmentation [--arms a,e] [--seeds 0,1,2] [--target HOST:PORT]

Arms can be trained by several commands: the table has all results in --out.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path

import click
import torch

from examples.demo.serving import server
from examples.train_segmentation.arms import Arm, Material, check_model, data_of_arm
from examples.train_segmentation.evaluate import evaluate
from examples.train_segmentation.fit import UNetTrainConfig, fit
from examples.train_segmentation.options import arms_from_text, seeds_from_text
from examples.train_segmentation.picture import picture_from_networks
from examples.train_segmentation.results import (
    NETWORK,
    Run,
    network_of_run,
    runs_of_folder,
    table_from_runs,
    write_run,
)
from examples.train_segmentation.samples import (
    RESOLUTION,
    TEST,
    TRAINING,
    VALIDATION,
    rendered,
    samples_from_folder,
)
from examples.train_segmentation.unet import UNet
from labelmint import Client
from labelmint.errors import LabelmintError
from training.errors import LabelError

CURVE_POINTS = 10
SHOWN = 8  # test images in the picture


@click.command()
@click.option("--arms", callback=arms_from_text, default="a,b,c,d,e", show_default=True)
@click.option("--seeds", callback=seeds_from_text, default="0", show_default=True)
@click.option(
    "--steps", type=click.IntRange(min=1), default=UNetTrainConfig.steps, show_default=True
)
@click.option(
    "--target", envvar="LABELMINT_TARGET", help="HOST:PORT of a server of the demo's bundle."
)
@click.option(
    "--demo",
    type=click.Path(path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Folder that `make demo` wrote: labels, and the bundle to serve without --target.",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo/segmentation"))
@click.option("--picture", type=click.Path(path_type=Path), default=Path("demo/segmentation.png"))
def main(
    arms: tuple[Arm, ...],
    seeds: tuple[int, ...],
    steps: int,
    target: str | None,
    demo: Path,
    out: Path,
    picture: Path,
) -> None:
    config = UNetTrainConfig(steps=steps)
    try:
        runs_of_folder(out, config)  # refuses results of another configuration before training
        with material_of_demo(demo, target) as material:
            for seed in seeds:
                for arm in arms:
                    train(arm, seed, config, material, out)
        report(out, config, picture)
    except (LabelError, LabelmintError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error


@contextmanager
def material_of_demo(demo: Path, target: str | None) -> Iterator[Material]:
    """The arms' training data; a server starts when an arm first streams, and stops at the end."""
    with ExitStack() as stack:

        @cache
        def address() -> str:
            found = target or stack.enter_context(server(demo / "bundle"))
            with Client(found) as client:
                check_model(client, RESOLUTION)
            return found

        yield Material(
            labeled=cache(partial(samples_from_folder, demo / "labels")),
            rendered=partial(rendered, TRAINING),
            target=address,
        )


def train(arm: Arm, seed: int, config: UNetTrainConfig, material: Material, out: Path) -> None:
    """Trains one arm from one seed and writes the run to the folder."""
    data = data_of_arm(arm, material, config.batch_size, seed)
    validation = rendered(VALIDATION)
    curve: list[tuple[int, float]] = []

    def watch(step: int, network: UNet) -> None:
        if step % max(config.steps // CURVE_POINTS, 1) == 0:
            curve.append((step, evaluate(network, validation).miou))

    print(f"\n({arm.value}) {arm.title}, seed {seed}", flush=True)
    begin = time.monotonic()
    network = fit(config, NETWORK, seed, data.batches, data.extra, watch)
    seconds = time.monotonic() - begin
    score = evaluate(network, rendered(TEST))
    print(f"mIoU {score.miou:.3f}, PCK@0.1 {score.pck:.3f}, {seconds:.0f} s", flush=True)
    write_run(out, Run(arm.value, seed, asdict(config), score, curve, seconds), network)


def report(out: Path, config: UNetTrainConfig, picture: Path) -> None:
    """Prints the table of all runs and draws the picture of one run of each arm."""
    runs = runs_of_folder(out, config)
    shown = {run.arm: run for run in reversed(runs)}
    networks = [
        (f"({arm.value}) {arm.title}", network_of_run(out, shown[arm.value]))
        for arm in Arm
        if arm.value in shown
    ]
    samples = rendered(TEST).rows(torch.arange(SHOWN))
    print(f"\n{table_from_runs(runs)}")
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture_from_networks(samples, networks).save(picture)
    print(f"\nlook at {picture}")


if __name__ == "__main__":
    main()
