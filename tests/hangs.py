"""Limits for hangs, not for slowness: what is sure to come is waited for, however busy the machine.

pytest's own limit, in pyproject.toml, is an hour.
"""

import time
from collections.abc import Callable

HANG_S = 3000.0  # seconds


def eventually(condition: Callable[[], object], every_s: float = 0.02) -> bool:
    """Whether `condition` comes true before `HANG_S` is over, asked every `every_s` seconds."""
    until = time.monotonic() + HANG_S
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(every_s)
    return True
