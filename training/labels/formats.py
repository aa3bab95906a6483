"""The formats of labels by the name of their tool: reader, writer, and where the files lie."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from checkpoints import Classes
from labelmint.datasets.stored_files import opened_regular_file
from training.errors import LabelError
from training.labels.annotations import Annotations, ReadingRules, Source
from training.labels.coco import source_from_coco
from training.labels.cvat import LABELMAP, source_from_cvat_masks, source_from_cvat_xml
from training.labels.data_yaml import DATA
from training.labels.label_folder import LabelFolder, sources_of_folder
from training.labels.label_studio import (
    is_png_export,
    source_from_label_studio,
    source_from_label_studio_png,
)
from training.labels.labelme import source_from_labelme
from training.labels.writers.coco import write_coco
from training.labels.writers.cvat import write_cvat
from training.labels.writers.label_studio import write_label_studio
from training.labels.writers.labelme import write_labelme
from training.labels.writers.yolo import write_yolo
from training.labels.yolo import source_from_yolo

Format = Literal["cvat", "labelstudio", "roboflow", "yolo", "labelme", "coco", "masks"]
ROBOFLOW = "_annotations.coco.json"
COCO = "annotations/instances_default.json"  # where CVAT and datumaro look
COCO_POINTS = "annotations/person_keypoints_default.json"


def sources_from_path(
    format_: Format, path: Path, classes: Classes | None, rules: ReadingRules
) -> list[Source]:
    """Readers of what a tool wrote: a file, or the folder that its archive was unpacked to.

    Raises LabelError.
    """
    if not path.exists():
        raise LabelError(f"{path} cannot be read (No such file or directory)")
    if path.is_file() and zipfile.is_zipfile(path):
        raise LabelError(f"{path} is an archive; unzip it, and name the folder")
    match format_:
        case "cvat":
            return _cvat(path, rules)
        case "labelstudio":
            return [_label_studio(path, rules)]
        case "roboflow":
            return [_roboflow(path, rules)]
        case "yolo":
            return _yolo(path, rules)
        case "labelme":
            return [source_from_labelme(_folder(path))]
        case "coco":
            return _coco(path, rules)
        case "masks":
            return sources_of_folder(_folder(path), classes)


def write_labels_as(format_: Format, labels: LabelFolder, out: Path) -> Path:
    """Writes labels for a tool into a folder, and returns what the tool reads. Raises OSError."""
    match format_:
        case "cvat":
            write_cvat(out / "annotations.xml", labels)
            return out / "annotations.xml"
        case "labelstudio":
            write_label_studio(out, labels)
            return out / "tasks.json"
        case "roboflow":
            write_coco(out / ROBOFLOW, labels)
            return out / ROBOFLOW
        case "coco":
            if labels.masks:
                write_coco(out / COCO, labels, keypoints=False)
            if labels.points:
                write_coco(out / COCO_POINTS, labels, masks=False)
        case "yolo":
            write_yolo(out, labels)
        case "labelme":
            write_labelme(out, labels)
        case "masks":
            raise AssertionError("import_labels writes these")
    return out


def _cvat(path: Path, rules: ReadingRules) -> list[Source]:
    """XML, masks of colors, or COCO."""
    if path.is_dir():
        if (path / LABELMAP).exists():
            return [source_from_cvat_masks(path)]
        if any(path.glob("annotations/*.json")):
            return _coco(path, rules)
        path = _only(path, list(path.glob("*.xml")), f"annotations.xml, {LABELMAP} or annotations/")
    if path.suffix == ".json":
        return [source_from_coco(path, rules)]
    return [source_from_cvat_xml(path)]


def _label_studio(path: Path, rules: ReadingRules) -> Source:
    if path.is_dir():
        if is_png_export(path):
            return source_from_label_studio_png(path)
        path = _only(path, list(path.glob("*.json")), ".json export")
    with opened_regular_file(path) as stream:
        start = stream.read(64).lstrip()
    return source_from_coco(path, rules) if start[:1] == b"{" else source_from_label_studio(path)


def _roboflow(path: Path, rules: ReadingRules) -> Source:
    """Splits lie in train/, valid/ and test/; they are read as one."""
    if not path.is_dir():
        return source_from_coco(path, rules)
    files = sorted(path.rglob(ROBOFLOW))
    if not files and any((path / name).exists() for name in DATA):
        return source_from_yolo(path, rules)
    if not files:
        raise LabelError(f"{path} has no {ROBOFLOW}, nor data.yaml")
    return _joined(path, [source_from_coco(file, rules) for file in files])


def _joined(path: Path, sources: list[Source]) -> Source:
    """Several files of one set as one source. Raises LabelError if they differ in keypoints."""
    first = sources[0]
    for other in sources[1:]:
        if (other.keypoint_names, other.skeleton) != (first.keypoint_names, first.skeleton):
            raise LabelError(f"{first.path} and {other.path} differ in their keypoints")

    def images() -> Iterator[Annotations]:
        for source in sources:
            yield from source.images()

    labels = dict.fromkeys(label for source in sources for label in source.labels or ())
    return Source(
        path,
        images,
        sum(source.count or 0 for source in sources),
        tuple(labels),
        keypoint_names=first.keypoint_names,
        skeleton=first.skeleton,
        smaller_on_top=True,
        notes=tuple(note for source in sources for note in source.notes),
    )


def _yolo(path: Path, rules: ReadingRules) -> list[Source]:
    """A set with data.yaml; or segment/ and pose/ side by side, as they are written here."""
    folder = _folder(path)
    parts = [folder / name for name in ("segment", "pose") if (folder / name / DATA[0]).exists()]
    if parts and not any((folder / name).exists() for name in DATA):
        return [source_from_yolo(part, rules) for part in parts]
    return [source_from_yolo(folder, rules)]


def _coco(path: Path, rules: ReadingRules) -> list[Source]:
    """A file; or a folder of instances_train.json, instances_val.json, person_keypoints_train.json
    and so on, whose splits are read as one."""
    if not path.is_dir():
        return [source_from_coco(path, rules)]
    found = sorted([*path.glob("*.json"), *path.glob("annotations/*.json")])
    instances = [file for file in found if file.name.startswith("instances_")]
    points = [file for file in found if file.name.startswith("person_keypoints_")]
    if not found or len(found) > len(instances) + len(points):
        file = _only(path, found, ".json files, also in annotations/")
        return [source_from_coco(file, rules)]
    wanted: Literal["masks", "keypoints"] = "keypoints" if instances else "masks"
    sources = []
    if instances:
        sources.append(_joined(path, [source_from_coco(file, rules) for file in instances]))
    if points:
        sources.append(_joined(path, [source_from_coco(file, rules, wanted) for file in points]))
    return sources


def _only(folder: Path, found: list[Path], what: str) -> Path:
    if len(found) != 1:
        names = f" ({', '.join(sorted(file.name for file in found))})" if found else ""
        raise LabelError(f"{folder} has {len(found)} {what}{names}; name one file")
    return found[0]


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise LabelError(f"{path} is a file; name the folder of the label files")
    return path
