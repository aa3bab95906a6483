"""A generator's own samples -> an encoder: latents first, then what they look like (HandsOff).

Nothing is labelled and no real image is needed. Half of the samples have rows of two latents,
because real images are not made of one w.
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

from nets.encoder import Encoder, EncoderConfig, encoder_channels
from nets.generator import Generator
from training.errors import TrainingError
from training.inversion.distances import STRUCTURE, Distance
from training.inversion.optimise import colours_from_bytes, colours_from_ws
from training.label_crop import SYNTHESIS_BATCH, LabelCrop
from training.resume import (
    StateFile,
    adam_with_moments,
    copy_tensors,
    tensors_of_trained,
    write_state,
)

MAX_INPUT = 256  # pixels of an encoder's wider side
SHOWN_EVERY = 20  # steps between figures on the progress bar
MEASURED = 4096  # draws of w for its spread


@dataclass(frozen=True)
class EncoderFitConfig:
    """How an encoder is trained."""

    latent_steps: int = 500  # by the distance of latents
    image_steps: int = 1500  # then by that of images, and of latents
    batch: int = 8
    iterations: int = 1  # residual steps
    learning_rate: float = 1e-3  # Adam's at the start, cosine to zero over all steps
    perceptual_weight: float = 10.0  # of the second phase, as in the inversion
    mse_weight: float = 1.0
    latent_weight: float = 0.1
    psi: float = 1.0  # truncation of the samples
    seed: int = 0

    @property
    def steps(self) -> int:
        """Of both phases."""
        return self.latent_steps + self.image_steps


@dataclass
class EncoderState:
    """The training at a step; `tensors` and `load` are its file."""

    encoder: Encoder
    adam: torch.optim.Adam
    chances: torch.Generator  # of the samples to come
    steps: int  # in all
    step: int = 0  # that are done

    def tensors(self) -> dict[str, Tensor]:
        """The whole state by name; what is in it may not be changed."""
        values = self.encoder.state_dict(prefix="encoder.", keep_vars=True)
        return {
            "step": torch.tensor(self.step),
            "chances": self.chances.get_state(),
            **tensors_of_trained(values, self.adam),
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Goes on from there. Raises ValueError naming what does not fit this configuration."""
        own = self.tensors()
        copy_tensors(own, tensors)
        self.chances.set_state(own["chances"])
        self.step = int(own["step"])
        if not 0 <= self.step <= self.steps:
            raise ValueError(f"it is at step {self.step} of {self.steps}")


def fit_encoder(
    generator: Generator,
    crop: LabelCrop,
    config: EncoderFitConfig,
    distance: Distance = STRUCTURE,
    unfinished: StateFile | None = None,
) -> Encoder:
    """Trains an encoder of cropped images, on the generator's device; deterministic for a seed on
    one machine, taken up or not.

    Raises TrainingError, WeightsError.
    """
    state = new_state(generator, crop, config)
    if unfinished is not None:
        unfinished.resume(state.load)
    samples = sampled_ws(generator, config, state.chances)
    with tqdm(total=config.steps, initial=state.step, desc="encoder", unit="step") as progress:
        while state.step < config.steps:
            ws = next(samples)
            loss = train_step(state, generator, ws, crop, config, distance)
            if state.step % SHOWN_EVERY == 0:
                if not loss.isfinite():
                    raise TrainingError(
                        f"the encoder's loss is {loss.item()} at step {state.step}; lower "
                        f"--learning-rate, {config.learning_rate}"
                    )
                progress.set_postfix_str(f"loss {loss.item():.4f}", refresh=False)
            state.step += 1
            progress.update()
            if unfinished is not None and state.step % unfinished.save_every == 0:
                write_state(unfinished.path, state.tensors(), unfinished.recipe)
    return state.encoder.eval().requires_grad_(False)


def new_state(generator: Generator, crop: LabelCrop, config: EncoderFitConfig) -> EncoderState:
    """Before the first step, on the generator's device."""
    device = generator.mapping.w_avg.device
    torch.manual_seed(config.seed)
    encoder = Encoder(encoder_config(generator, crop, config.iterations)).to(device)
    chances = torch.Generator().manual_seed(config.seed)
    encoder.w_avg.copy_(generator.mapping.w_avg)
    encoder.w_std.copy_(drawn_w(generator, MEASURED, chances).std(dim=0))
    adam = adam_with_moments(encoder.parameters(), config.learning_rate)
    return EncoderState(encoder, adam, chances, config.steps)


def train_step(
    state: EncoderState,
    generator: Generator,
    ws: Tensor,  # [batch, num_ws, w_dim]
    crop: LabelCrop,
    config: EncoderFitConfig,
    distance: Distance,
) -> Tensor:
    """One step of Adam; the last residual step's loss."""
    encoder = state.encoder
    with torch.no_grad():
        images = colours_from_ws(generator, ws, crop)
    state.adam.zero_grad()
    for predicted in encoder_steps(encoder, generator, images, crop):
        # Huber's: rare w lie far out (6 times the spread in the demo) and would rule.
        loss = F.huber_loss(predicted / encoder.w_std, ws / encoder.w_std)
        if state.step >= config.latent_steps:
            made = colours_from_ws(generator, predicted, crop)
            loss = (
                config.perceptual_weight * distance.between(made, images).mean()
                + config.mse_weight * (made - images).square().mean()
                + config.latent_weight * loss
            )
        loss.backward()  # of each residual step by itself: they start from given latents
    torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
    for group in state.adam.param_groups:
        group["lr"] = learning_rate_at(state.step, config)
    state.adam.step()
    return loss.detach()


def learning_rate_at(step: int, config: EncoderFitConfig) -> float:
    """Adam's, from a step alone, so that nothing of it has to be kept."""
    return 0.5 * config.learning_rate * (1 + math.cos(math.pi * step / config.steps))


def encoder_config(generator: Generator, crop: LabelCrop, iterations: int) -> EncoderConfig:
    """Shape of an encoder that reads the crop, reduced to at most 256 px across."""
    width = min(crop.width, MAX_INPUT)
    height = max(1, round(crop.height * width / crop.width))
    return EncoderConfig(
        height=height,
        width=width,
        num_ws=generator.config.num_ws,
        w_dim=generator.config.w_dim,
        channels=encoder_channels(max(height, width)),
        iterations=iterations,
    )


def sampled_ws(
    generator: Generator, config: EncoderFitConfig, source: torch.Generator
) -> Iterator[Tensor]:
    """Batches [batch, num_ws, w_dim]; the second half's rows from some row on are another
    latent's."""
    rows = torch.arange(generator.config.num_ws)
    device = generator.mapping.w_avg.device
    while True:
        first, second = drawn_w(generator, 2 * config.batch, source).chunk(2)
        crossover = torch.randint(1, len(rows), (config.batch,), generator=source)
        crossover[: config.batch // 2] = len(rows)
        is_first = (rows < crossover[:, None])[..., None].to(device)  # [batch, num_ws, 1]
        ws = torch.where(is_first, first[:, None], second[:, None])
        yield generator.mapping.truncated(ws, config.psi)


@torch.no_grad()
def drawn_w(generator: Generator, count: int, source: torch.Generator) -> Tensor:
    """w [count, w_dim] of normal z, and of classes drawn evenly where there are classes."""
    device = generator.mapping.w_avg.device
    z = torch.randn(count, generator.config.z_dim, generator=source).to(device)
    c = None
    if generator.config.c_dim:
        drawn = torch.randint(generator.config.c_dim, (count,), generator=source)
        c = F.one_hot(drawn, generator.config.c_dim).float().to(device)
    w: Tensor = generator.mapping(z, c)
    return w


def encoder_steps(
    encoder: Encoder, generator: Generator, images: Tensor, crop: LabelCrop
) -> Iterator[Tensor]:
    """w+ after each residual step, [N, num_ws, w_dim]; `images` are [N, 3, height, width] in
    [0, 1]. Gradients stay within a step."""
    size = (encoder.config.height, encoder.config.width)
    image = F.interpolate(images, size=size, mode="area")
    ws = encoder.mean_ws(1)  # one for all images, to make its image once
    for _ in range(encoder.config.iterations):
        with torch.no_grad():
            shown = F.interpolate(colours_from_ws(generator, ws, crop), size=size, mode="area")
        ws = encoder(image, shown.expand(len(image), -1, -1, -1), ws.detach())
        yield ws


@torch.no_grad()
def ws_from_images(
    encoder: Encoder,
    generator: Generator,
    images: NDArray[np.uint8],  # [n, height, width, 3], rows of the crop
    crop: LabelCrop,
) -> Tensor:
    """The encoder's last w+, [n, num_ws, w_dim], on the CPU."""
    found = []
    for colours in colours_from_bytes(images).to(encoder.w_avg.device).split(SYNTHESIS_BATCH):
        *_, ws = encoder_steps(encoder, generator, colours, crop)
        found.append(ws.cpu())
    return torch.cat(found)
