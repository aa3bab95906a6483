"""How much work the server takes on: reservations, so that open streams never starve each other,
and one token bucket of calls a client.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.config import ServerLimits
from service.errors import BadRequest, Overloaded
from service.query import Query

MAX_CLIENTS = 10_000  # remembered; the longest unheard of are forgotten first


class RequestRate:
    """Grants `per_s` calls a second to each client, and bursts of one second's worth."""

    def __init__(self, per_s: float) -> None:
        """`per_s` 0 grants everything."""
        self._per_s, self._most = per_s, max(per_s, 1.0)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # left, when

    def wait_s(self, client: str, now: float) -> float:
        """Takes one call; 0.0 when granted, else the seconds until one would be."""
        if not self._per_s:
            return 0.0
        left, then = self._buckets.pop(client, (self._most, now))
        left = min(self._most, left + (now - then) * self._per_s)
        granted = left >= 1.0
        self._buckets[client] = (left - granted, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if granted else (1.0 - left) / self._per_s


WINDOW_BATCHES = (4, 2, 1)  # one runs, one waits, one is encoded, one is being written


@dataclass
class _Reserved:
    """By the streams of one client, or of all."""

    streams: int = 0
    samples: int = 0
    bytes: int = 0

    def add(self, streams: int, samples: int, size: int) -> None:
        self.streams += streams
        self.samples += samples
        self.bytes += size


class Admission:
    """What is reserved by the streams that are open, in all and by client."""

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._all = _Reserved()
        self._clients: dict[str, _Reserved] = {}

    @contextmanager
    def admit(
        self, client: str, query: Query, batch_size: int, answer_samples: int = 0
    ) -> Iterator[int]:
        """Reserves room for a stream until the block ends; yields its window in samples.

        `answer_samples` are held beside the window, until the whole answer is sent. Raises
        Overloaded when there is no room now, BadRequest when there never can be.
        """
        own = self._clients.get(client, _Reserved())
        self._check_streams(client, own)
        window, samples, size = self._reservation(own, query, batch_size, answer_samples)
        self._clients[client] = own
        for reserved in (self._all, own):
            reserved.add(1, samples, size)
        try:
            yield window
        finally:
            for reserved in (self._all, own):
                reserved.add(-1, -samples, -size)
            if not own.streams:
                del self._clients[client]

    def _check_streams(self, client: str, own: _Reserved) -> None:
        if own.streams >= self._limits.max_client_streams:
            raise Overloaded(
                f"{own.streams} streams of client {client} are open, max_client_streams is "
                f"{self._limits.max_client_streams}; end one first"
            )
        if self._all.streams >= self._limits.max_streams:
            raise Overloaded(
                f"{self._all.streams} streams are open, max_streams is "
                f"{self._limits.max_streams}; try again later or at another replica"
            )

    def _reservation(
        self, own: _Reserved, query: Query, batch_size: int, answer_samples: int
    ) -> tuple[int, int, int]:
        """The widest window that fits, then what it reserves in samples and bytes."""
        limits, brought = self._limits, query.latents.rows.nbytes if query.latents else 0
        most = min(limits.max_inflight_samples, limits.max_client_inflight_samples)
        samples = size = 0
        for batches in WINDOW_BATCHES:
            window = batches * batch_size + answer_samples
            samples = window + query.plan.unit  # an object that is not whole yet
            size = samples * query.sample_bytes + brought
            if (
                self._all.samples + samples <= limits.max_inflight_samples
                and own.samples + samples <= limits.max_client_inflight_samples
                and self._all.bytes + size <= limits.max_inflight_bytes
            ):
                return window, samples, size
        need = (
            f"this stream needs {samples} samples ({size} bytes) under way; the limits are "
            f"max_inflight_samples {limits.max_inflight_samples}, max_client_inflight_samples "
            f"{limits.max_client_inflight_samples} and max_inflight_bytes "
            f"{limits.max_inflight_bytes}"
        )
        if samples > most or size > limits.max_inflight_bytes:
            raise BadRequest(f"{need}; ask for fewer outputs, views or rows")
        raise Overloaded(f"{need}, with other streams open; try again later or at another replica")
