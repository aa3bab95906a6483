"""How different two pictures look, as a number for each pair: LPIPS, or our stand-in for it.

Colours are [N, 3, H, W], nominally in [0, 1]; distances are [N], 0 for equal pictures, and a
pair's does not depend on the other pairs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 8  # pixels of the shorter side of the coarsest scale
FLOOR = 1e-3  # gradient energy of noise and of smooth shading, which is not to count


@dataclass(frozen=True)
class Distance:
    """A named distance, differentiable in its first argument."""

    name: str  # for the records: what the figures are of
    between: Callable[[Tensor, Tensor], Tensor]  # [N, 3, H, W] twice -> [N]


def structure_distance(a: Tensor, b: Tensor) -> Tensor:
    """Our stand-in: local gradients of the difference, over those of the pictures; in [0, 2].

    At each scale, halved down to 8 px, the energy of the difference's gradients is divided by
    the energy of both pictures' gradients around the pixel; the mean over pixels, then over
    scales. So a small part counts as much as a large one of strong contrast, a shift of
    brightness hardly counts, and coarse scales pull parts into place from afar.
    """
    of_scales = []
    while True:
        energy = _local(gradient_energy(a)) + _local(gradient_energy(b)) + FLOOR
        of_scales.append((_local(gradient_energy(a - b)) / energy).mean(dim=(1, 2, 3)))
        if min(a.shape[2:]) < 2 * SMALLEST:
            return torch.stack(of_scales).mean(dim=0)
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)


def gradient_energy(x: Tensor) -> Tensor:
    """[N, 3, H, W] -> [N, 1, H, W], squares of the steps to the right and down, over colours."""
    right = F.pad(x[..., 1:] - x[..., :-1], (0, 1))
    down = F.pad(x[..., 1:, :] - x[..., :-1, :], (0, 0, 0, 1))
    return (right.square() + down.square()).sum(dim=1, keepdim=True)


def _local(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


STRUCTURE = Distance("structure", structure_distance)
