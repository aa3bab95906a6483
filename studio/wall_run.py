"""The process that draws the wall, as the server sees it: how far it is, and why it has failed."""

import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from studio.errors import Conflict
from studio.project import Project, opened_log
from studio.wall import Source

STEP = 32  # samples that a request for more adds
MAX_WALL = 4096
LOG = "review.log"
Publish = Callable[[str, object], None]


class WallRun:
    """One process at a time. Methods are thread-safe."""

    def __init__(self, project: Project, command: list[str], publish: Publish) -> None:
        self.project, self._command, self._publish = project, command, publish
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._drawn, self._wanted, self._message = 0, 0, ""
        self._closed = False

    def close(self) -> None:
        """Ends the process, and starts none any more."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()
                self._process.wait()

    def start(self, weights: tuple[Path, Source, str], known: int) -> None:
        """Adds STEP samples to the `known` ones of some weights. Raises Conflict."""
        path, source, sha = weights
        with self._lock:
            if self._closed:
                raise Conflict("the studio is ending")
            if self._process is not None:
                raise Conflict("samples are being drawn already")
            if known + STEP > MAX_WALL:
                raise Conflict(f"the wall would have over {MAX_WALL} samples")
            self._drawn, self._wanted, self._message = known, known + STEP, ""
            words = ["--weights", str(path), "--sha256", sha, "--source", source, "--count",
                     str(self._wanted)]  # fmt: skip
            with opened_log(self.project.work / LOG) as log:
                self._process = subprocess.Popen(
                    [*self._command, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                    stderr=log, start_new_session=True,
                )  # fmt: skip
            threading.Thread(target=self._follow, args=(self._process,), daemon=True).start()
        self._publish("review", {})

    def state(self) -> dict[str, object]:
        """What the page shows."""
        with self._lock:
            return {
                "drawing": self._process is not None,
                "drawn": self._drawn,
                "wanted": self._wanted,
                "message": self._message,
            }

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None and process.stdin is not None
        with process.stdout as lines:
            for line in lines:
                text = line.decode("utf-8", "replace").strip()
                with self._lock:
                    if text.isdecimal():
                        self._drawn = int(text)
                    elif text.startswith("error: "):
                        self._message = text.removeprefix("error: ")
                self._publish("review", {})
        failed = process.wait() != 0
        with suppress(OSError):
            process.stdin.close()
        with self._lock:
            self._process = None
            if failed and not self._message:
                self._message = f"no samples: {self.project.work / LOG} says why"
        self._publish("review", {})
