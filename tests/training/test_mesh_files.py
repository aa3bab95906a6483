"""Written meshes are read back with the same surface and the same colours on it."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from numpy.typing import NDArray
from PIL import Image

from nets.mesh import vertex_normals
from nets.textured import texture_at
from tests.training.ellipsoids import SPHERE, ellipsoid
from training.inverse_graphics.mesh_files import TexturedMesh, textured_mesh, write_glb, write_obj

HEAD = ellipsoid()
TEXTURE = torch.rand(3, 16, 32, generator=torch.Generator().manual_seed(0))
Read = Callable[[Path], Any]


def mesh() -> TexturedMesh:
    return textured_mesh(HEAD, SPHERE.faces, SPHERE.uv, TEXTURE)


def glb(folder: Path) -> Any:
    write_glb(folder / "a.glb", mesh(), {})
    return only_mesh(folder / "a.glb")


def obj(folder: Path) -> Any:
    written = write_obj(folder / "a.obj", mesh())
    assert sorted(written) == sorted(folder.iterdir())
    return only_mesh(folder / "a.obj")


def only_mesh(path: Path) -> Any:
    (found,) = trimesh.load_scene(path, process=False, maintain_order=True).geometry.values()
    return found


def image_of(read: Any) -> Image.Image:
    material = read.visual.material
    image: Image.Image = getattr(material, "baseColorTexture", None) or material.image
    return image


@pytest.mark.parametrize("read", [glb, obj])
def test_faces_are_where_they_were(tmp_path: Path, read: Read) -> None:
    found = read(tmp_path)
    corners = HEAD[SPHERE.faces].numpy()
    assert np.allclose(found.vertices[found.faces], corners, atol=1e-6)
    assert len(found.vertices) < 1.1 * len(HEAD)  # doubled at the seam and the poles alone
    normals = vertex_normals(HEAD[None], SPHERE.faces)[0].numpy()
    assert np.allclose(found.vertex_normals[found.faces], normals[SPHERE.faces], atol=1e-4)
    assert np.einsum("fi,fi->f", found.face_normals, corners.mean(axis=1)).min() > 0


@pytest.mark.parametrize("read", [glb, obj])
def test_places_have_the_colours_that_the_network_gave_them(tmp_path: Path, read: Read) -> None:
    found = read(tmp_path)
    random = np.random.default_rng(0)
    weights = random.dirichlet([1, 1, 1], size=len(SPHERE.faces))[:, :, None]
    uv = (found.visual.uv[found.faces] * weights).sum(axis=1) * [1, -1] + [0, 1]  # v from the top
    wanted = (SPHERE.uv.numpy() * weights).sum(axis=1)
    assert np.allclose(uv, wanted, atol=1e-6)
    pixels = np.array(image_of(found).convert("RGB"), np.float32) / 255
    shown = colours_at(torch.from_numpy(pixels).permute(2, 0, 1), uv)
    assert np.abs(shown - colours_at(TEXTURE, wanted)).max() <= 0.51 / 255 + 1e-4


def colours_at(texture: torch.Tensor, uv: NDArray[np.float64]) -> NDArray[np.float32]:
    there = torch.from_numpy(uv.astype(np.float32)).T[None, :, None]
    colours: NDArray[np.float32] = texture_at(texture[None], there)[0, :, 0].numpy()
    return colours


@pytest.mark.parametrize("read", [glb, obj])
def test_no_face_smears_the_texture_across_the_seam(tmp_path: Path, read: Read) -> None:
    found = read(tmp_path)
    u = found.visual.uv[found.faces][..., 0]
    poles = np.abs(HEAD.numpy()[SPHERE.faces][..., 1]).max(axis=1) > 0.999
    assert np.ptp(u, axis=1)[~poles].max() < 0.5
    assert u.max() > 1  # instead


def test_a_glb_names_its_keypoints_and_how_its_texture_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.glb"
    places = {"nose": np.array([0, 0, 0.9], np.float32), "left ear": np.array([1, 0, 0.0])}
    write_glb(path, mesh(), places)
    scene = trimesh.load_scene(path)
    for name, xyz in places.items():
        matrix, geometry = scene.graph.get(f"keypoint.{name}")
        assert geometry is None and np.allclose(matrix[:3, 3], xyz)
    (sampler,) = tree_of_glb(path)["samplers"]
    assert (sampler["wrapS"], sampler["wrapT"]) == (10497, 33071)  # repeats, but not over the poles
    assert tree_of_glb(path)["textures"] == [{"source": 0, "sampler": 0}]


def tree_of_glb(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    (length,) = struct.unpack("<I", data[12:16])
    tree: dict[str, Any] = json.loads(data[20 : 20 + length])
    return tree
