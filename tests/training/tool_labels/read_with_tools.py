"""Reads what `python -m training labels convert` wrote of scene.py's labels with a tool's own code.

    PYTHON read_with_tools.py datumaro|label_studio|labelme|ultralytics FOLDER

FOLDER has images/, masks/ (class ids) and cvat/, coco/, labelstudio/, labelme/, yolo/, converted;
cvat/ and coco/ have images/, too, labelme/ the images themselves. Names of the classes follow.
Prints the worst IoU of a class.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image


def truth(folder: Path) -> dict[str, np.ndarray]:
    return {p.stem: np.array(Image.open(p)) for p in sorted((folder / "masks").glob("*.png"))}


def score(name: str, true: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> None:
    worst = 1.0
    for stem, mask in true.items():
        for value in np.unique(mask[mask > 0]):
            a, b = mask == value, found[stem] == value
            worst = min(worst, (a & b).sum() / (a | b).sum())
    same = all((true[stem] == found[stem]).all() for stem in true)
    print(f"{name}: worst IoU {worst:.4f}, {'equal' if same else 'not equal'} pixel for pixel")


def by_datumaro(folder: Path, names: list[str]) -> None:
    import datumaro as dm

    for where, format_ in (("cvat", "cvat"), ("coco", "coco")):
        data = dm.Dataset.import_from(str(folder / where), format_)
        labels = [label.name for label in data.categories()[dm.AnnotationType.label]]
        found = {}
        for item in data:
            mask = np.zeros_like(truth(folder)[item.id])
            points = []
            for annotation in item.annotations:
                if annotation.type == dm.AnnotationType.mask:
                    mask[annotation.image.astype(bool)] = names.index(labels[annotation.label])
                elif annotation.type == dm.AnnotationType.points:
                    points.append(annotation.points)
            found[item.id] = mask
        score(f"datumaro reads {where}", truth(folder), found)
        print("  keypoints of the last image:", points)


def by_label_studio(folder: Path, names: list[str]) -> None:
    from label_studio_sdk.converter.brush import decode_rle

    found = {}
    for task in json.loads((folder / "labelstudio" / "tasks.json").read_text()):
        stem = Path(task["data"]["image"].replace("?d=", "/")).stem
        mask = np.zeros_like(truth(folder)[stem])
        for result in task["annotations"][0]["result"]:
            if result["type"] == "brushlabels":
                pixels = decode_rle(result["value"]["rle"]).reshape(*mask.shape, 4)[..., 3]
                mask[pixels > 0] = names.index(result["value"]["brushlabels"][0])
        found[stem] = mask
    score("Label Studio reads labelstudio", truth(folder), found)


def by_labelme(folder: Path, names: list[str]) -> None:
    from labelme._label_file import read_label_file
    from labelme.utils import shapes_to_label

    found = {}
    for stem, mask in truth(folder).items():
        data = read_label_file(str(folder / "labelme" / f"{stem}.json"))
        regions = [s for s in data.shapes if s["shape_type"] == "mask"]
        values = {name: number for number, name in enumerate(names)}
        found[stem] = shapes_to_label((*mask.shape, 3), regions, values)[0]
    score("LabelMe reads labelme", truth(folder), found)


def by_ultralytics(folder: Path, names: list[str]) -> None:
    import yaml
    from ultralytics.data.utils import polygons2masks_overlap, verify_image_label

    classes = yaml.safe_load((folder / "yolo" / "segment" / "data.yaml").read_text())["names"]
    found = {}
    for stem, mask in truth(folder).items():
        text = folder / "yolo" / "segment" / "labels" / "train" / f"{stem}.txt"
        picture = folder / "images" / f"{stem}.png"
        arguments = (str(picture), str(text), "", False, len(classes), 0, 0, False)
        rows = verify_image_label(arguments)
        assert rows[0] is not None, rows
        segments = [segment * mask.shape[::-1] for segment in rows[3]]
        overlap, order = polygons2masks_overlap(mask.shape, segments)
        ids = np.array([0, *(names.index(classes[int(rows[1][i][0])]) for i in order)])
        found[stem] = ids[overlap].astype(np.uint8)
    score("Ultralytics reads yolo", truth(folder), found)
    pose = folder / "yolo" / "pose" / "labels" / "train"
    shape = yaml.safe_load((folder / "yolo" / "pose" / "data.yaml").read_text())["kpt_shape"]
    for text in sorted(pose.glob("*.txt")):
        picture = folder / "images" / f"{text.stem}.png"
        rows = verify_image_label((str(picture), str(text), "", True, 1, shape[0], shape[1], False))
        assert rows[0] is not None, rows
    print("  keypoints", text.stem, rows[4].tolist())


if __name__ == "__main__":
    reader = {
        "datumaro": by_datumaro,
        "label_studio": by_label_studio,
        "labelme": by_labelme,
        "ultralytics": by_ultralytics,
    }[sys.argv[1]]
    reader(Path(sys.argv[2]), sys.argv[3:])
