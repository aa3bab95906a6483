"""A label file that is wrong is named, in one line, with the value and the limit."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from checkpoints import CardError, write_classes
from tests.training.label_files import OUTLINE, SQUARE, coco, labelme, write_json
from tests.training.sets import CLASSES, tiny_images, tiny_labels
from training.errors import LabelError
from training.labels.labelled_set import LabelPaths, labelled_set
from training.labels.write import write_labels


def broken(name: str, content: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    return write


def png(array: NDArray[np.generic]) -> bytes:
    with io.BytesIO() as stream:
        Image.fromarray(array).save(stream, "PNG")
        return stream.getvalue()


def as_json(content: object) -> bytes:
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            broken("masks/a.png", png(np.full((16, 16), 7, np.uint8))),
            r"a\.png has class id 7; with 3 classes the largest is 2",
        ),
        (
            broken("masks/a.png", png(np.zeros((4, 8), np.uint8))),
            r"a\.png is 8x4 pixels; its image is 16x16",
        ),
        (
            broken("masks/a.png", png(np.full((16, 16, 3), 7, np.uint8))),
            r"a\.png has the color #070707 in 256 pixels, and no class has it \(nearest: low",
        ),
        (
            broken("masks/z.png", png(SQUARE)),
            r"masks has labels of no image of the set \(a, b \.\.\.\); it names z\.png",
        ),
        (
            broken("masks.json", as_json(coco({"category_id": 4, "segmentation": [OUTLINE]}))),
            r"annotation of image 7 and category 4",
        ),
        (
            broken("masks.json", as_json(coco({"category_id": 3, "segmentation": [[1.0, 2.0]]}))),
            r"outline of 2 numbers",
        ),
        (
            broken("masks.json", as_json(coco({"category_id": 3, "segmentation": [[1e30] * 6]}))),
            "coordinates past",
        ),
        (
            broken(
                "masks.json",
                as_json(
                    coco(
                        {"category_id": 3, "segmentation": {"size": [16, 16], "counts": [300, -44]}}
                    )
                ),
            ),
            "do not add up to 256 pixels",
        ),
        (
            broken(
                "masks.json",
                as_json(
                    coco({"category_id": 3, "segmentation": {"size": [16, 16], "counts": "`" * 50}})
                ),
            ),
            "do not add up to 256 pixels",
        ),
        (broken("masks.json", as_json(coco(size=32))), r"masks\.json is 32x32 pixels"),
        (
            broken(
                "labelme/a.json", as_json(labelme(("dog", "polygon", [[1, 1], [2, 2], [3, 1]])))
            ),
            "the label 'dog'; the classes are low, high, corner",
        ),
        (
            broken("labelme/a.json", as_json(labelme(("high", "line", [[1, 1], [2, 2]])))),
            "a shape of type 'line'",
        ),
        (
            broken("labelme/a.json", as_json(labelme(*[("tip", "point", [[1.0, 1.0]])] * 2))),
            "two keypoints 'tip'",
        ),
        (
            broken("labelme/a.json", as_json(labelme(("tip", "point", [])))),
            "a point of 0 points",
        ),
        (
            broken("labelme/a.json", as_json(labelme(("high", "mask", [[9, 9], [12, 12]])))),
            "a mask that is no PNG",
        ),
        (broken("keypoints.json", as_json(coco())), "0 categories with names of keypoints"),
        (broken("depth/a.npy", b"x"), r"depth\.toml cannot be read .* write the line unit"),
    ],
)
def test_a_wrong_file_is_named_with_the_value_and_the_limit(
    tmp_path: Path, write: Callable[[Path], None], message: str
) -> None:
    images = tiny_images(tmp_path)
    write_classes(tmp_path / "classes.toml", CLASSES)
    write(tmp_path)
    with pytest.raises((LabelError, CardError), match=message) as caught:
        labelled_set(images)
    assert "\n" not in str(caught.value)


def test_two_kinds_of_masks_or_none_ask_the_user(tmp_path: Path) -> None:
    images = tiny_images(tmp_path)
    with pytest.raises(LabelError, match="has no labels: masks/"):
        labelled_set(images)
    write_json(tmp_path / "masks.json", coco())
    write_json(tmp_path / "labelme" / "a.json", labelme())
    with pytest.raises(LabelError, match=r"has masks\.json and labelme; choose one with --masks"):
        labelled_set(images)


def test_masks_need_names_of_their_classes(tmp_path: Path) -> None:
    images = tiny_images(tmp_path)
    broken("masks/a.png", png(SQUARE))(tmp_path)
    with pytest.raises(LabelError, match=r"write classes\.toml"):
        labelled_set(images)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(
        [
            "masks/a.png",
            "classes.toml",
            "keypoints.json",
            "depth/a.npy",
            "depth/depth.toml",
            "labelme/a.json",
            "masks.json",
        ]
    ),
    cut=st.floats(0, 1),
    junk=st.binary(max_size=40),
)
def test_a_mangled_file_never_gives_anything_but_a_one_line_error(
    tmp_path_factory: pytest.TempPathFactory, name: str, cut: float, junk: bytes
) -> None:
    folder = tmp_path_factory.mktemp("set")
    images = tiny_images(folder, 4)
    write_labels(folder, tiny_labels())
    write_json(folder / "labelme" / "a.json", labelme(("high", "circle", [[8, 8], [8, 13]])))
    write_json(folder / "masks.json", coco({"category_id": 3, "segmentation": [OUTLINE]}))
    path = folder / name
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data))] + junk)
    masks = {"labelme": "labelme", "masks.json": "masks.json"}.get(name.split("/")[0], "masks")
    try:
        labelled_set(images, LabelPaths(masks=folder / masks))
    except (LabelError, CardError) as error:
        assert "\n" not in str(error).strip()
