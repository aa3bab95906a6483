"""Pictures become the crop's pixels upright and by their names, or a line says which cannot."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from training.errors import TrainingError
from training.images.photos import cropped_picture, real_images_from_folder
from training.label_crop import LabelCrop

CROP = LabelCrop(grid=16, crop_top=2, height=12)


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def test_pictures_come_in_order_by_stem_and_others_are_named(tmp_path: Path) -> None:
    for name, size in (("b.png", (12, 16)), ("a.jpg", (24, 32)), ("c.BMP", (48, 64))):
        noise(*size).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    real = real_images_from_folder(tmp_path, CROP)
    assert real.names == ["a.png", "b.png", "c.png"] and real.ignored == ["notes.txt"]
    assert real.sizes == [(24, 32), (12, 16), (48, 64)]
    assert real.pixels.shape == (3, 12, 16, 3) and real.pixels.dtype == np.uint8
    assert np.array_equal(real.pixels[1], np.array(noise(12, 16)))


def test_pictures_are_averaged_over_area(tmp_path: Path) -> None:
    noise(36, 48).save(tmp_path / "a.png")
    found, _ = cropped_picture(tmp_path / "a.png", CROP)
    mean = np.array(noise(36, 48)).reshape(12, 3, 16, 3, 3).mean(axis=(1, 3))
    assert np.abs(found - mean).max() <= 1  # Pillow rounds twice


def test_small_pictures_are_enlarged(tmp_path: Path) -> None:
    noise(6, 8).save(tmp_path / "a.png")
    assert cropped_picture(tmp_path / "a.png", CROP)[0].shape == (12, 16, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_respected(tmp_path: Path, orientation: int) -> None:
    upright = noise(12, 16)
    undone = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright if orientation == 1 else upright.transpose(undone[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    found, size = cropped_picture(tmp_path / "a.png", CROP)
    assert np.array_equal(found, np.array(upright)) and size == (12, 16)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_of_eight_bits_is_read(tmp_path: Path, mode: str) -> None:
    noise(12, 16).convert(mode).save(tmp_path / "a.tif")
    assert cropped_picture(tmp_path / "a.tif", CROP)[0].shape == (12, 16, 3)


@pytest.mark.parametrize(
    ("width", "height", "fits"),
    [(1600, 1200, True), (1023, 767, True), (1023, 768, True), (1000, 740, False), (12, 16, False)],
)
def test_the_shape_must_be_the_crops_but_for_rounding(
    tmp_path: Path, width: int, height: int, fits: bool
) -> None:
    path = tmp_path / "a.png"
    noise(height, width).save(path)
    if fits:
        assert cropped_picture(path, CROP)[1] == (height, width)
        return
    with pytest.raises(TrainingError) as caught:
        cropped_picture(path, CROP)
    message = str(caught.value)
    assert str(path) in message and f"is {width}x{height} pixels; crop it to 16:12" in message
    advised = [int(n) for n in message.rsplit(" e.g. ", 1)[1].split("x")]
    assert advised[0] <= width and advised[1] <= height
    noise(advised[1], advised[0]).save(path)
    assert cropped_picture(path, CROP)[1] == tuple(advised[::-1])


def test_pictures_that_hold_more_than_colors_of_eight_bits_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.full((12, 16), np.nan, np.float32)).save(path)
    with pytest.raises(TrainingError, match=r"a\.tif has mode F; save it with eight bits"):
        cropped_picture(path, CROP)
    Image.fromarray(np.full((12, 16), 40000, np.uint16)).save(path)
    with pytest.raises(TrainingError, match=r"a\.tif has mode I;16"):
        cropped_picture(path, CROP)
    Image.new("RGBA", (16, 12), (1, 2, 3, 128)).save(path)
    with pytest.raises(TrainingError, match=r"a\.tif has transparent pixels"):
        cropped_picture(path, CROP)


def test_folders_that_cannot_be_used_are_refused_in_one_line(tmp_path: Path) -> None:
    def refused(folder: Path) -> str:
        with pytest.raises(TrainingError) as caught:
            real_images_from_folder(folder, CROP)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "absent cannot be read (No such file" in refused(tmp_path / "absent")
    assert "holds no pictures" in refused(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    assert "a.png cannot be read as an image" in refused(tmp_path)
    noise(12, 16).save(tmp_path / "a.png")
    noise(12, 16).save(tmp_path / "a.jpg")
    assert "a.jpg and" in refused(tmp_path) and "have one name" in refused(tmp_path)


def picture_bytes(kind: str) -> bytes:
    stream = io.BytesIO()
    noise(12, 16).save(stream, kind)
    return stream.getvalue()


PICTURES = [picture_bytes(kind) for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP")]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    which=st.integers(0, len(PICTURES) - 1),
    cut=st.integers(0, 2000),
    flips=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6),
)
def test_any_broken_file_gives_a_picture_or_one_line(
    tmp_path: Path, which: int, cut: int, flips: list[tuple[int, int]]
) -> None:
    data = bytearray(PICTURES[which])
    for position, value in flips:
        data[position % len(data)] = value
    path = tmp_path / "a.img"
    path.write_bytes(bytes(data[: max(1, len(data) - cut)]) if cut < len(data) else b"")
    try:
        assert cropped_picture(path, CROP)[0].shape == (12, 16, 3)
    except TrainingError as error:
        assert str(path) in str(error) and "\n" not in str(error)
