"""Content of a file that torch.save wrote, read where it is asked for.

A checkpoint holds optimizers, arguments and other networks beside the generator. None of them is
converted, so that a value of an unknown class among them does no harm.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from checkpoints.errors import ForeignFileError
from checkpoints.networks import is_module, tensors_of_module
from checkpoints.pickles import RecordedCall
from checkpoints.read_budget import FileRefused
from checkpoints.values import MAPPINGS, Values


@dataclass(frozen=True)
class TorchFile:
    """Content of a file that torch.save wrote."""

    content: object  # nested mappings, lists and tuples of plain data and tensors


class StoredMapping(Mapping[object, object]):
    """A mapping in a file, whose values are converted when they are first asked for.

    A module's value is its state dict. Raises ForeignFileError then, if the value is not data.
    """

    def __init__(self, records: Mapping[object, object], values: Values, path: Path) -> None:
        self._records = records
        self._values = values
        self._path = path
        self._known: dict[object, object] = {}

    def __getitem__(self, key: object) -> object:
        if key not in self._known:
            record = self._records[key]
            try:
                self._known[key] = content_from_record(record, self._values, self._path)
            except FileRefused as error:
                raise ForeignFileError(f"{self._path}: {error} (under {key!r:.80})") from error
        return self._known[key]

    def __iter__(self) -> Iterator[object]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)


def content_from_record(record: object, values: Values, path: Path) -> object:
    """Content of a record; mappings are StoredMapping. Raises FileRefused for unknown data."""
    if is_module(record):
        return tensors_of_module(record, values)
    if isinstance(record, RecordedCall) and record.name in MAPPINGS:
        record = values.records(record)
    if isinstance(record, dict):
        values.budget.spend_value(0, len(record))
        return StoredMapping(record, values, path)
    return values.value(record)
