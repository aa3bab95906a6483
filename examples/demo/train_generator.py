"""Trains the demo's StyleGAN2 to imitate the scene's renderer: latents in, weights out.

Half of each batch mixes the rows of w+ of two latents, so that the first rows come to carry
the viewpoint alone. A linear probe asks w for the scene's parameters: without it the mapping
takes many times longer to find the rare and the curved ones (glasses, beards, the wall's hue).
The schedule runs on training time, so it ends when asked on any machine.
"""

import argparse
import copy
import math
import os
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
from nets.stylegan2 import FullyConnectedLayer, Generator, GeneratorConfig

RESOLUTION = 64
SUBPIXELS = 2  # rays a pixel and axis; jittered anew each step, so the mean is exact
# Weight of the squared error by class: small parts would drown in the skin around them.
CLASS_WEIGHTS = (1.0, 1.5, 1.5, 4.0, 6.0, 4.0, 6.0, 4.0)
# Learning rates of mapping, synthesis and probe; the mapping's parameters are scaled by 0.01
# at run time.
LR_FACTORS = (300.0, 1.0, 1.0)
PROBE_BATCH = 256
PROBE_WEIGHT = 4.0
WARMUP_STEPS = 100


@dataclass(frozen=True)
class Options:
    """One training run."""

    out: Path  # weights file; its card lies beside it
    checkpoint: Path  # state to resume from, removed by nobody
    minutes: float  # of training time, resumed runs included
    batch: int
    lr: float
    seed: int
    view_layers: int
    channels: tuple[int, ...]
    bf16: bool  # convolutions in bfloat16
    save_every_s: float


@dataclass
class Run:
    """All that a checkpoint holds."""

    generator: Generator
    average: Generator  # exponential moving average of the weights
    probe: FullyConnectedLayer  # w -> standardised parameters of the scene
    optimizer: torch.optim.Adam
    step: int = 0
    elapsed_s: float = 0.0


def start(options: Options) -> Run:
    """A fresh run, or the one in the checkpoint."""
    torch.manual_seed(options.seed)
    generator = Generator(
        GeneratorConfig(RESOLUTION, options.channels, z_dim=Z_DIM, w_dim=128, mapping_layers=4)
    )
    for name, parameter in generator.named_parameters():
        # Truth knows no noise: its strengths stay at zero.
        parameter.requires_grad_(not name.endswith("noise_strength"))
    probe = FullyConnectedLayer(
        generator.config.w_dim, scene_vectors(torch.zeros(1, Z_DIM)).shape[1]
    )
    for block in generator.synthesis.blocks():
        block.torgb.weight.data.mul_(0.25)  # a calm first image: nothing to unlearn
    mapping = list(generator.mapping.parameters())
    synthesis = [p for p in generator.synthesis.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(
        [{"params": mapping}, {"params": synthesis}, {"params": list(probe.parameters())}],
        lr=options.lr,
        betas=(0.9, 0.99),
    )
    # Twice as fast as the default layout with bfloat16 on a CPU that has it.
    generator.synthesis.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(generator).requires_grad_(False)
    run = Run(generator, average, probe, optimizer)
    if options.checkpoint.exists():
        state = torch.load(options.checkpoint, weights_only=True)
        generator.load_state_dict(state["generator"])
        run.average.load_state_dict(state["average"])
        probe.load_state_dict(state["probe"])
        optimizer.load_state_dict(state["optimizer"])
        run.step, run.elapsed_s = state["step"], state["elapsed_s"]
        torch.set_rng_state(state["rng"])
    return run


def truth_batch(view_z: Tensor, content_z: Tensor) -> tuple[Tensor, Tensor]:
    """Image [N, 3, R, R] in [-1, 1] and error weights [N, 1, R, R] of mean about one."""
    n, fine = len(view_z), RESOLUTION * SUBPIXELS
    cells = torch.arange(fine, dtype=torch.float32)
    x = (cells + torch.rand(n, 1, fine)) / fine - 0.5
    y = (cells[:, None] + torch.rand(n, fine, 1)) / fine - 0.5
    hits = trace(scene_from_latents(view_z, content_z), x, y)
    weights = torch.tensor(CLASS_WEIGHTS)[hits.part.long()][:, None]
    weights = F.avg_pool2d(weights, SUBPIXELS)
    return F.avg_pool2d(hits.colour, SUBPIXELS) * 2 - 1, weights / weights.mean()


def scene_vectors(z: Tensor) -> Tensor:
    """The scene's parameters as vectors float32 [N, P], in their own units."""
    scene = scene_from_latents(z, z)
    return torch.cat([getattr(scene, f.name).float().view(len(z), -1) for f in fields(scene)], 1)


@cache
def scene_statistics() -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [P] of `scene_vectors`; what does not vary has deviation 1."""
    source = torch.Generator().manual_seed(0)
    vectors = scene_vectors(torch.randn(16384, Z_DIM, generator=source))
    deviation = vectors.std(dim=0)
    return vectors.mean(dim=0), torch.where(deviation < 1e-6, 1.0, deviation)


def probe_loss(run: Run) -> Tensor:
    """Squared error of the parameters read from w, 1 for a mapping that knows nothing."""
    z = torch.randn(PROBE_BATCH, Z_DIM)
    mean, deviation = scene_statistics()
    truth = (scene_vectors(z) - mean) / deviation
    found: Tensor = run.probe(run.generator.mapping(z))
    return (found - truth).square().mean()


def imitation_loss(image: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """Weighted squared error at full, half and quarter resolution, and of the gradients."""
    error = image - truth
    dx, dy = error.diff(dim=3), error.diff(dim=2)
    loss = (weights * error.square()).mean()
    loss = loss + (weights[..., 1:] * dx.square()).mean() + (weights[:, :, 1:] * dy.square()).mean()
    for _ in range(2):
        error, weights = F.avg_pool2d(error, 2), F.avg_pool2d(weights, 2)
        loss = loss + (weights * error.square()).mean()
    return loss


def learning_rate(options: Options, run: Run) -> float:
    """Linear warm-up, then half a cosine over the training time."""
    progress = min(run.elapsed_s / (options.minutes * 60), 1.0)
    warm = min((run.step + 1) / WARMUP_STEPS, 1.0)
    return options.lr * warm * (0.5 + 0.5 * math.cos(math.pi * progress))


def train_step(run: Run, options: Options) -> float:
    """One batch: draw latents, compare, update the weights and their average."""
    view_z, content_z = torch.randn(2, options.batch, Z_DIM)
    half = options.batch // 2
    view_z[half:] = content_z[half:]
    truth, weights = truth_batch(view_z, content_z)
    rate = learning_rate(options, run)
    for group, factor in zip(run.optimizer.param_groups, LR_FACTORS, strict=True):
        group["lr"] = rate * factor
    rows = mixed_rows(run.generator, view_z, content_z, options.view_layers)
    with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
        image = run.generator.synthesis(rows).image
    loss = imitation_loss(image.float(), truth, weights)
    run.optimizer.zero_grad(set_to_none=True)
    (loss + PROBE_WEIGHT * probe_loss(run)).backward()
    torch.nn.utils.clip_grad_norm_(run.generator.parameters(), 1.0)
    run.optimizer.step()
    decay = min(0.999, (run.step + 1) / (run.step + 10))
    with torch.no_grad():
        for average, parameter in zip(
            run.average.parameters(), run.generator.parameters(), strict=True
        ):
            average.lerp_(parameter, 1 - decay)
    return loss.item()


def save(run: Run, options: Options) -> None:
    """Checkpoint and weights, with w_avg set to the mean of w."""
    generator = torch.Generator().manual_seed(options.seed)
    z = torch.randn(16384, Z_DIM, generator=generator)
    with torch.no_grad():
        run.average.mapping.w_avg.copy_(run.average.mapping(z).mean(dim=0))
    card = GeneratorCard(
        format=1,
        kind="generator",
        family="stylegan2",
        config=card_from_config(run.average.config),
        view_layers=options.view_layers,
        truncation_psi=1.0,
        truncation_cutoff=run.average.config.num_ws,
        licences=["Apache-2.0"],
        made={
            "script": "examples/demo/train_generator.py",
            "steps": run.step,
            "batch": options.batch,
            "minutes": round(run.elapsed_s / 60, 1),
            "seed": options.seed,
        },
    )
    write_generator(options.out, run.average, card, storage=torch.float16)
    state = {
        "generator": run.generator.state_dict(),
        "average": run.average.state_dict(),
        "probe": run.probe.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "step": run.step,
        "elapsed_s": run.elapsed_s,
        "rng": torch.get_rng_state(),
    }
    partial = options.checkpoint.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, options.checkpoint)


def train(options: Options) -> None:
    """Runs until the training time is spent, saving every now and then."""
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
    """Command line -> options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo/generator.safetensors"))
    parser.add_argument("--checkpoint", type=Path, default=Path("demo/generator.checkpoint"))
    parser.add_argument("--minutes", type=float, default=90.0)
    parser.add_argument("--batch", type=int, default=16)
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
