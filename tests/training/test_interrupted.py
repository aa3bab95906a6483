"""Ctrl-C and SIGTERM lose no step: the state is saved, one line says so, and the bytes stay."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from checkpoints import tensors_from_file
from engines.fake import fake_bundle
from tests.interrupts import INTERRUPTIBLE
from tests.service.harness import FakeModel, served
from tests.training.killed import COMMAND, files
from tests.training.test_commands import labelled
from training.__main__ import main
from training.errors import TrainingError
from training.inversion.optimise import UNFINISHED
from training.resume import state_path

AGAIN, RESUME = "the same command", "the same command with --resume"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(8):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return folder


@pytest.fixture
def source() -> Iterator[str]:
    """A service with a bank of views."""
    bundle = fake_bundle(resolution=16, view_codes=4, view_layers=4)
    with served([FakeModel(bundle=bundle)]) as server:
        yield f"127.0.0.1:{server.server.port}"


def interrupted(command: list[str], bar: str, number: signal.Signals) -> tuple[str, str]:
    """Sends the signal after a step that the bar shows; the last step shown, and the last line."""
    process = subprocess.Popen(
        [*INTERRUPTIBLE, *COMMAND, *command],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    said, step = "", None
    while step is None and (read := process.stderr.read(1)):
        said += read
        step = re.search(rf"{bar}: .*[ |]([1-9]\d*)/\d+ \[", said.rpartition("\n")[0])
    process.send_signal(number)
    said += process.communicate()[1]
    assert step is not None and process.returncode == 128 + number, said
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if "interrupted" in line]
    assert len(lines) == 1 and said.endswith(f"{lines[0]}\n"), said
    return step[1], lines[0]


def finished(command: list[str]) -> None:
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output + str(result.exception)


def check_weights(
    command: list[str], bar: str, again: str, number: signal.Signals, folder: Path
) -> None:
    """Interrupts a training of weights, goes on, and compares with one that ran through."""
    out, whole = (folder / name / "w.safetensors" for name in ("interrupted", "whole"))
    shown, line = interrupted([*command, "--out", str(out)], bar, number)
    saved = int(tensors_from_file(state_path(out))["step"])
    assert saved >= int(shown)
    assert line == (
        f"interrupted: step {saved} is saved in {state_path(out)}; {again} goes on from there"
    )
    assert not out.exists()
    finished([*command, "--out", str(whole)])
    if again == RESUME:
        refused = CliRunner().invoke(main, [*command, "--out", str(out)])
        assert isinstance(refused.exception, TrainingError) and "--resume" in str(refused.exception)
        command = [*command, "--resume"]
    finished([*command, "--out", str(out)])
    assert files(out.parent) == files(whole.parent)


@pytest.mark.long
def test_an_interrupted_interpreter_goes_on(
    tiny_weights: tuple[Path, Path], tmp_path: Path
) -> None:
    labels = labelled(tiny_weights[0], tmp_path / "set", 2)
    command = [
        "interpreter", "--generator", str(tiny_weights[0]), "--labels", str(labels),
        "--members", "2", "--steps", "600", "--pixels", "64", "--hidden", "8,8",
    ]  # fmt: skip
    check_weights(command, "interpreter", AGAIN, signal.SIGINT, tmp_path)


@pytest.mark.slow
def test_an_interrupted_encoder_goes_on(tiny_weights: tuple[Path, Path], tmp_path: Path) -> None:
    command = [
        "encoder", "--generator", str(tiny_weights[0]),
        "--latent-steps", "10", "--image-steps", "40", "--batch", "2",
    ]  # fmt: skip
    check_weights(command, "encoder", AGAIN, signal.SIGTERM, tmp_path)


@pytest.mark.long
def test_an_interrupted_refiner_goes_on(pictures: Path, tmp_path: Path) -> None:
    command = [
        "refiner", "--source", str(pictures), "--real", str(pictures), "--warm-up", "5",
        "--critic-warm-up", "5", "--steps", "30", "--batch", "4", "--history", "8",
        "--max-shift", "99", "--min-structure", "-1",
    ]  # fmt: skip
    check_weights(command, "refiner", RESUME, signal.SIGINT, tmp_path)


@pytest.mark.long
def test_a_refiner_that_is_interrupted_while_its_pool_is_filled_goes_on(
    tiny_weights: tuple[Path, Path], pictures: Path, tmp_path: Path
) -> None:
    command = [
        "refiner", "--source", str(tiny_weights[0]), "--real", str(pictures), "--pool", "400",
        "--warm-up", "20", "--critic-warm-up", "20", "--steps", "2", "--batch", "2",
        "--history", "2", "--max-shift", "99", "--min-structure", "-1",
    ]  # fmt: skip
    check_weights(command, "refiner", RESUME, signal.SIGTERM, tmp_path)


@pytest.mark.slow
def test_an_interrupted_inverse_graphics_training_goes_on(source: str, tmp_path: Path) -> None:
    command = [
        "inverse-graphics", "--source", source, "--objects", "2", "--views", "2", "--extent", "16",
        "--texture", "4", "--hidden", "8", "--batch", "2", "--resolution", "16", "--steps", "60",
    ]  # fmt: skip
    check_weights(command, "inverse graphics", RESUME, signal.SIGTERM, tmp_path)


@pytest.mark.long
def test_an_interrupted_inversion_goes_on_within_its_batch(
    tiny_weights: tuple[Path, Path], pictures: Path, tmp_path: Path
) -> None:
    out, whole = tmp_path / "interrupted", tmp_path / "whole"
    command = ["invert", "--generator", str(tiny_weights[0]), "--images", str(pictures)]
    command += ["--steps", "60", "--batch", "4", "--out"]
    _, line = interrupted([*command, str(out)], "invert", signal.SIGINT)
    (state,) = (out / UNFINISHED).glob("*.partial")
    step = int(tensors_from_file(state)["last.step"][0])
    finished_images = 4 * len(list((out / UNFINISHED).glob("*.safetensors")))
    assert 0 < step <= 60 and line == (
        f"interrupted: {finished_images} images and step {step} of the next 4 are saved in "
        f"{out / UNFINISHED}; the same command goes on from there"
    )
    finished([*command, str(out)])
    finished([*command, str(whole)])
    assert files(out) == files(whole) and not (out / UNFINISHED).exists()


@pytest.mark.long
@pytest.mark.parametrize("module", ["training", "export", "service", "labelmint"])
def test_an_interrupt_during_the_imports_leaves_no_traceback(module: str) -> None:
    process = subprocess.Popen(
        [*INTERRUPTIBLE, sys.executable, "-v", "-m", module, "--help"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    said = ""
    for said in process.stderr:  # a line for each import
        if re.match("import '(click|numpy|grpc)", said):
            break
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode in (-signal.SIGINT, 128 + signal.SIGINT)
    assert "Traceback" not in said and "KeyboardInterrupt" not in said
