"""Thumbnails are small, made once, and those of the pixels that the set has."""

from pathlib import Path

from PIL import Image

from studio.project import Project
from studio.thumbnails import Thumbnails
from tests.studio.conftest import Served


def test_a_thumbnail_is_small_and_made_once_for_the_same_pixels(project: Path) -> None:
    opened = Project(project)
    thumbnails = Thumbnails(opened, side=16)
    path = thumbnails.file("001")
    with Image.open(path) as small, Image.open(opened.image_file("001")) as whole:
        assert small.size == (16, 16) and whole.size == (32, 32)
    made = path.stat()
    assert Thumbnails(opened, side=16).file("001").stat().st_ino == made.st_ino
    assert thumbnails.file("002") != path
    assert not (project / "images").samefile(path.parent), "the set is not written into"


def test_a_small_image_is_its_own_thumbnail_and_no_other_name_is_read(served: Served) -> None:
    answer = served.request("GET", "/thumbnails/000")
    assert answer.status == 200 and answer.headers["content-type"] == "image/png"
    assert answer.body == served.request("GET", "/images/000").body
    for name in ("nothing", "..%2f..%2findex.json", "000.png"):
        assert served.request("GET", f"/thumbnails/{name}").status == 404, name
