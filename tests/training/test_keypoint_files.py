"""Keypoint files name places of the written mesh, and poses move what they name and no more."""

import json

import numpy as np
import pytest
import torch

from tests.training.ellipsoids import SPHERE, around, ellipsoid, keypoints_of
from training.inverse_graphics.keypoint_files import keypoint_nodes, keypoints_text, moved_anchors
from training.inverse_graphics.keypoints3d import Keypoints3D, keypoints_on_mesh, posed
from training.inverse_graphics.mesh_files import UNITS, textured_mesh

HEAD = ellipsoid()
PLACES = torch.tensor([[0.0, 0.0, 1.1], [0.75, 0.1, 0.0], [0.0, 0.9, 0.1], [0.0, -0.9, 0.1]])
NAMES = ("nose", "left ear", "hidden", "chin")  # the nose sticks out of the mesh


@pytest.fixture(scope="module")
def keypoints() -> Keypoints3D:
    seen = keypoints_of(PLACES, around(7))
    seen[:, 2, 2] = 0
    return keypoints_on_mesh(NAMES, seen, around(7), HEAD, SPHERE.faces)


def test_the_file_names_places_of_the_written_mesh(keypoints: Keypoints3D) -> None:
    mesh = textured_mesh(HEAD, SPHERE.faces, SPHERE.uv, torch.rand(3, 4, 8))
    rows = json.loads(keypoints_text(keypoints, mesh.vertices, UNITS))["keypoints"]
    assert [row["name"] for row in rows] == list(NAMES)
    assert rows[2] == dict.fromkeys(rows[2], None) | {"name": "hidden", "views": 0}
    for row, place in zip(rows, PLACES.numpy(), strict=True):
        if row["name"] == "hidden":
            continue
        assert np.allclose(row["xyz"], place, atol=1e-4)
        assert row["views"] == 7 and row["by"] == "rays" and row["spread"] < 1e-3
        away = np.linalg.norm(mesh.points - place, axis=1)
        assert away[row["vertex"]] == pytest.approx(away.min(), abs=1e-5)
        anchor = np.array(row["weights"]) @ mesh.points[mesh.faces[row["face"]]]
        assert np.linalg.norm(anchor - place) <= away.min() + 1e-5
    assert keypoint_nodes(keypoints).keys() == {"nose", "left ear", "chin"}


def test_a_pose_moves_what_it_names_as_far_as_its_keypoint_moves(keypoints: Keypoints3D) -> None:
    pose = {"nose": np.array([0.0, 0.2, 1.3], np.float32), "hidden": np.zeros(3, np.float32)}
    anchors, moved, there = moved_anchors(keypoints, HEAD, SPHERE.faces, pose)
    points = posed(HEAD, SPHERE.faces, anchors, moved)
    shift = anchors.on(points, SPHERE.faces) - anchors.on(HEAD, SPHERE.faces)
    wanted = torch.tensor([[0.0, 0.2, 0.2], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert torch.allclose(shift, wanted, atol=1e-3)
    assert there.keys() == {"nose", "left ear", "chin"}
    assert np.allclose(there["nose"], [0, 0.2, 1.3]) and np.allclose(
        there["chin"], PLACES[3], 0, 1e-3
    )
