"""Configuration of the generators of both families, and the result of one synthesis pass."""

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Family = Literal["stylegan1", "stylegan2"]
Architecture = Literal["skip", "resnet", "orig"]
TapRecipe = Literal["styledconv+const", "dg-pair"]


@dataclass(frozen=True)
class GeneratorConfig:
    """Everything that determines the shapes of a generator's parameters. Raises ValueError."""

    resolution: int  # side of the image in pixels, a power of two of at least 8
    channels: tuple[int, ...]  # feature channels at 4, 8, ..., resolution
    z_dim: int = 512
    w_dim: int = 512
    c_dim: int = 0  # number of classes; 0: unconditional
    mapping_layers: int = 8
    img_channels: int = 3
    conv_clamp: float | None = None  # activations are clamped to [-conv_clamp, conv_clamp]
    architecture: Architecture = "skip"  # StyleGAN2 only: how blocks and image are connected
    family: Family = "stylegan2"

    def __post_init__(self) -> None:
        if self.resolution < 8 or self.resolution & (self.resolution - 1):
            raise ValueError(
                f"resolution is {self.resolution}; it must be a power of two of at least 8"
            )
        if len(self.channels) != len(self.resolutions):
            raise ValueError(
                f"channels has {len(self.channels)} entries; resolution {self.resolution} "
                f"needs {len(self.resolutions)}, one for each of {self.resolutions}"
            )
        plain = (self.c_dim, self.conv_clamp, self.architecture) == (0, None, "skip")
        if self.family == "stylegan1" and not plain:
            raise ValueError(
                "a stylegan1 has no c_dim, conv_clamp or architecture; leave them at their defaults"
            )

    @property
    def resolutions(self) -> tuple[int, ...]:
        """4, 8, ..., resolution."""
        return tuple(2**i for i in range(2, int(math.log2(self.resolution)) + 1))

    @property
    def num_ws(self) -> int:
        """Rows of w+: two for each resolution."""
        return 2 * len(self.resolutions)

    @property
    def num_noises(self) -> int:
        """Number of noise maps of one synthesis pass: one for each layer that adds noise."""
        return self.num_ws - 1 if self.family == "stylegan2" else self.num_ws

    @property
    def tap_recipe(self) -> TapRecipe:
        """Which activations are taps.

        styledconv+const: the learned constant, then the output of every styled convolution.
        dg-pair: of each block, its output, then its second convolution before the epilogue.
        """
        return "styledconv+const" if self.family == "stylegan2" else "dg-pair"

    @property
    def features(self) -> int:
        """D, the channels of all taps together; there are two taps for each resolution."""
        return 2 * sum(self.channels)


def channels_from_base(
    resolution: int, channel_base: int, channel_max: int = 512
) -> tuple[int, ...]:
    """The official channel table: min(channel_base / r, channel_max) at r = 4, ..., resolution."""
    return tuple(
        min(channel_base // 2**i, channel_max) for i in range(2, int(math.log2(resolution)) + 1)
    )


@dataclass(frozen=True)
class Synthesis:
    """Result of one synthesis pass."""

    image: Tensor  # float32 [N, 3, R, R], nominally in [-1, 1], not clamped
    taps: list[Tensor]  # [N, C, r, r] each, of the config's tap_recipe, ascending


def check_inputs(config: GeneratorConfig, ws: Tensor, noise: list[Tensor] | None) -> None:
    """Raises ValueError if ws is not [N, num_ws, w_dim], or noise not one map per noisy layer."""
    num_ws, w_dim = config.num_ws, config.w_dim
    if ws.ndim != 3 or tuple(ws.shape[1:]) != (num_ws, w_dim):
        raise ValueError(f"ws has shape {tuple(ws.shape)}; expected [N, {num_ws}, {w_dim}]")
    if noise is not None and len(noise) != config.num_noises:
        raise ValueError(f"noise has {len(noise)} tensors; expected {config.num_noises}")
