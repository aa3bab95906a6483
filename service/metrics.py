"""Prometheus metrics, all labeled by model; in seconds, bytes and samples."""

from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)

_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
# Why samples are not delivered.
REASONS = ("uncertainty", "predicate", "balance", "proposal", "views")
_SAMPLES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class ModelMetrics:
    """Metrics of one model, with the label set."""

    queue_seconds: Histogram
    engine_seconds: Histogram
    message_seconds: Histogram
    batch_samples: Histogram
    kept: Counter
    discarded: dict[str, Counter]  # by reason, a field of discards.Reasons
    computed: Counter
    message_bytes: Counter
    waiting: Gauge
    streams: Gauge
    lost: Gauge


class Metrics:
    """All metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        # They would be a series more for each counter and histogram.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._by_model: list[Counter | Gauge | Histogram] = []
        self._queue_seconds = self._histogram(
            "labelmint_queue_seconds",
            "Time that rows waited for an engine batch.",
            _SECONDS,
        )
        self._engine_seconds = self._histogram(
            "labelmint_engine_seconds", "Time of one engine run.", _SECONDS
        )
        self._message_seconds = self._histogram(
            "labelmint_message_seconds",
            "End to end time of a message: from when its first sample began to wait until sent.",
            _SECONDS,
        )
        self._batch_samples = self._histogram(
            "labelmint_engine_batch_samples",
            "Samples of one engine run, without padding.",
            _SAMPLES,
        )
        self._kept = self._counter("labelmint_kept_samples", "Samples delivered.")
        self._discarded = self._counter(
            "labelmint_discarded_samples",
            "Samples examined and not delivered, by reason: uncertainty, predicate, balance if its "
            "coin was against them, proposal if it did not choose them, or views if another view "
            "of the object was rejected.",
            "reason",
        )
        self._computed = self._counter(
            "labelmint_computed_samples", "Samples that engines ran, delivered or not."
        )
        self._message_bytes = self._counter("labelmint_message_bytes", "Bytes of messages sent.")
        self._waiting = self._gauge(
            "labelmint_queue_depth_samples", "Samples that wait for an engine batch."
        )
        self._streams = self._gauge(
            "labelmint_open_streams", "Open StreamSamples and GenerateSamples calls."
        )
        self._lost = self._gauge(
            "labelmint_device_lost",
            "1 after the model's device failed permanently; the process must be restarted.",
        )
        self._fallbacks = self._counter(
            "labelmint_engine_fallbacks",
            "Loads in which the wanted engine could not be opened and another was used.",
            "wanted",
            "engine",
        )
        self._requests = self._counter(
            "labelmint_requests", "Calls ended, by method and gRPC status.", "method", "code"
        )
        self._loads = self._counter(
            "labelmint_model_loads", "Attempts to load a bundle, ok or failed.", "outcome"
        )
        self._token_files = Gauge(
            "labelmint_token_file_unusable",
            "1 while a token file is missing, empty or malformed; see the server's log.",
            ("flag",),
            registry=self.registry,
        )
        self._info = Gauge(
            "labelmint_model_info",
            "1 for every served bundle.",
            ("model", "bundle_id", "engine"),
            registry=self.registry,
        )

    def watch_token_file(self, flag: str, unusable: Callable[[], bool]) -> None:
        """Reports, at each scrape, whether the token file of a flag cannot be used."""
        self._token_files.labels(flag).set_function(lambda: float(unusable()))

    def of_model(self, name: str) -> ModelMetrics:
        """Metrics of one model, which are reported as zero from now on."""
        return ModelMetrics(
            queue_seconds=self._queue_seconds.labels(name),
            engine_seconds=self._engine_seconds.labels(name),
            message_seconds=self._message_seconds.labels(name),
            batch_samples=self._batch_samples.labels(name),
            kept=self._kept.labels(name),
            discarded={reason: self._discarded.labels(name, reason) for reason in REASONS},
            computed=self._computed.labels(name),
            message_bytes=self._message_bytes.labels(name),
            waiting=self._waiting.labels(name),
            streams=self._streams.labels(name),
            lost=self._lost.labels(name),
        )

    def count_load(self, model: str, loaded: bool) -> None:
        """Counts an attempt to load a bundle."""
        ok, failed = (self._loads.labels(model, outcome) for outcome in ("ok", "failed"))
        (ok if loaded else failed).inc()

    def count_fallback(self, model: str, wanted: str, engine: str) -> None:
        """Counts a model that uses `engine` because the runtime `wanted` could not be opened."""
        self._fallbacks.labels(model, wanted, engine).inc()

    def show_model(self, model: str, bundle_id: str, engine: str) -> None:
        """Reports a bundle as served."""
        self._info.labels(model, bundle_id, engine).set(1)
        self._lost.labels(model).set(0)

    def hide_model(self, model: str, bundle_id: str, engine: str) -> None:
        """Stops reporting a bundle as served."""
        self._info.remove(model, bundle_id, engine)

    def forget_model(self, model: str) -> None:
        """Drops all series of a model, so that names that come and go do not add up."""
        for metric in self._by_model:
            metric.remove_by_labels({"model": model})

    def count_request(self, model: str, method: str, code: str) -> None:
        """Counts a call that ended; `model` is the name of a served model, or empty."""
        self._requests.labels(model, method, code).inc()

    def _histogram(self, name: str, help_text: str, buckets: tuple[float, ...]) -> Histogram:
        metric = Histogram(name, help_text, ("model",), buckets=buckets, registry=self.registry)
        self._by_model.append(metric)
        return metric

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        metric = Counter(name, help_text, ("model", *labels), registry=self.registry)
        self._by_model.append(metric)
        return metric

    def _gauge(self, name: str, help_text: str) -> Gauge:
        metric = Gauge(name, help_text, ("model",), registry=self.registry)
        self._by_model.append(metric)
        return metric
