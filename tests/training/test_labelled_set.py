"""A labelled set survives the disk exactly, and a broken one says which file is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from training.errors import LabelError
from training.labelled_set import (
    LabelledSet,
    LabelNames,
    labelled_set_from_folder,
    write_labelled_set,
)

NAMES = LabelNames((("background", 0), ("thing", 0xFF8000)), ("a", "b", "c"), ((0, 2), (2, 1)))


def random_set(seed: int = 0, images: int = 3) -> LabelledSet:
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 8, (images, 3, 3)).astype(np.float32)
    points[..., 2] = rng.integers(0, 2, (images, 3))
    points[..., :2] *= points[..., 2:]  # COCO stores nothing of a keypoint that is not labelled
    points[..., :2] += 0.5 * (1 - points[..., 2:])
    return LabelledSet(
        rng.standard_normal((images, 4, 6)).astype(np.float32),
        rng.integers(0, 2, (images, 8, 8), dtype=np.uint8),
        points,
        NAMES,
    )


def test_a_set_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    labels = random_set()
    write_labelled_set(tmp_path, labels)
    back = labelled_set_from_folder(tmp_path)
    np.testing.assert_array_equal(back.ws, labels.ws)
    np.testing.assert_array_equal(back.masks, labels.masks)
    assert back.keypoints is not None and labels.keypoints is not None
    np.testing.assert_allclose(back.keypoints, labels.keypoints, atol=1e-5)
    assert back.names == labels.names


def test_coco_keypoints_count_pixel_centres_at_whole_numbers(tmp_path: Path) -> None:
    write_labelled_set(tmp_path, random_set())
    path = tmp_path / "keypoints.json"
    coco = json.loads(path.read_text())
    coco["annotations"][1]["keypoints"][:3] = [3, 0, 2]  # the centre of column 3, row 0
    path.write_text(json.dumps(coco))
    keypoints = labelled_set_from_folder(tmp_path).keypoints
    assert keypoints is not None
    assert keypoints[1, 0].tolist() == [3.5, 0.5, 1.0]


@pytest.mark.parametrize("name", ["latents.npy", "classes.toml", "mask_01.png"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write_labelled_set(tmp_path, random_set())
    (tmp_path / name).unlink()
    with pytest.raises(LabelError, match=name):
        labelled_set_from_folder(tmp_path)


def test_a_class_id_past_the_list_is_refused_with_both_numbers(tmp_path: Path) -> None:
    write_labelled_set(tmp_path, random_set())
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(tmp_path / "mask_02.png")
    with pytest.raises(LabelError, match=r"mask_02\.png has class id 7; with 2 classes .* is 1"):
        labelled_set_from_folder(tmp_path)


def test_masks_of_another_size_or_mode_are_refused(tmp_path: Path) -> None:
    write_labelled_set(tmp_path, random_set())
    Image.fromarray(np.zeros((4, 8), np.uint8)).save(tmp_path / "mask_02.png")
    with pytest.raises(LabelError, match=r"mask_02\.png is 8x4 pixels"):
        labelled_set_from_folder(tmp_path)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "mask_02.png")
    with pytest.raises(LabelError, match=r"mask_02\.png has mode RGB"):
        labelled_set_from_folder(tmp_path)


def test_an_annotation_that_is_missing_is_refused(tmp_path: Path) -> None:
    write_labelled_set(tmp_path, random_set())
    path = tmp_path / "keypoints.json"
    coco = json.loads(path.read_text())
    del coco["annotations"][1]
    path.write_text(json.dumps(coco))
    with pytest.raises(LabelError, match=r"keypoints\.json .* images 0 to 2"):
        labelled_set_from_folder(tmp_path)


def test_pickled_latents_are_never_unpickled(tmp_path: Path) -> None:
    write_labelled_set(tmp_path, random_set())
    np.save(tmp_path / "latents.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(LabelError, match=r"latents\.npy"):
        labelled_set_from_folder(tmp_path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["latents.npy", "classes.toml", "mask_00.png", "keypoints.json"]),
    cut=st.floats(0, 1),
    junk=st.binary(max_size=40),
)
def test_a_mangled_file_never_gives_anything_but_a_label_error(
    tmp_path: Path, name: str, cut: float, junk: bytes
) -> None:
    write_labelled_set(tmp_path, random_set())
    path = tmp_path / name
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data))] + junk)
    try:
        labelled_set_from_folder(tmp_path)
    except LabelError as error:
        assert "\n" not in str(error).strip() or name == "classes.toml"
