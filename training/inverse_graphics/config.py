"""How an inverse-graphics network is trained, and the template mesh that every shape deforms."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from nets.inverse_graphics import InverseGraphicsConfig
from nets.mesh import edges_of_faces, face_pairs, icosphere
from nets.rasteriser import REACH, SHARPNESS
from nets.textured import sphere_uv


@dataclass(frozen=True)
class LossWeights:
    """Of the losses in their sum; the defaults are those of the table in the docs."""

    silhouette: float = 3.0  # 1 - intersection over union
    colour: float = 3.0  # mean absolute difference on the object
    consistency: float = 5.0  # mean squared distance of an object's two shapes, in radii
    laplacian: float = 3.0  # mean squared Laplacian of the offsets, in radii
    smoothness: float = 0.05  # mean (1 - cos)^2 between neighbouring faces
    offset: float = 0.02  # mean squared offset, in radii
    camera: float = 1.0  # 1 - cos between directions, where the network tells them


@dataclass(frozen=True)
class InverseGraphicsTrainConfig:
    """The recipe."""

    network: InverseGraphicsConfig = field(default_factory=InverseGraphicsConfig)
    weights: LossWeights = field(default_factory=LossWeights)
    steps: int = 2000
    batch: int = 8  # objects of a step; two views of each, where there are two
    resolution: int = 64  # of what is drawn and compared, pixels
    halo: float = 0.4  # pixels beside a drawn silhouette in which it has gradients
    learning_rate: float = 5e-4  # Adam's, falling to a hundredth along a half cosine
    refine_cameras: bool = False  # whether the bank's angles are learnt as well
    seed: int = 0

    @property
    def sharpness(self) -> float:
        """Of `rasterise`: DIB-R's own is for a halo of 0.02 half images."""
        return SHARPNESS * (REACH * self.resolution / 2 / self.halo) ** 2


@dataclass(frozen=True, eq=False)
class Template:
    """The sphere of 642 vertices."""

    sphere: Tensor  # [V, 3]
    faces: Tensor  # int64 [F, 3]
    edges: Tensor  # int64 [E, 2]
    pairs: Tensor  # int64 [E, 2], faces
    uv: Tensor  # [F, 3, 2]


def template(device: torch.device) -> Template:
    """On a device."""
    sphere, faces = icosphere()
    parts = (sphere, faces, edges_of_faces(faces), face_pairs(faces), sphere_uv(sphere, faces))
    return Template(*(part.to(device) for part in parts))
