"""A textured mesh -> GLB, and OBJ with its MTL and PNG.

Units are the network's object units; both formats have y up and z out of the front here, as the
object frame and glTF have it. Vertices on the texture's seam and at its poles are there once for
each place they have in the texture; u goes on beyond 1 there, for textures repeat along u.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from trimesh.exchange.gltf import export_glb
from trimesh.exchange.obj import export_obj
from trimesh.visual.material import PBRMaterial, SimpleMaterial
from trimesh.visual.texture import TextureVisuals

from nets.mesh import vertex_normals

REPEAT, CLAMP_TO_EDGE, LINEAR = 10497, 33071, 9729  # glTF takes OpenGL's numbers
UNITS = "object units of the bundle's cameras; x to the object's left, y up, z out of its front"
KEYPOINT = "keypoint."  # begins the names of the nodes that keypoints are
MESH = "object"


@dataclass(frozen=True)
class TexturedMesh:
    """V' vertices, those at the seam more than once."""

    points: NDArray[np.float32]  # [V', 3]
    normals: NDArray[np.float32]  # [V', 3], alike on both sides of the seam
    uv: NDArray[np.float32]  # [V', 2], v from the top
    faces: NDArray[np.int64]  # [F, 3]
    vertices: NDArray[np.int64]  # [V'], which vertices of the network's they are
    texture: Image.Image


def textured_mesh(points: Tensor, faces: Tensor, uv: Tensor, texture: Tensor) -> TexturedMesh:
    """points [V, 3], faces [F, 3], uv of their corners [F, 3, 2], texture [3, T, W] in [0, 1]."""
    corners = torch.cat([faces[..., None].double(), uv.double()], dim=2).flatten(0, 1)
    places, place = torch.unique(corners, dim=0, return_inverse=True)
    vertices = places[:, 0].long()
    normals = vertex_normals(points[None], faces)[0]
    pixels = (texture * 255).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous()
    return TexturedMesh(
        points=points[vertices].numpy(),
        normals=normals[vertices].numpy(),
        uv=places[:, 1:].float().numpy(),
        faces=place.view(-1, 3).numpy(),
        vertices=vertices.numpy(),
        texture=Image.fromarray(pixels.numpy()),
    )


def write_glb(path: Path, mesh: TexturedMesh, keypoints: Mapping[str, NDArray[np.float32]]) -> None:
    """Binary glTF 2.0; each of keypoints, [3], is a node of its own without a mesh."""
    material = PBRMaterial(
        name=path.stem, baseColorTexture=mesh.texture, metallicFactor=0.0, roughnessFactor=1.0
    )
    scene = trimesh.Scene()
    scene.add_geometry(_trimesh(mesh, material), node_name=MESH, geom_name=MESH)
    for name, xyz in keypoints.items():
        scene.graph.update(
            frame_to=KEYPOINT + name, matrix=trimesh.transformations.translation_matrix(xyz)
        )
    path.write_bytes(export_glb(scene, include_normals=True, tree_postprocessor=_finished))


def write_obj(path: Path, mesh: TexturedMesh) -> list[Path]:
    """OBJ, and beside it NAME.mtl and NAME.texture.png; the files' paths."""
    material = SimpleMaterial(
        image=mesh.texture, diffuse=[255, 255, 255], ambient=[255, 255, 255], specular=[0, 0, 0]
    )
    material.name = f"{path.stem}.texture"  # and of its image
    text, files = export_obj(
        _trimesh(mesh, material),
        include_normals=True,
        return_texture=True,
        mtl_name=f"{path.stem}.mtl",
        header=None,
    )
    path.write_text(text, encoding="utf-8")
    for name, data in files.items():
        path.with_name(name).write_bytes(data)
    return [path, *(path.with_name(name) for name in files)]


def _trimesh(mesh: TexturedMesh, material: PBRMaterial | SimpleMaterial) -> trimesh.Trimesh:
    """trimesh has v from the bottom, as OBJ; it turns it for glTF."""
    uv = mesh.uv * [1, -1] + [0, 1]
    return trimesh.Trimesh(
        vertices=mesh.points,
        faces=mesh.faces,
        vertex_normals=mesh.normals,
        visual=TextureVisuals(uv=uv, material=material),
        process=False,
    )


def _finished(tree: dict[str, Any]) -> None:
    """Says how the texture goes on at its edges: round the object, but not over the poles; and
    that lengths are no metres, as they are without a word."""
    tree["asset"]["extras"] = {"units": UNITS}
    tree["samplers"] = [
        {"wrapS": REPEAT, "wrapT": CLAMP_TO_EDGE, "magFilter": LINEAR, "minFilter": LINEAR}
    ]
    for texture in tree["textures"]:
        texture["sampler"] = 0
