"""How much work the server takes on: a rate of calls for each client, and reservations of memory.

Every call first takes a token from its client's `RequestRate`; every stream then reserves its
samples and bytes at `Admission` until it ends, so that the streams that are open can always
finish.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.config import ServerLimits
from service.errors import BadRequest, Overloaded
from service.query import Query

MAX_CLIENTS = 10_000  # clients remembered; those unheard of for longest are forgotten first
# Widths of a stream's window in engine batches, the widest that fits. With 4, one batch runs, one
# waits for the engine, one is encoded and one is being sent.
WINDOW_BATCHES = (4, 2, 1)


class RequestRate:
    """A token bucket for each client: `per_s` calls a second, in bursts of one second's worth."""

    def __init__(self, per_s: float) -> None:
        """`per_s` 0 grants every call."""
        self._per_s, self._capacity = per_s, max(per_s, 1.0)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, filled when

    def wait_s(self, client: str, now: float) -> float:
        """Takes one token; 0.0 when there was one, else the seconds until there will be one."""
        if not self._per_s:
            return 0.0
        tokens, then = self._buckets.pop(client, (self._capacity, now))
        tokens = min(self._capacity, tokens + (now - then) * self._per_s)
        granted = tokens >= 1.0
        self._buckets[client] = (tokens - granted, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if granted else (1.0 - tokens) / self._per_s


class Admission:
    """The reservations of the open streams, in total and by client."""

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._total = _Reserved()
        self._clients: dict[str, _Reserved] = {}

    @contextmanager
    def admit(
        self,
        client: str,
        query: Query,
        batch_size: int,
        answer_samples: int = 0,
        request_bytes: int = 0,
    ) -> Iterator[int]:
        """Reserves memory for a stream until the block ends; yields its window in samples.

        Args:
            client: whose limits count.
            query: says the bytes of a sample.
            batch_size: rows of an engine batch.
            answer_samples: samples held besides the window until the whole answer is sent, for
                calls with one answer.
            request_bytes: size of the request, which is held as long as the stream.

        Raises:
            Overloaded: a limit is reached now.
            BadRequest: the stream alone would exceed a limit.
        """
        own = self._clients.get(client, _Reserved())
        self._check_streams(client, own)
        latent_bytes = query.latents.rows.nbytes if query.latents else 0
        held_bytes = max(latent_bytes, request_bytes)  # a request may hold more than latents
        window, samples, size = self._reservation(
            own, query, batch_size, answer_samples, held_bytes
        )
        self._clients[client] = own
        for reserved in (self._total, own):
            reserved.add(1, samples, size)
        try:
            yield window
        finally:
            for reserved in (self._total, own):
                reserved.add(-1, -samples, -size)
            if not own.streams:
                del self._clients[client]

    def _check_streams(self, client: str, own: "_Reserved") -> None:
        if own.streams >= self._limits.max_client_streams:
            raise Overloaded(
                f"{own.streams} streams of client {client} are open, max_client_streams is "
                f"{self._limits.max_client_streams}; end one first"
            )
        if self._total.streams >= self._limits.max_streams:
            raise Overloaded(
                f"{self._total.streams} streams are open, max_streams is "
                f"{self._limits.max_streams}; try again later or at another replica"
            )

    def _reservation(
        self,
        own: "_Reserved",
        query: Query,
        batch_size: int,
        answer_samples: int,
        held_bytes: int,
    ) -> tuple[int, int, int]:
        """The widest window that fits, and the samples and bytes that it reserves."""
        limits = self._limits
        max_samples = min(limits.max_inflight_samples, limits.max_client_inflight_samples)
        samples = size = 0
        for batches in WINDOW_BATCHES:
            window = batches * batch_size + answer_samples
            samples = window + query.plan.unit  # the views of an object that is not complete yet
            size = samples * query.sample_bytes + held_bytes
            if (
                self._total.samples + samples <= limits.max_inflight_samples
                and own.samples + samples <= limits.max_client_inflight_samples
                and self._total.bytes + size <= limits.max_inflight_bytes
            ):
                return window, samples, size
        need = (
            f"this stream needs {samples} samples ({size} bytes) under way; the limits are "
            f"max_inflight_samples {limits.max_inflight_samples}, max_client_inflight_samples "
            f"{limits.max_client_inflight_samples} and max_inflight_bytes "
            f"{limits.max_inflight_bytes}"
        )
        if samples > max_samples or size > limits.max_inflight_bytes:
            raise BadRequest(f"{need}; ask for fewer outputs, views or rows")
        raise Overloaded(f"{need}, with other streams open; try again later or at another replica")


@dataclass
class _Reserved:
    """Reservations of one client's streams, or of all streams."""

    streams: int = 0
    samples: int = 0
    bytes: int = 0

    def add(self, streams: int, samples: int, size: int) -> None:
        self.streams += streams
        self.samples += samples
        self.bytes += size
