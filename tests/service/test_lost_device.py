"""A device that fails for good: no half batch, not ready, and clients go on at another replica."""

import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from engines.errors import DeviceLost
from engines.fake import FakeOptions
from engines.open import GpuDrivers, GpuOptions
from labelmint import Client
from labelmint.v1 import label_service_pb2 as pb
from service.config import Config, NamedBundle
from service.errors import NEXT_INDEX
from service.loading import open_model
from service.metrics import Metrics
from tests.engines.fake_device import FakeDevice
from tests.engines.fake_tensorrt import FakeTensorRT
from tests.hangs import HANG_S
from tests.service.harness import FakeModel, refusal, served, served_by
from tests.service.test_metrics import scraped, value

C = grpc.StatusCode
LOST = FakeOptions(lost_after_runs=3)
LOCAL = Config(bundles=(), listen="127.0.0.1:0", metrics_port=0)


def until(condition: Any) -> None:
    end = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("engines", [1, 3])
def test_streams_end_resumably_and_the_server_is_not_ready(engines: int) -> None:
    with served([FakeModel(options=LOST, engines=engines)]) as server:
        messages: list[Any] = []
        ended = refusal(lambda: messages.extend(server.stream(end_index=5000)))
        assert ended.code is C.UNAVAILABLE and "lost its device" in ended.message
        seen = [i for message in messages for i in message.batch.indices]
        assert seen == list(range(len(seen))) and len(seen) <= 3 * 8 * engines
        assert int(ended.trailers[NEXT_INDEX]) == len(seen)
        again = refusal(lambda: server.generate(end_index=1))
        assert again.code is C.UNAVAILABLE and "another replica" in again.message
        until(lambda: not server.server.ready)
        values = scraped(server)
        assert value(values, "labelmint_device_lost") == 1
        for path, code in (("healthz", 503), ("readyz", 503), ("metrics", 200)):
            assert status(server, path) == code


def status(server: Any, path: str) -> int:
    try:
        url = f"http://127.0.0.1:{server.server.metrics_port}/{path}"
        with urllib.request.urlopen(url) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_health_watchers_hear_of_it() -> None:
    with served([FakeModel(options=LOST)]) as server:
        stub: Any = health_pb2_grpc.HealthStub(server.channel)
        request = health_pb2.HealthCheckRequest()
        assert stub.Check(request).status == health_pb2.HealthCheckResponse.SERVING
        refusal(lambda: list(server.stream(end_index=5000)))
        not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
        until(lambda: stub.Check(request).status == not_serving)


def test_a_client_of_two_replicas_loses_nothing() -> None:
    with served([FakeModel(options=LOST)]) as dying, served([FakeModel()]) as living:
        targets = [f"127.0.0.1:{server.server.port}" for server in (dying, living)]
        with Client(targets) as client:
            indices = [
                i
                for batch in client.stream(batch_size=8, end_index=400, outputs=["mask"])
                for i in batch.indices.tolist()
            ]
    assert indices == list(range(400))


def test_an_error_of_one_run_is_no_lost_device() -> None:
    with served([FakeModel(options=FakeOptions(fail_after_runs=2))]) as server:
        refusal(lambda: list(server.stream(end_index=500)))
        assert server.server.ready
        assert value(scraped(server), "labelmint_device_lost") == 0


class OnGpu:
    """The tiny bundle served by TensorRT on a fake device, as `service run` would."""

    def __init__(self, bundle: Path, cache: Path, version: str = "10.3.0", **config: Any) -> None:
        self.device = FakeDevice()
        self.trt = FakeTensorRT(version, self.device)
        given: dict[str, Any] = {
            "bundles": (NamedBundle("tiny", bundle),), "listen": "127.0.0.1:0", "metrics_port": 0,
            "runtime": "tensorrt", "batch_sizes": (2, 4), 
            "gpu": GpuOptions(cache=cache, build=True),
        }  # fmt: skip
        self.config = Config(**(given | config))
        self.drivers = GpuDrivers(lambda index: self.device, lambda: self.trt)

    def models(self, metrics: Metrics) -> list[Any]:
        return [open_model(n, self.config, metrics, self.drivers) for n in self.config.bundles]


@pytest.mark.parametrize("version", [pytest.param("8.5.3.1", marks=pytest.mark.long), "11.0.0"])
def test_a_bundle_is_served_by_tensorrt_as_by_the_cpu(
    tiny_bundle: Path, tmp_path: Path, version: str
) -> None:
    on = OnGpu(tiny_bundle, tmp_path, version, precision="float32")
    cpu = Config(bundles=(), listen="127.0.0.1:0", batch_sizes=(1,))
    named = on.config.bundles[0]
    with (
        served_by(on.config, on.models) as server,
        served_by(cpu, lambda metrics: [open_model(named, cpu, metrics)]) as reference,
    ):
        on.device.sealed = True
        arrays = []
        for port in (server.server.port, reference.server.port):
            with Client(f"127.0.0.1:{port}") as client:
                batches = list(client.stream(batch_size=64, end_index=60, keep_fraction=0.5))
            assert len(batches) == 1 and 10 < len(batches[0].indices) < 50
            arrays.append(batches[0])
        for name in ("indices", "images", "masks", "keypoints", "uncertainty"):
            assert np.array_equal(*(getattr(batch, name) for batch in arrays)), name
        model = server.stub.GetModel(pb.GetModelRequest(model="tiny")).model
        assert model.engine == f"tensorrt-{version}-float32"
        on.device.sealed = False
    on.device.assert_nothing_left()


def test_a_lost_gpu_ends_in_unavailable(tiny_bundle: Path, tmp_path: Path) -> None:
    on = OnGpu(tiny_bundle, tmp_path)
    with served_by(on.config, on.models) as server:
        messages = server.stream(outputs=[pb.OUTPUT_MASK])
        next(messages)
        on.device.faults["launch"] = DeviceLost("cudaErrorIllegalAddress")
        assert refusal(lambda: list(messages)).code is C.UNAVAILABLE
        until(lambda: not server.server.ready)


def test_only_listed_engines_are_fallen_back_to_and_a_metric_tells(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    on = OnGpu(tiny_bundle, tmp_path, fallbacks=("onnxruntime",))
    on.trt.has_gpu = False
    with served_by(on.config, on.models) as server:
        found = scraped(server)[
            "labelmint_engine_fallbacks_total",
            frozenset({("model", "tiny"), ("wanted", "tensorrt"), ("engine", "onnxruntime-cpu")}),
        ]
        assert found == 1
        message = server.generate(end_index=2, outputs=[pb.OUTPUT_MASK])
        assert list(message.batch.indices) == [0, 1]
    alone = OnGpu(tiny_bundle, tmp_path)
    alone.trt.has_gpu = False
    with pytest.raises(Exception, match="no GPU"):
        alone.models(Metrics())
