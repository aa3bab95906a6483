"""Refined images of earlier steps, half of what the critic sees as refined.

Without them the critic forgets what the refiner has given up, and both go round in circles.
"""

import torch
from torch import Tensor


class History:
    """A pool of at most `capacity` images; when it is full, new ones replace random old ones."""

    def __init__(
        self, capacity: int, shape: tuple[int, int, int], device: torch.device | None = None
    ) -> None:
        self.images = torch.zeros(capacity, *shape, dtype=torch.float16, device=device)
        self.filled = 0

    def draw(self, count: int, chances: torch.Generator) -> Tensor:
        """float32 [m, C, H, W], different ones; m is less than `count` until so many are in."""
        chosen = torch.randperm(self.filled, generator=chances)[:count]
        return self.images[chosen].float()

    def push(self, images: Tensor, chances: torch.Generator) -> None:
        """Takes [n, C, H, W] in, n at most the capacity."""
        free = torch.arange(self.filled, min(self.filled + len(images), len(self.images)))
        taken = torch.randperm(self.filled, generator=chances)[: len(images) - len(free)]
        self.images[torch.cat([free, taken])] = images.detach().to(torch.float16)
        self.filled += len(free)
