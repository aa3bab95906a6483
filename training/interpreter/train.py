"""Labelled images -> a trained interpreter: all members of all heads in one batched model."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

from nets.generator import Generator
from nets.interpreter import HeadConfig, HeadKind, Interpreter, published_hidden
from training.errors import LabelError, TrainingError
from training.interpreter.config import PUBLISHED, FitConfig
from training.interpreter.features import PixelFeatures, features_from_ws
from training.interpreter.losses import Targets
from training.interpreter.pixel_sampler import Pixels, PixelSampler
from training.labels.labelled_set import LabelledSet
from training.resume import (
    StateFile,
    adam_with_moments,
    copy_tensors,
    tensors_of_trained,
    write_state,
)


@dataclass(frozen=True)
class Step:
    """What one step trains on."""

    pixels: Pixels
    rate: float  # Adam's
    epoch: int = 0


@dataclass
class FitState:
    """What changes from step to step; `tensors` and `load` are its file."""

    interpreter: Interpreter
    optimizer: torch.optim.Adam
    step: int = 0  # steps that are done
    lowest: Tensor = field(init=False)  # loss of each member since the rule watches, [members]
    waited: Tensor = field(init=False)  # batches since then, int64 [members]
    stopped: Tensor = field(init=False)  # bool [members]
    kept: dict[str, Tensor] = field(default_factory=dict)  # weights of members as they stopped

    def __post_init__(self) -> None:
        members = self.members
        self.lowest = torch.full((members,), torch.inf)
        self.waited = torch.zeros(members, dtype=torch.int64)
        self.stopped = torch.zeros(members, dtype=torch.bool)

    @property
    def members(self) -> int:
        """Members of each head."""
        return self.interpreter.head(next(iter(self.interpreter.heads))).config.members

    def watch(self, losses: Tensor, epoch: int) -> None:
        """The published rule: from epoch 4 on, a member stops at the 51st batch in a row whose
        loss is no new lowest one (losses [members])."""
        if epoch < PUBLISHED.first_epoch:
            return
        better = losses < self.lowest
        self.lowest = torch.where(better, losses, self.lowest)
        self.waited = torch.where(better, 0, self.waited + 1)
        ended = (self.waited > PUBLISHED.patience) & ~self.stopped
        if ended.any():
            for name, rows in self._by_member():
                self.kept.setdefault(name, rows.clone())[ended] = rows[ended]
            self.stopped |= ended

    def restore_stopped(self) -> None:
        """Gives the members that stopped the weights they stopped with."""
        if self.kept:
            for name, rows in self._by_member():
                rows[self.stopped] = self.kept[name][self.stopped]

    def tensors(self) -> dict[str, Tensor]:
        """The whole state by name; what is in it may not be changed."""
        values = self.interpreter.state_dict(prefix="model.", keep_vars=True)
        return {
            "step": torch.tensor(self.step),
            "lowest": self.lowest,
            "waited": self.waited,
            "stopped": self.stopped,
            **tensors_of_trained(values, self.optimizer),
            **{f"{KEPT}{name}": rows for name, rows in self.kept.items()},
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Goes on from there. Raises ValueError naming what does not fit this configuration."""
        self.kept = {}
        if any(name.startswith(KEPT) for name in tensors):
            self.kept = {name: torch.empty_like(rows) for name, rows in self._by_member()}
        own = self.tensors()
        copy_tensors(own, tensors)
        self.step = int(own["step"])

    def _by_member(self) -> list[tuple[str, Tensor]]:
        """Every weight and statistic as [members, ...]: all begin with the members' rows."""
        state = self.interpreter.state_dict()
        return [(n, t.view(self.members, -1)) for n, t in state.items() if t.ndim > 0]


def fit_interpreter(
    generator: Generator,
    labels: LabelledSet,
    config: FitConfig,
    unfinished: StateFile | None = None,
) -> Interpreter:
    """Trains every head the set has labels for, on the device of the generator; deterministic for
    a seed on one machine, taken up or not.

    Raises TrainingError, among them LabelError when the labels do not fit the generator.
    """
    check_labels(generator, labels, config)
    device = generator.mapping.w_avg.device
    sampler = PixelSampler(labels, config.sigma(labels.crop.grid), config.seed, device)
    every = sum(len(positions) for positions in sampler.labelled)
    most = config.schedule == "published" or config.steps * config.pixels > every
    needed = None if most else sampler.drawn(config.steps, config.pixels)
    features = features_from_ws(generator, labels.ws, labels.crop, config.resize, needed=needed)
    torch.manual_seed(config.seed)
    interpreter = Interpreter(head_configs(labels, config, features.features)).to(device)
    adam = adam_with_moments(interpreter.parameters(), config.learning_rate, fused=True)
    state = FitState(interpreter, adam)
    if unfinished is not None:
        unfinished.resume(state.load)
    targets = Targets(labels, config, device)
    interpreter.train()
    _fit(state, features, targets, sampler, config, unfinished)
    if "depth" in interpreter.heads:
        targets.with_depth_units(interpreter.head("depth"))
    return interpreter.eval().requires_grad_(False).cpu()


def _fit(
    state: FitState,
    features: PixelFeatures,
    targets: Targets,
    sampler: PixelSampler,
    config: FitConfig,
    unfinished: StateFile | None,
) -> None:
    """Steps until the schedule ends; the published one ends each member by its rule."""
    published = config.schedule == "published"
    steps = _published_steps(sampler, state.step) if published else _steps(sampler, config, state)
    total = None if published else config.steps
    with tqdm(steps, desc="interpreter", unit="step", initial=state.step, total=total) as bar:
        for step in bar:
            losses = train_step(state, features, targets, step)
            shown = {kind: f"{loss.mean():.3f}" for kind, loss in losses.items()}
            bar.set_postfix(shown | ({"epoch": step.epoch} if published else {}), refresh=False)
            if published:
                state.watch(torch.stack(list(losses.values())).sum(dim=0).cpu(), step.epoch)
                if state.stopped.all():
                    break
            if unfinished is not None and state.step % unfinished.save_every == 0:
                write_state(unfinished.path, state.tensors(), unfinished.recipe)
    state.restore_stopped()


def _steps(sampler: PixelSampler, config: FitConfig, state: FitState) -> Iterator[Step]:
    """Drawn pixels and a rate that falls to zero."""
    for i in range(state.step, config.steps):
        rate = 0.5 * config.learning_rate * (1 + math.cos(math.pi * i / config.steps))
        yield Step(sampler.draw(i, config.pixels), rate)


def _published_steps(sampler: PixelSampler, first: int) -> Iterator[Step]:
    """Epochs over every labelled pixel, from step `first` on. All members see one order; the
    release shuffles anew for each."""
    count = sum(len(positions) for positions in sampler.labelled)
    # A batch norm has no variance of one pixel: a last batch of one is left out.
    starts = range(0, count - 1, PUBLISHED.batch)
    for epoch in range(first // len(starts), PUBLISHED.max_epochs):
        pixels = sampler.shuffled(epoch)
        begun = max(first - epoch * len(starts), 0)
        for start in starts[begun:]:
            batch = pixels[start : start + PUBLISHED.batch]
            yield Step(batch, PUBLISHED.learning_rate, epoch)


def train_step(
    state: FitState, features: PixelFeatures, targets: Targets, step: Step
) -> dict[HeadKind, Tensor]:
    """One step of Adam on the sum of all members' losses; {kind: loss of each member [members]}.

    Members share no weights, so each moves as if it were alone. Raises TrainingError when a loss
    is not finite.
    """
    x = features.gather(step.pixels.images, step.pixels.rows, step.pixels.columns)
    losses = targets.losses(state.interpreter(x), step.pixels)
    total = torch.stack([loss.sum() for loss in losses.values()]).sum()
    if not torch.isfinite(total):
        raise TrainingError(
            f"the loss is {total.item()} at step {state.step}; lower --learning-rate"
        )
    for group in state.optimizer.param_groups:
        group["lr"] = step.rate
    state.optimizer.zero_grad()
    total.backward()
    state.optimizer.step()
    state.step += 1
    return {kind: loss.detach() for kind, loss in losses.items()}


def check_labels(generator: Generator, labels: LabelledSet, config: FitConfig) -> None:
    """Raises LabelError unless latents, grid, heads and class weights fit."""
    expected = (generator.config.num_ws, generator.config.w_dim)
    if labels.ws.shape[1:] != expected:
        raise LabelError(
            f"latents are {list(labels.ws.shape[1:])} per image; this generator reads "
            f"{list(expected)} (num_ws, w_dim)"
        )
    if labels.crop.grid > generator.config.resolution:
        raise LabelError(
            f"labels lie on a grid of {labels.crop.grid}; this generator has "
            f"{generator.config.resolution} pixels"
        )
    given = {"segmentation": labels.masks, "keypoints": labels.keypoints, "depth": labels.depth}
    for kind, members in config.head_members:
        if given[kind] is None:
            raise LabelError(
                f"{members} members are asked of {kind}, which nothing is labelled with; leave "
                f"--head-members {kind} out"
            )
    count = 0 if labels.classes is None else len(labels.classes.cards)
    if config.class_weights is not None and len(config.class_weights) != count:
        raise LabelError(f"{len(config.class_weights)} class weights are given for {count} classes")


def head_configs(labels: LabelledSet, config: FitConfig, features: int) -> tuple[HeadConfig, ...]:
    """A head for every kind of label, at the published widths unless others are asked for."""
    num_classes = 0 if labels.classes is None else len(labels.classes.cards)
    outputs: dict[HeadKind, int] = {}
    if labels.masks is not None:
        outputs["segmentation"] = num_classes
    if labels.keypoints is not None:
        outputs["keypoints"] = labels.keypoints.shape[1]
    if labels.depth is not None:
        outputs["depth"] = 1
    hidden = config.hidden or published_hidden(num_classes)
    return tuple(
        HeadConfig(kind, features, hidden, count, config.members_of(kind))
        for kind, count in outputs.items()
    )


KEPT = "kept."
