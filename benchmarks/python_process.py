"""A Python process of its own, so that its peak of memory is its own."""

import os
import subprocess
import sys
import time


def run_python(*words: str) -> tuple[float, int, str]:
    """Seconds, peak resident bytes and last line of a Python process; its end if it fails."""
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"python {' '.join(words[:3])} failed with {process.returncode}")
    return time.perf_counter() - began, usage.ru_maxrss * 1024, lines[-1] if lines else ""
