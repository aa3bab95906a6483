"""Configuration of the generators of all families, and the result of one synthesis pass."""

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Family = Literal["stylegan1", "stylegan2", "stylegan3"]
Architecture = Literal["skip", "resnet", "orig"]
TapRecipe = Literal["styledconv+const", "dg-pair", "stylegan3"]
TAP_RECIPES: dict[Family, TapRecipe] = {
    "stylegan1": "dg-pair",
    "stylegan2": "styledconv+const",
    "stylegan3": "stylegan3",
}
SQUARE = (4, 4)  # rows and columns of the learned constant of generators of square images
MAX_START = 16  # of either


def size_at(extent: int, start: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a map of this nominal extent, for a learned constant of `start`.

    The constant has the nominal extent 4, and every doubling of it doubles both sides. Example:
    extent 1024, start (4, 2): (1024, 512).
    """
    return extent * start[0] // 4, extent * start[1] // 4


def stated_start(start: tuple[int, int]) -> tuple[int, int] | None:
    """The start as files state it: None for square images, so that those files lack it."""
    return None if start == SQUARE else start


@dataclass(frozen=True)
class Band:
    """Samples and spectrum of a feature map of StyleGAN3. Raises ValueError.

    `rate` samples per axis cover the canvas, which is the image; the others are margins, the same
    on all sides. Frequencies are in cycles per canvas.
    """

    extent: int  # rows and columns, with margins
    rate: int  # rows and columns of the canvas, a power of two of at least 4
    cutoff: float
    half_width: float  # of the transition band

    def __post_init__(self) -> None:
        if self.rate < 4 or self.rate & (self.rate - 1):
            raise ValueError(f"rate is {self.rate}; it must be a power of two of at least 4")
        if self.extent < self.rate or (self.extent - self.rate) % 2:
            raise ValueError(
                f"extent is {self.extent}; it must be the rate, {self.rate}, and twice a margin"
            )
        if not (self.cutoff > 0 and self.half_width > 0):
            raise ValueError(
                f"cutoff is {self.cutoff} and half_width is {self.half_width}; both must be over 0"
            )

    @property
    def margin(self) -> int:
        """Samples between an edge of the map and the canvas."""
        return (self.extent - self.rate) // 2


@dataclass(frozen=True)
class LayerFilters:
    """Kernel and filters of one layer of StyleGAN3; a filter of one tap is none."""

    kernel: int  # rows and columns of the convolution
    inner_rate: int  # samples per canvas at the nonlinearity, a multiple of the rates around it
    up_taps: int  # taps of the filter from the input's rate to the inner one
    down_taps: int  # taps of the filter from the inner rate to the output's
    radial: bool  # whether the latter is radially symmetric, so not separable


@dataclass(frozen=True)
class AliasFree:
    """What the layers of a StyleGAN3 were designed for. Raises ValueError.

    `bands` has the band of the input, then those of the layers' outputs, without ToRGB.
    """

    bands: tuple[Band, ...]
    filters: tuple[LayerFilters, ...]  # of the layers, without ToRGB
    output_scale: float = 0.25  # of the image

    def __post_init__(self) -> None:
        if len(self.bands) != len(self.filters) + 1 or not self.filters:
            raise ValueError(
                f"there are {len(self.bands)} bands and {len(self.filters)} filters; there must be "
                "one band for the input and one for each layer"
            )
        for i, (f, (before, after)) in enumerate(zip(self.filters, self.pairs(), strict=True)):
            for name, rate in (("input", before.rate), ("output", after.rate)):
                if f.inner_rate < rate or f.inner_rate % rate:
                    raise ValueError(
                        f"layer {i} has inner_rate {f.inner_rate}; it must be a multiple of its "
                        f"{name}'s rate, {rate}"
                    )
            if min(f.kernel, f.up_taps, f.down_taps) < 1:
                raise ValueError(f"layer {i} has {f}; kernel and taps must be at least 1")
            if after.rate < before.rate:
                raise ValueError(f"layer {i} has rate {after.rate}, less than the one before it")

    def pairs(self) -> list[tuple[Band, Band]]:
        """Input's and output's band of each layer."""
        return list(zip(self.bands, self.bands[1:], strict=False))


@dataclass(frozen=True)
class GeneratorConfig:
    """Everything that determines the shapes of a generator's parameters. Raises ValueError."""

    # Nominal extent of the image, a power of two of at least 8; the side of a square image, pixels.
    resolution: int
    # Feature channels at 4, 8, ..., resolution. StyleGAN3: of each layer but ToRGB; its input has
    # as many as its first layer.
    channels: tuple[int, ...]
    z_dim: int = 512
    w_dim: int = 512
    c_dim: int = 0  # number of classes; 0: unconditional
    mapping_layers: int = 8
    img_channels: int = 3
    conv_clamp: float | None = None  # activations are clamped to [-conv_clamp, conv_clamp]
    architecture: Architecture = "skip"  # StyleGAN2 only: how blocks and image are connected
    family: Family = "stylegan2"
    alias_free: AliasFree | None = None  # StyleGAN3 only
    start: tuple[int, int] = SQUARE  # rows and columns of the learned constant, at the extent 4

    def __post_init__(self) -> None:
        if self.resolution < 8 or self.resolution & (self.resolution - 1):
            raise ValueError(
                f"resolution is {self.resolution}; it must be a power of two of at least 8"
            )
        if not all(1 <= side <= MAX_START for side in self.start):
            raise ValueError(
                f"start is {self.start}; rows and columns of the constant must be from 1 to "
                f"{MAX_START}"
            )
        if self.start != SQUARE and self.family != "stylegan2":
            raise ValueError(
                f"start is {self.start}, so images are not square; a {self.family} must have "
                f"{SQUARE}, only a stylegan2 may have others"
            )
        if (self.family == "stylegan3") != (self.alias_free is not None):
            raise ValueError("alias_free must be given for a stylegan3, and for no other family")
        if self.alias_free is not None:
            self._check_layers(self.alias_free)
        elif len(self.channels) != len(self.resolutions):
            raise ValueError(
                f"channels has {len(self.channels)} entries; resolution {self.resolution} "
                f"needs {len(self.resolutions)}, one for each of {self.resolutions}"
            )
        plain = (self.c_dim, self.conv_clamp, self.architecture) == (0, None, "skip")
        if self.family == "stylegan1" and not plain:
            raise ValueError(
                "a stylegan1 has no c_dim, conv_clamp or architecture; leave them at their defaults"
            )

    def _check_layers(self, alias_free: AliasFree) -> None:
        if len(self.channels) != len(alias_free.filters):
            raise ValueError(
                f"channels has {len(self.channels)} entries; alias_free has "
                f"{len(alias_free.filters)} layers"
            )
        last = alias_free.bands[-1]
        if (last.extent, last.rate) != (self.resolution, self.resolution):
            raise ValueError(
                f"the last layer has extent {last.extent} and rate {last.rate}; both must be the "
                f"resolution, {self.resolution}"
            )
        if self.architecture != "skip":
            raise ValueError("a stylegan3 has no architecture; leave it at its default")

    @property
    def resolutions(self) -> tuple[int, ...]:
        """4, 8, ..., resolution."""
        return tuple(2**i for i in range(2, int(math.log2(self.resolution)) + 1))

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of images, pixels."""
        return size_at(self.resolution, self.start)

    @property
    def num_ws(self) -> int:
        """Rows of w+."""
        return rows_of_ws(self.family, len(self.channels))

    @property
    def num_noises(self) -> int:
        """Number of noise maps of one synthesis pass: one for each layer that adds noise."""
        if self.family == "stylegan3":
            return 0
        return self.num_ws - 1 if self.family == "stylegan2" else self.num_ws

    @property
    def tap_recipe(self) -> TapRecipe:
        """Which activations are taps.

        styledconv+const: the learned constant, then the output of every styled convolution.
        dg-pair: of each block, its output, then its second convolution before the epilogue.
        stylegan3: of each layer but ToRGB, its output without margins.
        """
        return TAP_RECIPES[self.family]

    @property
    def taps(self) -> list[tuple[int, int]]:
        """Nominal extent and channels of each tap, in ascending extents; they cover exactly the
        image."""
        if self.alias_free is not None:
            rates = [band.rate for band in self.alias_free.bands[1:]]
            return list(zip(rates, self.channels, strict=True))
        pairs = zip(self.resolutions, self.channels, strict=True)
        return [(extent, channels) for extent, channels in pairs for _ in range(2)]

    @property
    def features(self) -> int:
        """D, the channels of all taps together."""
        return sum(channels for _, channels in self.taps)


def rows_of_ws(family: Family, channels: int) -> int:
    """Rows of w+ of a generator whose `channels` has so many entries.

    Two for each resolution; of a StyleGAN3 one for input, each layer and ToRGB.
    """
    return channels + 2 if family == "stylegan3" else 2 * channels


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

    image: Tensor  # float32 [N, 3, H, W], nominally in [-1, 1], not clamped
    taps: list[Tensor]  # [N, C, h, w] each, of the config's tap_recipe and taps, ascending


def check_inputs(config: GeneratorConfig, ws: Tensor, noise: list[Tensor] | None) -> None:
    """Raises ValueError if ws is not [N, num_ws, w_dim], or noise not one map per noisy layer."""
    num_ws, w_dim = config.num_ws, config.w_dim
    if ws.ndim != 3 or tuple(ws.shape[1:]) != (num_ws, w_dim):
        raise ValueError(f"ws has shape {tuple(ws.shape)}; expected [N, {num_ws}, {w_dim}]")
    if noise is not None and len(noise) != config.num_noises:
        raise ValueError(f"noise has {len(noise)} tensors; expected {config.num_noises}")
