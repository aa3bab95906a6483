"""The names of classes and keypoints in the data.yaml of a YOLO data set, or in its classes.txt.

Enters: a folder of somebody else. Leave: names, as they are written: `no` is no boolean. Of YAML
only the syntax is taken, as events. What data.yaml needs none of is refused before it costs
anything: aliases, whose merges multiply, deep nesting, and more values than data sets have.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from training.errors import LabelError
from training.labels.annotations import bytes_of_file

DATA = ("data.yaml", "dataset.yaml", "data.yml")
# LVIS, of 1,203 classes, has 30 KB and 3,700 events. What the limits let in takes half a second.
MAX_DATA_BYTES, MAX_EVENTS, MAX_DEPTH = 1 << 18, 20_000, 10
MAX_DIGITS = 18  # of numbers
MAX_KEYPOINTS = 1000
NOTHING = (None, "", "~", "null")


class Keypoints:
    """Shape and names of the keypoints of a pose set."""

    def __init__(self, path: Path, data: Mapping[Any, Any]) -> None:
        shape = data["kpt_shape"]
        numbers = [_number(text) for text in shape] if isinstance(shape, list) else []
        count, dims = numbers if len(numbers) == 2 else (None, None)
        if count is None or not 1 <= count <= MAX_KEYPOINTS or dims not in (2, 3):
            raise LabelError(
                f"{path}: kpt_shape must be [count, 2] or [count, 3], count up to {MAX_KEYPOINTS}"
            )
        self.count, self.dims = count, dims
        names = data.get("kpt_names")
        if isinstance(names, dict) and names:
            names = next(iter(names.values()))
        if not isinstance(names, list) or len(names) != count or not _texts(names):
            names = [f"keypoint_{i}" for i in range(count)]
        self.names: list[str] = names


def names_of_folder(folder: Path) -> tuple[dict[int, str], Keypoints | None]:
    """Names of the classes by id, and keypoints, of data.yaml or classes.txt. Raises LabelError."""
    path = next((p for name in DATA if (p := folder / name).exists()), None)
    if path is None:
        listed = folder / "classes.txt"  # Label Studio's and makesense's
        if not listed.exists():
            raise LabelError(f"{folder} has no data.yaml or classes.txt, with the names of classes")
        lines = bytes_of_file(listed).decode("utf-8", "replace").splitlines()
        return dict(enumerate(line.strip() for line in lines if line.strip())), None
    data = _data(path)
    names = data.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    elif isinstance(names, dict):
        names = _by_number(path, names)
    if not isinstance(names, dict) or not names or None in names or not _texts(names.values()):
        raise LabelError(f"{path} has no list `names` of the classes")
    found = {number: names[number] for number in sorted(names)}
    return found, Keypoints(path, data) if data.get("kpt_shape") not in NOTHING else None


def _data(path: Path) -> dict[Any, Any]:
    """Mappings, lists and texts of a file; empty if it holds no mapping."""
    try:
        text = bytes_of_file(path, MAX_DATA_BYTES).decode("utf-8")
        _, begin, *events = _bounded(path, yaml.parse(text, Loader=yaml.SafeLoader))
        if isinstance(begin, yaml.StreamEndEvent):
            return {}
        rest = iter(events)
        data = _value(next(rest), rest)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LabelError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if len(list(rest)) > 2:  # the ends of the document and of the stream
        raise LabelError(f"{path} has several documents; leave the one with the names")
    return data if isinstance(data, dict) else {}


def _bounded(path: Path, events: Iterator[yaml.Event]) -> Iterator[yaml.Event]:
    """The events, as long as they are few and plain. Raises LabelError."""
    depth = 0
    for number, event in enumerate(events):
        line = f"{path}, line {event.start_mark.line + 1 if event.start_mark else 1}"
        opens = isinstance(event, yaml.CollectionStartEvent)
        depth += opens - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise LabelError(f"{line} has an alias (*{event.anchor}); write what it stands for")
        if depth > MAX_DEPTH:
            raise LabelError(f"{line} is nested more than {MAX_DEPTH} deep; names need 2")
        if number > MAX_EVENTS:
            raise LabelError(
                f"{path} has more than {MAX_EVENTS} values; leave only the names in it"
            )
        yield event


def _value(event: yaml.Event, events: Iterator[yaml.Event]) -> Any:
    """The value that begins with this event. Raises YAMLError for a key that is there twice."""
    if isinstance(event, yaml.ScalarEvent):
        return event.value
    found: list[Any] = []
    for each in events:
        if isinstance(each, yaml.CollectionEndEvent):
            break
        found.append(_value(each, events))
    if isinstance(event, yaml.SequenceStartEvent):
        return found
    pairs = [pair for pair in zip(found[::2], found[1::2], strict=True) if isinstance(pair[0], str)]
    keys = dict(pairs)
    if len(keys) < len(pairs):  # readers differ in which of them they take
        (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise yaml.YAMLError(f"{key!r:.100} is there twice; leave the one that is meant")
    return keys


def _by_number(path: Path, names: Mapping[str, Any]) -> dict[int | None, Any]:
    """Names by the number of their class. Raises LabelError for two of one number."""
    found = {_number(key): name for key, name in names.items()}
    if len(found) < len(names) and None not in found:
        numbers = Counter(map(_number, names))
        raise LabelError(f"{path} names the class {numbers.most_common(1)[0][0]} twice")
    return found


def _number(text: object) -> int | None:
    """A whole number; None for what is none, or has too many digits."""
    if not isinstance(text, str) or not text.removeprefix("-").isascii():
        return None
    return int(text) if text.removeprefix("-").isdigit() and len(text) <= MAX_DIGITS else None


def _texts(values: Any) -> bool:
    return all(isinstance(value, str) and value for value in values)
