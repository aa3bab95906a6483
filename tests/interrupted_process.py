"""Commands in processes of their own that are interrupted at a chosen moment, without their start.

`python -m tests.interrupted_process` imports the commands once and forks for each job, a line of
JSON on standard input: {"command": ["training", ...], "kind": "step" or "file", "moment": number}.
It answers with a line of JSON: {"code", "said", "steps", "files"}. Of what a
command imports while it runs, the next ones find the largest parts imported.

Time is counted, not measured: in "step", calls that Python makes, between which alone it handles
signals; in "file", file operations. The command gets a SIGINT of the system at that number.
"""

import importlib
import json
import os
import runpy
import signal
import sys
import tempfile
from contextlib import suppress
from types import FrameType
from typing import Any

FILE_EVENTS = {
    "open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link",
    "os.symlink", "os.chmod", "fcntl.flock", "shutil.rmtree", "shutil.copyfile", "shutil.move",
    "tempfile.mkstemp", "tempfile.mkdtemp",
}  # fmt: skip
LATE = ("torch", "onnx", "onnxscript", "PIL", "scipy")  # take seconds; start no threads
UNKNOWN = -1


class Clock:
    """Counts the steps and file operations of this process, which is interrupted at one of them."""

    def __init__(self, job: dict[str, Any], counts: int) -> None:
        self._kind, self._moment, self._counts = job["kind"], job["moment"], counts
        self._steps = self._files = 0
        self._pid = os.getpid()
        sys.addaudithook(self._audited)

    def start(self) -> None:
        """Counts steps from now on, and file operations."""
        sys.setprofile(self._stepped)

    def stop(self) -> None:
        """Writes the counts."""
        sys.setprofile(None)
        with os.fdopen(self._counts, "w") as counts:
            found = {"steps": self._steps, "files": self._files, "modules": list(sys.modules)}
            json.dump(found, counts)

    def _stepped(self, frame: FrameType, event: str, argument: object) -> None:
        self._steps += 1
        if self._kind == "step" and self._steps == self._moment:
            os.kill(self._pid, signal.SIGINT)

    def _audited(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in FILE_EVENTS and os.getpid() == self._pid:
            self._files += 1
            if self._kind == "file" and self._files == self._moment:
                os.kill(self._pid, signal.SIGINT)


def serve() -> dict[str, Any] | None:
    """Forks for each job; returns the job in its fork, and None at the end."""
    importlib.import_module("training.__main__")  # once, for all forks
    for line in sys.stdin:
        job: dict[str, Any] = json.loads(line)
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as counts:
            child = os.fork()
            if child == 0:
                os.dup2(said.fileno(), 2)
                os.dup2(os.open(os.devnull, os.O_RDWR), 0)
                os.dup2(0, 1)
                return {**job, "counts": os.dup(counts.fileno())}
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            said.seek(0)
            counts.seek(0)
            found: dict[str, Any] = {"steps": UNKNOWN, "files": UNKNOWN, "modules": []}
            with suppress(ValueError):  # it was interrupted
                found = json.load(counts)
            for name in found.pop("modules"):  # what it imported late, the next ones find here
                if name.partition(".")[0] in LATE:
                    with suppress(ImportError):
                        importlib.import_module(name)
            answer = {"code": code, "said": said.read().decode(errors="replace"), **found}
        print(json.dumps(answer), flush=True)
    return None


if __name__ == "__main__":
    if job := serve():
        clock = Clock(job, job["counts"])
        name, *rest = job["command"]
        sys.argv = [name, *rest]
        # As each command does first, where Ctrl-C would still be Python's own.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        sys.modules.pop(f"{name}.__main__", None)  # of the imports above; run_module warns of it
        clock.start()
        try:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        finally:
            clock.stop()
