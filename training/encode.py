"""Images -> the encoder's latents, in its residual steps through the generator."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nets.encoder import Encoder
from nets.generator import Generator
from training.frame import AT_ONCE, Frame
from training.invert import colours_from_bytes, colours_from_ws


def encoder_steps(
    encoder: Encoder, generator: Generator, images: Tensor, frame: Frame
) -> Iterator[Tensor]:
    """w+ after each residual step, [N, num_ws, w_dim]; `images` are [N, 3, height, width] in
    [0, 1]. Gradients stay within a step."""
    size = (encoder.config.height, encoder.config.width)
    image = F.interpolate(images, size=size, mode="area")
    ws = encoder.mean_ws(1)  # one for all images, to make its image once
    for _ in range(encoder.config.iterations):
        with torch.no_grad():
            shown = F.interpolate(colours_from_ws(generator, ws, frame), size=size, mode="area")
        ws = encoder(image, shown.expand(len(image), -1, -1, -1), ws.detach())
        yield ws


@torch.no_grad()
def ws_from_images(
    encoder: Encoder,
    generator: Generator,
    images: NDArray[np.uint8],  # [n, height, width, 3], rows of the frame
    frame: Frame,
) -> Tensor:
    """The encoder's last w+, [n, num_ws, w_dim], on the CPU."""
    found = []
    for colours in colours_from_bytes(images).to(encoder.w_avg.device).split(AT_ONCE):
        *_, ws = encoder_steps(encoder, generator, colours, frame)
        found.append(ws.cpu())
    return torch.cat(found)
