"""The template every shape is bent from, with what is derived from its faces once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nets.mesh import edges_of_faces, face_pairs, icosphere
from nets.textured import sphere_uv


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
