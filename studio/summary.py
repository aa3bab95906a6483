"""What a running studio consists of, what its page shows of it, and its labels as an archive."""

import io
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from studio.depth import stems_with_depth
from studio.errors import Conflict
from studio.export_run import ExportRun
from studio.learner import Learner
from studio.pick import Candidates
from studio.project import Project
from studio.reviews import Reviews
from studio.select import FeatureTables
from studio.tabs import Tabs
from studio.turns import Turns
from training.labels.formats import Format, write_labels_as


@dataclass(frozen=True)
class Studio:
    """What a running studio consists of."""

    project: Project
    tabs: Tabs
    turns: Turns
    candidates: Candidates
    tables: FeatureTables
    learner: Learner
    export: ExportRun
    reviews: Reviews


def project_summary(studio: Studio) -> dict[str, object]:
    """All that the page shows but the pixels."""
    project, learner = studio.project, studio.learner
    deep = stems_with_depth(project)
    with project.lock:
        project.take_in()
        images = [
            {
                "stem": stem,
                "sha": entry.pixels_sha256[:16],
                "labelled": stem in project.label_files.masks,
                "points": stored_points(project, stem),
                "source": entry.source,
                "psnr_db": entry.psnr_db,
                "depth": stem in deep,
            }
            for stem, entry in zip(project.images.stems, project.images.index.images, strict=True)
        ]
        height, width = project.size
        return {
            "name": project.folder.resolve().name,
            "folder": str(project.folder.resolve()),
            "height": height,
            "width": width,
            "ignore_id": project.ignore_id,
            "classes": [
                {"name": card.name, "color": card.color, "keys": keys}
                for card, keys in zip(project.classes, project.class_keys, strict=True)
            ],
            "keypoints": {"names": project.keypoint_names, "skeleton": project.skeleton},
            "images": images,
            "can_pick": studio.candidates.config is not None,
            "formats": get_args(Format),
            "holds": studio.tabs.holders(),
            "learn": learner.state(),
            "export": studio.export.state(),
        }


def stored_points(project: Project, stem: str) -> list[list[float]] | None:
    """Keypoints of an image, rows of x, y and visible; None without."""
    points = project.points(stem)
    return None if points is None else points.tolist()


def archive_of_labels(project: Project, format_: Format) -> bytes:
    """Zip of the labels as `training labels convert --to` writes them. Raises Conflict."""
    project.take_in()
    labels = project.label_files
    if not labels.stems:
        raise Conflict("no image has a label yet")
    stream = io.BytesIO()
    with (
        tempfile.TemporaryDirectory() as name,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        out = Path(name)
        if format_ == "masks":
            paths = [project.folder / "classes.toml", project.folder / "keypoints.json"]
            paths += [labels.masks[stem] for stem in labels.stems if stem in labels.masks]
            for path in paths:
                if path.exists():
                    archive.write(path, path.relative_to(project.folder))
        else:
            write_labels_as(format_, labels, out)
            for path in sorted(out.rglob("*")):
                if path.is_file():
                    archive.write(path, path.relative_to(out))
    return stream.getvalue()
