"""A textured mesh -> GLB, and OBJ with its MTL and PNG; checks for degenerate meshes.

Lengths are in the network's object units. y is up and z points out of the front in both formats,
as in the object frame. Vertices on the texture's seam and at its poles are duplicated, one copy
per texture coordinate; u exceeds 1 beyond the seam, because textures repeat along u.
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

from nets.mesh import turned_inside_out, vertex_normals
from training.inverse_graphics.config import Template

UNITS = "object units of the bundle's cameras; x to the object's left, y up, z out of its front"
MESH = "object"  # name of the mesh's node in a GLB
KEYPOINT = "keypoint."  # prefix of the names of keypoints' nodes
REPEAT, CLAMP_TO_EDGE, LINEAR = 10497, 33071, 9729  # OpenGL's numbers, which glTF uses

MAX_RADII = 1e6  # farther vertices count as not finite: float32 overflows in x**4 from 1e9 on


@dataclass(frozen=True)
class TexturedMesh:
    """A mesh for files: V' vertices, those on the texture's seam more than once."""

    points: NDArray[np.float32]  # [V', 3]
    normals: NDArray[np.float32]  # [V', 3], equal for the copies of a vertex
    uv: NDArray[np.float32]  # [V', 2], v from the top
    faces: NDArray[np.int64]  # [F, 3]
    vertices: NDArray[np.int64]  # [V'], the network's vertex of each
    texture: Image.Image


def textured_mesh(points: Tensor, faces: Tensor, uv: Tensor, texture: Tensor) -> TexturedMesh:
    """A mesh from vertices [V, 3], faces [F, 3], uv of the faces' corners [F, 3, 2] and a texture
    [3, T, W] in [0, 1]."""
    corners = torch.cat([faces[..., None].double(), uv.double()], dim=2).flatten(0, 1)
    copies, copy_of_corner = torch.unique(corners, dim=0, return_inverse=True)
    vertices = copies[:, 0].long()
    normals = vertex_normals(points[None], faces)[0]
    pixels = (texture * 255).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous()
    return TexturedMesh(
        points=points[vertices].numpy(),
        normals=normals[vertices].numpy(),
        uv=copies[:, 1:].float().numpy(),
        faces=copy_of_corner.view(-1, 3).numpy(),
        vertices=vertices.numpy(),
        texture=Image.fromarray(pixels.numpy()),
    )


def write_glb(path: Path, mesh: TexturedMesh, keypoints: Mapping[str, NDArray[np.float32]]) -> None:
    """Writes binary glTF 2.0; each keypoint, xyz [3], becomes a node without a mesh."""
    material = PBRMaterial(
        name=path.stem, baseColorTexture=mesh.texture, metallicFactor=0.0, roughnessFactor=1.0
    )
    scene = trimesh.Scene()
    scene.add_geometry(_trimesh(mesh, material), node_name=MESH, geom_name=MESH)
    for name, xyz in keypoints.items():
        scene.graph.update(
            frame_to=KEYPOINT + name, matrix=trimesh.transformations.translation_matrix(xyz)
        )
    path.write_bytes(
        export_glb(scene, include_normals=True, tree_postprocessor=_add_units_and_sampler)
    )


def write_obj(path: Path, mesh: TexturedMesh) -> list[Path]:
    """Writes OBJ, and beside it NAME.mtl and NAME.texture.png; returns all paths."""
    material = SimpleMaterial(
        image=mesh.texture, diffuse=[255, 255, 255], ambient=[255, 255, 255], specular=[0, 0, 0]
    )
    material.name = f"{path.stem}.texture"  # also names the image file
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
    """In trimesh, as in OBJ, v runs from the bottom; trimesh converts it for glTF."""
    uv = mesh.uv * [1, -1] + [0, 1]
    return trimesh.Trimesh(
        vertices=mesh.points,
        faces=mesh.faces,
        vertex_normals=mesh.normals,
        visual=TextureVisuals(uv=uv, material=material),
        process=False,
    )


def _add_units_and_sampler(tree: dict[str, Any]) -> None:
    """Declares that the texture repeats around the object but not over the poles, and that lengths
    are not meters, glTF's default unit."""
    tree["asset"]["extras"] = {"units": UNITS}
    tree["samplers"] = [
        {"wrapS": REPEAT, "wrapT": CLAMP_TO_EDGE, "magFilter": LINEAR, "minFilter": LINEAR}
    ]
    for texture in tree["textures"]:
        texture["sampler"] = 0


@dataclass(frozen=True)
class MeshLimits:
    """Limits beyond which a mesh is flagged; lengths in radii of the undeformed sphere."""

    inverted: float = 0.05  # largest share of faces that point inwards or have no area
    longest_edge: float = 20.0  # largest ratio of the longest to the median edge
    flatness: float = 0.05  # smallest ratio of the shortest to the longest side of the bounding box
    smallest: float = 0.05  # smallest longest side of the bounding box
    reach: float = 5.0  # largest distance of a vertex from the origin


@dataclass(frozen=True)
class MeshChecks:
    """Measures of one mesh; lengths in object units. All are None when vertices are not finite."""

    finite: bool  # all vertices are finite, and within MAX_RADII
    inverted: float | None  # share of faces that point inwards or have no area
    longest_edge: float | None
    median_edge: float | None
    shortest_edge: float | None
    box: tuple[float, float, float] | None  # sides of the bounding box along x, y, z
    reach: float | None  # largest distance of a vertex from the origin
    flags: tuple[str, ...]  # sentences for the user; empty: the mesh is sound


def checks_of_mesh(
    points: Tensor, template: Template, radius: float, limits: MeshLimits
) -> MeshChecks:
    """Measures and flags of the template's mesh with vertices [V, 3]; `radius` in object units."""
    finite = ((points / radius).abs() <= MAX_RADII).all(dim=1)  # false for NaN
    if not finite.all():
        count = int((~finite).sum())
        flag = f"{count} of {len(points)} vertices are not finite, or over {MAX_RADII:g} radii away"
        return MeshChecks(False, None, None, None, None, None, None, (flag,))
    in_radii = points.double() / radius
    inverted = float(turned_inside_out(in_radii[None], template.faces)[0])
    edges = (in_radii[template.edges[:, 0]] - in_radii[template.edges[:, 1]]).norm(dim=1)
    longest, median, shortest = (float(edge) for edge in (edges.max(), edges.median(), edges.min()))
    box = in_radii.amax(dim=0) - in_radii.amin(dim=0)
    thin, side = float(box.min()), float(box.max())
    reach = float(in_radii.norm(dim=1).max())
    flags = [
        (
            inverted > limits.inverted,
            f"{inverted:.1%} of its faces are inverted or collapsed, over {limits.inverted:.1%}",
        ),
        (
            longest > limits.longest_edge * median,
            f"its longest edge is {longest / max(median, 1e-30):.3g} times the median, over "
            f"{limits.longest_edge:g}",
        ),
        (
            thin < limits.flatness * side,
            f"it is flat: its bounding box is {' x '.join(f'{s:.3g}' for s in box)} radii, the "
            f"shortest side under {limits.flatness:g} of the longest",
        ),
        (
            side < limits.smallest,
            f"it collapsed: its longest side is {side:.3g} radii, under {limits.smallest:g}",
        ),
        (
            reach > limits.reach,
            f"it reaches {reach:.3g} radii from the origin, over {limits.reach:g}",
        ),
    ]
    return MeshChecks(
        finite=True,
        inverted=inverted,
        longest_edge=longest * radius,
        median_edge=median * radius,
        shortest_edge=shortest * radius,
        box=(float(box[0]) * radius, float(box[1]) * radius, float(box[2]) * radius),
        reach=reach * radius,
        flags=tuple(text for wrong, text in flags if wrong),
    )


def flags_of_texture(texture: Tensor) -> tuple[str, ...]:
    """Flags of a texture [3, T, W]."""
    return () if texture.isfinite().all() else ("its texture has colors that are not finite",)
