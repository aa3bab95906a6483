"""Commands of `training` as processes that are killed, and what they left."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

COMMAND = (sys.executable, "-m", "training")


def killed(arguments: list[str], progress: Callable[[], object], choice: random.Random) -> bool:
    """Kills the command some time after `progress()` has changed; False: it had ended."""
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for _ in range(choice.randint(1, 3)):
        seen = progress()
        while process.poll() is None and progress() == seen:
            time.sleep(0.001)
    time.sleep(0.05 * choice.random())
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def ended(arguments: list[str]) -> str:
    """What the command says on stderr, run to its end."""
    result = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stderr


def files(folder: Path) -> dict[str, bytes]:
    """Every file's bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def written(path: Path) -> object:
    """Another value for every file that was put there; None: there is none."""
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.exists() else None
