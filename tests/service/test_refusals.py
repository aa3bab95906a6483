"""Bad requests get the status the contract says, with the value and the limit."""

import gc
import time
import tracemalloc
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from engines.fake import fake_bundle
from labelmint.v1 import label_service_pb2 as pb
from service.config import Config, ServerLimits
from tests.hangs import HANG_S
from tests.hangs import eventually as eventually_true
from tests.service.harness import FakeModel, RunningServer, refusal, served

INVALID = grpc.StatusCode.INVALID_ARGUMENT
UNMET = grpc.StatusCode.FAILED_PRECONDITION
NAN = float("nan")
MT = pb.LATENT_SOURCE_MT19937
KEEP, MOST = pb.FILTER_MODE_KEEP_FRACTION, pb.FILTER_MODE_MAX_UNCERTAINTY


def sampling(**fields: Any) -> dict[str, Any]:
    return {"sampling": pb.SamplingOptions(**fields)}


def filtered(**fields: Any) -> dict[str, Any]:
    return {"filter": pb.Filter(**fields)}


def latents(space: Any = pb.LATENT_SPACE_Z, shape: tuple[int, ...] = (2, 16), **fields: Any) -> Any:
    data = np.zeros(shape, np.float32)
    tensor = {"dtype": pb.DATA_TYPE_FLOAT32, "shape": shape, "data": data.tobytes(), **fields}
    return {"latents": pb.ExplicitLatents(space=space, rows=pb.Tensor(**tensor))}


def with_value(value: float) -> bytes:
    rows = np.zeros((2, 16), np.float32)
    rows[1, 3] = value
    return rows.tobytes()


# A query, the status, and words of the message: the value, the limit, the fix.
BAD: list[tuple[dict[str, Any], grpc.StatusCode, list[str]]] = [
    (sampling(truncation_psi=NAN), INVALID, ["truncation_psi", "nan", "[0, 2]"]),
    (sampling(truncation_psi=2.5), INVALID, ["truncation_psi", "2.5", "[0, 2]"]),
    (sampling(truncation_psi=-0.5), INVALID, ["truncation_psi", "-0.5", "[0, 2]"]),
    (sampling(truncation_cutoff=7), INVALID, ["truncation_cutoff", "7", "[0, 6]"]),
    (sampling(class_index=0), INVALID, ["class_index", "0", "no classes"]),
    (sampling(latent_source=9), INVALID, ["latent_source", "9", "0, 1, 2"]),
    (sampling(latent_source=MT, seed=1 << 32), INVALID, ["seed", "4294967296", "2^32"]),
    (sampling(latent_source=MT, views_per_object=2), INVALID, ["views_per_object", "2"]),
    (sampling(views_per_object=70000), INVALID, ["views_per_object", "70000", "65536"]),
    (
        sampling(latent_source=MT) | {"start_index": 1_000_001}, INVALID,
        ["start_index", "1000001", "1000000", "philox"],
    ),
    (
        sampling(latent_source=MT) | {"indices": [1_000_000]}, INVALID,
        ["indices", "1000000", "under 1000000"],
    ),
    (filtered(mode=7), INVALID, ["filter.mode", "7", "0, 1, 2, 3"]),
    (filtered(keep_fraction=0.5), INVALID, ["keep_fraction", "0.5", "KEEP_FRACTION"]),
    (filtered(mode=MOST, keep_fraction=0.5), INVALID, ["keep_fraction", "0.5"]),
    (filtered(mode=KEEP, max_uncertainty=0.5), INVALID, ["max_uncertainty", "0.5"]),
    (filtered(mode=KEEP), INVALID, ["keep_fraction", "0", "(0, 1]"]),
    (filtered(mode=KEEP, keep_fraction=1.5), INVALID, ["keep_fraction", "1.5", "(0, 1]"]),
    (filtered(mode=KEEP, keep_fraction=NAN), INVALID, ["keep_fraction", "nan", "(0, 1]"]),
    (filtered(mode=MOST, max_uncertainty=-1), INVALID, ["max_uncertainty", "-1", "at least 0"]),
    (filtered(mode=MOST, max_uncertainty=NAN), INVALID, ["max_uncertainty", "nan"]),
    (
        filtered(mode=KEEP, keep_fraction=0.5) | sampling(truncation_psi=0.5), UNMET,
        ["not calibrated", "python -m export calibrate", "--psi 0.5"],
    ),
    ({"weight": 17}, INVALID, ["weight", "17", "[1, 16]"]),
    ({"num_shards": 3, "shard_index": 3}, INVALID, ["shard_index", "3", "num_shards"]),
    ({"shard_index": 1}, INVALID, ["shard_index", "1", "num_shards"]),
    ({"start_index": 9, "end_index": 8}, INVALID, ["end_index", "8", "9"]),
    ({"start_index": (1 << 64) - 5, "count": 9}, INVALID, ["count", "9", "only 4", "2^64"]),
    ({"indices": [3, 3]}, INVALID, ["indices[1]", "3", "strictly ascending"]),
    ({"indices": [3, 2]}, INVALID, ["indices[1]", "2 after 3", "strictly ascending"]),
    ({"indices": [(1 << 64) - 1]}, INVALID, ["indices", "18446744073709551615", "under"]),
    ({"indices": range(101)}, INVALID, ["indices", "101", "100", "several"]),
    ({"indices": [5], "start_index": 2}, INVALID, ["indices", "start_index", "2"]),
    ({"indices": [5], "end_index": 9}, INVALID, ["indices", "end_index", "9"]),
    ({"indices": [5], "num_shards": 4}, INVALID, ["indices", "num_shards", "4"]),
    ({"indices": [0]} | latents(), INVALID, ["latents", "indices"]),
    (latents() | {"end_index": 2}, INVALID, ["latents", "end_index", "2"]),
    (latents() | {"num_shards": 2}, INVALID, ["latents", "num_shards", "2"]),
    (latents() | {"start_index": 3}, INVALID, ["start_index", "3", "[0, 2]"]),
    (latents() | sampling(views_per_object=2), INVALID, ["views_per_object", "2"]),
    (latents() | filtered(mode=KEEP, keep_fraction=0.5), INVALID, ["keep_fraction", "latents"]),
    (latents(space=0), INVALID, ["latents.space", "0", "1, 2, 3"]),
    (latents(space=8), INVALID, ["latents.space", "8"]),
    (latents(shape=(2, 17)), INVALID, ["[2, 17]", "[n, 16]"]),
    (latents(shape=(16,)), INVALID, ["[16]", "[n, 16]"]),
    (latents(pb.LATENT_SPACE_W_PLUS), INVALID, ["[2, 16]", "[n, 6, 16]"]),
    (latents(shape=(0, 16)), INVALID, ["0 rows", "1 to 50"]),
    (latents(shape=(51, 16)), INVALID, ["51 rows", "1 to 50", "several"]),
    (latents(data=b"123"), INVALID, ["latents.rows", "3 bytes", "128"]),
    (latents(data=with_value(NAN)), INVALID, ["row 1", "finite"]),
    (latents(data=with_value(float("inf"))), INVALID, ["row 1", "finite"]),
    (latents(dtype=pb.DATA_TYPE_FLOAT16), INVALID, ["dtype", "2", "FLOAT32"]),
    (latents(dtype=0), INVALID, ["dtype", "0", "FLOAT32"]),
    (latents(codec=pb.CODEC_JPEG), INVALID, ["codec", "3", "RAW or ZSTD"]),
    (latents(codec=pb.CODEC_ZSTD, data=b"no zstd"), INVALID, ["latents.rows", "zstd"]),
    (latents(output=pb.OUTPUT_W), INVALID, ["output", "7", "unspecified"]),
    ({"outputs": [0]}, INVALID, ["outputs", "0", "1, 2, 3, 4, 5, 6, 7"]),
    ({"outputs": [99]}, INVALID, ["outputs", "99"]),
    ({"accept_codecs": [9]}, INVALID, ["accept_codecs", "9", "1, 2, 3"]),
    ({"jpeg_quality": 80}, INVALID, ["jpeg_quality", "80", "JPEG"]),
    (
        {"jpeg_quality": 101, "accept_codecs": [pb.CODEC_JPEG]}, INVALID,
        ["jpeg_quality", "101", "[1, 100]"],
    ),
    ({"max_message_bytes": 4095}, INVALID, ["max_message_bytes", "4095", "4096"]),
    ({"max_message_bytes": 1 << 30}, INVALID, ["max_message_bytes", "1073741824", "16777216"]),
    ({"bundle_id": "sha256:other"}, UNMET, ["bundle_id", "sha256:other"]),
    ({"model": "other"}, grpc.StatusCode.NOT_FOUND, ["'other'", "bare, fake"]),
    ({"model": ""}, INVALID, ["model is empty", "2", "bare, fake"]),
    ({"model": "bare", "outputs": [pb.OUTPUT_MASK]}, UNMET, ["mask", "lacks", "image, w"]),
    (
        {"model": "bare"} | filtered(mode=MOST, max_uncertainty=1), UNMET,
        ["no score_source", "leave keep_fraction and max_uncertainty out"],
    ),
    ({"model": "bare"} | filtered(mode=KEEP, keep_fraction=0.5), UNMET, ["no score_source"]),
    ({"model": "bare"} | sampling(views_per_object=2), INVALID, ["views_per_object", "2"]),
    ({"model": "bare", "max_message_bytes": 8192}, INVALID, ["12288", "8192", "image", "raw"]),
]  # fmt: skip


@pytest.fixture(scope="module")
def two() -> Any:
    """Two models: a usual one, and one of images alone at 64 px."""
    bare = fake_bundle(resolution=64, heads=False, view_layers=0)
    limits = ServerLimits(max_explicit_indices=100, max_explicit_rows=50)
    config = Config(bundles=(), listen="127.0.0.1:0", limits=limits)
    with served([FakeModel(), FakeModel("bare", bare)], config) as server:
        yield server


@pytest.mark.parametrize(("query", "code", "words"), BAD, ids=[" ".join(b[2]) for b in BAD])
def test_bad_fields_are_refused_with_value_and_limit(
    two: RunningServer, query: dict[str, Any], code: grpc.StatusCode, words: list[str]
) -> None:
    query = {"model": "fake", **query}
    for call in (
        lambda: list(two.stream(**query)),
        lambda: two.generate(**{"count": 1, **query}),
    ):
        refused = refusal(call)
        assert refused.code is code, refused
        assert all(word in refused.message for word in words), refused
        assert "\n" not in refused.message


def test_a_unary_call_needs_a_bound_and_room(two: RunningServer) -> None:
    endless = refusal(lambda: two.generate(model="fake"))
    assert endless.code is INVALID and "count" in endless.message
    large = refusal(lambda: two.generate(model="bare", count=1000))
    assert large.code is INVALID
    assert all(word in large.message for word in ("1000 samples", "4177920"))


def test_the_default_that_a_refusal_names_is_under_the_limit() -> None:
    limits = ServerLimits(max_message_bytes=100_000)
    with served(config=Config(bundles=(), listen="127.0.0.1:0", limits=limits)) as server:
        refused = refusal(lambda: list(server.stream(max_message_bytes=100_001)))
    assert "in [4096, 100000], or 0 for 100000" in refused.message


def test_a_unary_call_examines_only_so_much() -> None:
    config = Config(bundles=(), listen="127.0.0.1:0", limits=ServerLimits(max_generate_examined=64))
    nothing = filtered(mode=MOST, max_uncertainty=0)
    with served(config=config) as server:
        refused = refusal(lambda: server.generate(count=1, **nothing))
    assert refused.code is grpc.StatusCode.OUT_OF_RANGE and "64" in refused.message


def test_a_compressed_sample_over_the_limit_is_refused_when_it_is_seen() -> None:
    """What cannot be known before: whether ZSTD or JPEG make it fit."""
    bare = fake_bundle(resolution=256, heads=False)
    query: dict[str, Any] = {"count": 1, "accept_codecs": [pb.CODEC_JPEG]}
    with served([FakeModel(bundle=bare)]) as server:
        assert len(list(server.stream(**query, max_message_bytes=100_000))) == 1
        query |= {"max_message_bytes": 4096, "jpeg_quality": 100}
        refused = refusal(lambda: list(server.stream(**query)))
    assert refused.code is INVALID
    assert all(word in refused.message for word in ("4096", "image", "jpeg", "196608"))


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\xff"])
@pytest.mark.parametrize("method", ["StreamSamples", "GenerateSamples", "ListModels", "GetModel"])
def test_bytes_that_are_no_request_are_the_callers_mistake(
    server: RunningServer, method: str, data: bytes
) -> None:
    call: Any = server.channel.unary_stream(f"/labelmint.v1.LabelService/{method}")
    assert refusal(lambda: list(call(data, timeout=HANG_S))).code is INVALID


MANY_INDICES = b"\x0a\x85\x80\x80\x06\x52\x80\x80\x80\x06" + b"\x01" * (12 << 20)  # packed
MANY_OUTPUTS = b"\x0a\x80\x80\x80\x01" + b"\x60\x01" * (1 << 20)


@pytest.mark.parametrize("data", [MANY_INDICES, MANY_OUTPUTS], ids=["indices", "outputs"])
@pytest.mark.parametrize("method", ["StreamSamples", "GenerateSamples"])
def test_a_request_of_endless_numbers_is_refused_before_it_takes_memory(
    server: RunningServer, method: str, data: bytes
) -> None:
    """60 MiB of indices took a GiB and 1.6 s of the event loop."""
    call: Any = server.channel.stream_stream(f"/labelmint.v1.LabelService/{method}")
    refused = refusal(lambda: list(call(iter([data]), timeout=HANG_S)))
    assert refused.code is INVALID and "limit" in refused.message


def test_get_model_refuses_as_streams_do(two: RunningServer) -> None:
    for request, code in (
        (pb.GetModelRequest(model="fake", keep_fraction=2), INVALID),
        (pb.GetModelRequest(model="fake", keep_fraction=NAN), INVALID),
        (pb.GetModelRequest(model="fake", sampling=pb.SamplingOptions(truncation_psi=9)), INVALID),
        (pb.GetModelRequest(model="bare", keep_fraction=0.5), UNMET),
        (pb.GetModelRequest(), INVALID),
        (pb.GetModelRequest(model="x"), grpc.StatusCode.NOT_FOUND),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            two.stub.GetModel(request, timeout=HANG_S)
        assert caught.value.code() is code


def test_too_many_streams_are_told_when_to_come_back() -> None:
    config = Config(bundles=(), listen="127.0.0.1:0", limits=ServerLimits(max_streams=2))
    with served(config=config) as server:
        open_calls = [server.stream() for _ in range(2)]
        for call in open_calls:
            next(iter(call))
        refused = refusal(lambda: next(iter(server.stream())))
        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "2" in refused.message and "max_streams" in refused.message
        assert refused.trailers["grpc-retry-pushback-ms"] == "1000"
        retry = error_details_pb2.RetryInfo()
        status = rpc_status.from_call(refused.error)
        assert status and status.details[0].Unpack(retry) and retry.retry_delay.seconds == 1
        open_calls[0].cancel()
        assert len(next(iter(eventually(server))).batch.indices) > 0
        open_calls[1].cancel()


def eventually(server: RunningServer) -> Any:
    """A stream, once the server has noticed that another one ended."""
    until = time.monotonic() + HANG_S
    while time.monotonic() < until:
        call = server.stream()
        try:
            first = next(iter(call))
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            continue
        call.cancel()
        return [first]
    raise AssertionError("the place of a cancelled stream never became free")


@pytest.mark.parametrize("limit", [{"max_inflight_samples": 70}, {"max_inflight_bytes": 300_000}])
def test_room_is_reserved_so_that_open_streams_always_have_theirs(limit: dict[str, int]) -> None:
    config = Config(bundles=(), listen="127.0.0.1:0", limits=ServerLimits(**limit))
    with served(config=config) as server:
        calls: list[Any] = []

        def open_many() -> None:
            for _ in range(40):
                calls.append(server.stream())
                next(iter(calls[-1]))

        refused = refusal(open_many)
        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert next(iter(limit)) in refused.message
        assert len(calls) > 2
        for call in calls[:-1]:
            assert next(iter(call)).batch.indices
            call.cancel()


def test_a_request_is_reserved_whatever_it_holds() -> None:
    """A stream holds its request, here a field that no version knows, as long as it is open."""
    limits = ServerLimits(max_inflight_bytes=8 << 20)
    query = pb.StreamSamplesRequest(query=pb.SampleQuery()).SerializeToString()
    unknown = b"\xfa\x07\x80\x80\xc0\x02" + bytes(5 << 20)  # field 127, of 5 MiB
    with served(config=Config((), "127.0.0.1:0", limits=limits)) as server:
        call: Any = server.channel.unary_stream("/labelmint.v1.LabelService/StreamSamples")
        first = call(query + unknown, timeout=HANG_S)
        assert next(first)
        refused = refusal(lambda: next(call(query + unknown, timeout=HANG_S)))
        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert next(call(query, timeout=HANG_S))
        first.cancel()


@pytest.mark.parametrize("method", ["StreamSamples", "GenerateSamples"])
def test_a_refused_request_leaves_memory_without_a_garbage_collection(
    server: RunningServer, method: str
) -> None:
    """40 of 50 MiB took 1.9 GiB: gRPC keeps the error, whose frames had the request."""
    unknown = b"\xfa\x07\x80\x80\x80\x02" + bytes(4 << 20)  # field 127, of 4 MiB
    query = pb.StreamSamplesRequest(query=pb.SampleQuery(model="none")).SerializeToString()
    call: Any = server.channel.unary_stream(f"/labelmint.v1.LabelService/{method}")
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(10):
            with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
                next(call(query + unknown, timeout=HANG_S))
        assert eventually_true(lambda: tracemalloc.get_traced_memory()[0] < 12 << 20)
    finally:
        tracemalloc.stop()
        gc.enable()


def test_no_folder_of_the_servers_is_told() -> None:
    hidden = replace(fake_bundle(resolution=16), path=Path("/srv/hidden/fake"))
    with served([FakeModel(bundle=hidden)]) as server:
        for query in (
            filtered(mode=KEEP, keep_fraction=0.5) | sampling(truncation_psi=0.5),
            {"model": "none"}, {"bundle_id": "sha256:x"},
        ):  # fmt: skip
            refused = refusal(partial(list, server.stream(**query)))
            assert "hidden" not in refused.message


@pytest.mark.parametrize(
    "query",
    [
        {"model": "x" * (1 << 20 | 1)},
        {"outputs": [pb.OUTPUT_IMAGE] * (1 << 20 | 1)},
        {"accept_codecs": [pb.CODEC_RAW] * (1 << 20 | 1)},
        {"indices": range(400_000)},
    ],
    ids=["model", "outputs", "codecs", "indices"],
)
def test_requests_of_very_long_texts_or_lists_are_refused_unparsed(
    server: RunningServer, query: dict[str, Any]
) -> None:
    for call in (server.generate, lambda **query: list(server.stream(**query))):
        refused = refusal(partial(call, **query))
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "the limit is 1048576" in refused.message


def test_as_many_indices_as_a_request_may_have_are_received(server: RunningServer) -> None:
    far = list(range(2**64 - 70_000, 2**64 - 70_000 + 65_536))  # ten bytes each
    assert next(server.stream(indices=far)).batch.indices[0] == far[0]
