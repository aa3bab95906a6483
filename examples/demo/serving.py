"""A server process for the demo and the benchmarks, on a free port."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def server(bundle: Path, *flags: str) -> Iterator[str]:
    """Serves the bundle as "demo"; yields HOST:PORT and stops the server at the end."""
    command = (
        "service", "run", "--bundle", f"demo={bundle}", "--listen", "127.0.0.1:0", "--log-level",
        "warning", *flags,
    )  # fmt: skip
    print(f"\n$ python -m {shlex.join(command)}", flush=True)
    with subprocess.Popen(
        [sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            ready = process.stdout.readline().strip()
            if not ready:
                raise SystemExit(f"the server ended with exit code {process.wait()}")
            print(ready, flush=True)
            yield address_from_ready_line(ready)
        finally:
            process.terminate()
            process.wait(timeout=30)


def address_from_ready_line(line: str) -> str:
    """The HOST:PORT in the server's first line."""
    found = re.search(r"127\.0\.0\.1:\d+", line)
    if found is None:
        raise SystemExit(f"the server's first line has no HOST:PORT: {line}")
    return found.group()
