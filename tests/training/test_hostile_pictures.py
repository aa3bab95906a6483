"""Pictures and arrays of somebody else: no other program decodes them, no memory beyond what a set
can need is taken, and what is wrong is one line."""

import base64
import io
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from checkpoints import write_classes
from tests.training.label_files import write_json
from tests.training.sets import CLASSES, tiny_images
from training.errors import LabelError, TrainingError
from training.images.image_set import image_set_from_folder
from training.images.photos import pictures_of_folder, upright_picture
from training.images.picture_files import array_from_npy, opened_picture
from training.labels.annotations import ReadingRules
from training.labels.formats import sources_from_path
from training.labels.label_folder import import_labels, pictures_from_folder
from training.labels.labelled_set import labelled_set

SIDE = 13_000  # pixels: 0.6 GB as int32, more as the int64 of class ids
EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 16 16
%%EndComments
(/tmp/written-by-a-picture) (w) file closefile
showpage
"""


def bomb(side: int = SIDE, depth: int = 8, color: int = 0) -> bytes:
    """A PNG that says it has side x side pixels, and has none: to decode it fails in another way
    than to look at its size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", side, side, depth, color, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body


def as_mask(folder: Path, data: bytes) -> None:
    (folder / "masks").mkdir()
    (folder / "masks" / "a.png").write_bytes(data)
    write_classes(folder / "classes.toml", CLASSES)
    labelled_set(image_set_from_folder(folder))


def as_depth(folder: Path, data: bytes) -> None:
    (folder / "depth").mkdir()
    (folder / "depth" / "a.png").write_bytes(data)
    (folder / "depth" / "depth.toml").write_text('unit = "m"\npng_scale = 0.001\n')
    labelled_set(image_set_from_folder(folder))


def as_image(folder: Path, data: bytes) -> None:
    (folder / "images" / "a.png").write_bytes(data)
    image_set_from_folder(folder).check_files()


def as_brush_of_labelme(folder: Path, data: bytes) -> None:
    shape = {"label": "high", "shape_type": "mask", "points": [[0, 0], [9, 9]]}
    content = {"shapes": [{**shape, "mask": base64.b64encode(data).decode()}]}
    write_json(folder / "labelme" / "a.json", {**content, "imageHeight": 16, "imageWidth": 16})
    labelled_set(image_set_from_folder(folder))


def as_brush_of_label_studio(folder: Path, data: bytes) -> None:
    tool = folder / "tool"
    tool.mkdir()
    (tool / "task-1-annotation-1-by-1-tag-high-0.png").write_bytes(data)
    write_json(tool / "tasks.json", [{"id": 1, "image": "a.png"}])
    rules = ReadingRules()
    sources = sources_from_path("labelstudio", tool, None, rules)
    import_labels(sources, pictures_from_folder(folder), None, rules, folder / "out")


WAYS = [as_mask, as_depth, as_image, as_brush_of_labelme, as_brush_of_label_studio]


@pytest.mark.parametrize("way", WAYS)
def test_a_picture_of_another_size_is_refused_before_it_is_decoded(
    tmp_path: Path, way: Callable[[Path, bytes], None]
) -> None:
    tiny_images(tmp_path)
    depth = 16 if way is as_depth else 8
    with pytest.raises(LabelError, match=rf"{SIDE}x{SIDE} pixels|reaches past the image") as found:
        way(tmp_path, bomb(depth=depth))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("way", WAYS)
def test_no_picture_is_given_to_another_program(
    tmp_path: Path, way: Callable[[Path, bytes], None]
) -> None:
    """Pillow gives EPS to Ghostscript, whatever the file's name ends with."""
    tiny_images(tmp_path)
    with pytest.raises(LabelError, match=r"it is none of AVIF, BMP, .*PNG"):
        way(tmp_path, EPS)


def test_photographs_are_of_formats_that_cameras_and_browsers_write(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "b.eps").write_bytes(EPS)
    paths, ignored = pictures_of_folder(tmp_path)
    assert ([path.name for path in paths], ignored) == (["a.jpg"], ["b.eps"])
    (tmp_path / "c.jpg").write_bytes(EPS)
    with pytest.raises(TrainingError, match=r"c\.jpg cannot be read .* none of"):
        upright_picture(tmp_path / "c.jpg")


@pytest.mark.parametrize("name", ["masks/a.png", "images/a.png", "latents.npy", "index.json"])
def test_a_file_that_never_ends_is_refused_at_once(tmp_path: Path, name: str) -> None:
    tiny_images(tmp_path)
    (tmp_path / "masks").mkdir()
    write_classes(tmp_path / "classes.toml", CLASSES)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(LabelError, match="not a regular file"):
        images = image_set_from_folder(tmp_path)
        images.check_files()
        labelled_set(images)


def test_damaged_pictures_of_every_format_are_one_line() -> None:
    draws = random.Random(4)
    pixels = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    seeds = []
    for kind, options in (
        ("PNG", {"exif": turned}), ("BMP", {}), ("GIF", {}), ("TIFF", {}), ("PPM", {}),
        ("TIFF", {"compression": "tiff_lzw"}), ("JPEG", {"exif": turned}), ("JPEG2000", {}),
        ("WEBP", {}), ("TGA", {}),
    ):  # fmt: skip
        with io.BytesIO() as stream:
            Image.fromarray(pixels).save(stream, kind, **options)
            seeds.append(stream.getvalue())
    refused = 0
    for _ in range(600):
        data = bytearray(draws.choice(seeds))
        for _ in range(draws.randint(1, 5)):
            at = draws.randrange(min(len(data), draws.choice((60, 10_000))))
            data[at : at + draws.randint(1, 4)] = draws.choice((b"\xff\xff\xff\xff", b"\0", b"x"))
        try:
            with opened_picture(io.BytesIO(bytes(data)), "picture") as image:
                if image.width * image.height < 1 << 20:
                    np.array(ImageOps.exif_transpose(image).convert("RGB"))
        except LabelError as error:
            refused += 1
            assert str(error).startswith("picture cannot be read") and str(error).isprintable()
    assert refused > 100


NPY_HEADS = [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }\n",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999999,), }\n",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }\n",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n",
    "{'a': (((",
    "(" * 9000,
    "'''a\n",
]


@pytest.mark.parametrize("head", NPY_HEADS)
def test_an_array_is_what_its_file_holds_or_one_line(tmp_path: Path, head: str) -> None:
    text = head.encode()
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + bytes(64))
    with pytest.raises(LabelError, match="cannot be read as a numpy array") as found:
        array_from_npy(path)
    assert "\n" not in str(found.value) and len(str(found.value)) < 600
