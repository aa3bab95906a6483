"""Alerts fire when they should and only then; the metrics they read are exported by the server."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from labelmint import Client
from service.metrics import Metrics
from service.probes import Probes, probe_server
from tests.deploy.cases import CASES
from tests.deploy.chart import CHART, CHECKOUT, Object, one, render
from tests.hangs import HANG_S, eventually
from tests.service.prometheus import scraped_by, tool
from tests.service.test_process import running

QUEUE, COMPUTED = "labelmint_queue_depth_samples", "labelmint_computed_samples_total"
REQUESTS, MESSAGES = "labelmint_requests_total", "labelmint_message_seconds_bucket"
LOADS, INFO = "labelmint_model_loads_total", "labelmint_model_info"
FALLBACKS = "labelmint_engine_fallbacks_total"
Series = dict[str, str]  # a name with its labels, and promtool's notation of its values

# Alert -> series with which it fires within the hour, and series with which it does not.
SITUATIONS: dict[str, tuple[Series, Series]] = {
    "LabelmintEngineFallback": (
        {f'{FALLBACKS}|wanted="tensorrt",engine="onnxruntime"': "1x60",
         f'{INFO}|engine="onnxruntime"': "1x60"},
        # There was a fallback once, and another engine serves now.
        {f'{FALLBACKS}|wanted="tensorrt",engine="onnxruntime"': "1x60",
         f'{INFO}|engine="onnxruntime"': "1x20 _x40", f'{INFO}|engine="tensorrt-10"': "_x20 1x40"},
    ),
    "LabelmintNotServing": (
        {INFO: "_x60", f'{INFO}|pod="demo-labelmint-b-1a-2b"': "1x60"},
        {INFO: "1x60"},
    ),
    "LabelmintEngineStalled": (
        {QUEUE: "5x60", COMPUTED: "100x60"},
        {QUEUE: "5x60", COMPUTED: "100+8x60"},
    ),
    "LabelmintErrors": (
        {f'{REQUESTS}|code="OK"': "0+90x60", f'{REQUESTS}|code="INTERNAL"': "0+2x60"},
        {f'{REQUESTS}|code="OK"': "0+900x60", f'{REQUESTS}|code="INTERNAL"': "0+2x60"},
    ),
    "LabelmintRefusals": (
        {f'{REQUESTS}|code="OK"': "0+9x60", f'{REQUESTS}|code="RESOURCE_EXHAUSTED"': "0+1x60"},
        {f'{REQUESTS}|code="OK"': "0+9x60", f'{REQUESTS}|code="CANCELLED"': "0+1x60"},
    ),
    "LabelmintQueueFull": (
        {QUEUE: "2000x60", f'{QUEUE}|pod="demo-labelmint-1a-3c"': "100x60"},
        {QUEUE: "2000x60", f'{QUEUE}|pod="demo-labelmint-1a-3c"': "0x60"},
    ),
    "LabelmintSlow": (
        {f'{MESSAGES}|le="30"': "0+90x60", f'{MESSAGES}|le="60"': "0+99x60",
         f'{MESSAGES}|le="+Inf"': "0+100x60"},
        {f'{MESSAGES}|le="30"': "0+99.5x60", f'{MESSAGES}|le="60"': "0+99.5x60",
         f'{MESSAGES}|le="+Inf"': "0+100x60"},
    ),
    "LabelmintModelNotLoaded": (
        {f'{LOADS}|outcome="failed"': "0x50 1x10"},
        {f'{LOADS}|outcome="failed"': "3x60", f'{LOADS}|outcome="ok"': "0+1x60"},
    ),
    "LabelmintReplicasDiffer": (
        {f'{INFO}|bundle_id="a"': "1x60",
         f'{INFO}|pod="demo-labelmint-1a-3c",bundle_id="b"': "1x60"},
        {f'{INFO}|bundle_id="a"': "1x60",
         f'{INFO}|pod="demo-labelmint-1a-3c",bundle_id="b"': "1x20 _x40"},
    ),
}  # fmt: skip

# Alert, series, and whether it fires with them.
MORE: tuple[tuple[str, Series, bool], ...] = (
    ("LabelmintModelNotLoaded", {f'{LOADS}|outcome="failed"': "_x50 1x10"}, True),  # its first load
    ("LabelmintModelNotLoaded", {f'{LOADS}|outcome="failed"': "_x20 1x40"}, False),  # long ago
)


def series(named: str) -> str:
    name, _, labels = named.partition("|")
    given = dict(re.findall(r'(\w+)="([^"]*)"', labels))
    filled = {"namespace": "prod", "pod": "demo-labelmint-1a-2b", "model": "m"} | given
    return name + "{" + ",".join(f'{label}="{value}"' for label, value in filled.items()) + "}"


def rules() -> list[Object]:
    (group,) = one(render(CASES["alerts"]), "PrometheusRule")["spec"]["groups"]
    return list(group["rules"])


def check(folder: Path, *words: str, content: Any) -> "subprocess.CompletedProcess[str]":
    file = folder / "checked.yaml"
    file.write_text(yaml.safe_dump(content))
    line = [tool("promtool"), *words, str(file)]
    return subprocess.run(line, capture_output=True, text=True, cwd=folder)


def test_each_alert_fires_when_it_should_and_is_quiet_when_not(tmp_path: Path) -> None:
    groups = {"groups": [{"name": "all", "rules": rules()}]}
    checked = check(tmp_path, "check", "rules", content=groups)
    assert checked.returncode == 0 and f"{len(SITUATIONS)} rules found" in checked.stdout
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(groups))
    situations = [
        (a, s[not fires], fires) for a, s in SITUATIONS.items() for fires in (True, False)
    ]
    situations += MORE
    tests = [
        {
            "name": f"{alert}, {'fires' if fires else 'is quiet'}",
            "interval": "1m",
            "input_series": [
                {"series": series(name), "values": values} for name, values in given.items()
            ],
            # promtool compares labels and annotations too; what matters here is that it fires.
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) > bool 0',
                    "eval_time": "55m",
                    "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
                }
            ],
        }
        for alert, given, fires in situations
    ]
    content = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    tested = check(tmp_path, "test", "rules", content=content)
    assert (tested.returncode, tested.stderr) == (0, ""), tested.stderr


def test_each_alert_has_both_situations_and_a_page_of_what_to_do() -> None:
    alerts = {rule["alert"] for rule in rules()}
    assert alerts == SITUATIONS.keys()
    page = (CHECKOUT / "docs/operations.md").read_text("utf-8")
    assert alerts == set(re.findall(r"(?m)^### (Labelmint\w+)$", page))
    for rule in rules():
        anchor = rule["alert"].lower()
        assert rule["annotations"]["runbook_url"] == f"https://wiki/operations.md#{anchor}"
        assert rule["labels"]["severity"] in ("critical", "warning")


def exported() -> dict[str, set[str]]:
    """Every series of the server's registry, with its labels."""
    metrics = Metrics()
    metrics.of_model("m")
    metrics.show_model("m", "sha256:0", "onnxruntime")
    metrics.count_load("m", True)
    metrics.count_fallback("m", "tensorrt", "onnxruntime")
    metrics.count_request("m", "GetModel", "OK")
    found: dict[str, set[str]] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def dashboard() -> Object:
    return dict(json.loads((CHART / "dashboards/labelmint.json").read_text("utf-8")))


def dashboard_queries() -> list[str]:
    return [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]


def test_every_metric_that_is_read_is_exported_with_its_labels() -> None:
    keda = one(render(CASES["keda"]), "ScaledObject")["spec"]["triggers"][0]["metadata"]["query"]
    hpa = one(render(CASES["hpa"]), "HorizontalPodAutoscaler")["spec"]["metrics"][0]["pods"]
    variables = [v["query"] for v in dashboard()["templating"]["list"]]
    queries = [keda, hpa["metric"]["name"], *dashboard_queries(), *variables]
    queries += [rule["expr"] for rule in rules()]
    known = exported()
    read = {name for query in queries for name in re.findall(r"labelmint_\w+", query)}
    assert len(read) > 10 and read - known.keys() == set()
    for query in queries:
        for name, matchers in re.findall(r"(labelmint_\w+)\{(.*?)\}", query):
            labels = set(re.findall(r'(\w+)(?:=~|=|!=)"', matchers)) - {"namespace", "pod"}
            assert labels <= known[name]


def test_the_dashboards_queries_can_be_parsed_and_its_panels_do_not_overlap(tmp_path: Path) -> None:
    fill = {"$__rate_interval": "5m", "$namespace": "prod", "$pod": ".*", "$model": ".*"}
    recorded = []
    for i, query in enumerate(dashboard_queries()):
        for name, value in fill.items():
            query = query.replace(name, value)
        recorded.append({"record": f"query_{i}", "expr": query})
    places = [tuple(panel["gridPos"].values()) for panel in dashboard()["panels"]]
    assert len(places) == len(set(places))
    content = {"groups": [{"name": "dashboard", "rules": recorded}]}
    checked = check(tmp_path, "check", "rules", content=content)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.long
def test_each_panel_of_the_dashboard_shows_values_of_a_running_server(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    """A real Prometheus answers every query, while a client streams and an engine was missing."""
    prometheus = tool("prometheus")
    fill = {"$__rate_interval": "10s", "$namespace": "prod", "$pod": ".*", "$model": ".*"}
    with (
        running(tiny_bundle, "--engine", "tensorrt,onnxruntime") as server,
        streamed_forever(f"127.0.0.1:{server.port}"),
        scraped_by(
            prometheus, {server.metrics_port: {"namespace": "prod", "pod": "demo-1"}}, tmp_path
        ) as ask,
    ):
        for panel in dashboard()["panels"]:
            for target in panel["targets"]:
                query = target["expr"]
                for name, value in fill.items():
                    query = query.replace(name, value)
                shown = partial(has_values, ask, query)
                assert eventually(shown, every_s=0.5), f"{panel['title']}: {query}"


def has_values(ask: Callable[[str], list[str]], query: str) -> bool:
    return any(value != "NaN" for value in ask(query))


@contextmanager
def streamed_forever(target: str) -> Iterator[None]:
    """A client that streams until the end of the block."""
    over = Event()

    def stream() -> None:
        with Client(target) as client:
            while not over.is_set():
                for _ in client.stream(count=64, keep_fraction=0.9):
                    pass

    with ThreadPoolExecutor(1) as pool:
        streaming = pool.submit(stream)
        try:
            yield
        finally:
            over.set()
            streaming.result(HANG_S)


def test_prometheus_answers_the_adapters_query_for_each_pod_that_the_autoscaler_asks_for(
    tmp_path: Path,
) -> None:
    """One number for a pod, whatever number of models it has."""
    values = yaml.safe_load((CHART / "prometheus-adapter.yaml").read_text("utf-8"))
    (rule,) = values["rules"]["custom"]
    (metric,) = one(render(CASES["hpa"]), "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert rule["name"]["as"] == metric["pods"]["metric"]["name"] == QUEUE
    assert re.fullmatch(rule["name"]["matches"], QUEUE)
    labels = {name: name for name in ("namespace", "pod")}
    assert {k: v["resource"] for k, v in rule["resources"]["overrides"].items()} == labels
    assert rule["seriesQuery"].partition("{")[0] == QUEUE
    query = rule["metricsQuery"]
    filled = {"Series": QUEUE, "LabelMatchers": 'namespace="prod",pod=~"a|b"', "GroupBy": "pod"}
    for name, value in filled.items():
        query = query.replace(f"<<.{name}>>", value)
    given = [
        {"series": f'{QUEUE}{{namespace="prod",pod="{pod}",model="{model}"}}', "values": "5x9"}
        for pod in "abc"
        for model in "mn"
    ]
    expected = [{"labels": f'{{pod="{pod}"}}', "value": 10} for pod in "ab"]
    case = {"expr": query, "eval_time": "5m", "exp_samples": expected}
    tests = [{"interval": "1m", "input_series": given, "promql_expr_test": [case]}]
    checked = check(tmp_path, "test", "rules", content={"rule_files": [], "tests": tests})
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_configmap_has_the_whole_dashboard() -> None:
    found = one(render(CASES["dashboard"]), "ConfigMap", "demo-labelmint-dashboard")
    (text,) = found["data"].values()
    assert json.loads(text) == dashboard()


def test_prometheus_answers_the_scalers_query_for_two_replicas_of_this_release(
    tmp_path: Path,
) -> None:
    trigger = one(render(CASES["keda"]), "ScaledObject")["spec"]["triggers"][0]["metadata"]
    waiting = {"demo-labelmint-5d8f-a1b2c": 300, "demo-labelmint-5d8f-d3e4f": 212,
               "demo-labelmint-b-77aa-x9y8z": 4000}  # fmt: skip
    with (
        probe_server("127.0.0.1", 0, replica(300)) as first,
        probe_server("127.0.0.1", 0, replica(212)) as second,
        probe_server("127.0.0.1", 0, replica(4000)) as other,
    ):
        pods = zip((first, second, other), waiting, strict=True)
        ports = {port: {"namespace": "prod", "pod": pod} for port, pod in pods}
        with scraped_by(tool("prometheus"), ports, tmp_path) as ask:
            assert eventually(lambda: ask("count(up == 1)") == ["3"])
            assert ask(trigger["query"]) == ["512"]
    assert 512 / int(trigger["threshold"]) == 2  # replicas


def replica(waiting: int) -> Probes:
    metrics = Metrics()
    metrics.of_model("m").waiting.set(waiting)
    registry: CollectorRegistry = metrics.registry
    return Probes(lambda: True, lambda: True, registry)
