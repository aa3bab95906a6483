"""The server as a process: starts in one line or fails in one line, drains, tells its health."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from click.testing import CliRunner, Result
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import CollectorRegistry

from bundle.manifest import MANIFEST, Manifest
from bundle.read import bundle_id_from_content
from bundle.write import file_entries, write_manifest
from engines.fake import fake_bundle
from labelmint.v1 import label_service_pb2 as pb
from labelmint.v1.label_service_pb2_grpc import LabelServiceStub
from service.__main__ import main
from service.config import Config, NamedBundle
from service.errors import NEXT_INDEX, StartError
from service.loading import open_models
from service.metrics import Metrics
from service.probes import Probes, probe_server
from tests.hangs import HANG_S
from tests.service.harness import channel_to, refusal

ROOT = Path(__file__).parents[2]
READY = re.compile(r"labelmint ready on (127\.0\.0\.\d):(\d+), models: .+, metrics on \S+:(\d+)\n")


@dataclass
class Process:
    """A running `python -m service run`."""

    popen: "subprocess.Popen[str]"
    host: str
    port: int
    metrics_port: int
    ready_after_s: float

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{self.host}:{self.metrics_port}{path}") as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


def command(*flags: str) -> list[str]:
    return [sys.executable, "-m", "service", *flags]


def bundle_at(folder: Path, **changes: Any) -> Path:
    """The fake bundle on disk: its manifest and its empty files."""
    manifest = fake_bundle(**{"resolution": 16, **changes}).manifest
    folder.mkdir()
    (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    for name in manifest.files:
        (folder / name).touch()
    return folder


def bundle_around(folder: Path, manifest: Manifest, graphs: Path) -> Path:
    """A bundle of another one's graph files, with a manifest that lists and hashes them."""
    shutil.copytree(graphs, folder)
    (folder / MANIFEST).unlink()
    files = file_entries(folder)
    identity = bundle_id_from_content(manifest.generator, manifest.labels, manifest.heads, files)
    write_manifest(folder, msgspec.structs.replace(manifest, files=files, bundle_id=identity))
    return folder


@contextmanager
def running(bundle: Path, *flags: str) -> Iterator[Process]:
    started = time.monotonic()
    line = command(
        "run", "--bundle", f"m={bundle}", "--listen", "127.0.0.1:0", "--metrics-port", "0", *flags
    )
    with subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as popen:
        assert popen.stdout and popen.stderr
        try:
            ready = READY.fullmatch(popen.stdout.readline())
            assert ready, popen.stderr.read()
            took = time.monotonic() - started
            yield Process(popen, ready[1], int(ready[2]), int(ready[3]), took)
        finally:
            popen.kill()


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_at(tmp_path_factory.mktemp("service") / "fake")


@pytest.fixture(scope="module")
def process(fake: Path) -> Iterator[Process]:
    with running(fake, "--engine", "fake") as process:
        yield process


def test_sigterm_ends_streams_resumably_and_exits_0(fake: Path) -> None:
    with running(fake, "--engine", "fake") as process, channel_to(process.port) as channel:
        stub = LabelServiceStub(channel)
        calls = [stub.StreamSamples(pb.StreamSamplesRequest()) for _ in range(3)]
        begun = [next(iter(call)).next_index for call in calls]
        process.popen.send_signal(signal.SIGTERM)
        for call, first in zip(calls, begun, strict=True):
            positions = [first]
            messages = (message.next_index for message in call)
            ended = refusal(partial(positions.extend, messages))
            assert ended.code is grpc.StatusCode.UNAVAILABLE
            assert "draining" in ended.message
            assert int(ended.trailers[NEXT_INDEX]) == positions[-1] > 0
        assert process.popen.wait(HANG_S) == 0


def test_drain_delay_keeps_serving_while_not_ready(fake: Path) -> None:
    flags = ("--engine", "fake", "--drain-delay", "1.5")
    with running(fake, *flags) as process, channel_to(process.port) as channel:
        stub = LabelServiceStub(channel)
        health: Any = health_pb2_grpc.HealthStub(channel)
        asked = health_pb2.HealthCheckRequest(service="labelmint.v1.LabelService")
        seen = iter(health.Watch(asked))
        assert next(seen).status == health_pb2.HealthCheckResponse.SERVING
        assert process.get("/readyz")[0] == 200
        process.popen.send_signal(signal.SIGTERM)
        assert next(seen).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert process.get("/readyz") == (503, "loading, draining, or a device is lost\n")
        assert process.get("/healthz")[0] == 200
        assert stub.ListModels(pb.ListModelsRequest()).models
        assert process.popen.wait(HANG_S) == 0


def test_a_second_signal_ends_at_once(fake: Path) -> None:
    flags = ("--engine", "fake", "--drain-delay", "60")
    with running(fake, *flags) as process:
        process.popen.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert process.popen.poll() is None
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(HANG_S) == 130


def test_a_caller_that_does_not_read_cannot_hold_the_drain(fake: Path) -> None:
    flags = ("--engine", "fake", "--drain-grace", "0.5")
    with running(fake, *flags) as process, channel_to(process.port) as channel:
        call = LabelServiceStub(channel).StreamSamples(pb.StreamSamplesRequest())
        next(iter(call))
        time.sleep(0.5)  # fills every buffer between the two
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(HANG_S) == 0


def ran(*words: str, **environment: str) -> Result:
    """The command line within this process."""
    return CliRunner(env=environment).invoke(main, words)


def test_half_of_a_pair_for_mutual_tls_is_usage_of_the_health_command() -> None:
    # A process of its own: grpc aborts the one that it is given half a pair in.
    line = command("health", "--tls-client-key", __file__)
    ended = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "--tls-client-certificate" in ended.stderr


def test_health_command_tells_by_its_exit_code(process: Process) -> None:
    up = subprocess.run(
        command("health", "--target", f"127.0.0.1:{process.port}"), cwd=ROOT,
        capture_output=True, text=True,
    )  # fmt: skip
    down = ran("health", "--target", "127.0.0.1:1")
    assert (up.returncode, up.stdout) == (0, f"127.0.0.1:{process.port}: SERVING\n")
    assert down.exit_code == 1 and "UNAVAILABLE" in down.stderr


def test_reflection_and_health_name_the_service(process: Process) -> None:
    with channel_to(process.port) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = stub.ServerReflectionInfo(iter([asked]))
        names = {service.name for service in answer.list_services_response.service}
        assert {"labelmint.v1.LabelService", "grpc.health.v1.Health"} <= names
        health: Any = health_pb2_grpc.HealthStub(channel)
        for name in ("", "labelmint.v1.LabelService"):
            status = health.Check(health_pb2.HealthCheckRequest(service=name)).status
            assert status == health_pb2.HealthCheckResponse.SERVING


def test_http_has_probes_and_metrics_and_nothing_else(process: Process) -> None:
    assert process.get("/healthz") == (200, "alive\n")
    assert process.get("/readyz") == (200, "ready\n")
    assert "labelmint_engine_seconds_bucket" in process.get("/metrics")[1]
    assert process.get("/other")[0] == 404


def test_probes_are_at_the_ipv6_address_that_is_listened_on(fake: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    probes = Probes(lambda: True, lambda: True, CollectorRegistry())
    with (
        probe_server("::1", 0, probes) as port,
        urllib.request.urlopen(f"http://[::1]:{port}/readyz") as answer,
    ):
        assert answer.read() == b"ready\n"


def test_flags_have_environment_twins(fake: Path) -> None:
    twins = {"LABELMINT_SERVER_BUNDLE": str(fake), "LABELMINT_SERVER_LISTEN": "nonsense"}
    result = ran("run", **twins)
    assert result.exit_code == 2
    assert "'nonsense' is not HOST:PORT" in result.stderr


def changed(bundle: Path, **changes: Any) -> None:
    manifest = json.loads((bundle / MANIFEST).read_bytes())
    (bundle / MANIFEST).write_text(json.dumps(manifest | changes))


def run_once(bundle: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    listen = ("--listen", "127.0.0.1:0")
    line = command("run", "--bundle", str(bundle), *listen, *flags)
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=HANG_S)


def refused_start(bundle: Path) -> str:
    """Why a server of this bundle does not start."""
    config = Config(bundles=(NamedBundle(bundle.name, bundle),), listen="127.0.0.1:0", threads=1)
    with pytest.raises(StartError) as refused:
        open_models(config, Metrics())
    return str(refused.value)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda b: (b / "labeller.onnx").write_bytes(b"x"), ["labeller.onnx"]),
        (lambda b: (b / MANIFEST).unlink(), [MANIFEST]),
        (lambda b: changed(b, surprise=1), ["surprise"]),
        (lambda b: None, ["labeller.onnx"]),  # empty files are no graphs
    ],
    ids=["flipped", "no manifest", "unknown field", "no graph"],
)
def test_a_broken_bundle_is_one_line(tmp_path: Path, damage: Any, words: list[str]) -> None:
    bundle = bundle_at(tmp_path / "broken")
    damage(bundle)
    line = refused_start(bundle)
    assert line.startswith("bundle broken: ") and "\n" not in line
    assert all(word in line for word in words), line


def test_a_start_that_is_refused_is_one_line_and_exit_1(tmp_path: Path) -> None:
    bundle = bundle_at(tmp_path / "broken")
    changed(bundle, surprise=1)
    result = run_once(bundle)
    assert result.returncode == 1 and not result.stdout
    assert result.stderr == f"error: {refused_start(bundle)}\n" and result.stderr.count("\n") == 1


def test_a_taken_port_is_one_line_and_exit_1(
    process: Process, fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)  # that the command may have set here
    taken = run_once(fake, "--engine", "fake", "--listen", f"127.0.0.1:{process.port}")
    assert taken.returncode == 1
    assert taken.stderr == (
        f"error: --listen 127.0.0.1:{process.port} cannot be bound: process {process.popen.pid} "
        f"(python) listens on 127.0.0.1:{process.port}; end it, or give another port\n"
    )
    flags = ("--engine", "fake", "--metrics-port", str(process.metrics_port))
    taken = run_once(fake, *flags)
    assert taken.returncode == 1 and "--metrics-port" in taken.stderr
    assert taken.stderr.count("\n") == 1
