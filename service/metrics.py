"""Prometheus metrics, all labelled by model; base units, histograms throughout."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
_SAMPLES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class ModelMetrics:
    """One model's, bound to its label."""

    queue_seconds: Histogram
    engine_seconds: Histogram
    message_seconds: Histogram
    batch_samples: Histogram
    kept: Counter
    discarded: Counter
    computed: Counter
    message_bytes: Counter
    waiting: Gauge
    streams: Gauge


class Metrics:
    """All metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r, model = self.registry, ("model",)
        self._queue_seconds = Histogram(
            "labelmint_queue_seconds", "Time that rows waited for a place in an engine batch.",
            model, buckets=_SECONDS, registry=r,
        )  # fmt: skip
        self._engine_seconds = Histogram(
            "labelmint_engine_seconds", "Time of one engine run.",
            model, buckets=_SECONDS, registry=r,
        )  # fmt: skip
        self._message_seconds = Histogram(
            "labelmint_message_seconds",
            "End to end: from when a message's first sample began to wait to when it was sent.",
            model, buckets=_SECONDS, registry=r,
        )  # fmt: skip
        self._batch_samples = Histogram(
            "labelmint_engine_batch_samples", "Samples of one engine run, without padding.",
            model, buckets=_SAMPLES, registry=r,
        )  # fmt: skip
        self._kept = Counter("labelmint_kept_samples", "Samples delivered.", model, registry=r)
        self._discarded = Counter(
            "labelmint_discarded_samples", "Samples examined and not delivered.",
            model, registry=r,
        )  # fmt: skip
        self._computed = Counter(
            "labelmint_computed_samples", "Samples that engines ran, delivered or not.",
            model, registry=r,
        )  # fmt: skip
        self._message_bytes = Counter(
            "labelmint_message_bytes", "Serialised bytes of messages sent.", model, registry=r
        )
        self._waiting = Gauge(
            "labelmint_queue_depth_samples", "Samples that streams would have run now.",
            model, registry=r,
        )  # fmt: skip
        self._streams = Gauge(
            "labelmint_open_streams", "StreamSamples and GenerateSamples calls under way.",
            model, registry=r,
        )  # fmt: skip
        self._requests = Counter(
            "labelmint_requests", "Calls ended, by method and gRPC status.",
            ("model", "method", "code"), registry=r,
        )  # fmt: skip

    def of_model(self, name: str) -> ModelMetrics:
        """The metrics of one served model; they exist from here on, at zero."""
        return ModelMetrics(
            queue_seconds=self._queue_seconds.labels(name),
            engine_seconds=self._engine_seconds.labels(name),
            message_seconds=self._message_seconds.labels(name),
            batch_samples=self._batch_samples.labels(name),
            kept=self._kept.labels(name),
            discarded=self._discarded.labels(name),
            computed=self._computed.labels(name),
            message_bytes=self._message_bytes.labels(name),
            waiting=self._waiting.labels(name),
            streams=self._streams.labels(name),
        )

    def count_request(self, model: str, method: str, code: str) -> None:
        """A call ended; `model` is a served one's name, or empty."""
        self._requests.labels(model, method, code).inc()
