"""Checks of the types of arguments, in one line that names the argument and says what to give."""

from operator import index
from typing import SupportsIndex, cast

import numpy as np


def whole_number(name: str, value: object) -> int:
    """The value of an argument as int; raises TypeError, naming it, if it is no integer.

    True is none: who writes keep_fraction=True or count=True means a switch.
    """
    try:
        if not isinstance(value, bool):
            return index(cast(SupportsIndex, value))
    except TypeError:
        pass
    raise TypeError(f"{name} is {value!r}; give a whole number")


def real_number(name: str, value: object) -> float:
    """The value of an argument as float; raises TypeError for other types, text and
    True included."""
    try:
        if not isinstance(value, (str, bytes, bool, np.bool_)):
            return float(cast(float, value))
    except (TypeError, ValueError, OverflowError):
        pass
    raise TypeError(f"{name} is {value!r}; give a number")


def of_type(name: str, value: object, kind: type, give: str) -> None:
    """Raises TypeError for an argument that is neither None nor of this type.

    Args:
        name, value: the argument.
        kind: its type.
        give: words of the message that describe a right value.
    """
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name} is {value!r}; give {give}")
