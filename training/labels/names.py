"""Names of images in label files -> images of the set.

Tools write paths, add prefixes and suffixes, and change suffixes of files. A name stands for the
image that has its stem; else for the one that is left when what a tool adds is taken away:

    23082be9-000.png                       Label Studio's uploads
    000_png.rf.5f2ac0b6f1d54d2d8a7f.jpg    Roboflow
    000_mask.png, 000_gt.png ...           masks beside images
"""

import difflib
import re
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from labelmint.errors import printable_from_text

PICTURES = r"(?:png|jpe?g|jpe|bmp|webp|tiff?|gif|json|txt|xml|npy)"
SUFFIX = re.compile(rf"\.{PICTURES}\Z", re.IGNORECASE)
ADDED = (
    re.compile(r"\A[0-9a-f]{8}-(?P<stem>.+)\Z"),  # Label Studio
    re.compile(rf"\A(?P<stem>.+)_{PICTURES}\.rf\.[0-9a-zA-Z]+\Z", re.IGNORECASE),  # Roboflow
    re.compile(r"\A(?P<stem>.+)\.rf\.[0-9a-zA-Z]+\Z"),
    re.compile(
        r"\A(?P<stem>.+?)[_.-](?:mask|masks|label|labels|seg|gt|labelIds|labelTrainIds)\Z",
        re.IGNORECASE,
    ),
)
SHOWN = 6  # names in a message
COMPARED = 100  # characters of a name: difflib takes time in the square of them


def file_of_name(name: str) -> str:
    """File name of a path or address as tools write them, with / or Windows' separators."""
    with suppress(ValueError):  # such as of http://[, which is then a name like any other
        if "?d=" in name:  # Label Studio's local files
            name = parse_qs(urlsplit(name).query).get("d", [name])[0]
        if "://" in name or name.startswith("/data/"):
            name = unquote(urlsplit(name).path)
    return PurePosixPath(name.replace("\\", "/")).name


def stem_of_name(name: str) -> str:
    """File name without the suffix of a picture or label file."""
    return SUFFIX.sub("", file_of_name(name))


def matching_stem(name: str, stems: Collection[str]) -> str | None:
    """Stem of the set's image that the name stands for; None if there is none."""
    return next((stem for stem in _candidates(stem_of_name(name)) if stem in stems), None)


def line_of_unmatched(unmatched: Sequence[str], stems: Sequence[str]) -> str:
    """Names that stand for no image of the set, each with the nearest that the set has."""
    shown = []
    for name in unmatched[:SHOWN]:
        close = difflib.get_close_matches(stem_of_name(name)[:COMPARED], stems, 1, 0.6)
        shown.append(printable_from_text(name) + (f" (nearest: {close[0]})" if close else ""))
    more = f" and {len(unmatched) - SHOWN} more" if len(unmatched) > SHOWN else ""
    return ", ".join(shown) + more


def some(names: Iterable[str]) -> str:
    """The first names, for a message."""
    listed = sorted(names)
    return ", ".join(listed[:2]) + (" ..." if len(listed) > 2 else "")


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that is spelled most like it, if any is close."""
    others = {other.casefold()[:COMPARED]: other for other in names if other != name}
    close = difflib.get_close_matches(name.casefold()[:COMPARED], others, 1, 0.7)
    return others[close[0]] if close else None


def _candidates(stem: str) -> list[str]:
    """The stem, and what is left of it without one or two of the tools' additions."""
    candidates = [stem]
    for _ in range(2):
        for candidate in list(candidates):
            for pattern in ADDED:
                match = pattern.match(candidate)
                if match and match["stem"] not in candidates:
                    candidates.append(match["stem"])
    return candidates
