"""Samples of a generator -> an encoder from images to w+ (HandsOff, CVPR 2023).

Training has two phases: the loss compares latents in the first, images and latents in the second.
It needs neither labels nor real images. In half of the samples the rows of w+ come from two w,
because real images seldom correspond to a single w.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from checkpoints import signals_held
from nets.encoder import Encoder, EncoderConfig, encoder_channels
from nets.generator import Generator
from training.errors import TrainingError
from training.inversion.distances import STRUCTURE, Distance
from training.inversion.optimise import colors_from_bytes, colors_from_ws
from training.label_crop import SYNTHESIS_BATCH, LabelCrop
from training.resume import (
    StateFile,
    adam_with_moments,
    copy_tensors,
    tensors_of_trained,
)

MAX_INPUT = 256  # width of the encoder's input, pixels
LOG_EVERY = 20  # steps between updates of the loss on the progress bar
STATISTICS_SAMPLES = 4096  # draws of w that its standard deviation is estimated from


@dataclass(frozen=True)
class EncoderTrainConfig:
    """Settings of an encoder's training."""

    latent_steps: int = 500  # steps of the first phase
    image_steps: int = 1500  # steps of the second phase
    batch: int = 8
    iterations: int = 1  # residual steps of the encoder
    learning_rate: float = 1e-3  # Adam's at the start; cosine decay to zero over both phases
    perceptual_weight: float = 10.0  # weights of the second phase's losses, as in the inversion
    mse_weight: float = 1.0
    latent_weight: float = 0.1
    psi: float = 1.0  # truncation psi of the samples
    seed: int = 0

    @property
    def steps(self) -> int:
        """Steps of both phases."""
        return self.latent_steps + self.image_steps


@dataclass
class EncoderState:
    """The state of a training; `tensors` and `load` convert it to and from a state file."""

    encoder: Encoder
    adam: torch.optim.Adam
    rng: torch.Generator  # draws the samples
    steps: int  # total
    step: int = 0  # completed

    def tensors(self) -> dict[str, Tensor]:
        """The state by name. The tensors are the live ones, not copies: do not modify them."""
        values = self.encoder.state_dict(prefix="encoder.", keep_vars=True)
        return {
            "step": torch.tensor(self.step),
            "chances": self.rng.get_state(),  # the key in state files
            **tensors_of_trained(values, self.adam),
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restores a state. Raises ValueError naming the tensor that does not match."""
        own = self.tensors()
        copy_tensors(own, tensors)
        self.rng.set_state(own["chances"])
        self.step = int(own["step"])
        if not 0 <= self.step <= self.steps:
            raise ValueError(f"it is at step {self.step} of {self.steps}")


def fit_encoder(
    generator: Generator,
    crop: LabelCrop,
    config: EncoderTrainConfig,
    distance: Distance = STRUCTURE,
    unfinished: StateFile | None = None,
) -> Encoder:
    """Trains an encoder of cropped images, on the generator's device.

    Deterministic for a seed on one machine, also when resumed. Raises TrainingError, WeightsError.
    """
    state = new_state(generator, crop, config)
    if unfinished is not None:
        unfinished.resume(state.load)
    samples = sampled_ws(generator, config, state.rng)
    progress = tqdm(total=config.steps, initial=state.step, desc="encoder", unit="step")
    with signals_held() as held, progress:
        while state.step < config.steps:
            ws = next(samples)
            loss = train_step(state, generator, ws, crop, config, distance)
            if state.step % LOG_EVERY == 0:
                if not loss.isfinite():
                    raise TrainingError(
                        f"the encoder's loss is {loss.item()} at step {state.step}; lower "
                        f"--learning-rate, {config.learning_rate}"
                    )
                progress.set_postfix_str(f"loss {loss.item():.4f}", refresh=False)
            state.step += 1
            progress.update()
            if unfinished is not None:
                unfinished.save_after_step(state.step, state.tensors, held)
    return state.encoder.eval().requires_grad_(False)


def new_state(generator: Generator, crop: LabelCrop, config: EncoderTrainConfig) -> EncoderState:
    """The state before the first step, on the generator's device."""
    device = generator.mapping.w_avg.device
    torch.manual_seed(config.seed)
    encoder = Encoder(encoder_config(generator, crop, config.iterations)).to(device)
    rng = torch.Generator().manual_seed(config.seed)
    encoder.w_avg.copy_(generator.mapping.w_avg)
    encoder.w_std.copy_(sampled_w(generator, STATISTICS_SAMPLES, rng).std(dim=0))
    adam = adam_with_moments(encoder.parameters(), config.learning_rate)
    return EncoderState(encoder, adam, rng, config.steps)


def encoder_config(generator: Generator, crop: LabelCrop, iterations: int) -> EncoderConfig:
    """Shape of an encoder whose input is the crop, scaled down to sides of at most 256 px."""
    longer = max(crop.height, crop.width)
    height, width = (
        max(1, round(side * min(longer, MAX_INPUT) / longer)) for side in (crop.height, crop.width)
    )
    return EncoderConfig(
        height=height,
        width=width,
        num_ws=generator.config.num_ws,
        w_dim=generator.config.w_dim,
        channels=encoder_channels(max(height, width)),
        iterations=iterations,
    )


def sampled_ws(
    generator: Generator, config: EncoderTrainConfig, rng: torch.Generator
) -> Iterator[Tensor]:
    """Endless batches of truncated w+ [batch, num_ws, w_dim].

    In the first half of a batch all rows of w+ are one w. In the second half the rows from a
    random row on are another w.
    """
    rows = torch.arange(generator.config.num_ws)
    device = generator.mapping.w_avg.device
    while True:
        first, second = sampled_w(generator, 2 * config.batch, rng).chunk(2)
        crossover = torch.randint(1, len(rows), (config.batch,), generator=rng)
        crossover[: config.batch // 2] = len(rows)
        is_first = (rows < crossover[:, None])[..., None].to(device)  # [batch, num_ws, 1]
        ws = torch.where(is_first, first[:, None], second[:, None])
        yield generator.mapping.truncated(ws, config.psi)


@torch.no_grad()
def sampled_w(generator: Generator, count: int, rng: torch.Generator) -> Tensor:
    """w [count, w_dim] of normal z and, for a conditional generator, uniformly drawn classes."""
    device = generator.mapping.w_avg.device
    z = torch.randn(count, generator.config.z_dim, generator=rng).to(device)
    c = None
    if generator.config.c_dim:
        classes = torch.randint(generator.config.c_dim, (count,), generator=rng)
        c = F.one_hot(classes, generator.config.c_dim).float().to(device)
    w: Tensor = generator.mapping(z, c)
    return w


def train_step(
    state: EncoderState,
    generator: Generator,
    ws: Tensor,  # [batch, num_ws, w_dim]
    crop: LabelCrop,
    config: EncoderTrainConfig,
    distance: Distance,
) -> Tensor:
    """One update by Adam. Returns the loss of the last residual step, a scalar."""
    encoder = state.encoder
    with torch.no_grad():
        images = colors_from_ws(generator, ws, crop)
    state.adam.zero_grad()
    for predicted in encoder_steps(encoder, generator, images, crop):
        # Huber: a few w lie far out (6 standard deviations in the demo) and would dominate an MSE.
        loss = F.huber_loss(predicted / encoder.w_std, ws / encoder.w_std)
        if state.step >= config.latent_steps:
            reproduced = colors_from_ws(generator, predicted, crop)
            loss = (
                config.perceptual_weight * distance.between(reproduced, images).mean()
                + config.mse_weight * (reproduced - images).square().mean()
                + config.latent_weight * loss
            )
        loss.backward()  # once per residual step: no gradient flows from one step to another
    torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
    for group in state.adam.param_groups:
        group["lr"] = learning_rate_at(state.step, config)
    state.adam.step()
    return loss.detach()


def learning_rate_at(step: int, config: EncoderTrainConfig) -> float:
    """Cosine decay to zero.

    A function of the step alone, unlike torch.optim.lr_scheduler, so that the state file needs
    no scheduler and a resumed training ends with the same bits.
    """
    return 0.5 * config.learning_rate * (1 + math.cos(math.pi * step / config.steps))


def encoder_steps(
    encoder: Encoder, generator: Generator, images: Tensor, crop: LabelCrop
) -> Iterator[Tensor]:
    """w+ [N, num_ws, w_dim] after each residual step, for images [N, 3, height, width] in [0, 1].

    Each step sees the image and the generator's image of the last step's w+, beginning with the
    mean of w. Gradients do not flow between steps.
    """
    size = (encoder.config.height, encoder.config.width)
    image = F.interpolate(images, size=size, mode="area")
    ws = encoder.mean_ws(1)  # one row for all images: the mean's image is generated once
    for _ in range(encoder.config.iterations):
        with torch.no_grad():
            reproduced = colors_from_ws(generator, ws, crop)
            reproduced = F.interpolate(reproduced, size=size, mode="area")
        ws = encoder(image, reproduced.expand(len(image), -1, -1, -1), ws.detach())
        yield ws


@torch.no_grad()
def ws_from_images(
    encoder: Encoder,
    generator: Generator,
    images: NDArray[np.uint8],  # [n, height, width, 3], already cropped
    crop: LabelCrop,
) -> Tensor:
    """w+ after the last residual step, [n, num_ws, w_dim], on the CPU."""
    found = []
    with tqdm(total=len(images), desc="encoder's latents", unit="image") as progress:
        for colors in colors_from_bytes(images).to(encoder.w_avg.device).split(SYNTHESIS_BATCH):
            *_, ws = encoder_steps(encoder, generator, colors, crop)
            found.append(ws.cpu())
            progress.update(len(colors))
    return torch.cat(found)
