"""The loop that waits for data; needs nothing but the standard library."""

import time
from collections.abc import Iterable


def waiting_share(batches: Iterable[object], steps: int, step_s: float) -> float:
    """The share of a loop's time that it waits for batches, after a first one.

    A step sleeps: it is a GPU's, and leaves the processor to whoever makes the data.
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
