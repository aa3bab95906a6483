"""How long a stream stays at this server, so that replicas which were added get their share."""

import random

from service.delivery import Chunk, Stream
from service.errors import StreamExpired

JITTER = 0.1  # either way, so that streams which began together do not move together
# Of that time, for connections. grpc closes an old one to new calls, which has clients look their
# name up again: so early (with its own jitter of a tenth) that they know all replicas when the
# streams end.
CONNECTION_SHARE = 0.75


class Lifetime:
    """One stream's. Times are in seconds, on one clock."""

    def __init__(self, max_age_s: float, next_index: int, now: float) -> None:
        """`max_age_s` 0 is for ever; `next_index` is where the stream begins."""
        self._max_age_s, self._began_at = max_age_s, next_index
        self._ends = now + max_age_s * random.uniform(1 - JITTER, 1 + JITTER)

    def check(self, stream: Stream, sent: Chunk, now: float) -> None:
        """Raises StreamExpired when the time is over and samples are left to stream.

        A stream that got nowhere stays: moved on from server to server, it never would.
        """
        if not self._max_age_s or now < self._ends or stream.finished:
            return
        if sent.next_index > self._began_at:
            raise StreamExpired(
                f"the stream has had its {self._max_age_s:g} s at this server, its "
                "--max-stream-age; resume from next_index, at any replica"
            )
