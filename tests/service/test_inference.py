"""The Open Inference Protocol gives the same samples by other words, within the same limits."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from engines.fake import FakeOptions
from labelmint.codec import array_from_tensor
from labelmint.v1 import label_service_pb2 as pb
from service.rpc import inference_messages as messages
from tests.hangs import HANG_S
from tests.service.harness import FakeModel, RunningServer, refusal, served
from tests.service.inference_calls import (
    arrays_of,
    ask,
    call,
    index_of,
    indices,
    infer_request,
)
from tests.service.test_metrics import scraped, value
from tests.service.test_repository import status_of_health

C = grpc.StatusCode
NAMES = {
    pb.OUTPUT_IMAGE: "image", pb.OUTPUT_MASK: "mask", pb.OUTPUT_KEYPOINTS: "keypoints",
    pb.OUTPUT_DEPTH: "depth", pb.OUTPUT_UNCERTAINTY: "uncertainty",
    pb.OUTPUT_UNCERTAINTY_MAP: "uncertainty_map", pb.OUTPUT_W: "ws",
}  # fmt: skip
PSI = {"truncation_psi": {"double_param": 0.5}}
Z = np.linspace(-1, 1, 3 * 16, dtype=np.float32).reshape(3, 16)


def infer(server: RunningServer, request: Any, **options: Any) -> Any:
    return call(server.channel, "ModelInfer", request, **options)


def generated(server: RunningServer, **query: Any) -> dict[str, bytes]:
    """What GenerateSamples gives, raw, by this protocol's names."""
    response = server.generate(accept_codecs=[pb.CODEC_RAW], **query)
    return {
        NAMES[t.output]: array_from_tensor(t, 1 << 30).tobytes() for t in response.batch.tensors
    }


@pytest.mark.parametrize("raw", [True, False])
def test_samples_of_an_index_are_those_of_generate_samples(
    server: RunningServer, raw: bool
) -> None:
    wanted = [3, 4, 5, 900, 2**64 - 2]
    request = infer_request(
        indices(*wanted, seed=7), tuple(NAMES.values()), raw, parameters=PSI, id="q"
    )
    answer = infer(server, request)
    own = generated(
        server, indices=wanted, outputs=list(NAMES),
        sampling=pb.SamplingOptions(seed=7, truncation_psi=0.5),
    )  # fmt: skip
    assert [output.name for output in answer.outputs] == list(NAMES.values())
    assert dict(zip(own, answer.raw_output_contents, strict=True)) == own
    assert answer.id == "q" and answer.model_name == "fake"
    assert answer.model_version == server.generate(count=1).bundle_id


def test_indices_come_in_any_order_and_more_than_once(server: RunningServer) -> None:
    one = {i: arrays_of(infer(server, infer_request(indices(i)))) for i in (2, 5, 9)}
    many = arrays_of(infer(server, infer_request(indices(9, 2, 2, 5))))
    for row, index in enumerate((9, 2, 2, 5)):
        for name, array in many.items():
            assert np.array_equal(array[row], one[index][name][0]), (index, name)


@pytest.mark.parametrize(("name", "space"), [("z", 1), ("w", 2), ("ws", 3)])
@pytest.mark.parametrize("raw", [True, False])
def test_latents_of_the_caller_are_rendered_as_generate_samples_does(
    server: RunningServer, name: str, space: Any, raw: bool
) -> None:
    rows = Z if name != "ws" else np.repeat(Z[:, None], 6, axis=1) + np.float32(0.5)
    answer = infer(server, infer_request({name: rows}, raw=raw, outputs=("ws", "image", "mask")))
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=rows.shape, data=rows.tobytes())
    latents = pb.ExplicitLatents(space=space, rows=tensor)
    own = generated(server, latents=latents, outputs=[pb.OUTPUT_W, pb.OUTPUT_IMAGE, pb.OUTPUT_MASK])
    got = arrays_of(answer)
    assert list(got) == ["ws", "image", "mask"] and {n: a.tobytes() for n, a in got.items()} == own


def test_what_is_not_asked_for_is_the_same_as_elsewhere(server: RunningServer) -> None:
    got = arrays_of(infer(server, infer_request(indices(1))))
    assert {name: array.tobytes() for name, array in got.items()} == generated(server, indices=[1])


def test_descriptions_agree_with_what_is_given(server: RunningServer) -> None:
    described = ask(server.channel, "ModelMetadata", name="fake")
    config = ask(server.channel, "ModelConfig", name="fake").config
    got = infer(server, infer_request(indices(1, 2), tuple(NAMES.values())))
    for output, given in zip(described.outputs, got.outputs, strict=True):
        assert (output.name, output.datatype) == (given.name, given.datatype)
        assert [2, *output.shape[1:]] == list(given.shape) and output.shape[0] == -1
    for one, other in (
        (described.inputs, config.input),
        (described.outputs, config.output),
    ):
        assert [(t.name, list(t.shape)) for t in one] == [(t.name, list(t.dims)) for t in other]
    assert all(tensor.optional for tensor in config.input)
    assert config.max_batch_size == 0 and not config.model_transaction_policy.decoupled
    assert described.versions == [index_of(server.channel)["fake"].version]
    assert ask(server.channel, "ServerMetadata").name == "labelmint"


def test_requests_of_both_services_share_engine_batches() -> None:
    slow = FakeModel(options=FakeOptions(seconds_per_run=0.1))
    with served([slow]) as server, ThreadPoolExecutor(16) as pool:
        answers = [pool.submit(infer, server, infer_request(indices(k))) for k in range(8)]
        answers += [pool.submit(partial(server.generate, count=1)) for _ in range(8)]
        for answer in answers:
            answer.result()
        values = scraped(server)
        assert value(values, "labelmint_computed_samples_total") == 16
        assert value(values, "labelmint_engine_seconds_count") <= 6
        assert value(values, "labelmint_requests_total", method="ModelInfer", code="OK") == 8


def test_statistics_are_those_of_the_metrics() -> None:
    with served() as server:
        for number in range(3):
            infer(server, infer_request(indices(number, number + 50)))
        refusal(lambda: infer(server, infer_request({})))
        (statistics,) = ask(server.channel, "ModelStatistics", name="fake").model_stats
        assert (statistics.inference_count, statistics.execution_count) == (6, 3)
        stats = statistics.inference_stats
        assert (stats.success.count, stats.fail.count, stats.queue.count) == (3, 1, 3)
        assert stats.success.ns >= stats.compute_infer.ns > 0
        assert len(ask(server.channel, "ModelStatistics").model_stats) == 1
        unknown = refusal(lambda: ask(server.channel, "ModelStatistics", name="x"))
        assert unknown.code is C.NOT_FOUND


def test_reflection_and_health_name_the_service(server: RunningServer) -> None:
    serving = health_pb2.HealthCheckResponse.SERVING
    assert status_of_health(server, messages.SERVICE) == serving
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(server.channel)
    for symbol in (messages.SERVICE, "labelmint.v1.LabelService", "grpc.health.v1.Health"):
        asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
        (answer,) = stub.ServerReflectionInfo(iter([asked]), timeout=HANG_S)
        assert answer.file_descriptor_response.file_descriptor_proto
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([asked]), timeout=HANG_S)
    assert messages.SERVICE in {service.name for service in answer.list_services_response.service}


def test_ready_is_what_is_served(server: RunningServer) -> None:
    version = index_of(server.channel)["fake"].version
    for name, asked, ready in (
        ("fake", "", True), ("fake", version, True), ("fake", "1", False), ("x", "", False),
    ):  # fmt: skip
        assert ask(server.channel, "ModelReady", name=name, version=asked).ready is ready
    assert ask(server.channel, "ServerLive").live and ask(server.channel, "ServerReady").ready
