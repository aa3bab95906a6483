"""Trains the demo's StyleGAN2 to imitate the scene's renderer: latents in, weights out.

First the mapping, alone: a linear probe has to read the scene's parameters from w. Minutes of
that take it where image gradients do not get in hours (it stays nearly linear in z, and every
edge is off by a fraction of a pixel). Then the synthesis, with the mapping held still; half of
each batch mixes the rows of w+ of two latents, so that the first rows come to carry the viewpoint
alone. The schedules run on training time, so they end when asked on any machine.
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
from tqdm import tqdm, trange

from checkpoints import GeneratorCard, card_from_config, write_generator
from examples.demo.mixing import mixed_rows
from examples.demo.render import trace
from examples.demo.scene import Z_DIM, scene_from_latents
from nets.stylegan2 import FullyConnectedLayer, Generator, GeneratorConfig, MappingNetwork

RESOLUTION = 64
SUBPIXELS = 2  # rays a pixel and axis; jittered anew each step, so the mean is exact
# Weight of the squared error by class: small parts would drown in the skin around them.
CLASS_WEIGHTS = (1.0, 1.5, 1.5, 4.0, 6.0, 4.0, 6.0, 4.0)
PROBE_BATCH = 256
PROBE_LR = 1e-2
MAPPING_LR_MULTIPLIER = 0.01  # of the mapping network, which scales its parameters at run time
WARMUP_STEPS = 200


@dataclass(frozen=True)
class Options:
    """One training run."""

    out: Path  # weights file; its card lies beside it
    checkpoint: Path  # state to resume from, removed by nobody
    minutes: float  # of training time of the synthesis, resumed runs included
    mapping_steps: int  # of the mapping, before it
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
    optimizer: torch.optim.Adam
    step: int = 0
    elapsed_s: float = 0.0


def start(options: Options) -> Run:
    """The run in the checkpoint, or a fresh one whose mapping is fitted."""
    torch.manual_seed(options.seed)
    generator = Generator(
        GeneratorConfig(RESOLUTION, options.channels, z_dim=Z_DIM, w_dim=128, mapping_layers=4)
    )
    for block in generator.synthesis.blocks():
        block.torgb.weight.data.mul_(0.25)  # a calm first image: nothing to unlearn
    # Twice as fast as the default layout with bfloat16 on a CPU that has it.
    generator.synthesis.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = (
        torch.load(options.checkpoint, weights_only=True) if options.checkpoint.exists() else None
    )
    if state is None:
        fit_mapping(generator.mapping, options.mapping_steps)
    else:
        generator.load_state_dict(state["generator"])
    generator.mapping.requires_grad_(False)
    for name, parameter in generator.synthesis.named_parameters():
        # Truth knows no noise: its strengths stay at zero.
        parameter.requires_grad_(not name.endswith("noise_strength"))
    optimizer = torch.optim.Adam(
        [p for p in generator.parameters() if p.requires_grad], lr=options.lr, betas=(0.9, 0.99)
    )
    run = Run(generator, copy.deepcopy(generator).requires_grad_(False), optimizer)
    if state is not None:
        run.average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        run.step, run.elapsed_s = state["step"], state["elapsed_s"]
        torch.set_rng_state(state["rng"])
    return run


def fit_mapping(mapping: MappingNetwork, steps: int) -> None:
    """Trains `mapping` until a linear layer reads `scene_vectors` from w."""
    mean, deviation = scene_statistics()
    probe = FullyConnectedLayer(mapping.config.w_dim, len(mean))
    optimizer = torch.optim.Adam(
        [{"params": list(mapping.parameters())}, {"params": list(probe.parameters())}]
    )
    with trange(steps, desc="mapping", unit="step", mininterval=5.0) as bar:
        for step in bar:
            rate = scheduled(PROBE_LR, step, step / steps)
            optimizer.param_groups[0]["lr"] = rate / MAPPING_LR_MULTIPLIER
            optimizer.param_groups[1]["lr"] = rate
            z = torch.randn(PROBE_BATCH, Z_DIM)
            truth = (scene_vectors(z) - mean) / deviation
            loss = (probe(mapping(z)) - truth).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            bar.set_postfix(unexplained=f"{loss.item():.4f}", refresh=False)


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


def scheduled(rate: float, step: int, progress: float) -> float:
    """`rate` after a linear warm-up, along half a cosine over `progress` from 0 to 1."""
    warm = min((step + 1) / WARMUP_STEPS, 1.0)
    return rate * warm * (0.5 + 0.5 * math.cos(math.pi * min(progress, 1.0)))


def train_step(run: Run, options: Options) -> float:
    """One batch: draw latents, compare, update the weights and their average."""
    view_z, content_z = torch.randn(2, options.batch, Z_DIM)
    half = options.batch // 2
    view_z[half:] = content_z[half:]
    truth, weights = truth_batch(view_z, content_z)
    progress = run.elapsed_s / (options.minutes * 60)
    run.optimizer.param_groups[0]["lr"] = scheduled(options.lr, run.step, progress)
    rows = mixed_rows(run.generator, view_z, content_z, options.view_layers)
    with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
        image = run.generator.synthesis(rows).image
    loss = imitation_loss(image.float(), truth, weights)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(run.generator.synthesis.parameters(), 1.0)
    run.optimizer.step()
    decay = min(0.999, (run.step + 1) / (run.step + 10))
    with torch.no_grad():
        for average, parameter in zip(
            run.average.synthesis.parameters(), run.generator.synthesis.parameters(), strict=True
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
        provenance={
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
