"""Ctrl-C at every hundredth of each long command: no traceback, and the next run ends as if there
had been none."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.fake import FakeOptions
from tests.interrupts import INTERRUPTIBLE
from tests.service.harness import FakeModel, served
from tests.training.killed import files
from tests.training.test_commands import labelled

MOMENTS = 100
COMPARED = 10  # every tenth interrupted command is run again, to its end
# 0: it ended before; else by the signal while Python itself starts, or by the command.
CODES = (0, 130, -signal.SIGINT)


@pytest.fixture(scope="module")
def commands(
    tiny_weights: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, list[str]]]:
    """Arguments of Python by name, without --out."""
    generator, interpreter = map(str, tiny_weights)
    labels = labelled(tiny_weights[0], tmp_path_factory.mktemp("labels") / "set", 2)
    with served([FakeModel(options=FakeOptions(seconds_per_sample=0.01))]) as server:
        yield {
            "sample": ["training", "sample", "--generator", generator, "--count", "64"],
            "interpreter": [
                "training", "interpreter", "--generator", generator, "--labels", str(labels),
                "--members", "2", "--steps", "200", "--pixels", "64", "--hidden", "8,8",
            ],
            "encoder": [
                "training", "encoder", "--generator", generator,
                "--latent-steps", "10", "--image-steps", "10", "--batch", "2",
            ],
            "refiner": [
                "training", "refiner", "--source", generator, "--real", str(labels / "images"),
                "--pool", "400", "--warm-up", "20", "--critic-warm-up", "20", "--steps", "10",
                "--batch", "2", "--every", "20", "--max-shift", "99", "--min-structure", "-1",
                "--resume",
            ],
            "invert": [
                "training", "invert", "--generator", generator, "--images",
                str(labels / "images"), "--steps", "60", "--batch", "1",
            ],
            "bundle": [
                "export", "bundle", "--generator", generator, "--interpreter", interpreter,
                "--calibrate", "256",
            ],
            "download": [
                "labelmint", "download", "--target", f"127.0.0.1:{server.server.port}",
                "--count", "64", "--format", "png",
            ],
        }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["sample", "interpreter", "encoder", "refiner", "invert", "bundle", "download"]
)
def test_an_interrupt_at_any_moment_loses_nothing_and_shows_no_traceback(
    commands: dict[str, list[str]], name: str, tmp_path: Path
) -> None:
    weights = ".safetensors" if name in ("interpreter", "encoder", "refiner") else ""
    command = [sys.executable, "-m", *commands[name], "--out"]

    def out(run: str) -> Path:
        (tmp_path / run).mkdir()
        return tmp_path / run / f"out{weights}"

    def finished(path: Path) -> dict[str, bytes]:
        subprocess.run([*command, str(path)], check=True, capture_output=True)
        return files(path.parent)

    began = time.monotonic()
    whole = finished(out("whole"))
    seconds = time.monotonic() - began
    for moment in range(MOMENTS):
        path = out(str(moment))
        process = subprocess.Popen(
            [*INTERRUPTIBLE, *command, str(path)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        time.sleep(seconds * moment / MOMENTS)
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1]
        assert process.returncode in CODES, (moment, said)
        assert "Traceback" not in said, (moment, said)
        if moment % COMPARED == 0 and process.returncode:
            assert finished(path) == whole, moment
