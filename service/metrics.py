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
    lost: Gauge


class Metrics:
    """All metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._queue_seconds = self._histogram(
            "labelmint_queue_seconds",
            "Time that rows waited for a place in an engine batch.",
            _SECONDS,
        )
        self._engine_seconds = self._histogram(
            "labelmint_engine_seconds", "Time of one engine run.", _SECONDS
        )
        self._message_seconds = self._histogram(
            "labelmint_message_seconds",
            "End to end: from when a message's first sample began to wait to when it was sent.",
            _SECONDS,
        )
        self._batch_samples = self._histogram(
            "labelmint_engine_batch_samples",
            "Samples of one engine run, without padding.",
            _SAMPLES,
        )
        self._kept = self._counter("labelmint_kept_samples", "Samples delivered.")
        self._discarded = self._counter(
            "labelmint_discarded_samples", "Samples examined and not delivered."
        )
        self._computed = self._counter(
            "labelmint_computed_samples", "Samples that engines ran, delivered or not."
        )
        self._message_bytes = self._counter(
            "labelmint_message_bytes", "Serialised bytes of messages sent."
        )
        self._waiting = self._gauge(
            "labelmint_queue_depth_samples", "Samples that streams would have run now."
        )
        self._streams = self._gauge(
            "labelmint_open_streams", "StreamSamples and GenerateSamples calls under way."
        )
        self._lost = self._gauge(
            "labelmint_device_lost",
            "1 once the model's device failed for good: the process has to start anew.",
        )
        self._fallbacks = self._counter(
            "labelmint_engine_fallbacks",
            "Loads in which an engine that was asked for could not be had.",
            "wanted",
            "engine",
        )
        self._requests = self._counter(
            "labelmint_requests", "Calls ended, by method and gRPC status.", "method", "code"
        )
        self._loads = self._counter(
            "labelmint_model_loads", "Attempts to load a bundle, ok or failed.", "outcome"
        )
        self._info = Gauge(
            "labelmint_model_info",
            "1 for every bundle that is served.",
            ("model", "bundle_id", "engine"),
            registry=self.registry,
        )

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
            lost=self._lost.labels(name),
        )

    def count_load(self, model: str, loaded: bool) -> None:
        """An attempt to load a bundle ended."""
        ok, failed = (self._loads.labels(model, outcome) for outcome in ("ok", "failed"))
        (ok if loaded else failed).inc()

    def count_fallback(self, model: str, wanted: str, engine: str) -> None:
        """A model got this engine because that one could not be had."""
        self._fallbacks.labels(model, wanted, engine).inc()

    def show_model(self, model: str, bundle_id: str, engine: str) -> None:
        """This is served from now on."""
        self._info.labels(model, bundle_id, engine).set(1)
        self._lost.labels(model).set(0)

    def hide_model(self, model: str, bundle_id: str, engine: str) -> None:
        """This is not served any more."""
        self._info.remove(model, bundle_id, engine)

    def count_request(self, model: str, method: str, code: str) -> None:
        """A call ended; `model` is a served one's name, or empty."""
        self._requests.labels(model, method, code).inc()

    def _histogram(self, name: str, help_text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, help_text, ("model",), buckets=buckets, registry=self.registry)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(name, help_text, ("model", *labels), registry=self.registry)

    def _gauge(self, name: str, help_text: str) -> Gauge:
        return Gauge(name, help_text, ("model",), registry=self.registry)
