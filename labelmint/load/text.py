"""Text reports of load tests.

Enter: figures. Leave: aligned lines, without a line break at the end.
"""

from __future__ import annotations

from labelmint.load.requests import RequestFigures
from labelmint.load.streams import StreamFigures
from labelmint.load.timing import Percentiles

LATE_S = 0.01  # from here on the report warns that this machine sends requests late


def text_from_requests(figures: RequestFigures) -> str:
    """Report of requests at a fixed rate."""
    lines = {
        "requests": f"{figures.scheduled} due: {figures.answered} answered, "
        f"{figures.dropped} dropped, {figures.failed} failed{_codes(figures.errors)}",
        "rate": f"{figures.requests_per_s:.4g} requests/s, {figures.samples_per_s:.4g} "
        f"samples/s, {_megabytes(figures.bytes_per_s)}",
        "latency": _percentiles(figures.latency_s, "from the time it was due"),
        "service": _percentiles(figures.service_s, "from the time it was sent"),
    }
    if figures.lateness_s and figures.lateness_s.p99 > LATE_S:
        lines["late"] = _percentiles(
            figures.lateness_s, "before this machine sent it: lower --rate, or use more machines"
        )
    return _aligned(lines)


def text_from_streams(figures: StreamFigures, stall_s: float) -> str:
    """Report of streams at full speed; stall_s is the gap above which a stall was counted."""
    stalls = figures.stalls
    lines = {
        "streams": f"{figures.streams} over {figures.elapsed_s:.1f} s, "
        f"{figures.failed} ended early{_codes(figures.errors)}",
        "rate": f"{figures.samples_per_s:.4g} samples/s, {_megabytes(figures.bytes_per_s)}; "
        f"{figures.samples} samples in {figures.batches} batches",
        "first batch": _percentiles(figures.first_batch_s, "from the opening of a stream"),
        "stalls": f"{stalls.count} over {stall_s:g} s, {100 * stalls.share:.1f} % of the time; "
        f"longest gap {_milliseconds(stalls.longest_s)}",
    }
    return _aligned(lines)


def _aligned(lines: dict[str, str]) -> str:
    return "\n".join(f"  {name:<13}{line}" for name, line in lines.items())


def _codes(errors: dict[str, int]) -> str:
    listed = ", ".join(f"{count} {code}" for code, count in errors.items())
    return f" ({listed})" if listed else ""


def _percentiles(percentiles: Percentiles | None, what: str) -> str:
    if percentiles is None:
        return "none"
    return (
        f"p50 {_milliseconds(percentiles.p50)}, p90 {_milliseconds(percentiles.p90)}, "
        f"p95 {_milliseconds(percentiles.p95)}, p99 {_milliseconds(percentiles.p99)}, "
        f"max {_milliseconds(percentiles.max)} {what}"
    )


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.4g} ms" if seconds < 10 else f"{seconds:.1f} s"


def _megabytes(bytes_per_s: float) -> str:
    return f"{bytes_per_s / 1e6:.4g} MB/s"
