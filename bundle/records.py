"""Strict records, the parts of manifests and weights cards, and messages for invalid values.

Ranges stand beside the fields, as `Annotated[int, msgspec.Meta(ge=1)]`. msgspec checks them when
it decodes a file, but its messages lack the value; the functions here add it.
"""

import json
import math
import re
import sys
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

_LOCATED = re.compile(r"(?P<rule>.*) - at `\$(?P<path>.*)`")
_UNNAMED = "[...]"  # an entry of a dict, in msgspec's paths
_STEP = re.compile(r"\.?(?P<key>[^.\[\]]+)|\[(?P<index>\d+)\]")
_RANGE = re.compile(r"Expected `\w+` (?=[<>]|of length)")
MAX_SHOWN = 80  # characters of a value in a message


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Immutable record that refuses fields it does not know."""


def range_problem(record: msgspec.Struct) -> str | None:
    """The first field whose value is of another type or out of range, as "field is value; rule".

    For records built in Python: msgspec checks only what it decodes.
    """
    content = msgspec.to_builtins(record)
    try:
        msgspec.convert(content, type(record))
    except msgspec.ValidationError as error:
        return problem_from_error(error, content, type(record))
    return None


def problem_from_error(
    error: msgspec.ValidationError, content: object, record: object = None
) -> str:
    """One line for msgspec's error, with the value that `content` has there.

    "Expected `int` >= 1 - at `$.config.channels[2]`" becomes
    "config.channels[2] is 0; it must be >= 1". `content` is the decoded file, plain dicts and
    lists; where it does not hold the field, the line is msgspec's own. An entry of a dict, which
    msgspec calls [...], is named if `record` is the type that was decoded.
    """
    message = one_line(error)
    located = _LOCATED.fullmatch(message)
    if located is None:
        return message
    try:
        path, value = _named_path(located["path"], content, record)
    except (LookupError, TypeError):
        return message
    field, rule = path.removeprefix("."), located["rule"]
    if isinstance(value, dict):
        return f"{rule} - at `{field}`"
    size = f"has {len(value)} values" if isinstance(value, list | tuple) else _is(value)
    rule = _RANGE.sub("it must be ", rule)
    return f"{field} {size}; {rule[0].lower()}{rule[1:]}"


def problem_from_json(error: msgspec.ValidationError, data: bytes, record: object = None) -> str:
    """As `problem_from_error`, for the bytes of a JSON file."""
    try:  # msgspec would refuse numbers out of range, such as 1e400, here too
        content = json.loads(data, parse_float=_float_from_text, parse_int=_int_from_text)
    except (ValueError, RecursionError):
        content = None  # what follows the invalid value is no JSON
    return problem_from_error(error, content, record)


class _OutOfRange:
    """A number that Python does not hold, which fits no type."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _float_from_text(text: str) -> object:
    number = float(text)
    return number if math.isfinite(number) else _OutOfRange(text)


def _int_from_text(text: str) -> object:
    return int(text) if len(text) <= sys.get_int_max_str_digits() else _OutOfRange(text)


def _named_path(path: str, content: Any, record: Any) -> tuple[str, Any]:
    """A path as msgspec gives it, with the names of dicts' entries, and what is there.

    Raises LookupError, TypeError when it is not there.
    """
    before, unnamed, after = path.partition(_UNNAMED)
    for step in _STEP.finditer(before):
        key = step["key"] or int(step["index"])
        content = content[key]
        if unnamed:
            record = _type_of_part(record, key)
    if not unnamed:
        return path, content
    of_entries = get_args(_bare(record))[1]
    for name, entry in content.items():  # in the order of the file, as msgspec reads it
        try:
            msgspec.convert(entry, of_entries)
        except msgspec.ValidationError as error:
            located = _LOCATED.fullmatch(one_line(error))
            if (located["path"] if located else "") != after:
                break
            within, value = _named_path(after, entry, of_entries)
            return f"{before}[{name!r:.{MAX_SHOWN}}]{within}", value
    raise LookupError(path)


def _type_of_part(record: Any, key: str | int) -> Any:
    """The type of a record's field, or of a list's items. Raises LookupError, TypeError."""
    bare = _bare(record)
    if isinstance(key, int):
        return get_args(bare)[0]
    return get_type_hints(bare, include_extras=True)[key]


def _bare(record: Any) -> Any:
    """A type without its range, and without None."""
    while get_origin(record) in (Annotated, Union, UnionType):
        record = next(part for part in get_args(record) if part is not NoneType)
    return record


def one_line(error: Exception) -> str:
    """The error's message on one line; its type where it has no message."""
    return " ".join(str(error).split()) or type(error).__name__


def _is(value: object) -> str:
    text = repr(value)
    return f"is {text}" if len(text) <= MAX_SHOWN else f"is {text[:MAX_SHOWN]}..."
