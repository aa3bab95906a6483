"""Weights cards and other TOML files: read as strict records, written in one step."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, get_args, get_type_hints

import msgspec
import tomli_w

from bundle.files import opened_regular_file, replace_file
from bundle.records import one_line, problem_from_error
from checkpoints.downloads import failed_download, refuse_failed_download
from checkpoints.errors import CardError

MAX_CARD_BYTES = 1 << 20
MAX_PARTS = 32  # of a key such as "a.b.c"; reading takes the square of their number
_LONG_KEY = re.compile(
    rb"""(?:^|[\[{,])[ \t]*(?:(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){%d}"""
    % MAX_PARTS,
    re.MULTILINE,
)
Card = TypeVar("Card", bound=msgspec.Struct)


class _Kind(msgspec.Struct):
    """The key `kind` of a card; its other keys are ignored."""

    kind: str


def no_contradiction(card: msgspec.Struct) -> None:
    """For cards without rules between fields."""


def card_path(weights: Path) -> Path:
    """Path of the card of a weights file: the same path with suffix .toml."""
    return weights.with_suffix(".toml")


def read_card(
    weights: Path,
    card_type: type[Card],
    contradiction: Callable[[Card], str | None] = no_contradiction,
) -> Card:
    """The card beside `weights`; `contradiction` gives the first broken rule between its fields.

    Raises CardError, naming the file and the field, and WeightsError for weights that are a failed
    download.
    """
    if not weights.exists():
        raise CardError(f"{weights} does not exist")
    refuse_failed_download(weights)
    path, advice = card_path(weights), f"the card of {weights.name} must lie beside it"
    try:
        card = read_toml(path, card_type, advice)
    except CardError as error:
        (wanted,) = get_args(get_type_hints(card_type)["kind"])
        kind = kind_of_weights(weights)
        if kind in (None, wanted):
            raise
        raise CardError(
            f"{weights} is of kind {kind!r}, as {path.name} says; give one of kind {wanted!r}"
        ) from error
    problem = contradiction(card)
    if problem:
        raise CardError(f"{path}: {problem}")
    return card


def kind_of_weights(weights: Path) -> str | None:
    """The kind that the card beside `weights` gives; None without a readable card."""
    try:
        return read_toml(card_path(weights), _Kind).kind
    except CardError:
        return None


def read_toml(path: Path, card_type: type[Card], advice: str = "") -> Card:
    """A TOML file as a strict record; `advice` ends the message when it cannot be read.

    Raises CardError, naming the file and the field.
    """
    try:
        with opened_regular_file(path) as stream:
            data = stream.read(MAX_CARD_BYTES + 1)
    except OSError as error:
        reason = f"{path} cannot be read ({error.strerror})"
        raise CardError(f"{reason}; {advice}" if advice else reason) from error
    if len(data) > MAX_CARD_BYTES:
        raise CardError(f"{path} has over {MAX_CARD_BYTES} bytes; it is not a card")
    if _LONG_KEY.search(data):
        raise CardError(f"{path} has a key of over {MAX_PARTS} parts; it is not a card")
    try:
        return msgspec.toml.decode(data, type=card_type)
    except msgspec.ValidationError as error:
        problem = problem_from_error(error, msgspec.toml.decode(data), card_type)
        raise CardError(f"{path}: {problem}") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        what = failed_download(data, len(data))
        reason = f"it is {what}" if what else one_line(error)
        raise CardError(f"{path} is not TOML: {reason}") from error


def write_text(path: Path, text: str) -> None:
    """Writes or replaces a UTF-8 file in one step. Raises CardError, OSError."""
    replace_file(path, bytes_of_text(path, text))


def bytes_of_text(path: Path, text: str) -> bytes:
    """The text as UTF-8, for a file at `path`. Raises CardError for half a character, which names
    from JSON, YAML or the command line may have."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise CardError(
            f"{path} is not written: {text[error.start]!r}, in "
            f"{text[max(0, error.start - 20) : error.start + 20]!r}, is no character; change that "
            "name"
        ) from error


def toml_from_card(card: msgspec.Struct) -> str:
    """TOML text of a record, without its absent (None) values."""
    return tomli_w.dumps(_present_values(msgspec.to_builtins(card)))


def _present_values(table: dict[str, object]) -> dict[str, object]:
    return {key: _present(value) for key, value in table.items() if value is not None}


def _present(value: object) -> object:
    if isinstance(value, dict):
        return _present_values(value)
    return [_present(item) for item in value] if isinstance(value, list | tuple) else value
