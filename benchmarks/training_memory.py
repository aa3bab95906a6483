"""Memory and time of training on images of 512 px, compared with the published procedure.

    python -m benchmarks.training_memory [--images 16] [--literal-images 1]

StyleGAN2 config f at 1024 px with random weights, labels at 512 px, sizes of HandsOff faces: D =
6080, hidden 256 and 32, 19 classes, 10 members. The published procedure stores every image's
hypercolumn in half precision, casts all of them to float32, and trains one member after another in
batches of 64 pixels. Each runs in a separate process, to measure its peak memory alone.
"""

import time
from dataclasses import replace

import click
import numpy as np
import torch
import torch.nn.functional as F
from tqdm import trange

from benchmarks.machine import machine_name
from benchmarks.python_process import run_python
from nets.features import hypercolumn
from nets.interpreter import HeadConfig, Interpreter, member_as_sequential
from nets.stylegan2 import Generator, GeneratorConfig, channels_from_base
from training.interpreter.config import InterpreterTrainConfig
from training.interpreter.features import features_from_ws
from training.interpreter.losses import LabelLosses
from training.interpreter.pixel_sampler import PixelSampler
from training.interpreter.train import Step, TrainState, head_configs, train_step
from training.label_crop import LabelCrop
from training.labels.labelled_set import LabelledSet

GRID, CLASSES, HIDDEN, MEMBERS = 512, 19, (256, 32), 10
TIMED, BATCH = 20, 64  # measured steps; pixels per step of the published procedure
STEPS = 1000  # steps whose pixels labelmint keeps


@click.command()
@click.option("--images", default=16, help="Number of labeled images for labelmint.")
@click.option(
    "--literal-images", default=1, help="Number of labeled images for the published procedure."
)
@click.option("--part", type=click.Choice(["ours", "literal"]), hidden=True)
def main(images: int, literal_images: int, part: str | None) -> None:
    if part is not None:
        (ours if part == "ours" else literal)(images)
        return
    print(f"machine: {machine_name()}; per 1,000 steps of all {MEMBERS} members")
    print("| procedure | images | peak memory | 64 pixels a step | 1,024 pixels a step |")
    print("|---|---|---|---|---|")
    for name, part_name, count in (
        ("labelmint", "ours", images),
        ("published", "literal", literal_images),
    ):
        words = ("-m", "benchmarks.training_memory", "--part", part_name, "--images", str(count))
        _, peak, figures = run_python(*words)
        print(f"| {name} | {count} | {peak / 1e9:.2f} GB | {figures} |", flush=True)


def generator_and_labels(images: int) -> tuple[Generator, LabelledSet]:
    """Random weights, and masks of 16 px squares."""
    torch.manual_seed(0)
    config = GeneratorConfig(1024, channels_from_base(1024, 32768))
    generator = Generator(config).eval().requires_grad_(False)
    rng = np.random.default_rng(0)
    squares = rng.integers(0, CLASSES, (images, GRID // 16, GRID // 16), dtype=np.uint8)
    return generator, LabelledSet(
        LabelCrop(GRID, 0, GRID),
        tuple(str(i) for i in range(images)),
        rng.standard_normal((images, config.num_ws, config.w_dim)).astype(np.float32),
        masks=squares.repeat(16, axis=1).repeat(16, axis=2),
    )


def ours(images: int) -> None:
    """labelmint: taps at their own resolution in half precision, gathered pixels, all members
    together."""
    generator, labels = generator_and_labels(images)
    config = InterpreterTrainConfig(members=MEMBERS, hidden=HIDDEN)
    sampler = PixelSampler(labels, 1.0, 0)
    mask = sampler.drawn_mask(STEPS, 1024)
    features = features_from_ws(generator, labels.ws, labels.crop, mask=mask)
    (head,) = head_configs(labels, config, features.features)
    interpreter = Interpreter((replace(head, outputs=CLASSES),)).train()
    state = TrainState(interpreter, torch.optim.Adam(interpreter.parameters()))
    losses = LabelLosses(labels, config)
    seconds = []
    for pixels in (BATCH, 1024):
        train_step(state, features, losses, Step(sampler.draw(0, 1024)[:pixels], 1e-3))
        began = time.perf_counter()
        for i in trange(TIMED):
            train_step(state, features, losses, Step(sampler.draw(i, 1024)[:pixels], 1e-3))
        seconds.append((time.perf_counter() - began) / TIMED * 1000)
    print(" | ".join(f"{s:.0f} s" for s in seconds))


@torch.no_grad()
def published_features(generator: Generator, labels: LabelledSet) -> torch.Tensor:
    """Every pixel's hypercolumn, float32 [n * H * W, D], stored in half precision first."""
    rows = len(labels) * GRID**2
    stored = torch.empty(rows, generator.config.features, dtype=torch.float16)
    for i, w in enumerate(torch.from_numpy(labels.ws)):
        whole = hypercolumn(generator.synthesis(w[None]).taps, (GRID, GRID))[0]  # [D, H, W]
        stored[i * GRID**2 : (i + 1) * GRID**2] = whole.flatten(1).t()
    return stored.float()


def literal(images: int) -> None:
    """The published procedure: all hypercolumns in memory, one member after another."""
    generator, labels = generator_and_labels(images)
    assert labels.masks is not None
    features = published_features(generator, labels)
    classes = torch.from_numpy(labels.masks).long().flatten()
    head = HeadConfig("segmentation", generator.config.features, HIDDEN, CLASSES, 1)
    member = member_as_sequential(Interpreter((head,)).head("segmentation"), 0).train()
    optimizer = torch.optim.Adam(member.requires_grad_(True).parameters(), lr=1e-3)
    seconds = []
    for pixels in (BATCH, 1024):
        order = torch.randperm(len(features))
        began = time.perf_counter()
        for i in trange(TIMED):
            batch = order[i * pixels : (i + 1) * pixels]
            loss = F.cross_entropy(member(features[batch]), classes[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds.append((time.perf_counter() - began) / TIMED * 1000 * MEMBERS)
    print(" | ".join(f"{s:.0f} s" for s in seconds))


if __name__ == "__main__":
    main()
