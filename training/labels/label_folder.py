"""The folder that labels are kept in: masks/ of class ids, classes.toml, keypoints.json.

Labels of any format are imported into it, and converted to any other from it, one image at a time.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from checkpoints import Classes, classes_from_file, replaced_file, write_classes, write_text
from training.errors import LabelError
from training.images.image_set import IMAGES, INDEX, image_set_from_folder
from training.images.photos import pictures_of_folder
from training.images.picture_files import opened_picture
from training.labels.annotations import ReadingRules, Source, is_background
from training.labels.coco import source_from_coco
from training.labels.png import Palette, mask_from_file, source_from_png
from training.labels.reading import DEFAULT_IGNORE_ID, ignore_id_of, reading_from_source
from training.labels.scaling import LabelSizes, sizes_by_stem
from training.labels.table import LabelCounts

MASKS, CLASSES, KEYPOINTS = "masks", "classes.toml", "keypoints.json"
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


@dataclass(frozen=True)
class Pictures:
    """The images that labels are of: a set, or any folder of pictures."""

    folder: Path  # of the files
    files: Mapping[str, str]  # stem -> file name, sorted by stem
    sizes: Mapping[str, LabelSizes]


@dataclass(frozen=True)
class LabelFolder:
    """Labels on disk, read one image at a time."""

    pictures: Pictures
    classes: Classes | None  # None: without masks
    ignore_id: int
    keypoint_names: tuple[str, ...]  # empty: without keypoints
    skeleton: tuple[tuple[int, int], ...]
    points: Mapping[str, NDArray[np.float32]]  # [K, 3] by stem, as in LabelledSet
    masks: Mapping[str, Path]  # by stem

    @property
    def stems(self) -> list[str]:
        """Stems of the images that have a label."""
        return [stem for stem in self.pictures.files if stem in self.masks or stem in self.points]

    def mask(self, stem: str) -> NDArray[np.uint8] | None:
        """Class ids [H, W] of an image; None without."""
        if stem not in self.masks or self.classes is None:
            return None
        sizes = self.pictures.sizes[stem]
        return mask_from_file(self.masks[stem], Palette(_with_ignored(self.classes)), sizes)

    def regions(self, stem: str) -> list[tuple[str, NDArray[np.bool_]]]:
        """Class and region, bool [H, W], of every class of an image but a background; ignored
        pixels are called __ignore__."""
        mask = self.mask(stem)
        if mask is None or self.classes is None:
            return []
        names = {i: card.name for i, card in enumerate(self.classes.cards)}
        if is_background(names[0]):
            del names[0]
        names[self.ignore_id] = "__ignore__"
        return [(names[i], mask == i) for i in np.unique(mask).tolist() if i in names]

    def labels(self) -> list[tuple[str, int]]:
        """Name and color of each class that `regions` may name, without __ignore__."""
        cards = [] if self.classes is None else self.classes.cards
        skip = bool(cards) and is_background(cards[0].name)
        return [(card.name, card.color) for card in cards[skip:]]


def pictures_from_folder(folder: Path) -> Pictures:
    """The images of a set, or the pictures of a folder with the sizes that viewers show, turned by
    EXIF. Raises LabelError."""
    if (folder / INDEX).exists():
        images = image_set_from_folder(folder)
        files = {Path(e.file).stem: e.file for e in images.index.images}
        return Pictures(folder / IMAGES, files, sizes_by_stem(images))
    paths, _ = pictures_of_folder(folder)
    sizes = {}
    for path in paths:
        with opened_picture(path) as image:
            size = image.size if image.getexif().get(0x0112) in TURNED else image.size[::-1]
        sizes[path.stem] = LabelSizes(*size, None)
    return Pictures(folder, {path.stem: path.name for path in paths}, sizes)


def import_labels(
    sources: Sequence[Source],
    pictures: Pictures,
    classes: Classes | None,
    rules: ReadingRules,
    out: Path,
) -> tuple[LabelCounts, int, tuple[str, ...]]:
    """Reads sources and writes the folder: counts, number of labeled images, notes.

    Raises LabelError.
    """
    several = len(sources) > 1
    readings = [
        reading_from_source(source, pictures.sizes, classes, rules, may_be_empty=several)
        for source in sources
    ]
    with_masks = [reading for reading in readings if reading.classes is not None]
    with_points = [reading for reading in readings if reading.keypoint_names]
    notes = [note for reading in readings for note in reading.notes]
    if len(with_masks) > 1:
        paths = " and ".join(str(source.path) for source in sources)
        raise LabelError(f"{paths} all have masks; import one at a time")
    if len(with_points) > 1:
        notes.append(
            f"the keypoints of {sources[0].path} are not read: {sources[-1].path} has some"
        )
        with_points = with_points[-1:]
    counts = LabelCounts(None, DEFAULT_IGNORE_ID)
    points: dict[str, NDArray[np.float32]] = {}
    out.mkdir(parents=True, exist_ok=True)
    if with_masks and with_masks[0].classes is not None:
        found_classes, ignore_id = with_masks[0].classes, with_masks[0].ignore_id
        counts = LabelCounts(found_classes, ignore_id)
        (out / MASKS).mkdir(exist_ok=True)
        write_classes(out / CLASSES, Classes(found_classes.cards, ignore_id))
    if with_points:
        counts.keypoint_names = with_points[0].keypoint_names
    labelled = set()
    for reading in readings:
        for image in reading.images():
            if image.mask is not None:
                counts.add_mask(image.mask)
                with replaced_file(out / MASKS / f"{image.stem}.png") as partial:
                    Image.fromarray(image.mask).save(partial, "png")
                labelled.add(image.stem)
            if image.points is not None and reading in with_points:
                counts.add_points(image.points)
                points[image.stem] = image.points
                labelled.add(image.stem)
    if points:
        reading = with_points[0]
        write_text(
            out / KEYPOINTS,
            text_of_keypoints(pictures, points, reading.keypoint_names, reading.skeleton),
        )
    return counts, len(labelled), tuple(notes)


def sources_of_folder(folder: Path, classes: Classes | None) -> list[Source]:
    """masks/ (or PNG in the folder itself) and keypoints.json of a folder. Raises LabelError."""
    sources = []
    masks = folder / MASKS if (folder / MASKS).is_dir() else folder
    if masks != folder or not (folder / KEYPOINTS).exists():
        if classes is None:
            classes = classes_from_file(folder / CLASSES)
        sources.append(source_from_png(masks, Palette(classes)))
    if (folder / KEYPOINTS).exists():
        sources.append(source_from_coco(folder / KEYPOINTS, ReadingRules(), "keypoints"))
    return sources


def label_folder(folder: Path, pictures: Pictures) -> LabelFolder:
    """Reads a folder as `import_labels` writes it; masks stay on disk. Raises LabelError."""
    classes, masks = None, {}
    if (folder / MASKS).is_dir():
        classes = classes_from_file(folder / CLASSES)
        masks = {p.stem: p for p in (folder / MASKS).glob("*.png") if p.stem in pictures.files}
    points: dict[str, NDArray[np.float32]] = {}
    names: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    if (folder / KEYPOINTS).exists():
        rules = ReadingRules()
        source = source_from_coco(folder / KEYPOINTS, rules, "keypoints")
        reading = reading_from_source(source, pictures.sizes, None, rules, may_be_empty=True)
        names, skeleton = source.keypoint_names or (), source.skeleton
        points = {i.stem: i.points for i in reading.images() if i.points is not None}
    return LabelFolder(
        pictures,
        classes,
        DEFAULT_IGNORE_ID if classes is None else ignore_id_of(classes),
        names,
        skeleton,
        points,
        masks,
    )


def text_of_keypoints(
    pictures: Pictures,
    points: Mapping[str, NDArray[np.float32]],
    names: Sequence[str],
    skeleton: Sequence[tuple[int, int]],
) -> str:
    """keypoints.json: COCO with one annotation per image with keypoints; COCO puts pixel centers at
    whole numbers."""
    ids = {stem: number for number, stem in enumerate(pictures.files)}
    content = {
        "images": [
            {
                "id": ids[stem],
                "file_name": name,
                "height": pictures.sizes[stem].height,
                "width": pictures.sizes[stem].width,
            }
            for stem, name in pictures.files.items()
        ],
        "categories": [
            {
                "id": 1,
                "name": "object",
                "keypoints": list(names),
                "skeleton": [[a + 1, b + 1] for a, b in skeleton],  # COCO counts from 1
            }
        ],
        "annotations": [
            {
                "id": number,
                "image_id": ids[stem],
                "category_id": 1,
                "num_keypoints": int((row[:, 2] > 0).sum()),
                "keypoints": coco_row(row),
            }
            for number, (stem, row) in enumerate(sorted(points.items()), 1)
        ],
    }
    return json.dumps(content, indent=1) + "\n"


def coco_row(points: NDArray[np.float32]) -> list[float]:
    """[K, 3] -> x, y, v of each keypoint, as COCO lists them."""
    return [
        value
        for x, y, visible in points.tolist()
        for value in ((x - 0.5, y - 0.5, 2) if visible > 0 else (0, 0, 0))
    ]


def _with_ignored(classes: Classes) -> Classes:
    return Classes(classes.cards, ignore_id_of(classes))
