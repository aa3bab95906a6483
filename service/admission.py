"""How much work the server takes on: reservations, so that open streams never starve each other."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.config import Limits
from service.errors import BadRequest, Overloaded
from service.query import Query

WINDOW_BATCHES = (4, 2, 1)  # one runs, one waits, one is encoded, one is being written


class Admission:
    """What is reserved by the streams that are open."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._streams = self._samples = self._bytes = 0

    @contextmanager
    def admit(self, query: Query, batch_size: int, answer_samples: int = 0) -> Iterator[int]:
        """Reserves room for a stream until the block ends; yields its window in samples.

        `answer_samples` are held beside the window, until the whole answer is sent. Raises
        Overloaded when there is no room now, BadRequest when there never can be.
        """
        if self._streams >= self._limits.max_streams:
            raise Overloaded(
                f"{self._streams} streams are open, max_streams is {self._limits.max_streams}; "
                "try again later or at another replica"
            )
        window, samples, size = self._reservation(query, batch_size, answer_samples)
        self._streams, self._samples = self._streams + 1, self._samples + samples
        self._bytes += size
        try:
            yield window
        finally:
            self._streams, self._samples = self._streams - 1, self._samples - samples
            self._bytes -= size

    def _reservation(
        self, query: Query, batch_size: int, answer_samples: int
    ) -> tuple[int, int, int]:
        """The widest window that fits, then what it reserves in samples and bytes."""
        limits, brought = self._limits, query.latents.rows.nbytes if query.latents else 0
        samples = size = 0
        for batches in WINDOW_BATCHES:
            window = batches * batch_size + answer_samples
            samples = window + query.plan.unit  # an object that is not whole yet
            size = samples * query.sample_bytes + brought
            if (
                self._samples + samples <= limits.max_inflight_samples
                and self._bytes + size <= limits.max_inflight_bytes
            ):
                return window, samples, size
        need = (
            f"this stream needs {samples} samples ({size} bytes) under way; the limits are "
            f"max_inflight_samples {limits.max_inflight_samples} and max_inflight_bytes "
            f"{limits.max_inflight_bytes}"
        )
        if samples > limits.max_inflight_samples or size > limits.max_inflight_bytes:
            raise BadRequest(f"{need}; ask for fewer outputs, views or rows")
        raise Overloaded(f"{need}, with other streams open; try again later or at another replica")
