"""Labeled images -> a trained interpreter: all members of all heads in one batched model."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from checkpoints import signals_held
from nets.generator import Generator
from nets.interpreter import HeadConfig, HeadKind, Interpreter, published_hidden
from training.errors import LabelError, TrainingError
from training.interpreter.config import PUBLISHED, InterpreterTrainConfig
from training.interpreter.features import PixelFeatures, features_from_ws
from training.interpreter.losses import LabelLosses
from training.interpreter.pixel_sampler import Pixels, PixelSampler
from training.labels.labelled_set import LabelledSet
from training.resume import (
    StateFile,
    adam_with_moments,
    copy_tensors,
    tensors_of_trained,
)

Report = Callable[[int, dict[HeadKind, float]], None]
WEIGHTS_AT_STOP = "kept."  # prefix of their names in the state file


@dataclass(frozen=True)
class Step:
    """Inputs of one training step."""

    pixels: Pixels
    learning_rate: float
    epoch: int = 0  # epoch of the published schedule


@dataclass
class TrainState:
    """Everything that changes from step to step, and its conversion to and from a state file.

    The published schedule stops each member at its own batch. The batched model still trains all
    members until the last one stops, so the weights of the others are copied when they stop and
    restored at the end.
    """

    interpreter: Interpreter
    optimizer: torch.optim.Adam
    step: int = 0  # completed steps
    lowest_loss: Tensor = field(init=False)  # lowest loss of each member, float [members]
    batches_waited: Tensor = field(init=False)  # batches since then, int64 [members]
    stopped: Tensor = field(init=False)  # bool [members]
    weights_at_stop: dict[str, Tensor] = field(default_factory=dict)  # [members, ...] by name

    def __post_init__(self) -> None:
        self.lowest_loss = torch.full((self.members,), torch.inf)
        self.batches_waited = torch.zeros(self.members, dtype=torch.int64)
        self.stopped = torch.zeros(self.members, dtype=torch.bool)

    @property
    def members(self) -> int:
        """Members of each head under the published schedule; of the first head otherwise."""
        return self.interpreter.head(next(iter(self.interpreter.heads))).config.members

    def update_stopped(self, losses: Tensor, epoch: int) -> None:
        """Applies the published stopping rule to the losses [members] of one batch.

        From epoch 4 on, a member stops at the 51st batch in a row without a new lowest loss.
        """
        if epoch < PUBLISHED.first_epoch:
            return
        better = losses < self.lowest_loss
        self.lowest_loss = torch.where(better, losses, self.lowest_loss)
        self.batches_waited = torch.where(better, 0, self.batches_waited + 1)
        stopping = (self.batches_waited > PUBLISHED.patience) & ~self.stopped
        if stopping.any():
            for name, weights in self._weights_by_member():
                kept = self.weights_at_stop.setdefault(name, weights.clone())
                kept[stopping] = weights[stopping]
            self.stopped |= stopping

    def restore_stopped(self) -> None:
        """Restores the weights that each stopped member had when it stopped."""
        if self.weights_at_stop:
            for name, weights in self._weights_by_member():
                weights[self.stopped] = self.weights_at_stop[name][self.stopped]

    def tensors(self) -> dict[str, Tensor]:
        """Tensors of the state file by name. They share memory with the state: do not modify."""
        values = self.interpreter.state_dict(prefix="model.", keep_vars=True)
        return {
            "step": torch.tensor(self.step),
            "lowest": self.lowest_loss,
            "waited": self.batches_waited,
            "stopped": self.stopped,
            **tensors_of_trained(values, self.optimizer),
            **{f"{WEIGHTS_AT_STOP}{name}": rows for name, rows in self.weights_at_stop.items()},
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Sets the state to that of a file. Raises ValueError naming the first misfit."""
        self.weights_at_stop = {}
        if any(name.startswith(WEIGHTS_AT_STOP) for name in tensors):
            self.weights_at_stop = {
                name: torch.empty_like(weights) for name, weights in self._weights_by_member()
            }
        own = self.tensors()
        copy_tensors(own, tensors)
        self.step = int(own["step"])

    def _weights_by_member(self) -> list[tuple[str, Tensor]]:
        """Views [members, ...] of all weights and batch norm statistics, whose first axis is the
        members."""
        state = self.interpreter.state_dict()
        return [(n, t.view(self.members, -1)) for n, t in state.items() if t.ndim > 0]


def fit_interpreter(
    generator: Generator,
    labels: LabelledSet,
    config: InterpreterTrainConfig,
    state_file: StateFile | None = None,
    start: Interpreter | None = None,
    report: Report | None = None,
) -> Interpreter:
    """Trains a head for each kind of label in the set, on the device of the generator.

    Training resumes from the state file if it exists, and writes it every `save_every` steps. A
    seed gives the same weights on one machine, interrupted or not. The first weights are those of
    `start` if it has the same heads, and no depth, whose units were restored. `report` is called
    after each step with the completed steps and the mean loss of each head. Raises TrainingError,
    and LabelError when the labels do not fit the generator.
    """
    check_labels(generator, labels, config)
    device = generator.mapping.w_avg.device
    sampler = PixelSampler(labels, config.sigma(labels.crop.grid), config.seed, device)
    mask = pixels_to_cache(sampler, config)
    features = features_from_ws(generator, labels.ws, labels.crop, config.resize, mask=mask)
    losses = LabelLosses(labels, config, device)
    heads = head_configs(labels, config, features.features)
    state = new_state(heads, config, device)
    if start is not None and starts_from(start, heads):
        state.interpreter.load_state_dict(start.state_dict())
    if state_file is not None:
        state_file.resume(state.load)
    _train(state, features, losses, sampler, config, state_file, report)
    interpreter = state.interpreter
    if "depth" in interpreter.heads:
        losses.restore_depth_units(interpreter.head("depth"))
    return interpreter.eval().requires_grad_(False).cpu()


def check_labels(generator: Generator, labels: LabelledSet, config: InterpreterTrainConfig) -> None:
    """Raises LabelError unless latents, grid, heads and class weights fit the generator."""
    expected = (generator.config.num_ws, generator.config.w_dim)
    if labels.ws.shape[1:] != expected:
        raise LabelError(
            f"latents are {list(labels.ws.shape[1:])} per image; this generator reads "
            f"{list(expected)} (num_ws, w_dim)"
        )
    crop = labels.crop
    if crop.grid > generator.config.resolution or crop.start != generator.config.start:
        (rows, columns), (height, width) = crop.size, generator.config.image_size
        raise LabelError(
            f"labels lie on a grid of {columns}x{rows}; this generator's images are "
            f"{width}x{height}"
        )
    coarsest, _ = generator.config.taps[0]
    if labels.crop.grid <= coarsest:
        raise LabelError(
            f"labels lie on a grid of {labels.crop.grid}; it must be over {coarsest}, the pixels "
            "of this generator's coarsest feature maps"
        )
    given = {"segmentation": labels.masks, "keypoints": labels.keypoints, "depth": labels.depth}
    for kind, members in config.head_members:
        if given[kind] is None:
            raise LabelError(
                f"--head-members asks for {members} members of {kind}, but no image has such "
                f"labels; leave --head-members {kind} out"
            )
    count = 0 if labels.classes is None else len(labels.classes.cards)
    if config.class_weights is not None and len(config.class_weights) != count:
        raise LabelError(f"{len(config.class_weights)} class weights are given for {count} classes")


def pixels_to_cache(
    sampler: PixelSampler, config: InterpreterTrainConfig
) -> NDArray[np.bool_] | None:
    """Pixels whose features are kept in memory, bool [n, H, W]; None: all pixels.

    The sampler is deterministic, so the pixels that training will draw are known beforehand. The
    default 480 steps of 1024 pixels draw at most 491,520. Of 16 images at 512 px, 4,194,304 pixels,
    only those drawn are kept; of one such image, 262,144 pixels, all are.
    """
    labelled_total = sampler.labelled_total
    cache_all = config.schedule == "published" or config.steps * config.pixels > labelled_total
    return None if cache_all else sampler.drawn_mask(config.steps, config.pixels)


def head_configs(
    labels: LabelledSet, config: InterpreterTrainConfig, features: int
) -> tuple[HeadConfig, ...]:
    """A head for each kind of label, with the published hidden widths unless config has others."""
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


def starts_from(start: Interpreter, heads: tuple[HeadConfig, ...]) -> bool:
    """Whether a training of these heads can begin with the weights of `start`."""
    same = [start.head(kind).config for kind in start.heads] == list(heads)
    return same and all(head.kind != "depth" for head in heads)


def new_state(
    heads: tuple[HeadConfig, ...], config: InterpreterTrainConfig, device: torch.device
) -> TrainState:
    """State before the first step, with weights initialized from the seed."""
    torch.manual_seed(config.seed)
    interpreter = Interpreter(heads).to(device).train()
    optimizer = adam_with_moments(interpreter.parameters(), config.learning_rate, fused=True)
    return TrainState(interpreter, optimizer)


def _train(
    state: TrainState,
    features: PixelFeatures,
    losses: LabelLosses,
    sampler: PixelSampler,
    config: InterpreterTrainConfig,
    state_file: StateFile | None,
    report: Report | None,
) -> None:
    """Runs the remaining steps: to the end of the cosine schedule, or until the published rule has
    stopped every member."""
    published = config.schedule == "published"
    if published:
        steps, total = _published_steps(sampler, state.step), None
    else:
        steps, total = _cosine_steps(sampler, config, state.step), config.steps
    bar = tqdm(steps, desc="interpreter", unit="step", initial=state.step, total=total)
    with signals_held() as held, bar:
        for step in bar:
            by_head = train_step(state, features, losses, step)
            shown = {kind: f"{loss.mean():.3f}" for kind, loss in by_head.items()}
            bar.set_postfix(shown | ({"epoch": step.epoch} if published else {}), refresh=False)
            if report is not None:
                report(state.step, {kind: float(loss.mean()) for kind, loss in by_head.items()})
            if published:
                by_member = torch.stack(list(by_head.values())).sum(dim=0).cpu()
                state.update_stopped(by_member, step.epoch)
                if state.stopped.all():
                    break
            if state_file is not None:
                state_file.save_after_step(state.step, state.tensors, held)
    state.restore_stopped()


def _cosine_steps(
    sampler: PixelSampler, config: InterpreterTrainConfig, first: int
) -> Iterator[Step]:
    """Steps from `first` on: sampled pixels, and half a cosine from the learning rate to zero.

    A function of the step, so that a resumed training needs no scheduler state; torch's
    CosineAnnealingLR updates its rate recursively, with other rounding.
    """
    for i in range(first, config.steps):
        rate = 0.5 * config.learning_rate * (1 + math.cos(math.pi * i / config.steps))
        yield Step(sampler.draw(i, config.pixels), rate)


def _published_steps(sampler: PixelSampler, first: int) -> Iterator[Step]:
    """Steps from `first` on: epochs over all labeled pixels, in shuffled batches.

    All members see the same order; the published code shuffles for each member.
    """
    labelled_total = sampler.labelled_total
    # A last batch of one pixel is left out: batch norm needs two for a variance.
    starts = range(0, labelled_total - 1, PUBLISHED.batch)
    for epoch in range(first // len(starts), PUBLISHED.max_epochs):
        pixels = sampler.shuffled(epoch)
        completed = max(first - epoch * len(starts), 0)  # batches of this epoch
        for start in starts[completed:]:
            batch = pixels[start : start + PUBLISHED.batch]
            yield Step(batch, PUBLISHED.learning_rate, epoch)


def train_step(
    state: TrainState, features: PixelFeatures, losses: LabelLosses, step: Step
) -> dict[HeadKind, Tensor]:
    """One step of Adam on the sum of all losses; returns {kind: loss of each member [members]}.

    Members share no weights, so each is trained as if alone. Raises TrainingError if a loss is not
    finite, before any weight changes.
    """
    x = features.gather(step.pixels.images, step.pixels.rows, step.pixels.columns)
    by_head = losses.by_head(state.interpreter(x), step.pixels)
    total = torch.stack([loss.sum() for loss in by_head.values()]).sum()
    if not torch.isfinite(total):
        raise TrainingError(
            f"the loss is {total.item()} at step {state.step}; lower --learning-rate"
        )
    for group in state.optimizer.param_groups:
        group["lr"] = step.learning_rate
    state.optimizer.zero_grad()
    total.backward()
    state.optimizer.step()
    state.step += 1
    return {kind: loss.detach() for kind, loss in by_head.items()}
