"""Metrics are there before the first request, and right after a known stream."""

import socket
import struct
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from engines.fake import FakeOptions, fake_bundle
from labelmint.v1 import label_service_pb2 as pb
from service.metrics import REASONS, Metrics
from tests.hangs import eventually
from tests.service.harness import FakeModel, RunningServer, refusal, served

HISTOGRAMS = (
    "labelmint_queue_seconds", "labelmint_engine_seconds", "labelmint_message_seconds",
    "labelmint_engine_batch_samples",
)  # fmt: skip
REQUESTS = "labelmint_requests_total"
DISCARDED = "labelmint_discarded_samples_total"
COUNTERS = (
    "labelmint_kept_samples_total",
    "labelmint_computed_samples_total", "labelmint_message_bytes_total",
)  # fmt: skip
GAUGES = ("labelmint_queue_depth_samples", "labelmint_open_streams")
RUN_S = 0.02

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scraped(server: RunningServer) -> Values:
    """Every sample of /metrics."""
    url = f"http://127.0.0.1:{server.server.metrics_port}/metrics"
    with urllib.request.urlopen(url) as answer:
        text = answer.read().decode()
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for f in families for s in f.samples}


def ended_calls(server: RunningServer) -> float:
    """Calls that have ended, of all methods and codes."""
    return sum(v for (name, _), v in scraped(server).items() if name == REQUESTS)


def value(values: Values, name: str, **labels: str) -> float:
    return values[name, frozenset(({"model": "fake"} | labels).items())]


def test_every_metric_is_there_from_the_start_for_every_model() -> None:
    other = FakeModel("other", fake_bundle(resolution=16, heads=False))
    with served([FakeModel(), other]) as server:
        values = scraped(server)
        for model in ("fake", "other"):
            for name in HISTOGRAMS:
                assert value(values, f"{name}_count", model=model) == 0
                assert value(values, f"{name}_bucket", model=model, le="+Inf") == 0
            for name in (*COUNTERS, *GAUGES):
                assert value(values, name, model=model) == 0
            for reason in ("uncertainty", "predicate", "views"):
                assert value(values, DISCARDED, model=model, reason=reason) == 0


@pytest.mark.parametrize("media_type", ["text/plain", "application/openmetrics-text"])
def test_no_series_tells_when_another_was_created(media_type: str) -> None:
    with served([FakeModel()]) as server:
        url = f"http://127.0.0.1:{server.server.metrics_port}/metrics"
        asked = urllib.request.Request(url, headers={"Accept": media_type})
        with urllib.request.urlopen(asked) as answer:
            assert answer.headers["Content-Type"].startswith(media_type)
            text = answer.read().decode()
    assert "labelmint_kept_samples" in text
    assert "_created" not in text


def test_the_help_of_the_discards_explains_each_reason() -> None:
    (metric,) = (m for m in Metrics().registry.collect() if f"{m.name}_total" == DISCARDED)
    assert [each for each in REASONS if each not in metric.documentation] == []


def test_metrics_of_a_known_stream() -> None:
    with served([FakeModel(options=FakeOptions(seconds_per_run=RUN_S))]) as server:
        half = pb.Filter(mode=pb.FILTER_MODE_MAX_UNCERTAINTY, max_uncertainty=0.5)
        messages = list(server.stream(end_index=90, filter=half))
        refusal(lambda: server.generate())
        assert eventually(lambda: ended_calls(server) == 2)  # counted after the last message
        values = scraped(server)
    kept = sum(len(message.batch.indices) for message in messages)
    assert 20 < kept < 70
    assert value(values, "labelmint_kept_samples_total") == kept
    assert value(values, DISCARDED, reason="uncertainty") == 90 - kept
    assert value(values, DISCARDED, reason="predicate") == 0
    assert value(values, "labelmint_computed_samples_total") == 90
    size = sum(message.ByteSize() for message in messages)
    assert value(values, "labelmint_message_bytes_total") == size
    runs = value(values, "labelmint_engine_seconds_count")
    assert runs == 12  # eleven batches of 8 and one of 2
    assert value(values, "labelmint_engine_batch_samples_count") == runs
    assert value(values, "labelmint_engine_batch_samples_sum") == 90
    assert value(values, "labelmint_engine_batch_samples_bucket", le="2.0") == 1
    assert value(values, "labelmint_engine_seconds_sum") >= runs * RUN_S
    assert value(values, "labelmint_engine_seconds_bucket", le="0.01") == 0
    with_samples = sum(1 for message in messages if message.batch.indices)
    assert value(values, "labelmint_message_seconds_count") == with_samples
    assert value(values, "labelmint_message_seconds_sum") >= with_samples * RUN_S
    assert value(values, "labelmint_queue_seconds_count") == runs
    assert value(values, "labelmint_open_streams") == 0
    assert value(values, "labelmint_queue_depth_samples") == 0
    assert value(values, REQUESTS, method="StreamSamples", code="OK") == 1
    assert value(values, REQUESTS, method="GenerateSamples", code="INVALID_ARGUMENT") == 1


def test_depth_and_streams_while_streams_wait() -> None:
    with served([FakeModel(options=FakeOptions(seconds_per_run=0.2))]) as server:
        calls = [server.stream() for _ in range(3)]
        for call in calls:
            next(iter(call))
        values = scraped(server)
        assert value(values, "labelmint_open_streams") == 3
        assert value(values, "labelmint_queue_depth_samples") > 8
        for call in calls:
            call.cancel()


def test_nothing_waits_once_the_last_stream_was_cancelled() -> None:
    with served([FakeModel(options=FakeOptions(seconds_per_run=0.2))]) as server:
        calls = [server.stream() for _ in range(3)]
        for call in calls:
            next(iter(call))
            call.cancel()
        assert eventually(lambda: not value(scraped(server), "labelmint_open_streams"))
        assert value(scraped(server), "labelmint_queue_depth_samples") == 0


def test_a_scraper_that_hangs_up_is_no_news(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with served() as server:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", server.server.metrics_port)) as caller:
                at_once = struct.pack("ii", 1, 0)  # closing resets the connection
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
                caller.sendall(b"GET /metrics HTTP/1.1\r\n\r\n" * 3)
        assert value(scraped(server), "labelmint_open_streams") == 0
    assert capfd.readouterr().err == "" and caplog.messages == []
