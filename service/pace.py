"""When to draw the next engine batch: so early that the engine need not wait, and no earlier.

A small request that comes while a run is under way then still finds room in the very next
batch, however many rows of long streams there are, and what ends meanwhile is never mapped.
"""

from collections import defaultdict, deque

RECENT = 8  # runs and draws to judge by
MARGIN_S = 0.005  # for an event loop that is busy with messages


class Pace:
    """Recent durations of one engine's runs and of the drawing in front of it.

    Times are in seconds, on one clock.
    """

    def __init__(self) -> None:
        self._run_s: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))
        self._draw_s: deque[float] = deque(maxlen=RECENT)
        self._run_ends = 0.0

    def drew(self, seconds: float) -> None:
        """Drawing and mapping a batch took so long."""
        self._draw_s.append(seconds)

    def run_begins(self, rows: int, now: float) -> None:
        """The engine has a batch of so many rows."""
        self._run_ends = now + min(self._run_s[rows], default=0.0)

    def run_ended(self, rows: int, seconds: float) -> None:
        """The batch took so long."""
        self._run_s[rows].append(seconds)

    def wait_s(self, now: float) -> float:
        """How long drawing may still wait; 0 after a run of a size that is new."""
        lead_s = max(self._draw_s, default=0.0) + MARGIN_S
        return max(0.0, self._run_ends - lead_s - now)
