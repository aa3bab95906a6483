"""The replicas of a service, taken in turns."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labelmint.channel import Tls, open_channel
from labelmint.v1 import label_service_pb2_grpc as pb_grpc


@dataclass(frozen=True)
class Replica:
    """One target: a server, or several behind one name."""

    target: str
    stub: Any


class Replicas:
    """The replicas of a service, for calls in turns. Safe for several threads."""

    def __init__(self, targets: Sequence[str], tls: Tls | None) -> None:
        """Connects at the first call. Raises ValueError, OSError as open_channel does."""
        self._channels = [open_channel(target, tls) for target in targets]
        stubs = [pb_grpc.LabelServiceStub(channel) for channel in self._channels]
        self._turns = itertools.cycle(map(Replica, targets, stubs))  # next() on it is atomic

    def next(self) -> Replica:
        """Whose turn it is."""
        return next(self._turns)

    def close(self) -> None:
        """Ends all calls; harmless when closed."""
        for channel in self._channels:
            channel.close()


def targets_from_text(text: str) -> list[str]:
    """The targets of "host:port,host:port"; names that list addresses themselves stay whole."""
    if text.startswith(("ipv4:", "ipv6:")):
        return [text]
    return [target.strip() for target in text.split(",") if target.strip()]
