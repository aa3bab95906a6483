"""Runs Python in a separate process, to measure its peak memory alone."""

import os
import subprocess
import sys
import time


def run_python(*words: str) -> tuple[float, int, str]:
    """Runs Python and returns seconds, peak resident bytes and the last line of its output.

    Raises SystemExit if the process fails.
    """
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"python {' '.join(words[:3])} failed with {process.returncode}")
    return time.perf_counter() - began, usage.ru_maxrss * 1024, lines[-1] if lines else ""
