"""Batches that a function makes of a client's stream, as a source of `Prefetch`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from labelmint.client import Client
from labelmint.position import Position


class Item(NamedTuple):
    """What the loop gets, and where the reader is then."""

    batch: Any
    position: Position
    nbytes: int = 0  # one is held ready, however large


class Made:
    """A source of batches for a prefetch."""

    def __init__(self, client: Client, make: Callable[[Client], Iterator[Item]]) -> None:
        self._client, self._make = client, make

    def messages(self) -> Iterator[Item]:
        return self._make(self._client)

    def watch(self) -> None:
        """The stream within watches its servers itself."""

    def close(self) -> None:
        self._client.close()
