"""Settings of an inverse-graphics training, and the template mesh that every object deforms."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from nets.inverse_graphics import InverseGraphicsConfig
from nets.mesh import edges_of_faces, face_pairs, icosphere
from nets.rasteriser import REACH, SHARPNESS
from nets.textured import sphere_uv


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses, by the names of the losses; the defaults are those of the docs."""

    silhouette: float = 3.0  # 1 - intersection over union
    colour: float = 3.0  # mean absolute difference on the object
    consistency: float = 5.0  # mean squared distance of an object's two shapes, in radii
    laplacian: float = 3.0  # mean squared Laplacian of the vertices' offsets, in radii
    smoothness: float = 0.05  # mean (1 - cos)^2 of the angles between neighboring faces
    offset: float = 0.02  # mean squared offset of the vertices from the sphere, in radii
    camera: float = 1.0  # 1 - cos between predicted and true camera directions


@dataclass(frozen=True)
class InverseGraphicsTrainConfig:
    """Settings of a training."""

    network: InverseGraphicsConfig = field(default_factory=InverseGraphicsConfig)
    weights: LossWeights = field(default_factory=LossWeights)
    steps: int = 2000
    batch: int = 8  # objects per step; two views of each, if there are two
    resolution: int = 64  # side of the rendered images that losses compare, pixels
    halo: float = 0.4  # width beside a rendered silhouette in which it has gradients, pixels
    learning_rate: float = 5e-4  # Adam's at the start; half a cosine down to a hundredth
    refine_cameras: bool = False  # whether corrections of the bank's angles are learnt
    seed: int = 0

    @property
    def sharpness(self) -> float:
        """`sharpness` of `rasterise` for this halo; DIB-R's SHARPNESS has a halo of REACH, in
        half image extents."""
        return SHARPNESS * (REACH * self.resolution / 2 / self.halo) ** 2


@dataclass(frozen=True, eq=False)
class Template:
    """A unit sphere of 642 vertices and 1280 faces."""

    sphere: Tensor  # [V, 3]
    faces: Tensor  # int64 [F, 3], vertices
    edges: Tensor  # int64 [E, 2], vertices
    pairs: Tensor  # int64 [E, 2], faces that share an edge
    uv: Tensor  # [F, 3, 2], texture coordinates of the faces' corners


def template(device: torch.device) -> Template:
    """The template on a device."""
    sphere, faces = icosphere()
    parts = (sphere, faces, edges_of_faces(faces), face_pairs(faces), sphere_uv(sphere, faces))
    return Template(*(part.to(device) for part in parts))
