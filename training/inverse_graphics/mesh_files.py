"""A textured mesh -> GLB, and OBJ with its MTL and PNG; and the checks for degenerate meshes.

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

from nets.mesh import turned_inside_out, vertex_normals
from training.inverse_graphics.config import Template

ABSURD = 1e6  # radii; float32 overflows in squares of squares from 1e9 on


@dataclass(frozen=True)
class MeshLimits:
    """Past which a mesh is flagged; lengths in radii of the sphere it was bent from."""

    inverted: float = 0.05  # share of faces that point inwards or have no area
    longest_edge: float = 20.0  # over the median edge
    flatness: float = 0.05  # shortest side of the bounding box over its longest
    smallest: float = 0.05  # longest side of the bounding box
    reach: float = 5.0  # furthest vertex from the origin


@dataclass(frozen=True)
class MeshChecks:
    """Of one mesh; lengths in object units. Without finite vertices there are no measures."""

    finite: bool  # and within reason
    inverted: float | None  # share of faces
    longest_edge: float | None
    median_edge: float | None
    shortest_edge: float | None
    box: tuple[float, float, float] | None  # sides along x, y, z
    reach: float | None
    flags: tuple[str, ...]  # in words; empty: nothing is wrong


def checks_of_mesh(
    points: Tensor, template: Template, radius: float, limits: MeshLimits
) -> MeshChecks:
    """Of points [V, 3] on the template's faces."""
    finite = ((points / radius).abs() <= ABSURD).all(dim=1)  # NaN is not
    if not finite.all():
        some = int((~finite).sum())
        flag = f"{some} of {len(points)} vertices are not finite, or over {ABSURD:g} radii away"
        return MeshChecks(False, None, None, None, None, None, None, (flag,))
    radii = points.double() / radius  # the measures below have absolute limits
    inverted = float(turned_inside_out(radii[None], template.faces)[0])
    edges = (radii[template.edges[:, 0]] - radii[template.edges[:, 1]]).norm(dim=1)
    longest, median, shortest = (float(edge) for edge in (edges.max(), edges.median(), edges.min()))
    box = radii.amax(dim=0) - radii.amin(dim=0)
    thin, side = float(box.min()), float(box.max())
    reach = float(radii.norm(dim=1).max())
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
            f"it is flat: its bounding box is {' x '.join(f'{s:.3g}' for s in box)} radii",
        ),
        (side < limits.smallest, f"its longest side is {side:.3g} radii; it collapsed"),
        (reach > limits.reach, f"it reaches {reach:.3g} radii from the origin"),
    ]
    return MeshChecks(
        finite=True,
        inverted=inverted,
        longest_edge=longest * radius,
        median_edge=median * radius,
        shortest_edge=shortest * radius,
        box=(float(box[0]) * radius, float(box[1]) * radius, float(box[2]) * radius),
        reach=reach * radius,
        flags=tuple(words for wrong, words in flags if wrong),
    )


def flags_of_texture(texture: Tensor) -> tuple[str, ...]:
    """texture [3, T, W]."""
    return () if texture.isfinite().all() else ("its texture has colours that are not finite",)


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
