"""How often each client may call: one token bucket a client."""

from collections import OrderedDict

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
