"""Ctrl-C while a command is still importing ends it without a traceback."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

from tests.interrupts import INTERRUPTIBLE

CHECKOUT = Path(__file__).resolve().parent.parent
# Presses Ctrl-C when a module is imported: the first one beside Python's own that a command needs.
PRESS = """
import os, signal, sys
class Press:
    def find_spec(self, name, path=None, target=None):
        if name in ("click", "grpc"):
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Press())
sys.argv = ["command", "--help"]
"""


def installed_command() -> str:
    """What pip writes into the script `labelmint`."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    module, function = project["scripts"]["labelmint"].split(":")
    return f"from {module} import {function}\nsys.exit({function}())"


@pytest.mark.parametrize(
    "command", ["labelmint (pip)", "labelmint", "service", "training", "export", "studio"]
)
def test_an_interrupt_during_imports_ends_without_a_traceback(command: str) -> None:
    start = f"import runpy\nrunpy.run_module({command!r}, run_name='__main__', alter_sys=True)"
    if command == "labelmint (pip)":
        start = installed_command()
    ended = subprocess.run(
        [*INTERRUPTIBLE, sys.executable, "-c", PRESS + start],
        cwd=CHECKOUT, capture_output=True, text=True,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "")
