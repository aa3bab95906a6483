"""Export: the project's labels -> weights with the settings of the command line -> a bundle.

The two commands are run as a user would type them, so that both can be repeated without the studio.
"""

import os
import shlex
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Literal

from studio.errors import Conflict
from studio.project import Project
from training.resume import state_path

BUNDLE, INTERPRETER = "bundle", "interpreter.safetensors"
CALIBRATION_SAMPLES = 4096
KEPT_LINES = 40
NICE = 5  # strokes come first
PUBLISH_S = 0.3  # between two reports of progress
Publish = Callable[[str, object], None]
Phase = Literal["none", "training", "exporting", "done", "failed"]
LOOP = """import torch
from labelmint.torch import LabelStream

network = torch.nn.Conv2d(3, {classes}, kernel_size=3, padding=1)  # yours
optimizer = torch.optim.AdamW(network.parameters())
for batch in LabelStream("localhost:50051", batch_size=16, seed=7, keep_fraction=0.9):
    loss = torch.nn.functional.cross_entropy(network(batch.images / 255), batch.masks)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()"""


class ExportRun:
    """One export at a time. Methods are thread-safe."""

    def __init__(
        self, project: Project, generator: Path, mean_latent: Path | None, publish: Publish
    ) -> None:
        self.project, self._publish = project, publish
        weights = ["--generator", str(generator)]
        if mean_latent is not None:
            weights += ["--mean-latent", str(mean_latent)]
        folder = project.folder
        self.out = folder / BUNDLE
        self.commands: list[tuple[Phase, list[str]]] = [
            ("training", ["training", "interpreter", *weights, "--labels", str(folder), "--out",
             str(folder / INTERPRETER), "--allow-ignored", "--force"]),  # scribbles are labels here
            ("exporting", ["export", "bundle", *weights, "--interpreter", str(folder / INTERPRETER),
             "--calibrate", str(CALIBRATION_SAMPLES), "--out", str(self.out), "--force"]),
        ]  # fmt: skip
        self._lock = threading.RLock()
        self._phase: Phase = "done" if self.out.exists() else "none"
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def start(self) -> None:
        """Starts in the background. Raises Conflict while one is running, and without labels."""
        self.project.take_in()
        with self._lock:
            if self._phase in ("training", "exporting"):
                raise Conflict("the export is running already")
            if not self.project.label_files.stems:
                raise Conflict("no image has a label yet; paint one first")
            missing = self.project.missing_classes()
            if missing:
                raise Conflict(
                    f"no image has a pixel of {', '.join(missing)}; paint one, or remove the class"
                )
            # That of an export that was cut short: its training would not go on with other labels.
            state_path(self.project.folder / INTERPRETER).unlink(missing_ok=True)
            self._lines.clear()
            self._phase = "training"
        threading.Thread(target=self._run, daemon=True).start()
        self._tell()

    def close(self) -> None:
        """Ends a running command."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.terminate()

    def state(self) -> dict[str, object]:
        """What the page shows."""
        with self._lock:
            name = "".join(c if c.isalnum() else "-" for c in self.project.folder.resolve().name)
            serve = ["service", "run", "--bundle", f"{name.lower()}={self.out}", "--listen",
                     "127.0.0.1:50051"]  # fmt: skip
            return {
                "phase": self._phase,
                "lines": list(self._lines),
                "commands": [_as_typed(words) for _, words in self.commands],
                "serve": _as_typed(serve),
                "loop": LOOP.format(classes=len(self.project.classes)),
                "out": str(self.out),
            }

    def _run(self) -> None:
        for phase, words in self.commands:
            with self._lock:
                if self._closed:
                    return
                self._phase = phase
                self._process = subprocess.Popen(
                    [sys.executable, "-m", *words], stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                    start_new_session=True,
                )  # fmt: skip
            with suppress(OSError):  # it has ended already
                os.setpriority(os.PRIO_PROCESS, self._process.pid, NICE)
            assert self._process.stdout is not None
            with self._process.stdout as stream:
                self._follow(stream)
            if self._process.wait():
                break
        with self._lock:
            ok = self._process is not None and self._process.returncode == 0
            self._phase, self._process = "done" if ok else "failed", None
        self._tell()

    def _tell(self) -> None:
        with self._lock:  # else an older state could be told after a newer one
            self._publish("export", self.state())

    def _follow(self, stream: IO[bytes]) -> None:
        """Keeps the last lines; a progress bar writes over its own, as in a terminal."""
        published, line, over = 0.0, b"", False
        while byte := stream.read(1):
            if byte not in b"\r\n":
                line += byte
                continue
            text = line.decode("utf-8", "replace").strip()
            line = b""
            with self._lock:
                if text:
                    if over and self._lines:
                        self._lines.pop()
                    self._lines.append(text[:400])
                over = byte == b"\r"
            if time.monotonic() - published > PUBLISH_S:
                published = time.monotonic()
                self._tell()


def _as_typed(words: list[str]) -> str:
    return f".venv/bin/python -m {shlex.join(words)}"
