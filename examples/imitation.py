"""Training of a StyleGAN2 to draw what a renderer draws for the same latent, for the examples.

A mapping and a source of latents with numbers of their scenes enter, then batches of images and
truths; the mapping, the synthesis and the moving average of its weights leave, and files of them.
"""

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import trange

from nets.stylegan2 import FullyConnectedLayer, Generator, MappingNetwork

PROBE_BATCH = 256
PROBE_LR = 1e-2
MAPPING_LR_MULTIPLIER = (
    0.01  # learning rate multiplier of the mapping network, which scales its parameters at run time
)
WARMUP_STEPS = 200
BETAS = (0.9, 0.99)  # of Adam


@dataclass
class Run:
    """State of a training run, as stored in a checkpoint."""

    generator: Generator
    average: Generator  # exponential moving average of the weights
    optimizer: torch.optim.Adam
    step: int = 0
    elapsed_s: float = 0.0


def run_of_generator(generator: Generator, lr: float) -> Run:
    """A run that trains the synthesis; mapping and noise stay (no renderer has noise)."""
    # Twice as fast as the default layout, with bfloat16 on a CPU that supports it.
    generator.synthesis.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator.mapping.requires_grad_(False)
    for name, parameter in generator.synthesis.named_parameters():
        parameter.requires_grad_(not name.endswith("noise_strength"))
    optimizer = torch.optim.Adam(
        [p for p in generator.parameters() if p.requires_grad], lr=lr, betas=BETAS
    )
    return Run(generator, copy.deepcopy(generator).requires_grad_(False), optimizer)


def fit_mapping(
    mapping: MappingNetwork,
    steps: int,
    numbers: int,
    draw: Callable[[], tuple[Tensor, Tensor]],
    rate: Callable[[int], float],
    probe: FullyConnectedLayer | None = None,
) -> float:
    """Trains `mapping` so that a linear layer can predict a scene's numbers from w.

    Args:
        mapping: changed in place.
        steps: batches.
        numbers: P, how many numbers there are.
        draw: gives z [N, z_dim] and its scenes' standardized numbers [N, P].
        rate: learning rate of the linear layer at a step; the mapping's follows from it.
        probe: the linear layer to begin with; None: a random one.

    Returns:
        The mean squared error over the last tenth of the steps: the share of the numbers' variance
        that w leaves unexplained. NaN without steps.
    """
    if probe is None:
        probe = FullyConnectedLayer(mapping.config.w_dim, numbers)
    optimizer = torch.optim.Adam(
        [{"params": list(mapping.parameters())}, {"params": list(probe.parameters())}]
    )
    losses: list[float] = []
    with trange(steps, desc="mapping", unit="step", mininterval=5.0) as bar:
        for step in bar:
            optimizer.param_groups[0]["lr"] = rate(step) / MAPPING_LR_MULTIPLIER
            optimizer.param_groups[1]["lr"] = rate(step)
            z, truth = draw()
            loss = (probe(mapping(z)) - truth).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            bar.set_postfix(unexplained=f"{losses[-1]:.4f}", refresh=False)
    last = losses[-max(1, steps // 10) :]
    return sum(last) / len(last) if last else float("nan")


def fitted_probe(mapping: MappingNetwork, z: Tensor, numbers: Tensor) -> FullyConnectedLayer:
    """The linear layer that predicts numbers [N, P] best from w of z [N, z_dim], by least squares.

    With N over ten times w_dim it holds for other scenes as well. A mapping that is trained further
    begins where it was, and a new one is spared the steps in which the layer finds the linear part.
    """
    probe = FullyConnectedLayer(mapping.config.w_dim, numbers.shape[1])
    with torch.no_grad():
        w = mapping(z)
        rows = torch.cat([w, torch.ones(len(w), 1)], dim=1)
        ridge = 1e-3 * len(w) * torch.eye(rows.shape[1])
        solution = torch.linalg.solve(rows.t() @ rows + ridge, rows.t() @ numbers)
        probe.weight.copy_(solution[:-1].t() / probe.weight_gain)
        probe.bias.copy_(solution[-1] / probe.bias_gain)
    return probe


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


def descend(run: Run, loss: Tensor, decay: float = 0.999) -> float:
    """One step of the optimizer and of the average, whose weights start moving fast; the loss."""
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(run.generator.synthesis.parameters(), 1.0)
    run.optimizer.step()
    decay = min(decay, (run.step + 1) / (run.step + 10))
    with torch.no_grad():
        for average, parameter in zip(
            run.average.synthesis.parameters(), run.generator.synthesis.parameters(), strict=True
        ):
            average.lerp_(parameter, 1 - decay)
    return loss.item()


def center_average(run: Run, z: Tensor) -> None:
    """Sets w_avg of the average to the mean of w over z [N, z_dim]."""
    with torch.no_grad():
        run.average.mapping.w_avg.copy_(run.average.mapping(z).mean(dim=0))


def save_checkpoint(run: Run, path: Path) -> None:
    """Writes all that `load_checkpoint` needs; an interrupted write leaves the old file."""
    state = {
        "generator": run.generator.state_dict(),
        "average": run.average.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "step": run.step,
        "elapsed_s": run.elapsed_s,
        "rng": torch.get_rng_state(),
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def load_checkpoint(run: Run, path: Path) -> None:
    """Continues the run that wrote the checkpoint, with its random numbers."""
    state = torch.load(path, weights_only=True)
    run.generator.load_state_dict(state["generator"])
    run.average.load_state_dict(state["average"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.step, run.elapsed_s = state["step"], state["elapsed_s"]
    torch.set_rng_state(state["rng"])
