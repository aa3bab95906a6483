"""Arguments of callers: what is of the wrong kind is named, with its value and what to give."""

from __future__ import annotations

from operator import index
from typing import SupportsIndex, cast


def whole_number(name: str, value: object) -> int:
    """The value of an option; TypeError names it when it is no whole number."""
    try:
        return index(cast(SupportsIndex, value))
    except TypeError as error:
        raise TypeError(f"{name} is {value!r}; give a whole number") from error


def real_number(name: str, value: object) -> float:
    """The value of an option; TypeError names it when it is no number. Text is none."""
    try:
        if not isinstance(value, (str, bytes)):
            return float(cast(float, value))
    except (TypeError, ValueError, OverflowError):
        pass
    raise TypeError(f"{name} is {value!r}; give a number")


def of_type(name: str, value: object, kind: type, give: str) -> None:
    """TypeError names an option that is neither None nor of this type."""
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name} is {value!r}; give {give}")


def check_batch_size(batch_size: int) -> None:
    """Raises TypeError, ValueError."""
    if whole_number("batch_size", batch_size) < 1:
        raise ValueError(f"batch_size {batch_size} is under 1; give at least one")


def check_fraction(fraction: float) -> None:
    """Raises ValueError for a keep_fraction that keeps nothing, or more than all, and TypeError."""
    if not 0 < real_number("keep_fraction", fraction) <= 1:
        raise ValueError(f"keep_fraction {fraction} is outside (0, 1]; 0.9 keeps most")
