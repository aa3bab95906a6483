"""Names of classes and of keypoints: what a list of them must be, and what its places have meant.

A label has ids or places, never names. So whoever sends one says by which list it was made, and it
counts while the places that it uses mean what they meant: a class that was renamed is the same
class, one that took the place of another is not.

    DIR/studio/names.json   all names of each place, so that a renamed class outlives a restart
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from bundle.files import read_regular_file
from bundle.records import Strict
from checkpoints import write_text
from studio.errors import StudioError

NAMES, MAX_BYTES = "names.json", 1 << 20
MAX_NAME = 80  # characters
KEPT_NAMES = 16  # of a place
KEY_DIGITS = 8
Meanings = list[list[str]]  # by place: the names that it has had, that of now last


class Known(Strict, frozen=True):
    """Content of names.json."""

    classes: Meanings = msgspec.field(default_factory=list)
    keypoints: Meanings = msgspec.field(default_factory=list)


def stored_meanings(work: Path) -> Known:
    """What the places meant at the end of the last session; nothing if that cannot be read."""
    with suppress(OSError, msgspec.DecodeError, ValueError):
        return msgspec.json.decode(read_regular_file(work / NAMES, MAX_BYTES), type=Known)
    return Known()


def store_meanings(work: Path, known: Known) -> None:
    """Replaces names.json. Raises OSError."""
    write_text(work / NAMES, msgspec.json.encode(known).decode())


def meanings_of_names(
    before: Meanings, names: Sequence[str], renamed: Sequence[bool] | None = None
) -> Meanings:
    """What the places mean with these names: the same as before where the name is that of now, or
    one that the place has had and no other has now, or `renamed` says so; else something new."""
    names_of_now = {had[-1] for had in before if had}
    found = []
    for place, name in enumerate(names):
        known = before[place] if place < len(before) else []
        same = name in known and (name == known[-1] or name not in names_of_now)
        if known and renamed is not None and renamed[place]:
            same = True
        former = [one for one in known if one != name] if same else []
        found.append([*former, name][-KEPT_NAMES:])
    return found


def key_of_name(name: str) -> str:
    """A name as it stands in a header, hexadecimal digits."""
    return hashlib.sha256(name.encode()).hexdigest()[:KEY_DIGITS]


def keys_of_meanings(known: Meanings) -> list[list[str]]:
    """The keys of all names of each place, that of now last."""
    return [[key_of_name(name) for name in names] for names in known]


def mean_the_same(known: Meanings, names: Sequence[str]) -> bool:
    """Whether each place means what it meant in a list of names, and none has come or gone."""
    return len(names) == len(known) and all(
        name in had for name, had in zip(names, known, strict=True)
    )


def check_names(what: str, names: Sequence[str]) -> None:
    """Raises StudioError for a name that is empty, too long or there twice."""
    for name in names:
        if not (0 < len(name.strip()) <= MAX_NAME and name.isprintable()):
            raise StudioError(f"the {what} {name[:MAX_NAME]!r} must have 1 to {MAX_NAME} letters")
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        plural = f"{what}es" if what == "class" else f"{what}s"
        raise StudioError(f"two {plural} are called {doubled[0]}")


def changed_text(what: str, names: Sequence[str], since: str) -> str:
    """Says that something was made from an older list, and what the newer one is."""
    return (
        f"the {what} have changed since this {since}, in another tab or by another program; now "
        f"they are: {', '.join(names) or 'none'}"
    )
