"""Random pieces of random images, for training on."""

import torch
from torch import Tensor


def drawn_pieces(
    images: Tensor, count: int, extent: tuple[int, int], chances: torch.Generator
) -> Tensor:
    """[n, C, H, W] -> [count, C, *extent]; an image may come twice."""
    chosen = torch.randint(len(images), (count,), generator=chances).tolist()
    height, width = extent
    tops, lefts = (
        torch.randint(have - want + 1, (count,), generator=chances).tolist()
        for have, want in zip(images.shape[2:], extent, strict=True)
    )
    return torch.stack(
        [
            images[i, :, top : top + height, left : left + width]
            for i, top, left in zip(chosen, tops, lefts, strict=True)
        ]
    )


def extent_of_pieces(images: Tensor, crop: int) -> tuple[int, int]:
    """Height and width of pieces of at most `crop` pixels of [n, C, H, W]; 0: whole images."""
    height, width = images.shape[2:]
    crop = crop or max(height, width)
    return min(crop, height), min(crop, width)
