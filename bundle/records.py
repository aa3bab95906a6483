"""Strict records, the parts of manifests and weights cards, and messages for invalid values.

Ranges stand beside the fields, as `Annotated[int, msgspec.Meta(ge=1)]`. msgspec checks them when
it decodes a file, but its messages lack the value; the functions here add it.
"""

import re

import msgspec

_LOCATED = re.compile(r"(?P<rule>.*) - at `\$\.(?P<field>.*)`")
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
        return problem_from_error(error, content)
    return None


def problem_from_error(error: msgspec.ValidationError, content: object) -> str:
    """One line for msgspec's error, with the value that `content` has there.

    "Expected `int` >= 1 - at `$.config.channels[2]`" becomes
    "config.channels[2] is 0; it must be >= 1". `content` is the decoded file, plain dicts and
    lists; where it does not hold the field, the line is msgspec's own.
    """
    message = one_line(error)
    located = _LOCATED.fullmatch(message)
    if located is None:
        return message
    value = content
    try:
        for step in _STEP.finditer(located["field"]):
            value = value[step["key"] or int(step["index"])]  # type: ignore[index]
    except (LookupError, TypeError):
        return message
    if isinstance(value, dict):
        return message
    size = f"has {len(value)} values" if isinstance(value, list | tuple) else _is(value)
    rule = _RANGE.sub("it must be ", located["rule"])
    return f"{located['field']} {size}; {rule[0].lower()}{rule[1:]}"


def problem_from_json(error: msgspec.ValidationError, data: bytes) -> str:
    """As `problem_from_error`, for the bytes of a JSON file."""
    try:
        content = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        content = None  # what follows the invalid value is no JSON
    return problem_from_error(error, content)


def one_line(error: Exception) -> str:
    """The error's message on one line; its type where it has no message."""
    return " ".join(str(error).split()) or type(error).__name__


def _is(value: object) -> str:
    text = repr(value)
    return f"is {text}" if len(text) <= MAX_SHOWN else f"is {text[:MAX_SHOWN]}..."
