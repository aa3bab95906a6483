"""What tests of data sets share: the command in this process, and what it left on the disk."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

from labelmint.cli import main
from tests.service.harness import RunningServer


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str


def download(server: RunningServer | str, out: Path, *options: str) -> Ran:
    """Runs `labelmint download` against a server, or a target."""
    target = server if isinstance(server, str) else target_of(server)
    said, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
        code = main(["download", "--target", target, "--out", str(out), *options])
    return Ran(code, said.getvalue(), complained.getvalue())


def made(server: RunningServer, out: Path, *options: str) -> Path:
    """A data set that has to succeed, silently but for its last line."""
    ran = download(server, out, *options)
    assert (ran.code, ran.err) == (0, ""), ran
    assert ran.out.startswith(f"{out} is complete: ")
    return out


def target_of(server: RunningServer) -> str:
    return f"127.0.0.1:{server.server.port}"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by its path in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def keys(folder: Path) -> list[int]:
    """The raw indices of a folder format's images, sorted."""
    return sorted(int(path.stem) for path in (folder / "images").iterdir())
