"""What COCO says about an image: categories, and annotations from masks and keypoints.

Every class but 0, the background, is a category under its own id, with one annotation in every
image that shows it: an RLE mask, its area and its box. Keypoints are one more annotation an image,
of a category of their own, as COCO has persons; its box and area are those of everything but
background, or else of the points.

COCO counts keypoints in pixels from the centre of the first one, ours have centres at +0.5: so
x and y are 0.5 less here. A point that is not sure enough is 0, 0, 0, "not labelled"; the others
have visibility 2, since nothing tells whether a part is in front of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as rle

from labelmint.codec import Array
from labelmint.model import Model

BACKGROUND = 0


def licences_from_model(model: Model) -> list[dict[str, Any]]:
    """COCO's table of licences: one entry with all tags, since all hold for every image."""
    if not model.licences:
        return []
    return [{"id": 1, "name": ", ".join(model.licences), "url": ""}]


def categories_from_model(model: Model) -> list[dict[str, Any]]:
    """The classes by their ids in masks, and the keypoints' category after them."""
    categories: list[dict[str, Any]] = [
        {"id": label.id, "name": label.name, "supercategory": "part", "color": list(label.color)}
        for label in model.classes
        if label.id != BACKGROUND
    ]
    if model.keypoints:
        bones = [[start + 1, end + 1] for start, end in model.skeleton]  # COCO counts from 1
        categories.append(
            {
                "id": keypoint_category(model),
                "name": "object",
                "supercategory": "object",
                "keypoints": list(model.keypoints),
                "skeleton": bones,
            }
        )
    return categories


def keypoint_category(model: Model) -> int:
    """Id of the category that keypoints belong to."""
    return 1 + max((label.id for label in model.classes), default=BACKGROUND)


def annotations_from_mask(mask: Array, model: Model) -> list[dict[str, Any]]:
    """One annotation for every named class but background in a mask, uint8 [H, W]."""
    present = set(np.unique(mask).tolist()) - {BACKGROUND}
    return [
        {"category_id": label.id, "iscrowd": 0, **_region(mask == label.id)}
        for label in model.classes
        if label.id in present
    ]


def annotations_from_keypoints(
    keypoints: Array,
    seen: npt.NDArray[np.bool_],
    scale: tuple[float, float],
    mask: Array | None,
    model: Model,
) -> list[dict[str, Any]]:
    """The annotation of keypoints, float32 [K, 3], if any is visible: seen, [K], and finite.

    scale is image pixels per label pixel across and down; mask is uint8 [H, W] of the image.
    """
    places = keypoints[:, :2].astype(np.float64) * scale
    seen = seen & np.isfinite(places).all(axis=1)
    if not seen.any():
        return []
    values: list[float] = []
    for (x, y), visible in zip(places.tolist(), seen.tolist(), strict=True):
        values += [round(x - 0.5, 3), round(y - 0.5, 3), 2] if visible else [0, 0, 0]
    if mask is not None and (mask != BACKGROUND).any():
        region = _region(mask != BACKGROUND)
    else:
        low, high = places[seen].min(axis=0), places[seen].max(axis=0)
        width, height = (high - low).tolist()
        region = {"bbox": [*low.tolist(), width, height], "area": width * height}
    fields = {"category_id": keypoint_category(model), "iscrowd": 0, **region}
    return [{**fields, "keypoints": values, "num_keypoints": int(seen.sum())}]


def _region(inside: npt.NDArray[np.bool_]) -> dict[str, Any]:
    encoded = rle.encode(np.asfortranarray(inside, np.uint8))
    counts = encoded["counts"]
    return {
        "segmentation": {
            "size": list(inside.shape),
            "counts": counts.decode() if isinstance(counts, bytes) else counts,
        },
        "area": float(rle.area(encoded)),
        "bbox": rle.toBbox(encoded).tolist(),
    }
