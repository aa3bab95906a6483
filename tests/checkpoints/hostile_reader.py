"""Reads every file of a folder, watched: what each made happen goes to standard output, as JSON.

Every value of a file is asked for, then its generator.

Runs as a process of its own, for its two limits cannot be taken back: an audit hook, which Python
tells of every import, call of exec, opened file and started process, and a limit of memory.
"""

import contextlib
import re
import resource
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from checkpoints import (
    ForeignFileError,
    TorchFile,
    generator_from_foreign,
    read_array,
    read_foreign,
)

MAX_DEPTH = 8  # of the values that are asked for
MORE_MEMORY = 256 << 20  # bytes of address space beyond what the process has when it begins


class Outcome(msgspec.Struct):
    """What reading one file came to."""

    name: str
    error: str | None  # None: it was read
    kind: str  # class of the error
    events: list[str]  # of the audit hook, but for opening this file
    peak_bytes: int  # by which the process has grown at most, up to here


class Report(msgspec.Struct):
    """All of them."""

    outcomes: list[Outcome]
    imported: list[str]  # modules that the process has now and had not before


def main(folder: Path, known: Path) -> None:
    """Prints the Report on `folder`; the files of `known` are read before anyone watches."""
    for path in sorted(known.rglob("file_*.p*")):
        _read(path)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MORE_MEMORY, size + MORE_MEMORY))
    paths = sorted(folder.iterdir())
    modules, begin = set(sys.modules), _peak_bytes()
    events: list[str] = []
    sys.addaudithook(lambda name, args: events.append(f"{name} {args[:1]!r}"))
    outcomes = []
    for path in paths:
        events.clear()
        error, kind = _read(path)
        # torch asks for the id of modules that it builds, here on its device without memory.
        expected = (f"open {(str(path),)!r}", "builtins.id ")
        seen = [event for event in events if not event.startswith(expected)]
        outcomes.append(Outcome(path.name, error, kind, seen, _peak_bytes() - begin))
    report = Report(outcomes, sorted(set(sys.modules) - modules))
    sys.stdout.buffer.write(msgspec.json.encode(report))


def _read(path: Path) -> tuple[str | None, str]:
    try:
        if path.suffix == ".npy":
            read_array(path)
        else:
            file = read_foreign(path)
            if isinstance(file, TorchFile):
                _ask_for_all(file.content, MAX_DEPTH)
            generator_from_foreign(file, str(path))
    except Exception as error:  # what is none of ours shows by its class
        return str(error), type(error).__name__
    return None, ""


def _ask_for_all(content: object, depth: int) -> None:
    """Whatever a refusal leaves; the generator is asked for all the same."""
    if not isinstance(content, Mapping) or not depth:
        return
    for key in content:
        with contextlib.suppress(ForeignFileError):
            _ask_for_all(content[key], depth - 1)


def _peak_bytes() -> int:
    # Of this program: getrusage would count what the process was before it became this one.
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak) << 10


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
