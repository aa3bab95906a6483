"""3D keypoints as JSON and as nodes of a GLB, and files that say where they are to go."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.errors import TrainingError
from training.inverse_graphics.keypoints3d import Anchors, Keypoints3D

MAX_POSE_BYTES = 1 << 20
Places = dict[str, NDArray[np.float32]]  # keypoint -> xyz [3]


def keypoint_nodes(keypoints: Keypoints3D) -> Places:
    """Those that are known."""
    known = zip(keypoints.names, keypoints.xyz.numpy(), keypoints.views, strict=True)
    return {name: xyz for name, xyz, views in known if views > 0}


def keypoints_text(keypoints: Keypoints3D, vertices: NDArray[np.int64], units: str) -> str:
    """JSON. `vertices` says which of the network's vertices the files' are; numbers of vertices
    and faces are the files'."""
    first = {int(vertex): i for i, vertex in reversed(list(enumerate(vertices)))}
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
                "vertex": first[int(keypoints.vertices[k])] if known else None,
                "face": int(keypoints.anchors.faces[k]) if known else None,
                "weights": keypoints.anchors.weights[k].tolist() if known else None,
            }
        )
    return json.dumps({"units": units, "keypoints": rows}, indent=1, allow_nan=False) + "\n"


def pose_from_file(path: Path, names: Sequence[str]) -> Places:
    """{"name": [x, y, z], ...}. Raises TrainingError."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_POSE_BYTES + 1)
    except OSError as error:
        raise TrainingError(f"{path} cannot be read ({error.strerror})") from error
    if len(data) > MAX_POSE_BYTES:
        raise TrainingError(f"{path} has over {MAX_POSE_BYTES} bytes; it is no pose")
    try:
        pose = msgspec.json.decode(data, type=dict[str, tuple[float, float, float]])
    except (msgspec.DecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise TrainingError(f'{path} is no JSON like {{"chin": [0, -1, 0]}}: {reason}') from error
    for name, xyz in pose.items():
        if name not in names:
            raise TrainingError(f"{path}: {name} is none of its keypoints: {', '.join(names)}")
        if not all(math.isfinite(x) and abs(x) < 1e9 for x in xyz):
            raise TrainingError(f"{path}: {name} is at {list(xyz)}; places are finite, below 1e9")
    return {name: np.array(xyz, np.float32) for name, xyz in pose.items()}


def moved_anchors(
    keypoints: Keypoints3D, points: Tensor, faces: Tensor, pose: Mapping[str, NDArray[np.float32]]
) -> tuple[Anchors, Tensor, Places]:
    """Anchors of the known keypoints, where they go so that the keypoints of the pose get to their
    places and the others stay, [K, 3], and where the keypoints then are."""
    known = keypoints.views > 0
    names = [name for name, there in zip(keypoints.names, known, strict=True) if there]
    wanted = keypoints.xyz[known].clone()
    for k, name in enumerate(names):
        if name in pose:
            wanted[k] = torch.from_numpy(pose[name])
    anchors = Anchors(keypoints.anchors.faces[known], keypoints.anchors.weights[known])
    moved = anchors.on(points, faces) + wanted - keypoints.xyz[known]
    return anchors, moved, dict(zip(names, wanted.numpy(), strict=True))
