"""How long a stream stays at this server, so that replicas added later get their share."""

import random

from service.delivery import Message, Stream
from service.errors import StreamExpired

JITTER = 0.1  # a tenth shorter or longer, so that streams which began together end apart
# gRPC closes a connection to new calls at this share of the stream's age (with its own jitter of
# a tenth). Clients then look their target's name up again, and know all replicas by the time their
# streams end.
CONNECTION_SHARE = 0.75
# A connection that closes sooner may close before each call that begins on it. gRPC's clients then
# repeat the call without end, and hold 70 MB more with each second.
LEAST_CONNECTION_AGE_S = 0.05


class Lifetime:
    """The age limit of one stream. Times are in seconds, on the caller's clock."""

    def __init__(self, max_age_s: float, next_index: int, now: float) -> None:
        """`max_age_s` 0: no limit; `next_index`: where the stream begins."""
        self._max_age_s, self._began_at = max_age_s, next_index
        self._ends = now + max_age_s * random.uniform(1 - JITTER, 1 + JITTER)

    def check(self, stream: Stream, sent: Message, now: float) -> None:
        """Raises StreamExpired when the time is over and the stream is not.

        A stream that has not progressed stays: moved from server to server, it never would.
        """
        if not self._max_age_s or now < self._ends or stream.finished:
            return
        if sent.next_index > self._began_at:
            raise StreamExpired(
                f"the stream has had its {self._max_age_s:g} s at this server, its "
                "--max-stream-age; resume from next_index, at any replica"
            )
