"""Fixtures by datumaro, whose code CVAT exports with: COCO, CVAT, VOC masks, Ultralytics.

python -m venv d && d/bin/pip install datumaro==1.13.12
d/bin/python tests/training/tool_labels/write_datumaro.py
"""

import shutil
import tempfile
from pathlib import Path

import datumaro as dm
import numpy as np
import scene

HERE = Path(__file__).parent


def dataset(kind: str) -> dm.Dataset:
    items = []
    for stem in ("000", "001"):
        annotations = []
        split = {"000": "train", "001": "val"}[stem]
        subset = split if kind in ("polygon", "splits") else "default"
        for order, (name, region) in enumerate(scene.masks(stem).items()):
            label = scene.CLASSES.index(name)
            if kind in ("mask", "colors"):
                shape = dm.Mask(region, label=label, z_order=order, group=order + 1, id=order + 1)
                annotations.append(shape)
            elif kind in ("box", "splits"):
                rows, columns = np.nonzero(region)
                low, high = (columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)
                extent = (high[0] - low[0], high[1] - low[1])
                annotations.append(dm.Bbox(*low, *extent, label=label, group=order + 1))
        if kind == "polygon" and stem == "000":
            flat = [value for corner in scene.POLYGON for value in corner]
            annotations.append(dm.Polygon(flat, label=0, group=1))
        if kind == "points":
            found = scene.POINTS[stem]
            flat = [v for name in ("tip", "toe") for v in found.get(name, (0.0, 0.0))]
            seen = [2 if name in found else 0 for name in ("tip", "toe")]
            annotations.append(dm.Points(flat, seen, label=0, id=1))
        image = dm.Image.from_numpy(np.full((scene.HEIGHT, scene.WIDTH, 3), 90, np.uint8))
        items.append(dm.DatasetItem(id=stem, subset=subset, media=image, annotations=annotations))
    categories = {dm.AnnotationType.label: dm.LabelCategories.from_iterable(scene.CLASSES)}
    if kind == "points":
        points = dm.PointsCategories.from_iterable([(0, ("tip", "toe"), {(1, 2)})])
        categories[dm.AnnotationType.points] = points
    if kind == "colors":
        categories[dm.AnnotationType.mask] = dm.MaskCategories(
            {0: (250, 50, 83), 1: (52, 209, 183)}, attributes=set()
        )
    return dm.Dataset.from_iterable(items, categories=categories, media_type=dm.Image)


def main() -> None:
    jobs = {
        "coco_masks": ("mask", "coco_instances"),
        "coco_polygon": ("polygon", "coco_instances"),
        "coco_boxes": ("box", "coco_instances"),
        "coco_points": ("points", "coco_person_keypoints"),
        "cvat_masks": ("mask", "cvat"),
        "voc_masks": ("mask", "voc_segmentation"),
        "cvat_segmentation_mask": ("colors", "voc_segmentation"),
        "yolo_boxes": ("splits", "yolo_ultralytics"),
    }
    for name, (kind, format_) in jobs.items():
        out = HERE / "datumaro" / name
        shutil.rmtree(out, ignore_errors=True)
        with tempfile.TemporaryDirectory() as made:
            more = {"label_map": "source"} if kind == "colors" else {}
            dataset(kind).export(made, format_, save_media=False, **more)
            for path in sorted(Path(made).rglob("*")):
                if path.is_file() and "SegmentationObject" not in path.parts:
                    target = out / path.relative_to(made)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, target)
        print(name, [str(p.relative_to(out)) for p in sorted(out.rglob("*")) if p.is_file()])


if __name__ == "__main__":
    main()
