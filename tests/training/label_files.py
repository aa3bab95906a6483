"""Label files as the annotators' tools write them: a square on an image of 16 px."""

import json
from pathlib import Path
from typing import Any

import numpy as np

SQUARE = np.zeros((16, 16), np.uint8)  # rows 2 to 5, columns 3 to 9
SQUARE[2:6, 3:10] = 1
OUTLINE = [3.0, 2.0, 10.0, 2.0, 10.0, 6.0, 3.0, 6.0]


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def labelme(*shapes: tuple[str, str, list[list[float]]], size: int = 16) -> dict[str, Any]:
    drawn = [{"label": n, "shape_type": t, "points": p, "flags": {}} for n, t, p in shapes]
    return {"version": "5", "shapes": drawn, "imageHeight": size, "imageWidth": size}


def coco(*annotations: dict[str, object], size: int = 16) -> dict[str, object]:
    return {
        "info": {"year": 2026},
        "images": [{"id": 7, "file_name": "x/a.jpg", "width": size, "height": size}],
        "categories": [{"id": 3, "name": "high"}, {"id": 9, "name": "corner"}],
        "annotations": [{"id": i, "image_id": 7, **a} for i, a in enumerate(annotations)],
    }
