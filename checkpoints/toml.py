"""Cards as TOML text: the standard library reads TOML but does not write it."""

import json
import os
import tempfile
from pathlib import Path
from typing import TypeVar, get_args, get_type_hints

import msgspec

from checkpoints.errors import CardError

MAX_CARD_BYTES = 1 << 20
Card = TypeVar("Card", bound=msgspec.Struct)


class _Kind(msgspec.Struct):
    """What every card begins with."""

    kind: str


def card_path(weights: Path) -> Path:
    """The card of a weights file: its sibling with suffix .toml."""
    return weights.with_suffix(".toml")


def read_card(weights: Path, card_type: type[Card]) -> Card:
    """The card beside `weights`. Raises CardError, naming the file and the field."""
    path, advice = card_path(weights), f"the card of {weights.name} must lie beside it"
    try:
        return read_toml(path, card_type, advice)
    except CardError as error:
        (wanted,) = get_args(get_type_hints(card_type)["kind"])
        kind = kind_of_weights(weights)
        if kind in (None, wanted):
            raise
        raise CardError(
            f"{weights} is of kind {kind!r}, as {path.name} says; give one of kind {wanted!r}"
        ) from error


def kind_of_weights(weights: Path) -> str | None:
    """What the card beside `weights` says they are; None where it does not."""
    try:
        return read_toml(card_path(weights), _Kind).kind
    except CardError:
        return None


def read_toml(path: Path, card_type: type[Card], advice: str = "") -> Card:
    """A TOML file as a strict record; `advice` ends the message when it cannot be read.

    Raises CardError, naming the file and the field.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_CARD_BYTES + 1)
    except OSError as error:
        reason = f"{path} cannot be read ({error.strerror})"
        raise CardError(f"{reason}; {advice}" if advice else reason) from error
    if len(data) > MAX_CARD_BYTES:
        raise CardError(f"{path} has over {MAX_CARD_BYTES} bytes; it is no card")
    try:
        return msgspec.toml.decode(data, type=card_type)
    except msgspec.ValidationError as error:
        raise CardError(f"{path}: {error}") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise CardError(f"{path} is not TOML: {_one_line(error)}") from error


def write_text(path: Path, text: str) -> None:
    """Writes `path` in one step."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())  # a machine that stops may else leave an empty file
            os.fchmod(stream.fileno(), 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def toml_from_card(card: msgspec.Struct) -> str:
    """TOML text that `read_card` gives back as the same card; absent values are left out."""
    return "\n".join(_table_lines(msgspec.to_builtins(card), ())).lstrip("\n") + "\n"


def _table_lines(table: dict[str, object], path: tuple[str, ...]) -> list[str]:
    present = {key: value for key, value in table.items() if value is not None}
    nested = {key for key, value in present.items() if _is_nested(value)}
    lines = [f"{_key(key)} = {_value(v)}" for key, v in present.items() if key not in nested]
    for key in present:
        if key not in nested:
            continue
        value, below = present[key], (*path, key)
        name = ".".join(_key(part) for part in below)
        if isinstance(value, dict):
            lines += ["", f"[{name}]", *_table_lines(value, below)]
        elif isinstance(value, list):
            for item in value:
                lines += ["", f"[[{name}]]", *_table_lines(item, below)]
    return lines


def _is_nested(value: object) -> bool:
    tables = isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)
    return isinstance(value, dict) or tables


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if bare else _value(key)


def _value(value: object) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, str):
        # JSON strings are TOML strings, but for the one control character JSON lets pass.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
