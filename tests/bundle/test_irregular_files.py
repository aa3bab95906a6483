"""A file that never ends, or that nobody writes, is refused at once, whichever file it is."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle import open_bundle
from bundle.errors import BundleError
from tests.bundle.refusals import refusal


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def link_to_a_pipe(path: Path) -> None:
    os.mkfifo(f"{path}.pipe")
    path.symlink_to(f"{path}.pipe")


KINDS: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a link to a FIFO": link_to_a_pipe,
    "a link to a device without end": lambda path: path.symlink_to("/dev/zero"),
    "a link to an empty device": lambda path: path.symlink_to("/dev/null"),
    "a link to the terminal": lambda path: path.symlink_to("/dev/tty"),
    "a folder": Path.mkdir,
    "a socket": make_socket,
    "a link to itself": lambda path: path.symlink_to(path.name),
}
LIMIT_S = 60.0  # of a process that takes one second
VERIFY = """
import sys
from bundle.__main__ import main
for folder in sys.argv[1:]:
    try:
        main(["verify", folder])
    except SystemExit as ended:
        print(ended.code, flush=True)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_irregular_files_are_refused_and_never_waited_for(
    folder: Path, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("manifest.json", "mapping.onnx", "labeller.onnx")
    for name in names:
        shutil.copytree(folder, tmp_path / f"{name}.d")
        monkeypatch.chdir(tmp_path / f"{name}.d")  # names of sockets are short
        Path(name).unlink()
        KINDS[kind](Path(name))
    done = subprocess.run(
        [sys.executable, "-c", VERIFY, *(str(tmp_path / f"{name}.d") for name in names)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=LIMIT_S,
    )  # fmt: skip
    lines = done.stderr.splitlines()
    assert done.stdout.split() == ["1"] * 3 and len(lines) == 3
    for name, line in zip(names, lines, strict=True):
        assert f"{name} cannot be read" in line


def test_a_link_to_a_regular_file_is_read(folder: Path, tmp_path: Path) -> None:
    """As in caches of downloads, whose files have their hashes as names."""
    os.rename(folder / "mapping.onnx", tmp_path / "blob")
    (folder / "mapping.onnx").symlink_to(tmp_path / "blob")
    assert open_bundle(folder).read("mapping.onnx") == (tmp_path / "blob").read_bytes()


def test_a_file_of_another_size_is_refused_before_it_is_read(folder: Path) -> None:
    os.truncate(folder / "mapping.onnx", 1 << 40)  # sparse: hashing it would take minutes
    began = time.monotonic()
    assert "has 1099511627776 bytes" in refusal(folder)
    assert time.monotonic() - began < LIMIT_S


def test_what_is_read_was_verified_however_late_it_was_changed(folder: Path) -> None:
    bundle = open_bundle(folder)
    good, status = bundle.read("mapping.onnx"), (folder / "mapping.onnx").stat()
    (folder / "mapping.onnx").write_bytes(good[::-1])
    os.utime(folder / "mapping.onnx", ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(BundleError, match=r"mapping\.onnx has SHA-256"):
        bundle.read("mapping.onnx")
    (folder / "mapping.onnx").unlink()
    os.mkfifo(folder / "mapping.onnx")
    with pytest.raises(BundleError, match="not a regular file"):
        bundle.read("mapping.onnx")
