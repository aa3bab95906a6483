"""A data set of somebody else is read in bounded memory and time, or refused in one line."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engines.fake import fake_bundle
from labelmint.datasets.folder import Folder
from labelmint.datasets.reader import dataset_from_folder, views_from_dataset
from labelmint.datasets.request import checked_request
from labelmint.datasets.stored_files import image_from_file
from labelmint.errors import LabelmintError
from tests.datasets.folders import made
from tests.service.harness import FakeModel, served

MAX_BYTES = 100 << 20  # of memory, for data sets that ask for gigabytes
OPTIONS = ("--views-per-object", "4", "--view", "bank", "--count", "8")


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """A small data set in each format that has views."""
    folder = tmp_path_factory.mktemp("downloads")
    with served([FakeModel(bundle=fake_bundle(resolution=16, view_codes=4))]) as server:
        yield {
            form: made(server, folder / form, "--format", form, *OPTIONS)
            for form in ("webdataset", "png")
        }


def read(folder: Path) -> int:
    """Reads all samples and their images; the number of them."""
    stored = dataset_from_folder(folder)
    views = list(views_from_dataset(stored))
    for view in views:
        image_from_file(view.image, stored.image_size)
    return len(views)


def refused(folder: Path) -> str:
    tracemalloc.start()
    try:
        with pytest.raises(LabelmintError) as caught:
            read(folder)
        assert tracemalloc.get_traced_memory()[1] < MAX_BYTES
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 1000
    return message


def test_whole_data_sets_are_read(downloads: dict[str, Path]) -> None:
    assert {form: read(folder) for form, folder in downloads.items()} == {"webdataset": 8, "png": 8}


DEEP = {
    "lists": b"[" * 1_000_000,
    "objects": b'{"a":' * 1_000_000,
    "a value": b'{"request": {"seed": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
}


@pytest.mark.parametrize("kind", DEEP)
@pytest.mark.parametrize("name", ["card.json", ".labelmint/state.json"])
def test_deep_json_is_an_error_of_ours(tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / ".labelmint").mkdir()
    (tmp_path / name).write_bytes(DEEP[kind])
    with pytest.raises(LabelmintError, match="is damaged"):
        Folder(tmp_path, checked_request(format="png", count=1))
    if name == "card.json":
        assert "is damaged" in refused(tmp_path)


def sparse(path: Path) -> None:
    os.truncate(path, 3 << 30)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


FILES = {
    "webdataset": ["card.json", "samples-000000.tar"],
    "png": ["card.json", "index.csv", "keypoints.jsonl", "images/000000000003.png"],
}


@pytest.mark.parametrize("spoil", [sparse, pipe, endless])
@pytest.mark.parametrize(
    ("form", "name"), [(f, name) for f, names in FILES.items() for name in names]
)
def test_files_without_end_are_refused(
    downloads: dict[str, Path], tmp_path: Path, form: str, name: str, spoil: Callable[[Path], None]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(downloads[form], copy)
    spoil(copy / name)
    if spoil is sparse and name in ("samples-000000.tar", "keypoints.jsonl"):
        assert read(copy) == 8  # what follows the last sample is not read
        return
    assert Path(name).name in refused(copy)


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    file = io.BytesIO()
    for info, content in members:
        file.write(info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512))
    return file.getvalue() + bytes(1024)


def member(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info


KEY = "000000000000.json"
GIB = 1 << 30
SPARSE_MAP = f"{GIB}\n1\n0\n1\n".encode().ljust(512, b"\0")
SPARSE_PAX = "".join(
    f"{len(line) + 3} {line}\n"
    for line in ("GNU.sparse.major=1", "GNU.sparse.minor=0", f"GNU.sparse.realsize={GIB * 8}")
).encode()
TARS = {
    "a sparse member": tar_of((member(KEY, 512, tarfile.GNUTYPE_SPARSE), b"x" * 512)),
    "a sparse member of pax": tar_of(
        (member("x", len(SPARSE_PAX), tarfile.XHDTYPE), SPARSE_PAX), (member(KEY, 512), SPARSE_MAP)
    ),
    "a header of gigabytes": tar_of((member("x", 4 * GIB, tarfile.XHDTYPE), b"")),
    "a name of gigabytes": tar_of((member("x", 4 * GIB, tarfile.GNUTYPE_LONGNAME), b"")),
    "JSON of gigabytes": tar_of((member(KEY, 4 * GIB), b"")),
    "deep JSON": tar_of((member(KEY, 900_000), b"[" * 900_000)),
    "a link": tar_of((member(KEY, 0, tarfile.SYMTYPE), b"")),
    "a negative size": tar_of((member(KEY, -512), b"")),
    "an endless sample": tar_of(*((member(f"0.{n}.png", 0), b"") for n in range(100))),
    "nothing": b"",
    "half a header": b"x" * 300,
}


@pytest.mark.parametrize("kind", TARS)
@pytest.mark.parametrize("holes", [False, True])
def test_tar_files_cannot_ask_for_memory(
    downloads: dict[str, Path], tmp_path: Path, kind: str, holes: bool
) -> None:
    """With `holes` the file is sparse and has as many bytes as its headers promise."""
    copy = tmp_path / "copy"
    shutil.copytree(downloads["webdataset"], copy)
    (copy / "samples-000000.tar").write_bytes(TARS[kind])
    if holes:
        os.truncate(copy / "samples-000000.tar", 16 * GIB)
    assert str(copy) in refused(copy)


def test_a_card_of_absurd_sizes_allocates_nothing(
    downloads: dict[str, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(downloads["png"], copy)
    card = json.loads((copy / "card.json").read_text())
    card["model"]["image_size"] = [1 << 40, 1 << 40]
    (copy / "card.json").write_text(json.dumps(card))
    os.truncate(copy / "images" / "000000000000.png", 64 * GIB)
    refused(copy)
