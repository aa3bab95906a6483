"""What the types of the manifest cannot say: extents, ranges and references that must agree."""

import math
import re
from itertools import pairwise

from bundle.errors import ManifestError
from bundle.manifest import (
    LABELLER,
    MANIFEST,
    MAPPING,
    VIEWS,
    Calibration,
    Camera,
    Generator,
    Heads,
    Keypoints,
    Labels,
    Manifest,
    Refiner,
    SamplingKey,
    Segmentation,
    Views,
)

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*\Z")  # no folders, nothing hidden
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
MAX_CLASSES = 256  # masks are uint8
MAX_VIEW_CODES = 1 << 16
MAX_LENGTH = 1e9  # of cameras, which are served as float32


def check_manifest(manifest: Manifest, name: str) -> None:
    """Raises ManifestError for the first contradiction, as "name: field is value; rule"."""
    problem = (
        _generator_problem(manifest.generator)
        or _labels_problem(manifest.labels, manifest.heads)
        or _refiner_problem(manifest.refiner)
        or _files_problem(manifest)
        or _views_problem(manifest)
        or _calibrations_problem(manifest)
    )
    if problem:
        raise ManifestError(f"{name}: {problem}")


def _generator_problem(g: Generator) -> str | None:
    extents = {
        "resolution": g.resolution,
        "z_dim": g.z_dim,
        "w_dim": g.w_dim,
        "num_ws": g.num_ws,
    }
    for field, value in extents.items():
        if value < 1:
            return f"generator.{field} is {value}; it must be at least 1"
    if g.num_classes < 0:
        return f"generator.num_classes is {g.num_classes}; it must not be negative"
    for field, rows in (
        ("view_layers", g.view_layers),
        ("truncation_cutoff", g.truncation_cutoff),
    ):
        if not 0 <= rows <= g.num_ws:
            return f"generator.{field} is {rows}; it must be in [0, {g.num_ws}], the rows of w+"
    if not 0 <= g.truncation_psi <= 2:
        return f"generator.truncation_psi is {g.truncation_psi}; it must be in [0, 2]"
    if len(g.w_avg) != g.w_dim:
        return f"generator.w_avg has {len(g.w_avg)} values; w_dim is {g.w_dim}"
    if not all(map(math.isfinite, g.w_avg)):
        return "generator.w_avg holds values that are not finite"
    return None


def _labels_problem(labels: Labels | None, heads: Heads | None) -> str | None:
    if labels is None and heads is None:
        return None
    if labels is None or heads is None:
        return "labels and heads must be both present or both null"
    for field, value in (("height", labels.height), ("width", labels.width)):
        if value < 1:
            return f"labels.{field} is {value}; it must be at least 1"
    if labels.crop_top < 0 or labels.crop_top + labels.height > labels.grid:
        return (
            f"labels.crop_top is {labels.crop_top} and height {labels.height}; the rows must lie "
            f"within the grid of {labels.grid}"
        )
    if labels.width > labels.grid:
        return f"labels.width is {labels.width}; the grid has {labels.grid} columns"
    return _heads_problem(heads)


def _heads_problem(heads: Heads) -> str | None:
    present = {
        "segmentation": heads.segmentation,
        "keypoints": heads.keypoints,
        "depth": heads.depth,
    }
    trained = {kind: head for kind, head in present.items() if head is not None}
    if not trained:
        return "heads has no head; an image-only bundle has heads and labels null"
    for kind, head in trained.items():
        if head.members < 1:
            return f"heads.{kind}.members is {head.members}; it must be at least 1"
    if heads.score_source is not None and heads.score_source not in trained:
        return f"heads.score_source is {heads.score_source}, a head this bundle lacks"
    if not 0 < heads.score_fraction <= 1:
        return f"heads.score_fraction is {heads.score_fraction}; it must be in (0, 1]"
    problem = None if heads.segmentation is None else _segmentation_problem(heads.segmentation)
    if problem is None and heads.keypoints is not None:
        problem = _keypoints_problem(heads.keypoints)
    return problem


def _segmentation_problem(head: Segmentation) -> str | None:
    if not 1 <= len(head.classes) <= MAX_CLASSES:
        return (
            f"heads.segmentation.classes has {len(head.classes)} entries; it must have 1 to "
            f"{MAX_CLASSES}, masks are 8-bit"
        )
    for i, label_class in enumerate(head.classes):
        if not 0 <= label_class.color <= 0xFFFFFF:
            return (
                f"heads.segmentation.classes[{i}].color is {label_class.color}; it must be in "
                "[0, 16777215]"
            )
    return None


def _keypoints_problem(head: Keypoints) -> str | None:
    if not head.names:
        return "heads.keypoints.names is empty"
    for edge in head.skeleton:
        if not all(0 <= end < len(head.names) for end in edge):
            return (
                f"heads.keypoints.skeleton has edge {list(edge)}; there are {len(head.names)} "
                "keypoints, counted from 0"
            )
    return None


def _refiner_problem(refiner: Refiner | None) -> str | None:
    if refiner is None:
        return None
    if not _SHA256.match(refiner.weights_sha256):
        return f"refiner.weights_sha256 is {refiner.weights_sha256!r}; it must be 64 hex digits"
    for field, value, least in (
        ("width", refiner.width, 1),
        ("blocks", refiner.blocks, 0),
        ("grain", refiner.grain, 0),
    ):
        if value < least:
            return f"refiner.{field} is {value}; it must be at least {least}"
    return None


def _files_problem(manifest: Manifest) -> str | None:
    for required in (MAPPING, LABELLER["float32"]):
        if required not in manifest.files:
            return f"files lacks {required}"
    for name, entry in manifest.files.items():
        if not _FILE_NAME.match(name) or name == MANIFEST:
            return f"files has {name!r}; a file name has letters, digits, _ . and - and no folder"
        if not _SHA256.match(entry.sha256):
            return f"files[{name!r}].sha256 is {entry.sha256!r}; it must be 64 hexadecimal digits"
        if entry.size < 0:
            return f"files[{name!r}].size is {entry.size}; it must not be negative"
    return None


def _views_problem(manifest: Manifest) -> str | None:
    g, views = manifest.generator, manifest.views
    if views is None:
        return f"files has {VIEWS}, but there is no views" if VIEWS in manifest.files else None
    if VIEWS not in manifest.files:
        return f"views is present, but files lacks {VIEWS}"
    if g.view_layers == 0:
        return "views is present, but generator.view_layers is 0; a code has at least one row"
    if not 1 <= views.codes <= MAX_VIEW_CODES:
        return f"views.codes is {views.codes}; it must be in [1, {MAX_VIEW_CODES}]"
    size, expected = manifest.files[VIEWS].size, 4 * views.codes * g.view_layers * g.w_dim
    if size != expected:
        return (
            f"files[{VIEWS!r}].size is {size}; {views.codes} codes of {g.view_layers} rows of "
            f"{g.w_dim} float32 values have {expected} bytes"
        )
    if views.cameras is None:
        return None
    if len(views.cameras) != views.codes:
        return f"views.cameras has {len(views.cameras)} entries; there are {views.codes} codes"
    for i, camera in enumerate(views.cameras):
        problem = _camera_problem(camera)
        if problem:
            return f"views.cameras[{i}].{problem}"
    return None


def _camera_problem(camera: Camera) -> str | None:
    for field, limit in (("azimuth_deg", 360), ("elevation_deg", 90)):
        value = getattr(camera, field)
        if value is not None and not abs(value) <= limit:
            return f"{field} is {value}; it must be in [-{limit}, {limit}]"
    for field in ("distance", "focal"):
        value = getattr(camera, field)
        if value is not None and not 0 < value <= MAX_LENGTH:
            return f"{field} is {value}; it must be over 0 and at most {MAX_LENGTH:g}"
    return None


def _calibrations_problem(manifest: Manifest) -> str | None:
    seen: list[object] = []
    for i, calibration in enumerate(manifest.calibrations):
        where = f"calibrations[{i}]"
        if manifest.heads is None or manifest.heads.score_source is None:
            return f"{where} is present, but the bundle has no score_source"
        if calibration.options in seen:
            return f"{where} has the same options as an earlier one"
        seen.append(calibration.options)
        problem = _key_problem(calibration.options, manifest.views) or _quantiles_problem(
            calibration
        )
        if problem:
            return f"{where}.{problem}"
    return None


def _key_problem(key: SamplingKey, views: Views | None) -> str | None:
    if key.view_mode != "drawn" and views is None:
        return f"options.view_mode is {key.view_mode}, but there is no views"
    if (key.view_mode == "fixed") != (key.view is not None):
        return (
            f"options.view is {key.view} with view_mode {key.view_mode}; fixed has one, others none"
        )
    return None


def _quantiles_problem(calibration: Calibration) -> str | None:
    q = calibration.quantiles
    if calibration.samples < 1:
        return f"samples is {calibration.samples}; it must be at least 1"
    if len(q) < 2:
        return f"quantiles has {len(q)} values; it must have at least 2"
    if not all(map(math.isfinite, q)):
        return "quantiles holds values that are not finite"
    if any(a > b for a, b in pairwise(q)):
        return "quantiles is not ascending"
    return None
