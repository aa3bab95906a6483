"""Images and latents stay paired, or the set is refused by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from nets.config import GeneratorConfig
from tests.training.sets import SHA, tiny_generator, tiny_images
from training.errors import LabelError
from training.images.image_set import (
    ImageEntry,
    check_generator,
    image_set_from_folder,
    write_image_set,
)
from training.label_crop import LabelCrop, crop_for_generator, images_from_ws


def test_a_set_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    written = tiny_images(tmp_path, crop=LabelCrop(16, 2, 12))
    back = image_set_from_folder(tmp_path)
    np.testing.assert_array_equal(back.ws, written.ws)
    assert back.index == written.index and back.crop == LabelCrop(16, 2, 12)
    expected = images_from_ws(tiny_generator(), written.ws, back.crop)
    for row in range(3):
        np.testing.assert_array_equal(back.image(row), expected[row])
    back.check_files()


def test_images_that_changed_places_are_noticed(tmp_path: Path) -> None:
    images = tiny_images(tmp_path)
    shutil.copy(tmp_path / "images" / "b.png", tmp_path / "images" / "a.png")
    with pytest.raises(LabelError, match=r"a\.png is not the image that row 0"):
        images.check_files()


def test_the_same_pixels_in_another_file_are_the_same_image(tmp_path: Path) -> None:
    images = tiny_images(tmp_path)
    with Image.open(tmp_path / "images" / "b.png") as image:
        image.load()
        image.save(tmp_path / "images" / "b.png", compress_level=0)
    images.check_files()


def test_latents_of_another_set_are_refused(tmp_path: Path) -> None:
    ws = tiny_images(tmp_path).ws
    np.save(tmp_path / "latents.npy", ws[::-1])
    with pytest.raises(LabelError, match=r"latents\.npy is not the array"):
        image_set_from_folder(tmp_path)
    np.save(tmp_path / "latents.npy", ws[:2])
    with pytest.raises(LabelError, match=r"2 rows, .*index\.json lists 3 images"):
        image_set_from_folder(tmp_path)


def test_pickled_latents_are_never_unpickled(tmp_path: Path) -> None:
    tiny_images(tmp_path)
    np.save(tmp_path / "latents.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(LabelError, match=r"latents\.npy"):
        image_set_from_folder(tmp_path)


def test_another_generator_is_refused(tmp_path: Path) -> None:
    images = tiny_images(tmp_path)
    config = tiny_generator().config
    check_generator(images, config, SHA, Path("g"))
    with pytest.raises(LabelError, match=r"SHA-256 0000.*, g has 1111"):
        check_generator(images, config, "1" * 64, Path("g"))
    larger = GeneratorConfig(32, (8, 8, 8, 8), z_dim=8, w_dim=8)
    with pytest.raises(LabelError, match=r"\[6, 8\] per image; this generator reads \[8, 8\]"):
        check_generator(images, larger, SHA, Path("g"))


def test_a_set_is_never_written_over_another(tmp_path: Path) -> None:
    tiny_images(tmp_path)
    with pytest.raises(LabelError, match="holds a set of images already"):
        tiny_images(tmp_path)


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    entries = [ImageEntry(file=name, pixels_sha256="") for name in ("a.png", "a.jpg")]
    ws, pixels = np.zeros((2, 6, 8), np.float32), np.zeros((2, 16, 16, 3), np.uint8)
    with pytest.raises(LabelError, match="two images are called a"):
        write_image_set(tmp_path, ws, pixels, LabelCrop(16, 0, 16), entries, SHA, {})


def test_files_outside_the_folder_are_never_named(tmp_path: Path) -> None:
    tiny_images(tmp_path)
    path = tmp_path / "index.json"
    index = json.loads(path.read_text())
    for name in ("../a.png", "/etc/passwd", "..", ""):
        index["images"][0]["file"] = name
        path.write_text(json.dumps(index))
        with pytest.raises(LabelError, match="is no plain file name"):
            image_set_from_folder(tmp_path)


@pytest.mark.parametrize(
    ("grid", "rows", "start", "message"),
    [
        (32, None, (4, 4), "the grid is 32; it must be from 4 to 16"),
        (16, (4, 20), (4, 4), "the rows are 4:20; they must lie within 0:16"),
        (16, (4, 4), (4, 4), "the rows are 4:4"),
        (16, (4, 9), (2, 4), "the rows are 4:9; they must lie within 0:8"),
        (6, None, (4, 3), r"the grid is 6, .* 6 rows and 4\.5 columns; give a multiple of 4"),
    ],
)
def test_crops_outside_the_image_are_refused(
    grid: int, rows: tuple[int, int] | None, start: tuple[int, int], message: str
) -> None:
    with pytest.raises(Exception, match=message):
        crop_for_generator(GeneratorConfig(16, (8, 8, 8), start=start), grid, rows)


@pytest.mark.parametrize(
    ("resolution", "start", "size"),
    [
        (1024, (4, 4), (512, 512)), (256, (4, 4), (256, 256)), (1024, (4, 2), (512, 256)),
        (512, (8, 5), (512, 320)), (512, (3, 5), (192, 320)),
    ],
)  # fmt: skip
def test_no_side_of_the_default_grid_has_over_512_pixels(
    resolution: int, start: tuple[int, int], size: tuple[int, int]
) -> None:
    blocks = resolution.bit_length() - 2
    config = GeneratorConfig(resolution, (8,) * blocks, start=start)
    crop = crop_for_generator(config)
    assert (crop.size, crop.height, crop.crop_top) == (size, size[0], 0)


def test_an_index_of_square_images_has_no_new_fields(tmp_path: Path) -> None:
    tiny_images(tmp_path / "square")
    index = json.loads((tmp_path / "square" / "index.json").read_text())
    assert list(index) == [
        "format", "generator_sha256", "latents_sha256", "grid", "crop_top", "height", "made",
        "images",
    ]  # fmt: skip
    crop = LabelCrop(16, 2, 12, (4, 2))
    written = tiny_images(tmp_path / "tall", crop=crop)
    assert written.crop == image_set_from_folder(tmp_path / "tall").crop == crop
    assert written.image(0).shape == (12, 8, 3)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["latents.npy", "index.json", "images/a.png"]),
    cut=st.floats(0, 1),
    junk=st.binary(max_size=40),
)
def test_a_mangled_file_never_gives_anything_but_a_label_error(
    tmp_path: Path, name: str, cut: float, junk: bytes
) -> None:
    shutil.rmtree(tmp_path)
    tiny_images(tmp_path)
    path = tmp_path / name
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data))] + junk)
    try:
        image_set_from_folder(tmp_path).check_files()
    except LabelError as error:
        assert "\n" not in str(error).strip()
