"""Bytes of images to numbers in [-1, 1] and back."""

from torch import Tensor


def float_from_bytes(images: Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1], the middle of what x * 127.5 + 128 truncates to the byte."""
    return images.float() / 127.5 - 1


def bytes_from_float(images: Tensor) -> Tensor:
    """float32 -> uint8, as the served graph does it: truncated, and clipped to [-1, 1]."""
    return (images * 127.5 + 128).clamp(0, 255).byte()
