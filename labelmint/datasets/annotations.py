"""COCO categories and annotations, from a model's classes and a sample's mask and keypoints.

Enter: a model, masks and keypoints. Leave: dicts for the JSON file of COCO.

Each class except 0, the background, is a category with the same id. An image has one annotation per
class that it shows: an RLE mask, its area and its bounding box. The keypoints are one more
annotation per image, in a category of their own, as for persons in COCO. Its box and area are those
of all non-background pixels, or of the keypoints if there is no mask.

Keypoint coordinates differ by 0.5: in COCO the center of the first pixel is (0, 0), in labelmint it
is (0.5, 0.5). A keypoint of low confidence is written as 0, 0, 0 ("not labeled"), the others with
visibility 2 ("visible"), because the heads do not predict occlusion.
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
    """COCO's table of licenses: one entry with all tags, because all apply to every image."""
    if not model.licences:
        return []
    return [{"id": 1, "name": ", ".join(model.licences), "url": ""}]


def categories_from_model(model: Model) -> list[dict[str, Any]]:
    """Categories of the classes, with the ids of masks, and then the category of the keypoints."""
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
    """Id of the keypoints' category: the next one after all classes."""
    return 1 + max((label.id for label in model.classes), default=BACKGROUND)


def annotations_from_mask(mask: Array, model: Model) -> list[dict[str, Any]]:
    """Annotations of a mask, uint8 [H, W]: one per class of the model that occurs in it."""
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
    """The annotation of an image's keypoints: a list of one, or empty if no keypoint is visible.

    Args:
        keypoints: float32 [K, 3]: x, y in label pixels, confidence.
        seen: bool [K]: keypoints that are confident enough; non-finite ones are dropped too.
        scale: image pixels per label pixel, in x and in y.
        mask: uint8 [H, W] at the size of the image, for the bounding box; or None.
        model: the model, for the category.
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
