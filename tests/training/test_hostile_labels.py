"""A label file of somebody else gives a line, whatever it holds, and no traceback."""

import json
import time
from pathlib import Path
from random import Random

import pytest

from checkpoints import CardError
from tests.training.label_files import coco, write_json
from tests.training.sets import tiny_images
from training.errors import LabelError
from training.labels.annotations import ReadingRules
from training.labels.formats import Format, sources_from_path
from training.labels.label_folder import import_labels, pictures_from_folder

HUGE = "0x" + "f" * 5000  # Python writes no integer of over 4,300 digits
CVAT = '<?xml version="1.0"?>{}<annotations><image id="0" name="a.png" width="16" height="16">{}'
# Each line's mapping is ten of the one above it: 10^30 names.
MERGES = "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 31))
MERGES = "a0: &a0 {0: a}\n" + MERGES + "names: *a30\n"
NOT_AN_ADDRESS = "http://[::/z.png"


def read(folder: Path, format_: Format, path: Path) -> None:
    rules = ReadingRules()
    sources = sources_from_path(format_, path, None, rules)
    import_labels(sources, pictures_from_folder(folder), None, rules, folder / "out")


def named(name: str) -> bytes:
    content = coco({"category_id": 3, "segmentation": [[1, 1, 9, 1, 9, 9]]})
    content["images"] = [{"id": 7, "file_name": name, "width": 16, "height": 16}]
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("format_", "name", "data"),
    [
        ("coco", "x.json", named(NOT_AN_ADDRESS)),
        ("coco", "x.json", named("/data/local-files/?d=http://[")),
        ("coco", "x.json", named("a\0b.png")),
        ("labelstudio", "x.json", json.dumps([{"id": 1, "image": NOT_AN_ADDRESS}]).encode()),
        ("labelstudio", "x.json", b'[{"id": 1, "image": ["a.png"]}]'),
        ("yolo", "data.yaml", f"names: {{{HUGE}: a}}".encode()),
        ("yolo", "data.yaml", f"names: [a]\nkpt_shape: [{HUGE}, 3]".encode()),
        ("yolo", "data.yaml", b"names: &a [*a, *a]"),
        ("yolo", "data.yaml", b"names: " + b"[" * 600),
        ("yolo", "data.yaml", MERGES.encode()),
        ("yolo", "data.yaml", b"names: [" + b"a," * 30_000 + b"]"),
        ("yolo", "data.yaml", b"names: [a]\n---\nnames: [b]"),
        ("yolo", "data.yaml", b"names: {0: a, 0: b}"),
        ("yolo", "data.yaml", b"names: {0: a, 00: b}"),
        ("yolo", "data.yaml", b"names: [a]\nnames: [b]"),
        ("yolo", "data.yaml", b"names: [a]\ndownload: |\n" + b"  echo\n" * 40_000),
        ("cvat", "labelmap.txt", b"a:" + b"9" * 5000 + b",1,1::"),
        ("cvat", "labelmap.txt", "a:٣,1,1::".encode()),
        ("cvat", "labelmap.txt", b"\xff\xfe"),
        ("cvat", "x.xml", CVAT.format('<!DOCTYPE x [<!ENTITY a "b">]>', "&a;").encode()),
        ("cvat", "x.xml", CVAT.format('<!DOCTYPE x SYSTEM "file:///etc/passwd">', "").encode()),
        ("cvat", "x.xml", b"<annotations>" + b"<a>" * 100_000),
        ("labelme", "a.json", b'{"shapes": [{"label": "a", "points": [[1e999, 1]]}]}'),
    ],
)
def test_what_no_tool_writes_is_refused_in_a_line(
    tmp_path: Path, format_: Format, name: str, data: bytes
) -> None:
    tiny_images(tmp_path)
    folder = tmp_path / "tool"
    folder.mkdir()
    (folder / name).write_bytes(data)
    (folder / "a.txt").write_text("0 0.1 0.1 0.9 0.1 0.9 0.9\n")
    path = folder / name if name.startswith("x.") else folder
    with pytest.raises(LabelError) as found:
        read(tmp_path, format_, path)
    assert str(found.value).isprintable() and len(str(found.value)) < 1000


def test_a_name_of_half_a_character_is_refused_in_a_line(tmp_path: Path) -> None:
    tiny_images(tmp_path)
    folder = tmp_path / "tool"
    folder.mkdir()
    (folder / "data.yaml").write_bytes(b'names: ["a\\ud800"]')
    (folder / "a.txt").write_text("0 0.1 0.1 0.9 0.1 0.9 0.9\n")
    with pytest.raises(CardError, match=r"classes\.toml.*'\\ud800'.*change that name") as found:
        read(tmp_path, "yolo", folder)
    assert str(found.value).isprintable()


def test_no_name_reaches_the_terminal_as_it_is(tmp_path: Path) -> None:
    tiny_images(tmp_path)
    folder = tmp_path / "tool\x1b[2J"
    folder.mkdir()
    (folder / "a\n\x1b]0;b\x07.txt").write_text("0 0.1 7 0.9 0.1 0.9 0.9\n")
    (folder / "classes.txt").write_text("a\n")
    with pytest.raises(
        LabelError, match=r"a\\n\\x1b\]0;b\\x07\.txt, line 1 has the coordinate"
    ) as found:
        read(tmp_path, "yolo", folder)
    assert str(found.value).isprintable()


def test_long_labels_that_are_alike_cost_little(tmp_path: Path) -> None:
    """Each is compared with all others, in case one is misspelled."""
    tiny_images(tmp_path)
    draws, letters = Random(0), [chr(0x4E00 + i) for i in range(200)]
    long = [draws.choice(letters) for _ in range(10_000)]
    names = ["".join(draws.sample(long, len(long))) for _ in range(60)]
    shape = {"shape_type": "rectangle", "points": [[1, 1], [9, 9]]}
    shapes = [{**shape, "label": name} for name in (*names, *["often"] * 5)]
    folder = tmp_path / "tool"
    write_json(folder / "a.json", {"shapes": shapes, "imageHeight": 16, "imageWidth": 16})
    before = time.process_time()
    read(tmp_path, "labelme", folder)
    assert time.process_time() - before < 60  # seconds; an hour without the fix, not a measurement


def test_an_image_that_is_named_like_a_broken_address_is_another_one(tmp_path: Path) -> None:
    tiny_images(tmp_path)
    content = json.loads(named(NOT_AN_ADDRESS))
    content["images"].append({"id": 8, "file_name": "a.png", "width": 16, "height": 16})
    content["annotations"].append({**content["annotations"][0], "id": 9, "image_id": 8})
    write_json(tmp_path / "x.json", content)
    read(tmp_path, "coco", tmp_path / "x.json")
    assert (tmp_path / "out" / "masks" / "a.png").exists()
