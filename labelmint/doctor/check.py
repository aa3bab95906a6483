"""The outcome of one check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from labelmint.errors import LabelmintError


class State(Enum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"  # works, but slower or with less than it could
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found, and what to do about it."""

    name: str
    state: State
    found: str
    fix: str = ""  # empty where nothing is wrong
    error: LabelmintError | None = None  # why it failed, where a call did
