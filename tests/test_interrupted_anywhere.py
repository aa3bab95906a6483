"""Ctrl-C at every hundredth of each long command, and at each of its file operations: no
traceback, and the next run ends as if there had been none."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engines.fake import FakeOptions
from tests.conftest import CHECKOUT
from tests.interrupts import INTERRUPTIBLE
from tests.service.harness import FakeModel, served
from tests.training.killed import files
from tests.training.test_commands import labelled

MOMENTS = 100
COMPARED = 10  # every tenth interrupted command is run again, to its end
# 0: it ended before, or saved all; else by the signal before the command handles it, or by it.
CODES = (0, 130, -signal.SIGINT)
Run = Callable[..., dict[str, Any]]  # of a command, to its end or to a moment


@pytest.fixture(scope="module")
def commands(
    tiny_weights: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, list[str]]]:
    """Names and arguments of commands, without --out."""
    generator, interpreter = map(str, tiny_weights)
    labels = labelled(tiny_weights[0], tmp_path_factory.mktemp("labels") / "set", 2)
    with served([FakeModel(options=FakeOptions(seconds_per_sample=0.002))]) as server:
        yield {
            "sample": ["training", "sample", "--generator", generator, "--count", "8"],
            "interpreter": [
                "training", "interpreter", "--generator", generator, "--labels", str(labels),
                "--members", "2", "--steps", "12", "--pixels", "64", "--hidden", "8,8",
            ],
            "encoder": [
                "training", "encoder", "--generator", generator,
                "--latent-steps", "1", "--image-steps", "1", "--batch", "1",
            ],
            "refiner": [
                "training", "refiner", "--source", generator, "--real", str(labels / "images"),
                "--pool", "80", "--warm-up", "2", "--critic-warm-up", "2", "--steps", "2",
                "--batch", "2", "--every", "2", "--max-shift", "99", "--min-structure", "-1",
                "--resume",
            ],
            "invert": [
                "training", "invert", "--generator", generator, "--images",
                str(labels / "images"), "--steps", "4", "--batch", "1",
            ],
            "bundle": [
                "export", "bundle", "--generator", generator, "--interpreter", interpreter,
                "--calibrate", "64",
            ],
            "download": [
                "labelmint", "download", "--target", f"127.0.0.1:{server.server.port}",
                "--count", "32", "--format", "png",
            ],
        }  # fmt: skip


@contextmanager
def interruptible() -> Iterator[Run]:
    """A process that runs commands in forks, see tests/interrupted_process.py."""
    line = [*INTERRUPTIBLE, "OMP_NUM_THREADS=1", sys.executable, "-m", "tests.interrupted_process"]
    with subprocess.Popen(
        line, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def run(command: list[str], kind: str = "", moment: int = 0) -> dict[str, Any]:
            assert process.stdin and process.stdout
            job = {"command": command, "kind": kind, "moment": moment}
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            answer: dict[str, Any] = json.loads(process.stdout.readline())
            return answer

        yield run
        assert process.stdin
        process.stdin.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["step", "file"])
@pytest.mark.parametrize(
    "name", ["sample", "interpreter", "encoder", "refiner", "invert", "bundle", "download"]
)
def test_an_interrupt_at_any_moment_loses_nothing_and_shows_no_traceback(
    commands: dict[str, list[str]], name: str, kind: str, tmp_path: Path
) -> None:
    weights = ".safetensors" if name in ("interpreter", "encoder", "refiner") else ""

    def out(moment: object) -> Path:
        (tmp_path / str(moment)).mkdir()
        return tmp_path / str(moment) / f"out{weights}"

    with interruptible() as run:

        def finished(path: Path) -> dict[str, Any]:
            ended = run([*commands[name], "--out", str(path)])
            assert ended["code"] == 0, ended["said"]
            return ended

        finished(out("imports"))  # which the counts leave out
        counted = finished(out("whole"))
        whole = files(tmp_path / "whole")
        total = counted[f"{kind}s"]
        moments = sorted({1 + total * moment // MOMENTS for moment in range(MOMENTS)})
        for number, moment in enumerate(moments):
            path = out(moment)
            ended = run([*commands[name], "--out", str(path)], kind, moment)
            assert ended["code"] in CODES, (moment, ended)
            assert "Traceback" not in ended["said"], (moment, ended["said"])
            if files(path.parent) == whole:  # all was done by then
                continue
            if number % COMPARED == 0 or kind == "file":
                finished(path)
                assert files(path.parent) == whole, moment
