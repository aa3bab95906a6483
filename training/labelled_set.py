"""A folder of labelled images: latents.npy, mask_00.png ..., classes.toml, keypoints.json (COCO).

Row i of latents.npy is the w+ of image i; the number in every file name is that row.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.errors import LabelError


@dataclass(frozen=True)
class LabelNames:
    """What the numbers in the labels mean."""

    classes: tuple[tuple[str, int], ...]  # name and colour 0xRRGGBB, by class id
    keypoints: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()  # positions in keypoints


@dataclass(frozen=True)
class LabelledSet:
    """Labels of n images and the latents that make the images again."""

    ws: NDArray[np.float32]  # [n, num_ws, w_dim]
    masks: NDArray[np.uint8]  # [n, H, W], class ids
    keypoints: NDArray[np.float32] | None  # [n, K, 3]: x, y in pixels (centres +0.5), visible 0/1
    names: LabelNames

    def __len__(self) -> int:
        return len(self.ws)


class ClassEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row of classes.toml; the class id is its position."""

    name: str
    color: str  # "#rrggbb"


class ClassFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """classes.toml."""

    classes: list[ClassEntry]


def write_labelled_set(folder: Path, labels: LabelledSet) -> None:
    """Writes the set; the images themselves are whoever draws them to add."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "latents.npy", labels.ws)
    entries = [ClassEntry(name, f"#{color:06x}") for name, color in labels.names.classes]
    (folder / "classes.toml").write_bytes(msgspec.toml.encode(ClassFile(entries)))
    for i, mask in enumerate(labels.masks):
        Image.fromarray(mask).save(folder / f"mask_{i:02d}.png")
    if labels.keypoints is not None:
        coco = coco_from_keypoints(labels.keypoints, labels.masks.shape[1:], labels.names)
        (folder / "keypoints.json").write_text(json.dumps(coco, indent=1) + "\n")


def coco_from_keypoints(
    keypoints: NDArray[np.float32], size: tuple[int, ...], names: LabelNames
) -> dict[str, object]:
    """One annotation per image. COCO counts pixel centres at whole numbers, we at +0.5."""
    height, width = size
    return {
        "images": [
            {"id": i, "file_name": f"image_{i:02d}.png", "height": height, "width": width}
            for i in range(len(keypoints))
        ],
        "categories": [
            {
                "id": 1,
                "name": "object",
                "keypoints": list(names.keypoints),
                "skeleton": [[a + 1, b + 1] for a, b in names.skeleton],  # COCO counts from 1
            }
        ],
        "annotations": [
            {
                "id": i + 1,
                "image_id": i,
                "category_id": 1,
                "num_keypoints": int((points[:, 2] > 0).sum()),
                "keypoints": [
                    value
                    for x, y, visible in points.tolist()
                    for value in ((x - 0.5, y - 0.5, 2) if visible > 0 else (0, 0, 0))
                ],
            }
            for i, points in enumerate(keypoints)
        ],
    }


def labelled_set_from_folder(folder: Path) -> LabelledSet:
    """Reads and checks a set. Raises LabelError naming the file and what is wrong with it."""
    ws = _latents(folder / "latents.npy")
    classes = _classes(folder / "classes.toml")
    masks = [_mask(folder / f"mask_{i:02d}.png", len(classes)) for i in range(len(ws))]
    for i, mask in enumerate(masks):
        if mask.shape != masks[0].shape:
            raise LabelError(
                f"{folder / f'mask_{i:02d}.png'} is {mask.shape[1]}x{mask.shape[0]} pixels, "
                f"mask_00.png is {masks[0].shape[1]}x{masks[0].shape[0]}; all must be alike"
            )
    coco = folder / "keypoints.json"
    if not coco.exists():
        return LabelledSet(ws, np.stack(masks), None, LabelNames(classes))
    keypoints, names, skeleton = _keypoints(coco, len(ws))
    return LabelledSet(ws, np.stack(masks), keypoints, LabelNames(classes, names, skeleton))


def _latents(path: Path) -> NDArray[np.float32]:
    try:
        ws = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise LabelError(f"{path} cannot be read as a numpy array: {error}") from error
    if not isinstance(ws, np.ndarray) or ws.ndim != 3 or ws.shape[0] == 0 or ws.dtype.kind != "f":
        raise LabelError(f"{path} must hold floats [n, num_ws, w_dim] with n of at least 1")
    if not np.isfinite(ws).all():
        raise LabelError(f"{path} holds values that are not finite")
    return ws.astype(np.float32)


def _classes(path: Path) -> tuple[tuple[str, int], ...]:
    try:
        entries = msgspec.toml.decode(path.read_bytes(), type=ClassFile).classes
        classes = tuple((entry.name, int(entry.color.removeprefix("#"), 16)) for entry in entries)
    except (OSError, ValueError) as error:
        raise LabelError(
            f"{path} is no list of [[classes]] with name and color: {error}"
        ) from error
    if not 2 <= len(classes) <= 256:
        raise LabelError(f"{path} lists {len(classes)} classes; there must be 2 to 256")
    return classes


def _mask(path: Path, num_classes: int) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            mode, mask = image.mode, np.array(image)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise LabelError(f"{path} cannot be read as an image: {error}") from error
    if mode not in ("L", "P"):
        raise LabelError(f"{path} has mode {mode}; masks are 8-bit index images (mode L or P)")
    if mask.max() >= num_classes:
        raise LabelError(
            f"{path} has class id {mask.max()}; with {num_classes} classes the largest is "
            f"{num_classes - 1}"
        )
    return mask.astype(np.uint8)


def _keypoints(
    path: Path, count: int
) -> tuple[NDArray[np.float32], tuple[str, ...], tuple[tuple[int, int], ...]]:
    try:
        coco = json.loads(path.read_text())
        category = coco["categories"][0]
        names = tuple(str(name) for name in category["keypoints"])
        skeleton = tuple((int(a) - 1, int(b) - 1) for a, b in category.get("skeleton", []))
        rows = {a["image_id"]: a["keypoints"] for a in coco["annotations"]}
        points = np.array([rows[i] for i in range(count)], dtype=np.float32)
        points = points.reshape(count, len(names), 3)
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise LabelError(
            f"{path} is no COCO keypoint file with one annotation for each of images "
            f"0 to {count - 1}: {error!r}"
        ) from error
    if not all(0 <= end < len(names) for edge in skeleton for end in edge):
        raise LabelError(f"{path}: the skeleton names a keypoint outside 1 to {len(names)}")
    if not np.isfinite(points).all():
        raise LabelError(f"{path} holds coordinates that are not finite")
    points[..., :2] += 0.5
    points[..., 2] = points[..., 2] > 0
    return points, names, skeleton
