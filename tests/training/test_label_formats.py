"""Labels that go out in a tool's format come in again as they were."""

import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO
from scipy.ndimage import gaussian_filter

from checkpoints import Classes, classes_from_names, write_classes, write_text
from labelmint.datasets.outlines import outlines_from_mask
from labelmint.datasets.run_lengths import brush_from_mask
from training.errors import LabelError
from training.labels.annotations import ReadingRules
from training.labels.brush import mask_from_brush
from training.labels.formats import Format, sources_from_path, write_labels_as
from training.labels.label_folder import (
    LabelFolder,
    Pictures,
    import_labels,
    label_folder,
    text_of_keypoints,
)
from training.labels.polygons import counts_from_text, mask_from_counts, mask_from_polygons
from training.labels.scaling import LabelSizes
from training.labels.writers.yolo import write_yolo

FORMATS: tuple[Format, ...] = ("cvat", "labelstudio", "roboflow", "labelme", "coco", "yolo")
CLASSES = Classes(classes_from_names(["background", "ear", "left eye"]).cards, 255)
NAMES, SKELETON = ("tip", "toe"), ((0, 1),)


def size_of(mask: NDArray[np.generic]) -> LabelSizes:
    height, width = mask.shape
    return LabelSizes(height, width, None)


def folder_of(
    root: Path, masks: dict[str, NDArray[np.uint8]], points: dict[str, NDArray[np.float32]]
) -> LabelFolder:
    files = {stem: f"{stem}.png" for stem in sorted(masks | points)}
    sizes = {stem: size_of(masks[stem]) for stem in files}
    (root / "masks").mkdir(parents=True)
    for stem, mask in masks.items():
        Image.fromarray(mask).save(root / "masks" / f"{stem}.png")
    pictures = Pictures(root, files, sizes)
    write_classes(root / "classes.toml", CLASSES)
    if points:
        text = text_of_keypoints(pictures, points, NAMES, SKELETON)
        write_text(root / "keypoints.json", text)
    return label_folder(root, pictures)


def there_and_back(name: Format, labels: LabelFolder, root: Path) -> LabelFolder:
    write_labels_as(name, labels, root / name)
    sources = sources_from_path(name, root / name, None, ReadingRules())
    import_labels(sources, labels.pictures, CLASSES, ReadingRules(), root / "back")
    return label_folder(root / "back", labels.pictures)


def blobs(seed: int, size: int) -> NDArray[np.uint8]:
    """Regions as people draw them: smooth, in several parts, with holes."""
    noise = np.random.default_rng(seed).standard_normal((3, size, size))
    smooth = gaussian_filter(noise, (0, size / 24, size / 24))
    drawn: NDArray[np.uint8] = np.argmax(smooth, axis=0).astype(np.uint8)
    return drawn


@pytest.mark.parametrize("name", FORMATS)
def test_masks_and_keypoints_come_back_from_each_format(name: Format, tmp_path: Path) -> None:
    masks = {"a": blobs(1, 64), "b": blobs(2, 40)}
    masks["a"][:3, :5] = 255
    points = {
        "a": np.array([[3.25, 60.5, 1], [0, 0, 0]], np.float32),
        "b": np.array([[0.5, 0.5, 1], [39.75, 20, 1]], np.float32),
    }
    labels = folder_of(tmp_path / "ours", masks, points)
    back = there_and_back(name, labels, tmp_path)
    assert back.classes is not None and back.classes.cards == CLASSES.cards
    assert back.stems == ["a", "b"] and back.keypoint_names == NAMES
    for stem in back.stems:
        np.testing.assert_array_equal(back.mask(stem), masks[stem])
        np.testing.assert_allclose(back.points[stem], points[stem], atol=1e-3)
    assert name not in ("coco", "roboflow") or back.skeleton == SKELETON


MASKS = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 1, 2, 255]))
)


def check_round_trip(name: Format, mask: NDArray[np.uint8]) -> None:
    mask[0, 0] = mask[0, 0] or 1  # an image without any region is one that nobody labeled
    with tempfile.TemporaryDirectory() as made:
        labels = folder_of(Path(made) / "ours", {"a": mask}, {"a": np.ones((2, 3), np.float32)})
        back = there_and_back(name, labels, Path(made))
        np.testing.assert_array_equal(back.mask("a"), mask)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=4)
@given(mask=MASKS)
def test_random_masks_come_back_pixel_for_pixel(name: Format, mask: NDArray[np.uint8]) -> None:
    check_round_trip(name, mask)


@pytest.mark.long
@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=50)
@given(mask=MASKS)
def test_many_random_masks_come_back_pixel_for_pixel(name: Format, mask: NDArray[np.uint8]) -> None:
    check_round_trip(name, mask)


def check_mangled(name: Format, cut: float, junk: bytes, keep: bool) -> None:
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        mask = np.arange(64, dtype=np.uint8).reshape(8, 8) // 32 + 1
        labels = folder_of(root / "ours", {"a": mask}, {"a": np.ones((2, 3), np.float32)})
        write_labels_as(name, labels, root / name)
        files = sorted(p for p in (root / name).rglob("*") if p.is_file())
        path = files[int(cut * 1000) % len(files)]
        data, at = path.read_bytes(), int(cut * len(path.read_bytes()))
        path.write_bytes(data[:at] + junk + data[at + len(junk) :] * keep)
        try:
            sources = sources_from_path(name, root / name, None, ReadingRules())
            import_labels(sources, labels.pictures, None, ReadingRules(), root / "back")
        except LabelError as error:
            assert "\n" not in str(error) and str(root / name) in str(error)


MANGLED = {"cut": st.floats(0, 1, exclude_max=True), "junk": st.binary(max_size=9)}


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=8)
@given(**MANGLED, keep=st.booleans())
def test_a_mangled_file_is_read_or_named_in_one_line(
    name: Format, cut: float, junk: bytes, keep: bool
) -> None:
    check_mangled(name, cut, junk, keep)


@pytest.mark.long
@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=50)
@given(**MANGLED, keep=st.booleans())
def test_many_mangled_files_are_read_or_named_in_one_line(
    name: Format, cut: float, junk: bytes, keep: bool
) -> None:
    check_mangled(name, cut, junk, keep)


@given(arrays(np.bool_, st.tuples(st.integers(1, 20), st.integers(1, 20))))
def test_outlines_with_cuts_to_their_holes_fill_the_mask_exactly(mask: NDArray[np.bool_]) -> None:
    outlines = [outline.ravel().tolist() for outline in outlines_from_mask(mask)]
    sizes = size_of(mask)
    drawn = mask_from_polygons("x", outlines, mask.shape, sizes) if outlines else mask & False
    np.testing.assert_array_equal(drawn, mask)


@given(arrays(np.bool_, st.tuples(st.integers(1, 20), st.integers(1, 20))))
def test_outlines_cut_off_to_whole_pixels_draw_the_mask_with_their_border(
    mask: NDArray[np.bool_],
) -> None:
    """As OpenCV does for Ultralytics: what lies inside by the even-odd rule, and the border."""
    drawn = np.zeros(mask.shape, bool)
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    for outline in outlines_from_mask(mask):
        corners = outline.astype(int)
        crossed = np.zeros(mask.shape, int)  # edges to the right of each pixel
        for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            assert x0 == x1 or y0 == y1
            low, high = sorted((y0, y1))
            drawn |= (x >= min(x0, x1)) & (x <= max(x0, x1)) & (y >= low) & (y <= high)
            crossed += (low <= y) & (y < high) & (x < x0)
        drawn |= crossed % 2 == 1
    np.testing.assert_array_equal(drawn, mask)


def test_parts_that_touch_at_a_corner_alone_are_two_outlines() -> None:
    assert len(outlines_from_mask(np.eye(2, dtype=bool))) == 2


@given(arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_brush_strokes_come_back(mask: NDArray[np.bool_]) -> None:
    np.testing.assert_array_equal(mask_from_brush("x", brush_from_mask(mask), mask.shape), mask)


def test_only_the_alpha_of_a_brush_stroke_counts_also_in_values_without_runs() -> None:
    alpha = np.array([[0, 255, 127], [128, 1, 200]], np.uint8)
    values = np.dstack([np.full((2, 3, 3), 250, np.uint8), alpha]).ravel()
    head = f"{values.size:032b}" + f"{7:05b}" + f"{7:04b}" * 4 + "000" + f"{values.size - 1:08b}"
    bits = head + "".join(f"{value:08b}" for value in values)
    bits += "0" * (-len(bits) % 8)
    packed = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    np.testing.assert_array_equal(mask_from_brush("x", packed, (2, 3)), alpha >= 128)


def test_pycocotools_reads_what_is_written(tmp_path: Path) -> None:
    mask = blobs(3, 40)
    points = np.array([[3.25, 30.5, 1], [0, 0, 0]], np.float32)
    labels = folder_of(tmp_path / "ours", {"a": mask}, {"a": points})
    write_labels_as("roboflow", labels, tmp_path / "out")
    file: Any = COCO(str(tmp_path / "out" / "_annotations.coco.json"))
    for name, value in (("ear", 1), ("left eye", 2)):
        (annotation,) = file.loadAnns(file.getAnnIds(catIds=file.getCatIds(catNms=[name])))
        counts = counts_from_text(file.annToRLE(annotation)["counts"])
        drawn = mask_from_counts("x", counts, mask.shape)
        np.testing.assert_array_equal(drawn, mask == value)
        assert annotation["area"] == (mask == value).sum() and not annotation["iscrowd"]
    (annotation,) = file.loadAnns(file.getAnnIds(catIds=file.getCatIds(catNms=["object"])))
    assert annotation["keypoints"] == [2.75, 30, 2, 0, 0, 0]


@pytest.mark.long
@pytest.mark.parametrize("name", ["masks", "cvat", "labelme", "yolo"])
def test_memory_does_not_grow_with_the_number_of_images(name: Format, tmp_path: Path) -> None:
    peaks = []
    for count in (10, 60):
        masks = {f"{i:03}": blobs(i, 48) for i in range(count)}
        labels = folder_of(tmp_path / str(count), masks, {})
        path = tmp_path / str(count)
        if name != "masks":
            path = tmp_path / f"{name}{count}"
            write_labels_as(name, labels, path)
        tracemalloc.start()
        sources = sources_from_path(name, path, None, ReadingRules())
        import_labels(sources, labels.pictures, None, ReadingRules(), tmp_path / f"out{count}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 50 * 48 * 48  # far below the masks, let alone their files


def test_yolo_places_hold_wherever_ultralytics_is_started(tmp_path: Path) -> None:
    """It takes a `path` of "." as its own folder, and none as that of data.yaml."""
    labels = folder_of(
        tmp_path / "ours", {"a": np.ones((4, 4), np.uint8)}, {"a": np.ones((2, 3), np.float32)}
    )
    write_yolo(tmp_path / "yolo", labels)
    for name in ("segment", "pose"):
        data = yaml.safe_load((tmp_path / "yolo" / name / "data.yaml").read_text())
        assert "path" not in data and data["train"] == "images/train"
