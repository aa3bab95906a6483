"""3D keypoints -> JSON and nodes of a GLB; files of poses -> where keypoints should move."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelmint.datasets.stored_files import opened_regular_file
from training.errors import TrainingError
from training.inverse_graphics.keypoints3d import Anchors, Keypoints3D

MAX_POSE_BYTES = 1 << 20
Positions = dict[str, NDArray[np.float32]]  # keypoint -> xyz [3]


def keypoint_nodes(keypoints: Keypoints3D) -> Positions:
    """Positions of the known keypoints."""
    known = zip(keypoints.names, keypoints.xyz.numpy(), keypoints.views, strict=True)
    return {name: xyz for name, xyz, views in known if views > 0}


def keypoints_text(keypoints: Keypoints3D, vertices: NDArray[np.int64], units: str) -> str:
    """The keypoints as JSON.

    Indices of vertices and faces are those of the mesh files. `vertices`, int64 [V'], has the
    network's vertex for each vertex of the files (`TexturedMesh.vertices`).
    """
    file_vertex = {int(vertex): i for i, vertex in reversed(list(enumerate(vertices)))}
    rows = []
    for k, name in enumerate(keypoints.names):
        known = int(keypoints.views[k]) > 0
        rows.append(
            {
                "name": name,
                "xyz": keypoints.xyz[k].tolist() if known else None,
                "views": int(keypoints.views[k]),
                "spread": float(keypoints.spread[k]) if known else None,
                "by": ("rays" if keypoints.by_rays[k] else "surface") if known else None,
                "vertex": file_vertex[int(keypoints.vertices[k])] if known else None,
                "face": int(keypoints.anchors.faces[k]) if known else None,
                "weights": keypoints.anchors.weights[k].tolist() if known else None,
            }
        )
    return json.dumps({"units": units, "keypoints": rows}, indent=1, allow_nan=False) + "\n"


def pose_from_file(path: Path, names: Sequence[str]) -> Positions:
    """Reads a pose, {"name": [x, y, z], ...}, of keypoints among `names`. Raises TrainingError."""
    try:
        with opened_regular_file(path) as stream:
            data = stream.read(MAX_POSE_BYTES + 1)
    except OSError as error:
        raise TrainingError(f"{path} cannot be read ({error.strerror})") from error
    if len(data) > MAX_POSE_BYTES:
        raise TrainingError(f"{path} has more than {MAX_POSE_BYTES} bytes; a pose has fewer")
    try:
        pose = msgspec.json.decode(data, type=dict[str, tuple[float, float, float]])
    except (msgspec.DecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise TrainingError(f'{path} is no JSON like {{"chin": [0, -1, 0]}}: {reason}') from error
    for name, xyz in pose.items():
        if name not in names:
            raise TrainingError(f"{path}: {name} is not among the keypoints {', '.join(names)}")
        if not all(math.isfinite(x) and abs(x) < 1e9 for x in xyz):
            raise TrainingError(
                f"{path}: {name} is at {list(xyz)}; coordinates must be within +-1e9"
            )
    return {name: np.array(xyz, np.float32) for name, xyz in pose.items()}


def moved_anchors(
    keypoints: Keypoints3D, points: Tensor, faces: Tensor, pose: Mapping[str, NDArray[np.float32]]
) -> tuple[Anchors, Tensor, Positions]:
    """Anchors of the known keypoints, the anchors' targets [K, 3], and the keypoints' positions
    after posing.

    Keypoints in the pose move to its positions, the others stay. An anchor moves by as much as its
    keypoint, which may lie beside the surface.
    """
    known = keypoints.views > 0
    names = [name for name, is_known in zip(keypoints.names, known, strict=True) if is_known]
    positions = keypoints.xyz[known].clone()
    for k, name in enumerate(names):
        if name in pose:
            positions[k] = torch.from_numpy(pose[name])
    anchors = Anchors(keypoints.anchors.faces[known], keypoints.anchors.weights[known])
    targets = anchors.on(points, faces) + positions - keypoints.xyz[known]
    return anchors, targets, dict(zip(names, positions.numpy(), strict=True))
