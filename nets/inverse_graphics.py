"""Image -> bent sphere and texture: the inverse-graphics network (DIB-R, NeurIPS 2019;
GANverse3D, ICLR 2021), on the encoder's blocks."""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.encoder import GROUP, LAST, SLOPE, HalvingBlock, encoder_channels
from nets.mesh import icosphere

TEXTURE_START = 4  # rows of the texture that the hidden layer gives; doubled from there
# Adam steps every weight alike, so what all objects share is given longer strides than what tells
# one from another: that is a small difference.
BEND, SHARED_BEND = 0.3, 4.0  # radii that a layer's output, and a shared weight of one bend by
SHARED_COLOUR = 20.0  # that a shared weight of one adds before the sigmoid


@dataclass(frozen=True)
class InverseGraphicsConfig:
    """Shape of an inverse-graphics network."""

    extent: int = 64  # of the square images it reads, pixels
    hidden: int = 512  # width of the layer that knows the whole image
    texture: int = 64  # rows, a power of two; twice as many columns
    radius: float = 1.0  # of the sphere before it is bent, object units
    camera: bool = False  # whether it tells the image's camera

    def __post_init__(self) -> None:
        if self.extent < LAST or self.hidden < 1:
            raise ValueError(
                f"extent is {self.extent} and hidden {self.hidden}; at least {LAST} and 1"
            )
        if self.texture < TEXTURE_START or self.texture & (self.texture - 1):
            raise ValueError(
                f"texture is {self.texture}; it must be a power of two from {TEXTURE_START} on"
            )
        if not (self.radius > 0 and math.isfinite(self.radius)):
            raise ValueError(f"radius is {self.radius}; it must be above 0")


@dataclass(frozen=True)
class Shapes:
    """What N images show."""

    points: Tensor  # [N, 642, 3], object frame and units
    texture: Tensor  # [N, 3, T, 2T] in [0, 1], see `textured.sphere_uv`
    light: Tensor  # [N, 4], of the image itself: see `textured.seen_from`
    directions: Tensor | None  # [N, 3], unit vectors from the object to the image's camera

    @property
    def lit_texture(self) -> Tensor:
        """The texture as bright as the image has it, [N, 3, T, 2T] in [0, 1], for drawing without
        light: texture and light may share a factor between them, and a ball's normals point to the
        camera by 2/3 in the mean."""
        brightness = self.light[:, 0] + self.light[:, 3] * 2 / 3
        return (self.texture * brightness[:, None, None, None]).clamp(0, 1)

    @property
    def angles(self) -> Tensor:
        """Azimuth and elevation of the images' cameras, radians, [N, 2]."""
        assert self.directions is not None, "this network tells no cameras"
        x, y, z = self.directions.unbind(dim=1)
        return torch.stack([torch.atan2(x, z), torch.asin(y.clamp(-1, 1))], dim=1)


class InverseGraphics(nn.Module):
    """Convolutions down to one vector; offsets, texture, light and camera from that."""

    centre: Tensor  # [hidden], of what it knows of images before it is trained
    spread: Tensor  # [hidden], likewise, standard deviations
    sphere: Tensor  # [642, 3]
    faces: Tensor  # int64 [1280, 3]

    def __init__(self, config: InverseGraphicsConfig) -> None:
        super().__init__()
        self.config = config
        channels = encoder_channels(config.extent)
        first, last = channels[0], channels[-1]
        self.stem = nn.Conv2d(3, first, 3, padding=1)
        self.blocks = nn.Sequential(*(HalvingBlock(a, b) for a, b in pairwise(channels)))
        self.norm = nn.GroupNorm(last // GROUP, last)
        self.known = nn.Linear(last * LAST * LAST, config.hidden)
        self.register_buffer("centre", torch.zeros(config.hidden))
        self.register_buffer("spread", torch.ones(config.hidden))
        sphere, faces = icosphere()
        self.register_buffer("sphere", sphere, persistent=False)
        self.register_buffer("faces", faces, persistent=False)
        self.shared_bends = nn.Parameter(torch.zeros_like(sphere))
        self.bends = _starts_at_zero(nn.Linear(config.hidden, sphere.numel()))
        self.texture = TextureDecoder(config)
        self.light = _starts_at_zero(nn.Linear(config.hidden, 4))
        self.camera = nn.Linear(config.hidden, 3) if config.camera else None

    def forward(self, images: Tensor) -> Shapes:
        """Images [N, 3, extent, extent] in [0, 1]. Raises ValueError for other extents."""
        x = (self._known_of(images) - self.centre) / self.spread
        own = self.bends(x).unflatten(1, (-1, 3))
        plain = x.new_tensor([1.0, 0.0, 0.0, 0.0])  # as the texture is
        return Shapes(
            points=self.config.radius
            * (self.sphere + SHARED_BEND * self.shared_bends + BEND * own),
            texture=self.texture(x),
            light=plain + self.light(x),
            directions=None if self.camera is None else F.normalize(self.camera(x), dim=1),
        )

    @torch.no_grad()
    def look_at(self, images: Tensor) -> None:
        """Before training: learns what all of the images [N, 3, extent, extent] have in common, so
        that the layers behind see differences. Most of the signal is common at first, and they
        would learn to tell one object from another hundreds of steps later."""
        known = torch.cat([self._known_of(part) for part in images.split(64)])
        self.centre.copy_(known.mean(dim=0))
        spread = known.std(dim=0, correction=min(1, len(known) - 1))  # of one image: 0
        self.spread.copy_(spread.clamp(min=1e-3))

    def _known_of(self, images: Tensor) -> Tensor:  # [N, hidden]
        expected = (3, self.config.extent, self.config.extent)
        if tuple(images.shape[1:]) != expected:
            raise ValueError(f"an image is {list(images.shape[1:])}; it must be {list(expected)}")
        x = self.blocks(self.stem(images * 2 - 1))
        x = F.adaptive_avg_pool2d(F.leaky_relu(self.norm(x), SLOPE), LAST)
        known: Tensor = self.known(x.flatten(1))
        return known


class TextureDecoder(nn.Module):
    """[N, hidden] -> [N, 3, T, 2T] in [0, 1]; columns go round without a seam."""

    def __init__(self, config: InverseGraphicsConfig) -> None:
        super().__init__()
        doublings = (config.texture // TEXTURE_START).bit_length() - 1
        channels = [max(256 >> i, GROUP) for i in range(doublings + 1)]
        self.start = (channels[0], TEXTURE_START, 2 * TEXTURE_START)
        self.linear = nn.Linear(config.hidden, math.prod(self.start))
        self.norms = nn.ModuleList(nn.GroupNorm(c // GROUP, c) for c in channels)
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3) for a, b in pairwise(channels))
        self.last = nn.Conv2d(channels[-1], 3, 3)
        self.shared = nn.Parameter(torch.zeros(3, config.texture, 2 * config.texture))

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x).unflatten(1, self.start)
        for norm, convolution in zip(self.norms, self.convolutions, strict=False):
            x = F.leaky_relu(norm(x), SLOPE)
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = convolution(_round_the_world(x))
        own = self.last(_round_the_world(F.leaky_relu(self.norms[-1](x), SLOPE)))
        return torch.sigmoid(own + SHARED_COLOUR * self.shared)


def _round_the_world(x: Tensor) -> Tensor:
    """One more pixel on each side: columns from the other end, rows repeated."""
    return F.pad(F.pad(x, (1, 1, 0, 0), mode="circular"), (0, 0, 1, 1), mode="replicate")


def _starts_at_zero(layer: nn.Linear) -> nn.Linear:
    """A layer that says nothing before it is trained."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
