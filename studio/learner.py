"""The learner as the server sees it: a process that trains, what it has proposed, what comes next.

Proposals lie in DIR/studio/proposals; a list of them, with uncertainties, is kept beside them so
that the next session begins with what the last has learned.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from bundle.files import read_regular_file
from bundle.records import Strict
from checkpoints import CheckpointError, write_text
from studio.errors import Conflict, NotFound
from studio.learning import PROPOSALS, Event, Job
from studio.progress import Estimate, ProgressLog
from studio.project import Project, opened_log
from training.errors import TrainingError
from training.labels.png import gray_from_file

LIST, MAX_LIST_BYTES = "proposals.json", 64 << 20
TELL_S = 0.4  # between two reports of steps or proposals
PLANNED = 12  # images whose order is planned; more would be by labels that come first
SETTLED_S = 3.0  # without a stroke, before training starts by itself
Publish = Callable[[str, object], None]


class Proposal(Strict, frozen=True):
    """What the ensemble proposes for an image, beside its mask."""

    uncertainty: float
    points: list[list[float]] | None = None


class Learned(Strict, frozen=True):
    """Content of proposals.json."""

    rounds: int
    classes: list[str]  # that the masks have, by id
    keypoints: list[str]
    proposals: dict[str, Proposal]


Phase = Literal["idle", "starting", "training", "proposing"]


class Learner:
    """Starts and stops the process, and keeps what it tells. Methods are thread-safe."""

    def __init__(self, project: Project, command: list[str], publish: Publish) -> None:
        self.project, self._command, self._publish = project, command, publish
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._phase: Phase = "idle"
        self._progress: Event = {}
        self._message = ""
        self._seconds = 0.0
        self._started_at = 0.0
        self._again = False
        self._missing = self.missing_classes()
        self._changed_at: float | None = None  # of the last stroke not yet learned from
        self._timer: threading.Timer | None = None
        self._learned = self._stored()
        self._taught: tuple[list[str], list[str]] = [], []  # names of classes and keypoints
        self._proposed: set[str] = set()  # in the round that goes on; the others are of one before
        self.progress = ProgressLog(project.folder)
        self._work_s = 0.0  # when the round began
        self._estimating: Event | None = None

    def close(self) -> None:
        """Ends the process."""
        with self._lock:
            self._phase = "idle"
            if self._timer is not None:
                self._timer.cancel()
            self._end_process()
        with suppress(OSError):  # a full disk: minutes are lost, and no label
            self.progress.save()

    def state(self) -> dict[str, object]:
        """What the page shows."""
        with self._lock:
            known, placed = self._usable(), self.project.has_keypoints(self._learned.keypoints)
            spent = time.monotonic() - self._started_at
            done, steps = self._progress.get("step", 0), self._progress.get("steps", 0)
            left = spent / done * (steps - done) if done and self._phase == "training" else None
            return {
                "phase": self._phase,
                "step": done,
                "steps": steps,
                "loss": self._progress.get("loss"),
                "seconds_left": left,
                "message": self._message,
                "rounds": self._learned.rounds,
                "seconds": self._seconds,
                "changed": self._changed_at is not None,
                "ready": self.missing_classes() == [],
                "missing": self.missing_classes(),
                "uncertainty": {stem: known[stem].uncertainty for stem in known},
                "points": {stem: known[stem].points if placed else None for stem in known},
                "next": self.next_images(),
                "estimating": self._estimating,
                "estimates": self.progress.estimates,
                "work_s": self.progress.seconds,
            }

    def start(self) -> None:
        """Trains on the labels as they are; once more afterwards if it trains already. Raises
        Conflict without labels."""
        with suppress(TrainingError, CheckpointError):  # the process itself tells what is wrong
            self.project.take_in()
        with self._lock:
            if not self.project.label_files.stems:
                raise Conflict("paint an image first: nothing is labeled yet")
            self._changed_at = None
            if self._phase != "idle":
                self._again = True
                return
            self._message, self._progress, self._again = "", {}, False
            self._phase, self._started_at = "starting", time.monotonic()
            self._work_s, self._estimating = self.progress.seconds, None
            if self._process is None or self._process.poll() is not None:
                self._process = self._new_process()
            assert self._process.stdin is not None
            try:
                self._process.stdin.write(msgspec.json.encode(Job()) + b"\n")
                self._process.stdin.flush()
            except OSError as error:
                self._failed(f"the learner cannot be started: {error}")
        self._tell()

    def _start_again(self) -> None:
        with suppress(Conflict):  # nothing is labeled any more
            self.start()

    def start_if_changed(self) -> None:
        """Starts if labels have changed since the last time, and every class has a pixel."""
        with self._lock:
            due = self._changed_at is not None and not self.missing_classes()
        if due and self.project.label_files.stems:
            self.start()

    def labels_changed(self) -> None:
        """Notes a stroke; once every class has a pixel, the first training starts by itself."""
        with self._lock:
            news = self._changed_at is None or self._missing != self.missing_classes()
            self._missing = self.missing_classes()
            self._changed_at = time.monotonic()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._learned.rounds == 0 and self._phase == "idle":
                self._timer = threading.Timer(SETTLED_S, self.start_if_changed)
                self._timer.daemon = True
                self._timer.start()
        if news:
            self._tell()

    def stop(self) -> None:
        """Ends a training, or an estimate; proposals stay as they were."""
        with self._lock:
            if self._phase == "idle" and self._estimating is None:
                return
            if self._phase != "idle":
                self._phase, self._again = "idle", False
                self._changed_at = time.monotonic()
                self._message = "stopped"
            self._end_process()
        self._tell()

    def missing_classes(self) -> list[str]:
        """Classes that no mask has."""
        return self.project.missing_classes()

    def proposal(self, stem: str) -> bytes:
        """Class ids, H * W bytes. Raises NotFound."""
        if stem not in self._usable() or not self._learned.classes:
            raise NotFound(f"there is no proposal for {stem} yet")
        return self._bytes(stem, "mask")

    def uncertainty_map(self, stem: str) -> bytes:
        """Uncertainty, H * W bytes; 255: two classes share the pixel evenly, or more. Raises
        NotFound."""
        return self._bytes(stem, "uncertainty")

    def _bytes(self, stem: str, name: str) -> bytes:
        path = self.project.work / PROPOSALS / f"{stem}.{name}.png"
        if not path.exists():
            raise NotFound(f"there is no {name} proposed for {stem} yet")
        return gray_from_file(path, self.project.size).tobytes()

    def next_images(self) -> list[str]:
        """Images without a label, the one first that teaches most: least sure, and far in w from
        those that have labels or come before it."""
        project, known = self.project, self._usable()
        stems = project.images.stems
        todo = [i for i, stem in enumerate(stems) if not project.has_label(stem)]
        if not any(stems[i] in known for i in todo):
            return [stems[i] for i in todo]
        w = project.images.ws.mean(axis=1)
        sure = np.array([known[s].uncertainty if s in known else 0.0 for s in stems])
        done = [i for i, stem in enumerate(stems) if project.has_label(stem)]
        return [stems[i] for i in order_to_label(w, sure, done, todo)]

    def _usable(self) -> dict[str, Proposal]:
        """Proposals of images that are in the set, with the classes of now."""
        if self._learned.classes and not self.project.has_classes(self._learned.classes):
            return {}
        stems = set(self.project.images.stems)
        return {s: p for s, p in self._learned.proposals.items() if s in stems}

    def _new_process(self) -> subprocess.Popen[bytes]:
        with opened_log(self.project.work / "learning.log") as log:
            process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                start_new_session=True,  # Ctrl-C is the server's
            )  # fmt: skip
        threading.Thread(target=self._follow, args=(process,), daemon=True).start()
        return process

    def _end_process(self) -> None:
        process, self._process = self._process, None
        self._estimating = None
        if process is not None:
            process.kill()
            with suppress(OSError):
                assert process.stdin is not None
                process.stdin.close()
            process.wait()

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        """Reads what the process tells, until it ends."""
        assert process.stdout is not None
        told = 0.0
        for line in process.stdout:
            try:
                event = msgspec.json.decode(line, type=Event)
            except (msgspec.DecodeError, ValueError):
                continue  # a line of a library
            with self._lock:
                if self._process is process:
                    self._take(event)
            often = event["kind"] in ("step", "proposal")
            if not often or time.monotonic() - told > TELL_S:
                told = time.monotonic()
                self._tell()
        process.stdout.close()
        process.wait()
        with self._lock:
            if self._process is process:
                self._estimating = None
            if self._process is process and self._phase != "idle":
                log = self.project.work / "learning.log"
                self._failed(f"the learner has ended; {log} says why")
        self._tell()

    def _take(self, event: Event) -> None:
        match event["kind"]:
            case "start" | "step":
                self._phase, self._progress = "training", event
                if event["kind"] == "start":
                    self._started_at = time.monotonic()
                    self._proposed.clear()
                    self._taught = event["classes"], event["keypoints"]
            case "proposal":
                self._phase = "proposing"
                if (self._learned.classes, self._learned.keypoints) != self._taught:
                    self._learned = Learned(self._learned.rounds, *self._taught, {})
                self._proposed.add(event["stem"])
                self._learned.proposals[event["stem"]] = Proposal(
                    event["uncertainty"], event["points"]
                )
            case "done":
                known = self._learned.proposals
                proposals = {stem: known[stem] for stem in known if stem in self._proposed}
                self._phase, self._seconds = "idle", event["seconds"]
                self._learned = Learned(self._learned.rounds + 1, *self._taught, proposals)
                with suppress(OSError):  # a full disk: the next session begins without them
                    text = msgspec.json.encode(self._learned).decode()
                    write_text(self.project.work / LIST, text)
                if self._again:
                    threading.Thread(target=self._start_again, daemon=True).start()
            case "failed":
                self._failed(event["message"])
            case "estimating":
                self._estimating = event
            case "estimated":
                self._estimating = None
                if "miou" in event:
                    self._keep(Estimate(
                        images=event["images"], folds=event["folds"], seconds=self._work_s,
                        miou=event["miou"], iou=event["iou"],
                    ))  # fmt: skip

    def _keep(self, estimate: Estimate) -> None:
        with suppress(OSError):  # a full disk: it is estimated again after the next round
            self.progress.add(estimate)

    def _failed(self, message: str) -> None:
        self._phase, self._message = "idle", message

    def _tell(self) -> None:
        with self._lock:  # else an older state could be told after a newer one
            self._publish("learn", self.state())

    def _stored(self) -> Learned:
        path = self.project.work / LIST
        with suppress(OSError, msgspec.DecodeError, ValueError):
            return msgspec.json.decode(read_regular_file(path, MAX_LIST_BYTES), type=Learned)
        return Learned(0, [], [], {})


def order_to_label(
    w: np.ndarray[tuple[int, ...], np.dtype[np.float32]],  # [n, w_dim]
    uncertainty: np.ndarray[tuple[int, ...], np.dtype[np.float64]],  # [n]
    done: list[int],
    todo: list[int],
) -> list[int]:
    """The first rows of `todo`: one after the other that of largest uncertainty times distance in w
    to the nearest row of `done` or before it. Greedy, as in k-center (Sener and Savarese, 2018)."""
    nearest = np.full(len(w), np.inf)
    for row in done:
        nearest = np.minimum(nearest, np.linalg.norm(w - w[row], axis=1))
    chosen: list[int] = []
    while len(chosen) < min(PLANNED, len(todo)):
        rest = [i for i in todo if i not in chosen]
        far = np.where(np.isfinite(nearest[rest]), nearest[rest], 1.0)
        chosen.append(rest[int((uncertainty[rest] * far).argmax())])
        nearest = np.minimum(nearest, np.linalg.norm(w - w[chosen[-1]], axis=1))
    return chosen


def learning_command(generator: Path, mean_latent: Path | None, folder: Path) -> list[str]:
    """The command line of the process."""
    command = [sys.executable, "-m", "studio.learning", "--generator", str(generator)]
    if mean_latent is not None:
        command += ["--mean-latent", str(mean_latent)]
    return [*command, "--project", str(folder)]
