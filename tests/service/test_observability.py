"""What operators see: log lines by request, traces at a collector, metrics in Prometheus."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from bundle.manifest import MANIFEST
from labelmint import Client
from labelmint.v1 import label_service_pb2 as pb
from labelmint.v1.label_service_pb2_grpc import LabelServiceStub
from service.logs import REQUEST_ID_HEADER
from tests.hangs import HANG_S, eventually
from tests.service.harness import channel_to, refusal
from tests.service.prometheus import configured, scraped_by, tool
from tests.service.test_process import ROOT, Process, bundle_at, running

PARENT = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
TWO = pb.GenerateSamplesRequest(query=pb.SampleQuery(count=2))


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_at(tmp_path_factory.mktemp("observed") / "fake")


def ended(process: Process) -> str:
    """Everything the process logged, after its end."""
    process.popen.terminate()
    _, log = process.popen.communicate(timeout=HANG_S)
    return log


def test_each_call_is_a_line_of_json_with_its_request_id(fake: Path) -> None:
    with running(fake, "--engine", "fake", "--log-format", "json") as process:
        with channel_to(process.port) as channel:
            stub = LabelServiceStub(channel)
            _, call = stub.GenerateSamples.with_call(TWO, metadata=((REQUEST_ID_HEADER, "mine-1"),))
            assert dict(call.trailing_metadata())[REQUEST_ID_HEADER] == "mine-1"
            for given in (None, 'a "quoted" one', "x" * 65):
                metadata = () if given is None else ((REQUEST_ID_HEADER, given),)
                refused = refusal(
                    partial(stub.GetModel, pb.GetModelRequest(model="none"), metadata=metadata)
                )
                assert len(refused.trailers[REQUEST_ID_HEADER]) == 16
        lines = [json.loads(line) for line in ended(process).splitlines()]
    calls = [line for line in lines if line["message"] == "call ended"]
    assert [(c["method"], c["code"], c["model"]) for c in calls] == [
        ("GenerateSamples", "OK", "m"), *[("GetModel", "NOT_FOUND", "")] * 3
    ]  # fmt: skip
    assert calls[0]["request_id"] == "mine-1" and calls[0]["level"] == "INFO"
    assert calls[1]["request_id"] == calls[1]["request_id"].strip() and calls[0]["seconds"] >= 0
    assert len({c["request_id"] for c in calls}) == 4


def test_a_line_of_text_has_the_same_and_quiet_levels_have_none(fake: Path) -> None:
    for level, expected in (("info", 1), ("warning", 0)):
        with running(fake, "--engine", "fake", "--log-level", level) as process:
            with Client(f"127.0.0.1:{process.port}") as client:
                client.models()
            log = ended(process)
        assert log.count("call ended method=ListModels code=OK") == expected


def test_a_line_of_text_is_one_line_whatever_it_quotes(fake: Path, tmp_path: Path) -> None:
    watched = tmp_path / "watched"
    watched.mkdir()
    broken = bundle_at(watched / "broken")
    manifest = json.loads((broken / MANIFEST).read_bytes())
    manifest["bundle_id"] = "\x1b[2J\n2026 ERROR forged"
    (broken / MANIFEST).write_text(json.dumps(manifest))
    bundle_at(watched / "dir\x1b\n2026 ERROR forged")
    flags = ("--engine", "fake", "--watch", str(watched), "--watch-interval", "0.1")
    with running(fake, *flags) as process:
        assert eventually(lambda: 'model="broken",outcome="failed"' in process.get("/metrics")[1])
        log = ended(process)
    assert "model broken cannot be loaded" in log and r"\n2026 ERROR forged" in log
    assert not [line for line in log.splitlines() if not line.isprintable()]
    assert not [line for line in log.splitlines() if line.startswith("2026 ")]


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP collector that keeps what it gets."""

    def __init__(self) -> None:
        self.spans: list[Any] = []

    def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def collecting() -> Iterator[tuple[Collector, str]]:
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    register: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    register(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield collector, f"http://127.0.0.1:{port}"
    finally:
        server.stop(None)


def test_a_trace_shows_the_wait_the_engine_and_the_encoding_of_a_request(fake: Path) -> None:
    with (
        collecting() as (collector, url),
        running(fake, "--engine", "fake", "--otlp-endpoint", url) as process,
    ):
        with channel_to(process.port) as channel:
            traceparent = f"00-{PARENT[0]}-{PARENT[1]}-01"
            stub = LabelServiceStub(channel)
            stub.GenerateSamples(TWO, metadata=(("traceparent", traceparent),))
            stub.GenerateSamples(TWO)
        ended(process)  # which sends what is left
    by_name: dict[str, list[Any]] = {}
    for span in sorted(collector.spans, key=lambda s: s.start_time_unix_nano):
        by_name.setdefault(span.name, []).append(span)
    assert {name: len(spans) for name, spans in by_name.items()} == {
        "GenerateSamples": 2, "queue": 2, "engine": 2, "engine run": 2, "encode": 2
    }  # fmt: skip
    first, second = by_name["GenerateSamples"]
    assert (first.trace_id.hex(), first.parent_span_id.hex()) == PARENT
    assert second.trace_id != first.trace_id and not second.parent_span_id
    for request, name in ((first, "queue"), (first, "engine"), (first, "encode")):
        child = by_name[name][0]
        assert child.trace_id == request.trace_id and child.parent_span_id == request.span_id
        assert request.start_time_unix_nano <= child.start_time_unix_nano
        assert child.start_time_unix_nano <= child.end_time_unix_nano <= request.end_time_unix_nano
    run = by_name["engine run"][0]
    assert run.trace_id != first.trace_id
    assert run.links[0].span_id == first.span_id
    assert by_name["engine"][0].links[0].span_id == run.span_id


def test_a_collector_that_is_gone_harms_nothing(fake: Path) -> None:
    with (
        running(fake, "--engine", "fake", "--otlp-endpoint", "http://127.0.0.1:1") as process,
        Client(f"127.0.0.1:{process.port}") as client,
    ):
        assert sum(len(b.indices) for b in client.stream(count=200)) == 200


def test_promtool_finds_nothing_to_say_about_the_metrics(fake: Path) -> None:
    promtool = tool("promtool")
    with running(fake, "--engine", "fake") as process:
        with Client(f"127.0.0.1:{process.port}") as client:
            assert sum(len(b.indices) for b in client.stream(count=20)) == 20
        text = process.get("/metrics")[1]
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_prometheus_scrapes_the_server(fake: Path, tmp_path: Path) -> None:
    prometheus = tool("prometheus")
    with running(fake, "--engine", "fake") as process:
        with Client(f"127.0.0.1:{process.port}") as client:
            assert sum(len(b.indices) for b in client.stream(count=20)) == 20
        with scraped_by(prometheus, {process.metrics_port: {}}, tmp_path) as ask:
            assert eventually(lambda: ask("labelmint_kept_samples_total") == ["20"])
            assert ask("up") == ["1"]
            assert ask("histogram_quantile(0.5, labelmint_engine_seconds_bucket)") != []


@pytest.mark.long
def test_prometheus_takes_the_pages_configuration_and_answers_its_queries(
    fake: Path, tmp_path: Path
) -> None:
    prometheus = tool("prometheus")
    page = (ROOT / "docs/monitoring.md").read_text("utf-8")
    (config,) = re.findall(r"(?ms)^```yaml\n(.*?)^```", page)
    queries = re.findall(r"(?m)^\| [^|`]+ \| `(.+)` \|$", page)
    assert len(queries) == 5 and "localhost:9090" in config
    with (
        running(fake, "--engine", "fake") as process,
        Client(f"127.0.0.1:{process.port}") as client,
    ):
        config = config.replace("localhost:9090", f"127.0.0.1:{process.metrics_port}")
        with configured(prometheus, config, tmp_path) as ask:
            for query in queries:
                assert eventually(partial(streamed_and_answered, client, ask, query), 0.5), query
            assert ask('up{namespace="local",pod="labelmint-1"}') == ["1"]


def streamed_and_answered(client: Client, ask: Callable[[str], list[str]], query: str) -> bool:
    """Whether the query has values, after some more samples and rejections."""
    stream = client.stream(count=20, max_uncertainty=0.6)
    assert sum(len(batch.indices) for batch in stream) == 20
    return any(value != "NaN" for value in ask(query))


@pytest.mark.long
def test_a_collector_that_is_gone_does_not_hold_the_end_of_the_server(fake: Path) -> None:
    url = "http://127.0.0.1:1"
    with (
        running(fake, "--engine", "fake", "--otlp-endpoint", url) as process,
        channel_to(process.port) as channel,
    ):
        query = pb.SampleQuery(count=2000, max_message_samples=1)  # thousands of spans
        for _ in LabelServiceStub(channel).StreamSamples(pb.StreamSamplesRequest(query=query)):
            pass
        process.popen.terminate()
        assert process.popen.wait(15) == 0  # the exporter by itself tries for 30 s


def test_tracing_without_its_packages_is_one_line(fake: Path) -> None:
    """As without the extra: the exporter cannot be imported."""
    flags = ["--bundle", str(fake), "--engine", "fake", "--otlp-endpoint", "http://localhost:1"]
    code = (
        "import sys, runpy\n"
        "sys.modules['opentelemetry.exporter.otlp.proto.grpc.trace_exporter'] = None\n"
        f"sys.argv = ['service', 'run', *{flags!r}]\n"
        "runpy.run_module('service', run_name='__main__')"
    )
    line = [sys.executable, "-c", code]
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=HANG_S)
    assert result.returncode == 1 and "extra `tracing`" in result.stderr
    assert "Traceback" not in result.stderr
