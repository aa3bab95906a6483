"""`python -m examples.demo` replaces files, so wrong arguments must not start it."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("argument", "code"), [("--help", 0), ("--samples", 2), ("again", 2)])
def test_questions_and_mistakes_write_nothing(tmp_path: Path, argument: str, code: int) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo", argument],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code
    assert "Usage: " in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []
