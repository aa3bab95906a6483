"""The Open Inference Protocol refuses what it must, with the value, the limit and the fix."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import numpy as np
import pytest

from engines.fake import FakeOptions, fake_bundle
from service.config import Config, ServerLimits
from service.rpc import inference_messages as messages
from tests.hangs import HANG_S, eventually
from tests.service.harness import FakeModel, RunningServer, refusal, served
from tests.service.inference_calls import (
    indices,
    infer_request,
)
from tests.service.test_inference import infer
from tests.service.test_metrics import scraped, value

C = grpc.StatusCode
Z = np.linspace(-1, 1, 3 * 16, dtype=np.float32).reshape(3, 16)
FAST_LIMITS = ServerLimits(max_explicit_rows=32, max_message_samples=32, max_inflight_samples=200)
BAD: list[tuple[dict[str, Any], C, tuple[str, ...]]] = [
    ({"inputs": {}}, C.INVALID_ARGUMENT, ("none of z, w, ws, index", "z, w, ws", "index")),
    ({"inputs": {"z": Z, "w": Z}}, C.INVALID_ARGUMENT, ("z, w", "one of")),
    ({"inputs": {"z": Z, **indices(1)}}, C.INVALID_ARGUMENT, ("z, index",)),
    ({"inputs": {"z": Z, "seed": np.zeros(1, np.uint64)}}, C.INVALID_ARGUMENT, ("seed",)),
    (
        {"inputs": {"seed": np.zeros(1, np.uint64)}},
        C.INVALID_ARGUMENT,
        ("none of z, w, ws, index",),
    ),
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
        ("truncation_cutoff", "int64_param", -1, "must be an integer"),
        ("truncation_cutoff", "string_param", "nan", "must be an integer"),
        ("truncation_cutoff", "int64_param", 2**32, "is 4294967296; it must be"),
        ("truncation_cutoff", "string_param", "1.0000001", "is 1.0000001; it must be"),
        ("class_index", "uint64_param", 2**64 - 1, "must be an integer"),
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


OVERFLOWING: list[tuple[str, str, list[int]]] = [  # input, datatype, shape
    ("z", "FP32", [2**62, 16]), ("z", "FP32", [2**32, 2**32]), ("z", "FP32", [-(2**63), 16]),
    ("z", "FP32", [-1, 16]), ("z", "FP32", [-3, -16]), ("z", "FP32", [3, -16]),
    ("z", "FP32", [0, 16]), ("z", "FP32", [2**63 - 1, 16]), ("z", "FP32", [3, 16] * 40),
    ("ws", "FP32", [2**60, 6, 16]), ("ws", "FP32", [1, 2**31, 2**33]), ("ws", "FP32", []),
    ("index", "UINT64", [2**61]), ("index", "UINT64", [-1]), ("index", "UINT64", [1, 1]),
    ("seed", "UINT64", [0]), ("seed", "UINT64", [2**63 - 1]),
    ("z", "FP64", [3, 16]), ("z", "FP16", [3, 16]), ("z", "BYTES", [3, 16]), ("z", "", [3, 16]),
    ("index", "INT64", [1]), ("index", "FP32", [1]), ("z", "fp32", [3, 16]),
]  # fmt: skip


@pytest.mark.parametrize("given", OVERFLOWING, ids=str)
@pytest.mark.parametrize(
    "data", [None, b"", bytes(8), Z.tobytes()], ids=["contents", "0", "8", "z"]
)
def test_shapes_that_overflow_and_other_datatypes_are_refused(
    limited: RunningServer, given: tuple[str, str, list[int]], data: bytes | None
) -> None:
    name, datatype, shape = given
    request = messages.ModelInferRequest(model_name="fake")
    tensor = request.inputs.add(name=name, datatype=datatype, shape=shape)
    if data is None:
        tensor.contents.fp32_contents.extend([0.0] * 48)
        tensor.contents.uint64_contents.append(1)
    else:
        request.raw_input_contents.append(data)
    refused = refusal(lambda: infer(limited, request))
    assert refused.code is C.INVALID_ARGUMENT and len(refused.message) < 1000, refused


@pytest.mark.parametrize("length", [0, 1, 191, 193, 64 << 10])
def test_raw_contents_have_the_length_of_their_shape(limited: RunningServer, length: int) -> None:
    request = infer_request({"z": Z})
    request.raw_input_contents[0] = bytes(length)
    refused = refusal(lambda: infer(limited, request))
    assert refused.code is C.INVALID_ARGUMENT and f"{length} raw bytes" in refused.message


MANY = 1 << 20  # parts of two bytes each; 60 MiB of them took 2.5 GiB and seconds
PACKED = b"\x80\x80\x80\x05"  # length of 10 MiB
BOMBS = {  # bytes of a request: parts, or packed numbers, without end
    "inputs": b"\x2a\x00" * MANY,
    "outputs": b"\x32\x00" * MANY,
    "raw_input_contents": b"\x3a\x00" * MANY,
    "parameters": b"\x22\x00" * MANY,
    "unknown fields": b"\x7a\x00" * MANY,
    "bytes_contents": b"\x2a\x84\x80\x80\x01\x2a\x80\x80\x80\x01" + b"\x42\x00" * MANY,
    "shape": b"\x2a\x85\x80\x80\x05\x1a" + PACKED + bytes(10 << 20),
    "groups": b"\x7b\x7c",
    "cut off": b"\x2a\x05\x0a",
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("method", ["ModelInfer", "ModelReady", "RepositoryIndex"])
def test_requests_of_endless_parts_are_refused_before_they_are_parsed(
    limited: RunningServer, bomb: str, method: str
) -> None:
    unary: Any = limited.channel.unary_unary(f"/{messages.SERVICE}/{method}")
    if method != "ModelInfer" and bomb in ("bytes_contents", "shape"):
        return  # fields of ModelInferRequest alone: to others they are unknown bytes
    refused = refusal(lambda: unary(BOMBS[bomb], timeout=HANG_S))
    assert refused.code is C.INVALID_ARGUMENT, refused
    words = ("limit", "cut off", "wire type")
    assert any(word in refused.message for word in words), refused.message


def test_a_number_as_endless_text_is_not_read(limited: RunningServer) -> None:
    request = infer_request(indices(1))
    request.parameters["truncation_psi"].string_param = "x" + "1" * (4 << 20)
    refused = refusal(lambda: infer(limited, request))
    assert refused.code is C.INVALID_ARGUMENT and len(refused.message) < 300


def test_limits_of_clients_and_messages_hold_here_too() -> None:
    slow = FakeModel(options=FakeOptions(seconds_per_run=1.0))  # seen to be open meanwhile
    limits = ServerLimits(max_client_streams=1, max_message_bytes=16 << 10)
    with (
        served([slow], Config((), "127.0.0.1:0", metrics_port=0, limits=limits)) as server,
        ThreadPoolExecutor() as pool,
    ):
        first = pool.submit(infer, server, infer_request(indices(1)))
        assert eventually(lambda: value(scraped(server), "labelmint_open_streams"))
        refused = refusal(lambda: infer(server, infer_request(indices(1))))
        assert refused.code is C.RESOURCE_EXHAUSTED
        assert "grpc-retry-pushback-ms" in refused.trailers
        first.result()
        refused = refusal(lambda: infer(server, infer_request(indices(*range(32)))))
        assert refused.code is C.INVALID_ARGUMENT and "max_message_bytes" in refused.message
        late = refusal(lambda: infer(server, infer_request(indices(1)), timeout=0.1))
        assert late.code is C.DEADLINE_EXCEEDED


def test_what_is_not_implemented_says_so(server: RunningServer) -> None:
    for method in ("TraceSetting", "LogSettings", "SystemSharedMemoryStatus"):
        unary: Any = server.channel.unary_unary(f"/{messages.SERVICE}/{method}")
        assert refusal(partial(unary, b"", timeout=HANG_S)).code is C.UNIMPLEMENTED
