"""Shapes -> files: meshes, pictures of them, 3D keypoints, and a report that names what is wrong.

A degenerate mesh is flagged, and its files are left out unless they are asked for; nothing that is
not finite is ever written.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from checkpoints import InverseGraphicsCard, write_text
from nets.textured import Cameras
from training.errors import TrainingError
from training.inverse_graphics.config import Template
from training.inverse_graphics.keypoint_files import keypoint_nodes, keypoints_text, moved_anchors
from training.inverse_graphics.keypoints3d import Keypoints3D, posed
from training.inverse_graphics.mesh_files import (
    UNITS,
    MeshChecks,
    MeshLimits,
    checks_of_mesh,
    flags_of_texture,
    textured_mesh,
    write_glb,
    write_obj,
)
from training.inverse_graphics.pictures import (
    ObjectShape,
    depth_of_seen,
    mask_of_seen,
    normals_of_seen,
    seen_shape,
    turntable,
)

REPORT = "report.json"


@dataclass(frozen=True)
class Subject:
    """One object, and what was seen of it."""

    name: str  # of its files
    source: str  # what it was made from
    shape: ObjectShape
    cameras: Cameras  # of its images; its pictures are made with the first one
    camera_from: str  # who says so
    silhouettes: Tensor | None  # bool [cameras, E, E]
    keypoints: Keypoints3D | None = None


@dataclass(frozen=True)
class ShapesConfig:
    """What is written of a subject."""

    resolution: int = 256  # of depth and normals, pixels
    limits: MeshLimits = field(default_factory=MeshLimits)
    keep_flagged: bool = False
    pose: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)  # keypoint -> xyz


@dataclass(frozen=True)
class SubjectReport:
    """What the report says of a subject."""

    name: str
    source: str
    flags: tuple[str, ...]
    camera: dict[str, float | str]  # of the pictures
    silhouette_iou: float | None  # mean over its images' silhouettes; None: none are known
    checks: MeshChecks
    files: tuple[str, ...]  # none of a flagged one


def write_shapes(
    out: Path,
    subjects: Sequence[Subject],
    card: InverseGraphicsCard,
    template: Template,
    config: ShapesConfig,
    made: Mapping[str, object],
) -> list[SubjectReport]:
    """Writes every subject, and the report. Raises TrainingError where a report is already."""
    refuse_existing_report(out)
    out.mkdir(parents=True, exist_ok=True)
    shown = tqdm(subjects, desc="shapes", unit="object")
    entries = [write_subject(out, subject, card, template, config) for subject in shown]
    report: dict[str, Any] = {
        "made": dict(made),
        "units": UNITS,
        "bundle_id": card.bundle_id,
        "licences": card.licences,
        "limits": asdict(config.limits),
        "flagged": sum(bool(entry.flags) for entry in entries),
        "objects": [asdict(entry) for entry in entries],
    }
    write_text(out / REPORT, json.dumps(report, indent=1, allow_nan=False) + "\n")
    return entries


def refuse_existing_report(out: Path) -> None:
    """Raises TrainingError."""
    if (out / REPORT).exists():
        raise TrainingError(f"{out} holds shapes already; name another --out")


def write_subject(
    out: Path, subject: Subject, card: InverseGraphicsCard, template: Template, config: ShapesConfig
) -> SubjectReport:
    """The files of one subject, unless it is flagged; what there is to say of it."""
    shape = subject.shape
    checks = checks_of_mesh(shape.points, template, card.radius, config.limits)
    of_texture = flags_of_texture(shape.texture)
    flags = [*checks.flags, *of_texture]
    files: list[Path] = []
    if checks.finite and not of_texture and (not flags or config.keep_flagged):
        files += _mesh_files(out, subject, template)
        files += _pictures(out, subject, card, template, config.resolution)
        if config.pose and subject.keypoints is not None and subject.keypoints.views.any():
            path, words = _posed_file(out, subject, subject.keypoints, card, template, config)
            files += [path] if path else []
            flags += words
    return SubjectReport(
        name=subject.name,
        source=subject.source,
        flags=tuple(flags),
        camera=_camera_words(subject),
        silhouette_iou=silhouette_iou(subject, template) if checks.finite else None,
        checks=checks,
        files=tuple(path.name for path in files),
    )


def silhouette_iou(subject: Subject, template: Template) -> float | None:
    """Mean intersection over union of the drawn and the given silhouettes."""
    given = subject.silhouettes
    if given is None:
        return None
    plain = ObjectShape(subject.shape.points, torch.zeros(3, 2, 4))
    drawn = seen_shape(plain, template, subject.cameras, given.shape[2]).face >= 0
    common, either = (drawn & given).sum(dim=(1, 2)), (drawn | given).sum(dim=(1, 2))
    return float((common / either.clamp(min=1)).mean())


def _mesh_files(out: Path, subject: Subject, template: Template) -> list[Path]:
    shape, keypoints = subject.shape, subject.keypoints
    mesh = textured_mesh(shape.points, template.faces, template.uv, shape.texture)
    glb = out / f"{subject.name}.glb"
    write_glb(glb, mesh, keypoint_nodes(keypoints) if keypoints else {})
    files = [glb, *write_obj(out / f"{subject.name}.obj", mesh)]
    if keypoints is not None:
        path = out / f"{subject.name}.keypoints.json"
        write_text(path, keypoints_text(keypoints, mesh.vertices, UNITS))
        files.append(path)
    return files


def _pictures(
    out: Path, subject: Subject, card: InverseGraphicsCard, template: Template, resolution: int
) -> list[Path]:
    seen = seen_shape(subject.shape, template, subject.cameras[:1], resolution)
    pictures = {
        "turntable": turntable(subject.shape, template, card.distance),
        "normals": Image.fromarray(normals_of_seen(seen)[0]),
        "mask": Image.fromarray(mask_of_seen(seen)[0]),
    }
    files = [out / f"{subject.name}.{kind}.png" for kind in pictures]
    for path, picture in zip(files, pictures.values(), strict=True):
        picture.save(path)
    depth = out / f"{subject.name}.depth.npy"
    np.save(depth, depth_of_seen(seen)[0])
    return [*files, depth]


def _posed_file(
    out: Path,
    subject: Subject,
    keypoints: Keypoints3D,
    card: InverseGraphicsCard,
    template: Template,
    config: ShapesConfig,
) -> tuple[Path | None, list[str]]:
    """NAME.posed.glb, or why there is none."""
    anchors, moved, there = moved_anchors(
        keypoints, subject.shape.points, template.faces, config.pose
    )
    points = posed(subject.shape.points, template.faces, anchors, moved)
    flags = checks_of_mesh(points, template, card.radius, config.limits).flags
    if flags and not (config.keep_flagged and points.isfinite().all()):
        return None, [f"posed, {flag}" for flag in flags]
    path = out / f"{subject.name}.posed.glb"
    mesh = textured_mesh(points, template.faces, template.uv, subject.shape.texture)
    write_glb(path, mesh, there)
    return path, [f"posed, {flag}" for flag in flags]


def _camera_words(subject: Subject) -> dict[str, float | str]:
    first = subject.cameras
    return {
        "azimuth_deg": math.degrees(float(first.azimuth[0])),
        "elevation_deg": math.degrees(float(first.elevation[0])),
        "distance": float(first.distance[0]),
        "focal": float(first.focal[0]),
        "from": subject.camera_from,
    }
