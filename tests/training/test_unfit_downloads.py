"""What a downloaded folder lacks, or has lost, is one line that says what to do."""

import io
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engines.fake import fake_bundle
from tests.datasets.folders import made
from tests.service.harness import FakeModel, RunningServer, served
from tests.training.downloads import ASKED, VIEWS, refusal
from training.errors import TrainingError
from training.inverse_graphics.downloaded_sets import sets_from_folder


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """A model whose bank has five views, and others that lack something."""
    models = {
        "bank": fake_bundle(resolution=16, view_codes=VIEWS),
        "plain": fake_bundle(resolution=16),
        "bare": fake_bundle(resolution=16, heads=False, view_codes=VIEWS),
    }
    with served([FakeModel(name, bundle) for name, bundle in models.items()]) as running:
        yield running


@pytest.fixture
def png(folders: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(folders / "png", tmp_path / "png"))


@pytest.fixture
def tars(folders: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(folders / "tars", tmp_path / "tars"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("bank --count 10", "has no views: download with --views-per-object"),
        ("bank --count 10 --views-per-object 5 --view drawn", "has no cameras: download from"),
        ("plain --count 10 --views-per-object 5", "has no cameras: download from a bundle whose"),
        ("bare --count 10 --views-per-object 5", "has no masks: download from a bundle with a"),
        ("bank --count 10 --views-per-object 5 --format coco", "download with --format png or"),
        ("bank --end-index 10 --views-per-object 5 --max-uncertainty 0", "it has no samples"),
    ],
)
def test_data_sets_without_what_is_needed_are_refused(
    server: RunningServer, tmp_path: Path, options: str, words: str
) -> None:
    out = made(server, tmp_path / "d", "--model", *options.split())
    assert words in refusal(out)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"objects": 7}, "--objects is 7; it has 6; download more"),
        ({"views": 5}, "--views is 5; its objects have 4 views with an azimuth"),
        ({"background": ("sky",)}, "--background sky is not among its classes: part 0, part 1"),
    ],
)
def test_options_that_ask_for_more_are_refused(
    folders: Path, asked: dict[str, Any], words: str
) -> None:
    assert words in refusal(folders / "png", replace(ASKED, **asked))


def test_folders_that_no_download_completed_are_refused(png: Path, tmp_path: Path) -> None:
    assert "is neither a folder nor HOST:PORT" in refusal("nowhere")
    assert "is neither a folder nor HOST:PORT" in refusal(png / "card.json")
    assert "has no card.json; give a folder that `labelmint" in refusal(tmp_path)
    card = (png / "card.json").read_text()
    (png / "card.json").write_text(card.replace('"kept": 30', '"kept": "30"'))
    assert "card.json is damaged, or of another release" in refusal(png)
    (png / "card.json").write_text(card.replace('"kept": 30', '"kept": 31'))
    assert "has 30 samples, but its card says 31" in refusal(png)
    (png / "card.json").unlink()
    (png / ".labelmint").mkdir()
    assert "is not complete; run the same `labelmint download` again" in refusal(png)


def test_pictures_that_were_changed_are_named(png: Path) -> None:
    image, mask = png / "images" / "000000000007.png", png / "masks" / "000000000007.png"
    whole, ids = image.read_bytes(), mask.read_bytes()
    for file, content, words in (
        (image, whole[:-20], "000000000007.png cannot be read ("),
        (image, whole[: len(whole) // 2], "000000000007.png cannot be read ("),
        (image, whole[:50] + b"x" + whole[51:], "000000000007.png cannot be read ("),
        (image, whole[:20], "000000000007.png "),
        (image, b"GIF89a", "images/000000000007.png is no PNG or JPEG"),
        (image, None, "images/000000000007.png cannot be read (No such file or directory)"),
        (mask, None, "masks/000000000007.png cannot be read (No such file"),
        (image, _png(Image.new("RGB", (16, 8))), "is 16x8 pixels, but its card says 16x16"),
        (image, _png(Image.new("L", (16, 16))), "has mode L, not RGB"),
        (mask, _png(Image.new("RGB", (16, 16))), "has mode RGB, not P or L"),
        (mask, _png(Image.new("L", (16, 16), 4)), "has class 4, but its card lists 4 classes"),
    ):
        file.unlink() if content is None else file.write_bytes(content)
        assert words in refusal(png)
        image.write_bytes(whole)
        mask.write_bytes(ids)
    sets_from_folder(png, ASKED)


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def test_rows_that_were_changed_are_told(png: Path) -> None:
    table = png / "index.csv"
    head, *rows = table.read_text().splitlines(keepends=True)
    for changed, words in (
        (rows[:7] + rows[8:], "keypoints.jsonl has sample 7 where index.csv has 8"),
        (rows[:7] + rows[6:], "keypoints.jsonl has sample 7 where index.csv has 6"),
        (rows[:-1], "has 29 samples, but its card says 30"),
        ([*rows[:7], rows[7][:9] + "\n"], "is damaged after 7 samples"),
        ([r.replace(",10.0,", ",11.0,") if n == 6 else r for n, r in enumerate(rows)],
         "view 1 has one camera in sample 1 and another one in 6"),
        ([r.replace(",6.0,", ",-6.0,") for r in rows], "sample 0 has an impossible Camera"),
        ([r.replace(",6.0,", ",inf,") for r in rows], "inf is out of the range of float32"),
        ([r.replace("7,", "7e,", 1) for r in rows], "is damaged after 7 samples"),
    ):  # fmt: skip
        table.write_text(head + "".join(changed))
        assert words in refusal(png)
    table.unlink()
    assert "index.csv cannot be read (No such file or directory)" in refusal(png)


def test_tars_that_were_changed_are_told(tars: Path) -> None:
    second = tars / "samples-000001.tar"
    whole = second.read_bytes()
    for length in (0, 700, 9000, len(whole) // 2):
        second.write_bytes(whole[:length])
        assert "is damaged after 1" in (said := refusal(tars)) or "its card says 30" in said
    for left_out, words in (
        ("000000000014.mask.png", "is damaged after 14 samples ('mask.png')"),
        ("000000000014.", "has 29 samples, but its card says 30"),
    ):
        with tarfile.open(fileobj=io.BytesIO(whole)) as tar, tarfile.open(second, "w") as changed:
            for member in tar:
                if not member.name.startswith(left_out):
                    changed.addfile(member, tar.extractfile(member))
        assert words in refusal(tars)
    second.write_bytes((tars / "samples-000000.tar").read_bytes())
    assert "has sample 0 after sample 12" in refusal(tars)
    second.unlink()
    assert "samples-000001.tar cannot be read (No such file or directory)" in refusal(tars)


@pytest.fixture(scope="module")
def damaged(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(folders, tmp_path_factory.mktemp("damaged") / "d"))


@settings(max_examples=60)
@given(
    st.sampled_from(
        ["png/card.json", "png/index.csv", "png/keypoints.jsonl", "png/images/000000000003.png",
         "png/masks/000000000003.png", "tars/samples-000000.tar"]
    ),
    st.floats(0, 1, exclude_max=True),
    st.binary(max_size=4) | st.sampled_from([b"-", b"9", b"null", b"NaN", b"1e99", b"[]", b"{}"]),
    st.integers(0, 8),
)  # fmt: skip
def test_whatever_a_folder_has_it_is_read_or_refused_in_a_line(
    damaged: Path, name: str, place: float, content: bytes, removed: int
) -> None:
    file = damaged / name
    whole = file.read_bytes()
    at = int(place * len(whole))
    file.write_bytes(whole[:at] + content + whole[at + removed :])
    try:
        sets, _ = sets_from_folder(file.parents[name.count("/") - 1], ASKED)
        assert sets.images.shape == (6, 4, 3, 16, 16)
    except TrainingError as error:
        assert "\n" not in str(error)
    finally:
        file.write_bytes(whole)
