"""Edits of weights cards, the way a mistaken tool or hand would make them."""

from pathlib import Path
from typing import Any

import tomli_w
import tomllib

from checkpoints import CheckpointError

ABSENT = object()  # as a value: the key is removed


def edit_card(weights: Path, keys: str, value: object) -> None:
    """Sets a value in the card beside `weights`; `keys` is like "config.channels.0"."""
    path = weights.with_suffix(".toml")
    content: Any = tomllib.loads(path.read_text())
    *parents, last = keys.split(".")
    at = content
    for key in parents:
        at = at[int(key) if isinstance(at, list) else key]
    if value is ABSENT:
        del at[last]
    else:
        at[int(last) if isinstance(at, list) else last] = value
    path.write_text(tomli_w.dumps(content))


def one_line(error: CheckpointError, weights: Path) -> str:
    """The message, which must be one line that names the file."""
    message = str(error)
    assert "\n" not in message and weights.stem in message
    return message
