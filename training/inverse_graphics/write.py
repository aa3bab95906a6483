"""Subjects -> files: meshes, pictures, 3D keypoints, and report.json with measures and flags.

Degenerate meshes are flagged, and their files are not written unless `keep_flagged` is set. Values
that are not finite are never written.
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
    """One object and its observations."""

    name: str  # stem of its files
    source: str  # the picture's file name, or the object's number
    shape: ObjectShape
    cameras: Cameras  # cameras of its images; its pictures are rendered from the first one
    camera_from: str  # where the cameras come from: view bank, options, network or front
    silhouettes: Tensor | None  # bool [cameras, E, E]
    keypoints: Keypoints3D | None = None


@dataclass(frozen=True)
class ShapesConfig:
    """Settings of the files of a subject."""

    resolution: int = 256  # side of depth, normals and mask, pixels
    limits: MeshLimits = field(default_factory=MeshLimits)
    keep_flagged: bool = False
    pose: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)  # keypoint -> xyz


@dataclass(frozen=True)
class SubjectReport:
    """Entry of a subject in report.json."""

    name: str
    source: str
    flags: tuple[str, ...]
    camera: dict[str, float | str]  # camera of its pictures
    silhouette_iou: float | None  # mean over the silhouettes of its images; None: unknown
    checks: MeshChecks
    files: tuple[str, ...]  # names; none for a flagged subject, unless keep_flagged


def write_shapes(
    out: Path,
    subjects: Sequence[Subject],
    card: InverseGraphicsCard,
    template: Template,
    config: ShapesConfig,
    provenance: Mapping[str, object],
) -> list[SubjectReport]:
    """Writes the files of every subject, and the report. Raises TrainingError if `out` has one."""
    refuse_existing_report(out)
    out.mkdir(parents=True, exist_ok=True)
    progress = tqdm(subjects, desc="shapes", unit="object")
    entries = [write_subject(out, subject, card, template, config) for subject in progress]
    report: dict[str, Any] = {
        "made": dict(provenance),
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
    """Raises TrainingError if the folder has a report."""
    if (out / REPORT).exists():
        raise TrainingError(f"{out} holds shapes already; name another --out")


def write_subject(
    out: Path, subject: Subject, card: InverseGraphicsCard, template: Template, config: ShapesConfig
) -> SubjectReport:
    """Writes the files of one subject, unless it is flagged, and returns its report."""
    shape = subject.shape
    checks = checks_of_mesh(shape.points, template, card.radius, config.limits)
    texture_flags = flags_of_texture(shape.texture)
    flags = [*checks.flags, *texture_flags]
    files: list[Path] = []
    if checks.finite and not texture_flags and (not flags or config.keep_flagged):
        files += _mesh_files(out, subject, template)
        files += _pictures(out, subject, card, template, config.resolution)
        if config.pose and subject.keypoints is not None and subject.keypoints.views.any():
            path, posed_flags = _posed_file(out, subject, subject.keypoints, card, template, config)
            files += [path] if path else []
            flags += posed_flags
    return SubjectReport(
        name=subject.name,
        source=subject.source,
        flags=tuple(flags),
        camera=_camera_entry(subject),
        silhouette_iou=silhouette_iou(subject, template) if checks.finite else None,
        checks=checks,
        files=tuple(path.name for path in files),
    )


def silhouette_iou(subject: Subject, template: Template) -> float | None:
    """Mean IoU between the shape, rendered from each camera, and the images' silhouettes."""
    truth = subject.silhouettes
    if truth is None:
        return None
    untextured = ObjectShape(subject.shape.points, torch.zeros(3, 2, 4))
    rendered = seen_shape(untextured, template, subject.cameras, truth.shape[2]).face >= 0
    both, either = (rendered & truth).sum(dim=(1, 2)), (rendered | truth).sum(dim=(1, 2))
    return float((both / either.clamp(min=1)).mean())


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
    """Writes NAME.posed.glb, unless the posed mesh is degenerate; returns its path and flags."""
    anchors, targets, positions = moved_anchors(
        keypoints, subject.shape.points, template.faces, config.pose
    )
    points = posed(subject.shape.points, template.faces, anchors, targets)
    flags = checks_of_mesh(points, template, card.radius, config.limits).flags
    if flags and not (config.keep_flagged and points.isfinite().all()):
        return None, [f"posed, {flag}" for flag in flags]
    path = out / f"{subject.name}.posed.glb"
    mesh = textured_mesh(points, template.faces, template.uv, subject.shape.texture)
    write_glb(path, mesh, positions)
    return path, [f"posed, {flag}" for flag in flags]


def _camera_entry(subject: Subject) -> dict[str, float | str]:
    first = subject.cameras
    return {
        "azimuth_deg": math.degrees(float(first.azimuth[0])),
        "elevation_deg": math.degrees(float(first.elevation[0])),
        "distance": float(first.distance[0]),
        "focal": float(first.focal[0]),
        "from": subject.camera_from,
    }
