"""`python -m examples.demo` replaces files, so wrong arguments must not start it."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from examples.demo.__main__ import main
from examples.demo.inputs import NAME, is_current, record_inputs
from examples.demo.report import StreamedSamples, compare_streams
from tests.interrupts import INTERRUPTIBLE

CHECKOUT = Path(__file__).resolve().parents[2]
# A command that takes a second to save its work, longer than subprocess.run waits for it.
SAVES = """
import time
try:
    print("works", flush=True)
    time.sleep(3000)
except KeyboardInterrupt:
    time.sleep(1)
    print("saved", flush=True)
    raise SystemExit(130)
"""


@pytest.mark.parametrize(("argument", "code"), [("--help", 0), ("--samples", 2), ("again", 2)])
def test_questions_and_mistakes_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str, code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, [argument])
    assert result.exit_code == code and "Usage: " in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_demo_of_other_code_or_with_a_changed_file_is_made_again(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    assert not is_current(tmp_path)
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    record_inputs(tmp_path)
    assert is_current(tmp_path)
    recorded = (tmp_path / NAME).read_text()
    (tmp_path / NAME).write_text("0" * len(recorded))
    assert not is_current(tmp_path)
    (tmp_path / NAME).write_text(recorded)
    with (tmp_path / "bundle" / "labeller.onnx").open("ab") as graph:
        graph.write(b" ")
    assert not is_current(tmp_path)


def samples(indices: list[int]) -> StreamedSamples:
    """Samples whose values all follow from their index; the odd ones are uncertain."""
    n = np.array(indices)
    return StreamedSamples(
        n.astype(np.uint64),
        np.full((len(n), 2, 2, 3), n[:, None, None, None], np.uint8),
        np.full((len(n), 2, 2), n[:, None, None], np.uint8),
        np.full((len(n), 1, 3), n[:, None, None], np.float32),
        np.full((len(n), 2, 2), n[:, None, None], np.float16),
        (n % 2).astype(np.float32),
    )


@pytest.mark.parametrize("wrong", [[0, 2], [0, 2, 4, 6], [0, 2, 3, 4], [0, 2, 6]])
def test_a_filtered_stream_of_other_samples_ends_the_demo(wrong: list[int]) -> None:
    compare_streams(samples([*range(8)]), samples([0, 2, 4]), 0.5, end_index=6)
    with pytest.raises(SystemExit, match="not the kept part"):
        compare_streams(samples([*range(8)]), samples(wrong), 0.5, end_index=6)


@pytest.mark.long
def test_an_interrupted_demo_waits_until_its_command_has_saved_its_work(tmp_path: Path) -> None:
    (tmp_path / "saves.py").write_text(SAVES)
    run = "from examples.demo.__main__ import run; run('saves')"
    with subprocess.Popen(
        [*INTERRUPTIBLE, sys.executable, "-c", run],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{CHECKOUT}"}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert any(line == "works\n" for line in process.stdout)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        out, err = process.communicate()
    assert (process.returncode, out, err) == (130, "saved\n", "")
