"""A training loop that measures its wait for data; needs only the standard library."""

import time
from collections.abc import Iterable


def waiting_share(batches: Iterable[object], steps: int, step_s: float) -> float:
    """Fraction of the loop's time spent waiting for batches, not counting the first one.

    A step sleeps, as if it ran on a GPU, and leaves the CPU to the data's producers.
    """
    source, waited = iter(batches), 0.0
    next(source)
    began = time.perf_counter()
    for _ in range(steps):
        time.sleep(step_s)
        asked = time.perf_counter()
        next(source)
        waited += time.perf_counter() - asked
    return waited / (time.perf_counter() - began)
