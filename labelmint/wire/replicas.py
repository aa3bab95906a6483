"""Replicas of a service: the channels to all targets, used in turns.

Enter: targets. Leave: for each call, the replica to send it to.
"""

from __future__ import annotations

import itertools
import os
import secrets
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from labelmint.arguments import of_type
from labelmint.errors import ClientClosed, LabelmintError
from labelmint.wire.channel import OwnerProcess, Tls, check_target, open_channel, stub_from_channel


@dataclass(frozen=True)
class Replica:
    """One target, a server or several servers behind one name, its stub and TLS settings."""

    target: str
    stub: Any
    tls: Tls | None = None


class Replicas:
    """Channels to all replicas of a service, used in turns. Safe for several threads."""

    def __init__(self, targets: Sequence[str], tls: Tls | None) -> None:
        """Connects at the first call. Raises ValueError, OSError as open_channel does."""
        self.closed, self._owner = threading.Event(), OwnerProcess()
        self._channels = [open_channel(target, tls) for target in targets]
        stubs = [stub_from_channel(channel) for channel in self._channels]
        self._replicas = [Replica(*each, tls) for each in zip(targets, stubs, strict=True)]
        # Not from `random`, so that trainers with the same seed begin at different targets.
        self._turns = self.turns_from(secrets.randbelow(len(targets)))

    def turns_from(self, first: int) -> Iterator[Replica]:
        """Endless cyclic order of the replicas, beginning at number `first` modulo their count.

        Several threads may share the iterator, because its next() is atomic.
        """
        first %= len(self._replicas)
        return itertools.cycle(self._replicas[first:] + self._replicas[:first])

    @contextmanager
    def turn(self, turns: Iterator[Replica] | None = None) -> Iterator[Replica]:
        """The replica for one call, which is made in the with block.

        Args:
            turns: order of the replicas, from `turns_from`. None: one order for all such calls.

        Raises:
            ClientClosed: in a fork; and after `close`, in place of the error of the call.
        """
        self._owner.check()
        if self.closed.is_set():
            raise ClientClosed
        try:
            yield next(turns or self._turns)
        except (grpc.RpcError, LabelmintError, ValueError) as error:
            if self.closed.is_set():
                raise ClientClosed from error
            raise

    def close(self) -> None:
        """Ends all calls. May be called again; does nothing in a fork, where channels may hang."""
        if not self._owner.is_here:
            return
        self.closed.set()
        for channel in self._channels:
            channel.close()


def targets_from_argument(target: str | Sequence[str] | None) -> list[str]:
    """List of targets.

    Args:
        target: "host:port", several separated by commas, or a list of targets. None: the
            environment variable LABELMINT_TARGET.

    Raises:
        TypeError: target has another type.
        ValueError: no target is given, or one has no host or port.
    """
    of_type("target", target, Iterable, "text, as 'localhost:50051', or a list of targets")
    given = target or os.environ.get("LABELMINT_TARGET", "")
    targets = targets_from_text(given) if isinstance(given, str) else list(given)
    if not targets:
        raise ValueError("no target; give Client('host:port') or set LABELMINT_TARGET")
    for each in targets:
        check_target(each)
    return targets


def targets_from_text(text: str) -> list[str]:
    """The targets in "host:port,host:port". A target of grpc that lists addresses stays whole."""
    if text.startswith(("ipv4:", "ipv6:")):
        return [text]
    return [target.strip() for target in text.split(",") if target.strip()]
