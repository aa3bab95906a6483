"""The Open Inference Protocol gives the same samples by other words, within the same limits."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from engines.fake import FakeOptions, fake_bundle
from labelmint.codec import array_from_tensor
from labelmint.v1 import label_service_pb2 as pb
from service.config import Config, Limits
from service.rpc import inference_messages as messages
from service.rpc.inference_exchange import MAX_UNDER_WAY
from tests.service.harness import FakeModel, RunningServer, refusal, served
from tests.service.inference_calls import (
    arrays_of,
    ask,
    call,
    exchange,
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
FAST_LIMITS = Limits(max_explicit_rows=32, max_message_samples=32, max_inflight_samples=200)


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


BAD: list[tuple[dict[str, Any], C, tuple[str, ...]]] = [
    ({"inputs": {}}, C.INVALID_ARGUMENT, ("no source", "z, w, ws", "index")),
    ({"inputs": {"z": Z, "w": Z}}, C.INVALID_ARGUMENT, ("z, w", "one of")),
    ({"inputs": {"z": Z, **indices(1)}}, C.INVALID_ARGUMENT, ("z, index",)),
    ({"inputs": {"z": Z, "seed": np.zeros(1, np.uint64)}}, C.INVALID_ARGUMENT, ("seed",)),
    ({"inputs": {"seed": np.zeros(1, np.uint64)}}, C.INVALID_ARGUMENT, ("no source",)),
    ({"inputs": {"x": Z}}, C.INVALID_ARGUMENT, ("'x'", "z, w, ws, seed, index")),
    ({"inputs": {"z": Z[:, :5]}}, C.INVALID_ARGUMENT, ("z", "[3, 5]", "[-1, 16]")),
    ({"inputs": {"z": Z.ravel()}}, C.INVALID_ARGUMENT, ("z", "[48]", "[-1, 16]")),
    ({"inputs": {"ws": Z}}, C.INVALID_ARGUMENT, ("ws", "[-1, 6, 16]")),
    ({"inputs": {"z": Z[:0]}}, C.INVALID_ARGUMENT, ("0 rows", "1 to 32")),
    ({"inputs": {"z": np.zeros((33, 16), np.float32)}}, C.INVALID_ARGUMENT, ("33", "32")),
    ({"inputs": indices(*range(33))}, C.INVALID_ARGUMENT, ("33", "32")),
    ({"inputs": {"z": Z * np.float32("nan")}}, C.INVALID_ARGUMENT, ("z", "row 0", "finite")),
    ({"inputs": {"z": Z.view(np.uint8).view("<u8")}}, C.INVALID_ARGUMENT, ("UINT64", "FP32")),
    ({"inputs": indices(2**64 - 1)}, C.INVALID_ARGUMENT, (str(2**64 - 1),)),
    ({"inputs": indices(1), "outputs": ("x",)}, C.INVALID_ARGUMENT, ("'x'", "image, mask")),
    ({"inputs": indices(1), "outputs": ("mask",) * 2}, C.INVALID_ARGUMENT, ("mask twice",)),
    ({"inputs": indices(1), "model_name": "x"}, C.NOT_FOUND, ("'x'", "fake")),
    ({"inputs": indices(1), "model_version": "2"}, C.NOT_FOUND, ("'2'", "sha256:")),
    ({"inputs": indices(1), "id": "i" * 257}, C.INVALID_ARGUMENT, ("257", "256")),
    ({"inputs": indices(1), "raw_input_contents": [b""]}, C.INVALID_ARGUMENT, ("2 entries",)),
]


@pytest.fixture(scope="module")
def limited() -> Iterator[RunningServer]:
    with served(config=Config(bundles=(), listen="127.0.0.1:0", limits=FAST_LIMITS)) as running:
        yield running


@pytest.mark.parametrize(("fields", "code", "words"), BAD, ids=[str(w) for _, _, w in BAD])
def test_a_refusal_names_value_limit_and_fix(
    limited: RunningServer, fields: dict[str, Any], code: C, words: tuple[str, ...]
) -> None:
    refused = refusal(lambda: infer(limited, infer_request(**fields)))
    assert refused.code is code
    assert all(word in refused.message for word in words), refused.message


@pytest.mark.parametrize(
    ("name", "field", "given", "words"),
    [
        ("truncation_psi", "double_param", 3.0, "truncation_psi is 3"),
        ("truncation_psi", "string_param", "half", "'half'"),
        ("truncation_psi", "bool_param", True, "True"),
        ("truncation_cutoff", "int64_param", 7, "[0, 6]"),
        ("truncation_cutoff", "int64_param", -1, "whole number"),
        ("truncation_cutoff", "string_param", "nan", "whole number"),
        ("class_index", "uint64_param", 2**64 - 1, "whole number"),
        ("class_index", "int64_param", 0, "no classes"),
        ("priority", "uint64_param", 1, "'priority'"),
    ],
)
def test_parameters_are_checked(
    limited: RunningServer, name: str, field: str, given: Any, words: str
) -> None:
    request = infer_request(indices(1))
    setattr(request.parameters[name], field, given)
    refused = refusal(lambda: infer(limited, request))
    assert refused.code is C.INVALID_ARGUMENT and words in refused.message


def test_an_absent_head_and_shared_memory_are_refused(limited: RunningServer) -> None:
    bare = FakeModel(bundle=fake_bundle(resolution=16, heads=False))
    with served([bare]) as server:
        refused = refusal(lambda: infer(server, infer_request(indices(1), ("mask",))))
        assert refused.code is C.FAILED_PRECONDITION
    request = infer_request(indices(1), ("mask",))
    request.outputs[0].parameters["shared_memory_region"].string_param = "x"
    refused = refusal(lambda: infer(limited, request))
    assert refused.code is C.INVALID_ARGUMENT and "shared memory" in refused.message


def test_names_of_any_length_are_refused_within_what_a_status_may_hold(
    limited: RunningServer,
) -> None:
    for name in ("x" * 100_000, "é" * 100_000, "\n" * 5000):
        for request in (
            infer_request(indices(1), model_name=name),
            infer_request(indices(1), (name,)),
        ):
            refused = refusal(partial(infer, limited, request))
            assert refused.code in (C.NOT_FOUND, C.INVALID_ARGUMENT), refused
        assert refusal(partial(limited.generate, model=name, count=1)).code is C.NOT_FOUND


def test_limits_of_clients_and_messages_hold_here_too() -> None:
    slow = FakeModel(options=FakeOptions(seconds_per_run=0.3))
    limits = Limits(max_client_streams=1, max_message_bytes=16 << 10)
    with (
        served([slow], Config((), "127.0.0.1:0", limits=limits)) as server,
        ThreadPoolExecutor() as pool,
    ):
        first = pool.submit(infer, server, infer_request(indices(1)))
        time.sleep(0.15)
        refused = refusal(lambda: infer(server, infer_request(indices(1))))
        assert refused.code is C.RESOURCE_EXHAUSTED
        assert "grpc-retry-pushback-ms" in refused.trailers
        first.result()
        refused = refusal(lambda: infer(server, infer_request(indices(*range(32)))))
        assert refused.code is C.INVALID_ARGUMENT and "max_message_bytes" in refused.message
        late = refusal(lambda: infer(server, infer_request(indices(1)), timeout=0.1))
        assert late.code is C.DEADLINE_EXCEEDED


def test_a_stream_answers_every_request_once_and_in_order(server: RunningServer) -> None:
    def requests() -> Iterator[Any]:
        for number in range(40):
            name = "unknown" if number % 7 == 6 else "fake"
            yield infer_request(indices(number), model_name=name, id=str(number))

    answers = list(exchange(server.channel, requests()))
    assert [answer.infer_response.id for answer in answers] == [str(n) for n in range(40)]
    for number, answer in enumerate(answers):
        assert answer.infer_response.parameters["triton_final_response"].bool_param
        if number % 7 == 6:
            assert answer.error_message.startswith("NOT_FOUND: model is 'unknown'")
        else:
            assert not answer.error_message
            got = {n: a.tobytes() for n, a in arrays_of(answer.infer_response).items()}
            assert got == generated(server, indices=[number])


def test_a_stream_reads_no_more_than_it_may_have_under_way() -> None:
    slow = FakeModel(options=FakeOptions(seconds_per_run=1.0))
    with served([slow]) as server:
        read: list[int] = []

        def requests() -> Iterator[Any]:
            for number in range(100):
                read.append(number)
                yield infer_request(indices(number))

        answers = exchange(server.channel, requests())
        time.sleep(0.5)
        values = scraped(server)
        assert value(values, "labelmint_open_streams") == MAX_UNDER_WAY
        answers.cancel()
        while value(scraped(server), "labelmint_open_streams"):
            time.sleep(0.05)
        assert server.generate(count=1).batch.indices


def test_a_drain_answers_what_is_under_way_and_ends_the_stream() -> None:
    slow = FakeModel(options=FakeOptions(seconds_per_run=0.2))
    with served([slow]) as server, ThreadPoolExecutor() as pool:
        waiting = exchange(server.channel, endless(infer_request(indices(1))))
        got = [next(waiting)]
        draining = pool.submit(server.call, lambda running: running.drain())
        ended = refusal(lambda: got.extend(waiting))
        assert ended.code is C.UNAVAILABLE and "draining" in ended.message
        draining.result()
        assert all(not answer.error_message for answer in got)
        assert not server.server.ready


def endless(request: Any) -> Iterator[Any]:
    while True:
        yield request


@pytest.mark.parametrize("name", ["max_streams", "max_client_streams"])
def test_open_streams_are_bounded(name: str) -> None:
    limits = Limits(**{name: 2})
    with served(config=Config((), "127.0.0.1:0", limits=limits)) as server:
        held = [exchange(server.channel, endless(infer_request(indices(1)))) for _ in range(2)]
        for one in held:
            next(one)
        refused = refusal(lambda: list(exchange(server.channel, iter([]))))
        assert refused.code is C.RESOURCE_EXHAUSTED and f"{name} is 2" in refused.message
        for one in held:
            one.cancel()


def test_requests_of_a_stream_count_against_the_rate() -> None:
    limits = Limits(max_client_requests_per_s=2)
    with served(config=Config((), "127.0.0.1:0", limits=limits)) as server:
        requests = iter([infer_request(indices(1))] * 5)
        errors = [answer.error_message for answer in exchange(server.channel, requests)]
        assert sum(error.startswith("RESOURCE_EXHAUSTED") for error in errors) >= 3


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


def test_what_is_not_implemented_says_so(server: RunningServer) -> None:
    for method in ("TraceSetting", "LogSettings", "SystemSharedMemoryStatus"):
        unary: Any = server.channel.unary_unary(f"/{messages.SERVICE}/{method}")
        assert refusal(partial(unary, b"", timeout=10)).code is C.UNIMPLEMENTED


def test_reflection_and_health_name_the_service(server: RunningServer) -> None:
    serving = health_pb2.HealthCheckResponse.SERVING
    assert status_of_health(server, messages.SERVICE) == serving
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(server.channel)
    for symbol in (messages.SERVICE, "labelmint.v1.LabelService", "grpc.health.v1.Health"):
        asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
        (answer,) = stub.ServerReflectionInfo(iter([asked]), timeout=10)
        assert answer.file_descriptor_response.file_descriptor_proto
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([asked]), timeout=10)
    assert messages.SERVICE in {service.name for service in answer.list_services_response.service}


def test_ready_is_what_is_served(server: RunningServer) -> None:
    version = index_of(server.channel)["fake"].version
    for name, asked, ready in (
        ("fake", "", True), ("fake", version, True), ("fake", "1", False), ("x", "", False),
    ):  # fmt: skip
        assert ask(server.channel, "ModelReady", name=name, version=asked).ready is ready
    assert ask(server.channel, "ServerLive").live and ask(server.channel, "ServerReady").ready
