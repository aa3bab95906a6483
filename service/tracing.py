"""Trace spans of a request: its wait for the engine, its part of engine runs, and its messages.

Only OpenTelemetry's API is imported here; without an exporter its spans record nothing. An engine
run serves several requests, so it has its own trace, with links to theirs.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    NoOpTracer,
    Span,
    SpanKind,
    Tracer,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.errors import StartError

__all__ = ["INVALID_SPAN", "Span", "Tracing", "tracing_to"]
LAST_SPANS_S = 2.0  # time to send the remaining spans when the server ends
_PROPAGATOR = TraceContextTextMapPropagator()


class Tracing:
    """Starts spans; with the default tracer they record nothing."""

    def __init__(
        self, tracer: Tracer | None = None, close: Callable[[], None] = lambda: None
    ) -> None:
        self._tracer = tracer or NoOpTracer()
        self.close = close  # sends the remaining spans, within LAST_SPANS_S

    def request(self, name: str, metadata: Iterable[tuple[str, str | bytes]] | None) -> Span:
        """Starts the span of a call, as a child of the caller's span if the metadata has a
        traceparent. The caller of this method must end it."""
        carrier = {key: value for key, value in metadata or () if isinstance(value, str)}
        parent = _PROPAGATOR.extract(carrier)
        attributes = {"rpc.system": "grpc", "rpc.method": name}
        return self._tracer.start_span(name, parent, SpanKind.SERVER, attributes)

    def engine_run(
        self,
        model: str,
        shares: Sequence[tuple[Span, int, float]],  # request, rows, when they began to wait
        started: float,  # on time.monotonic's clock, as the shares' times
        ended: float,
    ) -> None:
        """Records a run of the engine, and for each request its wait and its part of the run."""
        shares = [share for share in shares if share[0].is_recording()]
        if not shares:
            return
        begin, end = _wall(started), _wall(ended)
        rows = sum(count for _, count, _ in shares)
        run = self._tracer.start_span(
            "engine run",
            Context(),  # without a parent
            attributes={"labelmint.model": model, "labelmint.rows": rows},
            links=[Link(span.get_span_context()) for span, _, _ in shares],
            start_time=begin,
        )
        run.end(end)
        link = [Link(run.get_span_context())]
        for span, count, since in shares:
            under = set_span_in_context(span, Context())
            attributes = {"labelmint.rows": count}
            self._tracer.start_span("queue", under, start_time=_wall(since)).end(begin)
            self._tracer.start_span(
                "engine", under, attributes=attributes, links=link, start_time=begin
            ).end(end)

    @contextmanager
    def encoding(self, request: Span, samples: int) -> Iterator[None]:
        """Records the encoding of one message, which the block does."""
        if not request.is_recording():
            yield
            return
        under = set_span_in_context(request, Context())
        attributes = {"labelmint.samples": samples}
        with self._tracer.start_span("encode", under, attributes=attributes):
            yield


def tracing_to(endpoint: str | None) -> Tracing:
    """Tracing that sends spans to an OTLP/gRPC endpoint in the background; None sends nothing.

    The OTEL_* environment variables set sampling, headers, certificates and resource attributes.
    Raises StartError if the extra `tracing` is not installed.
    """
    if endpoint is None:
        return Tracing()
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise StartError(
            f"--otlp-endpoint needs the extra `tracing`: {error.name} is not installed"
        ) from error
    resource = Resource.create({"service.name": "labelmint"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"))
    provider.add_span_processor(BatchSpanProcessor(exporter))

    def close() -> None:
        # With an unreachable collector, shutdown itself would wait 30 s; a pod would be killed.
        ending = threading.Thread(target=provider.shutdown, name="traces", daemon=True)
        ending.start()
        ending.join(LAST_SPANS_S)

    return Tracing(provider.get_tracer("labelmint"), close)


def _wall(moment: float) -> int:
    """A time of time.monotonic's clock -> nanoseconds since 1970."""
    return time.time_ns() - int((time.monotonic() - moment) * 1e9)
