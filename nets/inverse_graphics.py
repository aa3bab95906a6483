"""Image -> mesh, texture, light and camera: the inverse-graphics network.

After DIB-R (NeurIPS 2019) and GANverse3D (ICLR 2021), with the blocks of nets.encoder. The mesh is
a deformed sphere.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.encoder import GROUP_CHANNELS, LAST, SLOPE, HalvingBlock, encoder_channels
from nets.mesh import icosphere

TEXTURE_START = 4  # rows of the texture before it is doubled
# Factors from parameters to offsets of vertices (in radii) and of color (before the sigmoid). Adam
# changes all parameters by steps of the same size. The offset that all objects share is larger than
# that of one object, so its factor is too.
BEND, SHARED_BEND = 0.3, 4.0
SHARED_COLOR = 20.0


@dataclass(frozen=True)
class InverseGraphicsConfig:
    """Shape of an inverse-graphics network. Raises ValueError."""

    extent: int = 64  # side of the square input images, pixels
    hidden: int = 512  # length of the vector that represents an image
    texture: int = 64  # rows of the texture, a power of two; it has twice as many columns
    radius: float = 1.0  # radius of the sphere before it is deformed, object units
    camera: bool = False  # whether it predicts the image's camera

    def __post_init__(self) -> None:
        if self.extent < LAST or self.hidden < 1:
            raise ValueError(
                f"extent is {self.extent} and hidden {self.hidden}; the least are {LAST} and 1"
            )
        if self.texture < TEXTURE_START or self.texture & (self.texture - 1):
            raise ValueError(
                f"texture is {self.texture}; it must be a power of two of at least {TEXTURE_START}"
            )
        if not (self.radius > 0 and math.isfinite(self.radius)):
            raise ValueError(f"radius is {self.radius}; it must be above 0")


@dataclass(frozen=True)
class Shapes:
    """Mesh, texture, light and camera that the network predicts for each of N images."""

    points: Tensor  # [N, 642, 3], object frame and units
    texture: Tensor  # [N, 3, T, 2T] in [0, 1], laid out by `textured.sphere_uv`
    light: Tensor  # [N, 4], as `textured.seen_from` takes it
    directions: Tensor | None  # [N, 3], unit vectors from the object to the camera

    @property
    def lit_texture(self) -> Tensor:
        """The texture at the brightness of the image, [N, 3, T, 2T] in [0, 1], to render unlit.

        Texture and light are known only up to a common factor. The factor used is the mean light
        in the image of a sphere, where normals point to the camera by 2/3 on average.
        """
        brightness = self.light[:, 0] + self.light[:, 3] * 2 / 3
        return (self.texture * brightness[:, None, None, None]).clamp(0, 1)

    @property
    def angles(self) -> Tensor:
        """Azimuth and elevation of the cameras, radians, [N, 2]."""
        assert self.directions is not None, "this network predicts no cameras"
        x, y, z = self.directions.unbind(dim=1)
        return torch.stack([torch.atan2(x, z), torch.asin(y.clamp(-1, 1))], dim=1)


class InverseGraphics(nn.Module):
    """Images [N, 3, extent, extent] in [0, 1] -> one vector each -> Shapes."""

    # Mean and standard deviation [hidden] of image vectors before training. The names are keys of
    # the weights file.
    centre: Tensor
    spread: Tensor
    sphere: Tensor  # [642, 3]
    faces: Tensor  # int64 [1280, 3]

    def __init__(self, config: InverseGraphicsConfig) -> None:
        super().__init__()
        self.config = config
        channels = encoder_channels(config.extent)
        first, last = channels[0], channels[-1]
        self.stem = nn.Conv2d(3, first, 3, padding=1)
        self.blocks = nn.Sequential(*(HalvingBlock(a, b) for a, b in pairwise(channels)))
        self.norm = nn.GroupNorm(last // GROUP_CHANNELS, last)
        self.known = nn.Linear(last * LAST * LAST, config.hidden)
        self.register_buffer("centre", torch.zeros(config.hidden))
        self.register_buffer("spread", torch.ones(config.hidden))
        sphere, faces = icosphere()
        self.register_buffer("sphere", sphere, persistent=False)
        self.register_buffer("faces", faces, persistent=False)
        self.shared_bends = nn.Parameter(torch.zeros_like(sphere))
        self.bends = _zero_initialized(nn.Linear(config.hidden, sphere.numel()))
        self.texture = TextureDecoder(config)
        self.light = _zero_initialized(nn.Linear(config.hidden, 4))
        self.camera = nn.Linear(config.hidden, 3) if config.camera else None

    def forward(self, images: Tensor) -> Shapes:
        """Images [N, 3, extent, extent] in [0, 1]. Raises ValueError for another shape."""
        x = (self._image_vectors(images) - self.centre) / self.spread
        own = self.bends(x).unflatten(1, (-1, 3))
        unlit = x.new_tensor([1.0, 0.0, 0.0, 0.0])  # ambient light of 1 shows the texture as it is
        return Shapes(
            points=self.config.radius
            * (self.sphere + SHARED_BEND * self.shared_bends + BEND * own),
            texture=self.texture(x),
            light=unlit + self.light(x),
            directions=None if self.camera is None else F.normalize(self.camera(x), dim=1),
        )

    @torch.no_grad()
    def look_at(self, images: Tensor) -> None:
        """Before training, sets `centre` and `spread` from images [N, 3, extent, extent].

        At first most of an image's vector is common to all images. Normalization removes the common
        part; without it the network learns to distinguish objects hundreds of steps later.
        """
        vectors = torch.cat([self._image_vectors(part) for part in images.split(64)])
        self.centre.copy_(vectors.mean(dim=0))
        spread = vectors.std(dim=0, correction=min(1, len(vectors) - 1))  # 0 for a single image
        self.spread.copy_(spread.clamp(min=1e-3))

    def _image_vectors(self, images: Tensor) -> Tensor:  # [N, hidden]
        expected = (3, self.config.extent, self.config.extent)
        if tuple(images.shape[1:]) != expected:
            raise ValueError(f"an image is {list(images.shape[1:])}; it must be {list(expected)}")
        x = self.blocks(self.stem(images * 2 - 1))
        x = F.adaptive_avg_pool2d(F.leaky_relu(self.norm(x), SLOPE), LAST)
        vectors: Tensor = self.known(x.flatten(1))
        return vectors


class TextureDecoder(nn.Module):
    """Image vectors [N, hidden] -> textures [N, 3, T, 2T] in [0, 1] without a seam at the sides."""

    def __init__(self, config: InverseGraphicsConfig) -> None:
        super().__init__()
        doublings = (config.texture // TEXTURE_START).bit_length() - 1
        channels = [max(256 >> i, GROUP_CHANNELS) for i in range(doublings + 1)]
        self.start = (channels[0], TEXTURE_START, 2 * TEXTURE_START)
        self.linear = nn.Linear(config.hidden, math.prod(self.start))
        self.norms = nn.ModuleList(nn.GroupNorm(c // GROUP_CHANNELS, c) for c in channels)
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3) for a, b in pairwise(channels))
        self.last = nn.Conv2d(channels[-1], 3, 3)
        self.shared = nn.Parameter(torch.zeros(3, config.texture, 2 * config.texture))

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x).unflatten(1, self.start)
        for norm, convolution in zip(self.norms, self.convolutions, strict=False):
            x = F.leaky_relu(norm(x), SLOPE)
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = convolution(_wrap_pad(x))
        own = self.last(_wrap_pad(F.leaky_relu(self.norms[-1](x), SLOPE)))
        return torch.sigmoid(own + SHARED_COLOR * self.shared)


def _wrap_pad(x: Tensor) -> Tensor:
    """Pads by one pixel: columns from the opposite side, rows replicated."""
    return F.pad(F.pad(x, (1, 1, 0, 0), mode="circular"), (0, 0, 1, 1), mode="replicate")


def _zero_initialized(layer: nn.Linear) -> nn.Linear:
    """The layer with zero weights and biases, so that its output is 0 before training."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
