"""Commands in processes of their own that are interrupted at a chosen moment, without their start.

`python -m tests.interrupted_process` forks for each job, a line of JSON on standard input:
{"command": ["training", ...], "kind": "step" or "file", "moment": number}.
It answers with a line of JSON: {"code", "said", "steps", "files"}. What a command that ended well
imported, the next ones find imported, except what starts threads: they do not survive a fork.

Time is counted, not measured: in "step", calls that Python makes, between which alone it handles
signals; in "file", file operations. The command gets a SIGINT of the system at that number.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import sys
import tempfile
import threading
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

FILE_EVENTS = {
    "open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link",
    "os.symlink", "os.chmod", "fcntl.flock", "shutil.rmtree", "shutil.copyfile", "shutil.move",
    "tempfile.mkstemp", "tempfile.mkdtemp",
}  # fmt: skip
THREADED = ("onnxruntime", "onnxruntime.capi")  # start threads as they are imported
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
        found = {"steps": self._steps, "files": self._files, "modules": list(sys.modules)}
        self._kind = ""  # what follows is none of the command's
        with os.fdopen(self._counts, "w") as counts:
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


def import_all(names: list[str]) -> None:
    """Imports modules, but none that needs one of THREADED, and no command."""
    blocked = dict.fromkeys(THREADED)  # None: an import fails
    sys.modules.update(blocked)  # type: ignore[arg-type]
    for name in names:
        if name not in sys.modules and not name.endswith("__main__"):
            with suppress(Exception):  # of modules that were made, not imported, too
                importlib.import_module(name)
    for name in blocked:
        del sys.modules[name]
    assert len(os.listdir("/proc/self/task")) == 1, "a module outside THREADED starts a thread"


def serve() -> dict[str, Any] | None:
    """Forks for each job; returns the job in its fork, and None at the end."""
    for line in sys.stdin:
        job: dict[str, Any] = json.loads(line)
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as counts:
            gc.freeze()  # a collection in the fork would copy all that it shares with this process
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
            import_all(found.pop("modules") if code == 0 else [])
            answer = {"code": code, "said": said.read().decode(errors="replace"), **found}
        print(json.dumps(answer), flush=True)
    return None


def end(code: object) -> NoReturn:
    """Ends a fork as Python does, but takes no module apart, which would take longer than a run."""
    if isinstance(code, str):
        print(code, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    if job := serve():
        clock = Clock(job, job["counts"])
        name, *rest = job["command"]
        sys.argv = [name, *rest]
        # As each command does first, where Ctrl-C would still be Python's own.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        sys.modules.pop(f"{name}.__main__", None)  # of the imports above; run_module warns of it
        clock.start()
        code: object = 0
        try:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            code = ended.code
        finally:
            clock.stop()
        end(code)
