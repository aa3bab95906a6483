"""Training of the demo's StyleGAN2 to imitate the scene's renderer: latents enter, weights leave.

1. The mapping is trained alone: a linear probe predicts the scene's parameters from w. Minutes of
   this achieve what hours of image gradients do not: with these alone the mapping stays nearly
   linear in z, and every edge is off by a fraction of a pixel
   (docs/decisions/0007-mapping-first.md).
2. The synthesis is trained with the mapping frozen. Half of each batch mixes the rows of w+ of two
   latents, so that the first rows learn to carry the viewpoint alone.

Schedules depend on training time, so that training takes the given time on any machine.
"""

import argparse
import math
import time
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from checkpoints import GeneratorCard, card_from_config, write_generator
from examples.demo.mixing import mixed_rows
from examples.demo.render import trace
from examples.demo.scene import Z_DIM, scene_from_latents
from examples.imitation import (
    PROBE_BATCH,
    PROBE_LR,
    WARMUP_STEPS,
    Run,
    center_average,
    descend,
    fit_mapping,
    imitation_loss,
    load_checkpoint,
    run_of_generator,
    save_checkpoint,
)
from nets.stylegan2 import Generator, GeneratorConfig, MappingNetwork

RESOLUTION = 64
SUBPIXELS = 2  # rays per pixel and axis; jittered at each step, so that the mean is unbiased
# Weight of the squared error by class; otherwise the skin would dominate small parts.
CLASS_WEIGHTS = (1.0, 1.5, 1.5, 4.0, 6.0, 4.0, 6.0, 4.0)


@dataclass(frozen=True)
class Options:
    """One training run."""

    out: Path  # weights file; the card is written beside it
    checkpoint: Path  # state to resume from; never removed
    minutes: float  # training time of the synthesis, including resumed runs
    mapping_steps: int  # steps of the mapping, before the synthesis
    batch: int
    lr: float
    seed: int
    view_layers: int
    channels: tuple[int, ...]
    bf16: bool  # convolutions in bfloat16
    save_every_s: float


def start(options: Options) -> Run:
    """Loads the run from the checkpoint, or begins one and trains its mapping."""
    torch.manual_seed(options.seed)
    generator = Generator(
        GeneratorConfig(RESOLUTION, options.channels, z_dim=Z_DIM, w_dim=128, mapping_layers=4)
    )
    for block in generator.synthesis.blocks():
        block.torgb.weight.data.mul_(
            0.25
        )  # low contrast in the first image, so that little has to be unlearned
    if not options.checkpoint.exists():
        fit_mapping_to_scenes(generator.mapping, options.mapping_steps)
    run = run_of_generator(generator, options.lr)
    if options.checkpoint.exists():
        load_checkpoint(run, options.checkpoint)
    return run


def fit_mapping_to_scenes(mapping: MappingNetwork, steps: int) -> None:
    """Trains `mapping` so that a linear layer can predict `scene_vectors` from w."""
    mean, deviation = scene_statistics()

    def draw() -> tuple[Tensor, Tensor]:
        z = torch.randn(PROBE_BATCH, Z_DIM)
        return z, (scene_vectors(z) - mean) / deviation

    fit_mapping(
        mapping, steps, len(mean), draw, lambda step: scheduled(PROBE_LR, step, step / steps)
    )


def truth_batch(view_z: Tensor, content_z: Tensor) -> tuple[Tensor, Tensor]:
    """Image [N, 3, R, R] in [-1, 1] and error weights [N, 1, R, R] of mean about one."""
    n, fine = len(view_z), RESOLUTION * SUBPIXELS
    cells = torch.arange(fine, dtype=torch.float32)
    x = (cells + torch.rand(n, 1, fine)) / fine - 0.5
    y = (cells[:, None] + torch.rand(n, fine, 1)) / fine - 0.5
    hits = trace(scene_from_latents(view_z, content_z), x, y)
    weights = torch.tensor(CLASS_WEIGHTS)[hits.part.long()][:, None]
    weights = F.avg_pool2d(weights, SUBPIXELS)
    return F.avg_pool2d(hits.color, SUBPIXELS) * 2 - 1, weights / weights.mean()


def scene_vectors(z: Tensor) -> Tensor:
    """The scene's parameters as vectors float32 [N, P], in their own units."""
    scene = scene_from_latents(z, z)
    return torch.cat([getattr(scene, f.name).float().view(len(z), -1) for f in fields(scene)], 1)


@cache
def scene_statistics() -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [P] of `scene_vectors`; constant parameters have deviation 1."""
    source = torch.Generator().manual_seed(0)
    vectors = scene_vectors(torch.randn(16384, Z_DIM, generator=source))
    deviation = vectors.std(dim=0)
    return vectors.mean(dim=0), torch.where(deviation < 1e-6, 1.0, deviation)


def scheduled(rate: float, step: int, progress: float) -> float:
    """`rate` after a linear warm-up, along half a cosine over `progress` from 0 to 1."""
    warm = min((step + 1) / WARMUP_STEPS, 1.0)
    return rate * warm * (0.5 + 0.5 * math.cos(math.pi * min(progress, 1.0)))


def train_step(run: Run, options: Options) -> float:
    """Trains on one batch and updates the average of the weights; returns the loss."""
    view_z, content_z = torch.randn(2, options.batch, Z_DIM)
    half = options.batch // 2
    view_z[half:] = content_z[half:]
    truth, weights = truth_batch(view_z, content_z)
    progress = run.elapsed_s / (options.minutes * 60)
    run.optimizer.param_groups[0]["lr"] = scheduled(options.lr, run.step, progress)
    rows = mixed_rows(run.generator, view_z, content_z, options.view_layers)
    with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
        image = run.generator.synthesis(rows).image
    return descend(run, imitation_loss(image.float(), truth, weights))


def save(run: Run, options: Options) -> None:
    """Writes checkpoint and weights, with w_avg set to the mean of w."""
    generator = torch.Generator().manual_seed(options.seed)
    z = torch.randn(16384, Z_DIM, generator=generator)
    center_average(run, z)
    card = GeneratorCard(
        format=1,
        kind="generator",
        family="stylegan2",
        config=card_from_config(run.average.config),
        view_layers=options.view_layers,
        truncation_psi=1.0,
        truncation_cutoff=run.average.config.num_ws,
        licences=["Apache-2.0"],
        provenance={
            "script": "examples/demo/train_generator.py",
            "steps": run.step,
            "batch": options.batch,
            "minutes": round(run.elapsed_s / 60, 1),
            "seed": options.seed,
        },
    )
    write_generator(options.out, run.average, card, storage=torch.float16)
    save_checkpoint(run, options.checkpoint)


def train(options: Options) -> None:
    """Trains for the given time, saving at intervals."""
    run = start(options)
    saved_s = run.elapsed_s
    with tqdm(unit=" steps", initial=run.step, mininterval=5.0) as bar:
        while run.elapsed_s < options.minutes * 60:
            began = time.perf_counter()
            loss = train_step(run, options)
            run.step += 1
            run.elapsed_s += time.perf_counter() - began
            bar.update()
            bar.set_postfix(loss=f"{loss:.4f}", minutes=f"{run.elapsed_s / 60:.1f}", refresh=False)
            if run.elapsed_s - saved_s > options.save_every_s:
                save(run, options)
                saved_s = run.elapsed_s
    save(run, options)


def options_from_arguments() -> Options:
    """Options from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo/generator.safetensors"))
    parser.add_argument("--checkpoint", type=Path, default=Path("demo/generator.checkpoint"))
    parser.add_argument("--minutes", type=float, default=90.0)
    parser.add_argument("--mapping-steps", type=int, default=40_000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--view-layers", type=int, default=4)
    parser.add_argument("--channels", type=int, nargs=5, default=(128, 128, 128, 96, 48))
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--save-every-s", type=float, default=120.0)
    values = vars(parser.parse_args())
    values["channels"] = tuple(values["channels"])
    return Options(**values)


if __name__ == "__main__":
    train(options_from_arguments())
