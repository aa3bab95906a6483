"""Whatever a request of the Open Inference Protocol holds, the answer is one of the table's."""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.fake import fake_bundle
from service.config import Config
from service.rpc import inference_messages as messages
from tests.service.harness import FakeModel, RunningServer, served
from tests.service.inference_calls import DTYPES, indices, infer_request
from tests.service.test_any_request import CONTRACT, message, names, small, u64
from tests.service.test_repository_control import ADMIN

EXAMPLES, EXAMPLES_LONG, EXAMPLES_SLOW = 30, 150, 1000
TIMEOUT_S = 5.0
C = grpc.StatusCode
OWN = CONTRACT | {C.PERMISSION_DENIED}
METHODS = [
    "ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig",
    "ModelStatistics", "RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload",
]  # fmt: skip

texts = st.sampled_from(("", "z", "w", "ws", "seed", "index", "image", "mask", "x")) | st.text(
    max_size=5
)
parameter_names = (
    "truncation_psi", "truncation_cutoff", "class_index", "view", "unload_dependents", "x",
)  # fmt: skip
parameters = st.dictionaries(
    st.sampled_from(parameter_names),
    st.fixed_dictionaries({"int64_param": st.integers(0, 8)})
    | st.fixed_dictionaries({"int64_param": st.integers(-(2**63), 2**63 - 1)})
    | st.fixed_dictionaries({"double_param": st.floats()})
    | st.fixed_dictionaries({"string_param": st.sampled_from(("0.5", "nan", "1e400", "\0", ""))})
    | st.fixed_dictionaries({"bool_param": st.booleans()})
    | st.just({}),
    max_size=2,
)  # fmt: skip
extents = st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 20)
contents = st.fixed_dictionaries(
    {},
    optional={
        "fp32_contents": st.lists(st.floats(width=32), max_size=20),
        "uint64_contents": st.lists(u64, max_size=5),
        "bytes_contents": st.lists(st.binary(max_size=4), max_size=2),
        "bool_contents": st.lists(st.booleans(), max_size=2),
    },
)
tensors = st.fixed_dictionaries(
    {"name": texts},
    optional={
        "datatype": st.sampled_from((*DTYPES, "BYTES", "")),
        "shape": st.sampled_from(([1], [2], [1, 16], [1, 6, 16])) | st.lists(extents, max_size=4),
        "parameters": parameters,
        "contents": contents,
    },
)
wild = message(
    messages.ModelInferRequest,
    model_name=names,
    model_version=texts,
    id=st.text(max_size=300),
    parameters=parameters,
    inputs=st.lists(tensors, max_size=3),
    outputs=st.lists(
        st.fixed_dictionaries({"name": texts}, optional={"parameters": parameters}), max_size=2
    ),
    raw_input_contents=st.lists(st.sampled_from((b"", bytes(8), bytes(64))), max_size=3),
)
nearly_right = st.builds(
    lambda values, seed, more: merged(infer_request(indices(*values, seed=seed)), more),
    st.lists(small | u64, min_size=1, max_size=4),
    st.none() | u64,
    message(messages.ModelInferRequest, parameters=parameters, model_version=texts)
    | message(messages.ModelInferRequest, parameters=parameters),
)


@st.composite
def one_wrong(draw: st.DrawFn) -> Any:
    """A request that would be answered, but for one field of one input or its raw contents."""
    name, shape = draw(st.sampled_from((("z", (2, 16)), ("w", (2, 16)), ("ws", (1, 6, 16)))))
    count = math.prod(shape)
    values = draw(st.lists(st.floats(-9, 9, width=32), min_size=count, max_size=count))
    array = np.array(values, np.float32).reshape(shape)
    request = infer_request({name: array}, raw=draw(st.booleans()))
    tensor, raw = request.inputs[0], request.raw_input_contents
    wrong = draw(
        st.sampled_from(("nothing", "datatype", "shape", "raw", "more raw", "name", "nan"))
    )
    if wrong == "datatype":
        tensor.datatype = draw(st.sampled_from((*DTYPES, "FP64", "INT64", "BOOL", "BYTES", "")))
    elif wrong == "shape":
        tensor.shape[draw(st.integers(0, len(shape) - 1))] = draw(extents)
    elif wrong == "raw":
        raw[:] = [draw(st.binary(max_size=512))]
    elif wrong == "more raw":
        raw.append(draw(st.binary(max_size=8)))
    elif wrong == "name":
        tensor.name = draw(texts)
    elif wrong == "nan":
        array[0, -1] = draw(st.sampled_from((np.nan, np.inf, -np.inf)))
        request = infer_request({name: array}, raw=bool(raw))
    return request


junk = st.binary(max_size=40)
infer_requests = (nearly_right | one_wrong() | wild).map(
    lambda request: request.SerializeToString()
) | junk
administrative = message(
    messages.RepositoryModelLoadRequest,
    repository_name=texts,
    model_name=st.sampled_from(("fake", "../fake", "/", "x")) | texts,
    parameters=st.dictionaries(texts, st.just({"bytes_param": b"x"}) | st.just({}), max_size=2),
)


def merged(request: Any, more: Any) -> Any:
    request.MergeFrom(more)
    return request


@pytest.fixture(scope="module", params=["heads", "classes"])
def one(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A usual model, or one of images alone with classes."""
    admins: Path = tmp_path_factory.mktemp("admins") / "tokens"
    admins.write_text(f"ops {'a' * 20}\n")
    bare = fake_bundle(resolution=16, num_classes=3, heads=False, view_layers=0)
    usual = fake_bundle(resolution=16, view_codes=3)
    model = FakeModel(bundle=usual if request.param == "heads" else bare)
    with served([model], Config((), "127.0.0.1:0", admin_token_file=admins)) as server:
        yield server


def hostile(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))


def still_works(server: RunningServer) -> bool:
    return len(server.generate(count=3).batch.indices) == 3 and not server.server.failed.done()


SIZES = [
    EXAMPLES,
    pytest.param(EXAMPLES_LONG, marks=pytest.mark.long),
    pytest.param(EXAMPLES_SLOW, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("examples", SIZES)
def test_any_infer_request_ends_as_the_table_says(one: RunningServer, examples: int) -> None:
    unary: Any = one.channel.unary_unary(f"/{messages.SERVICE}/ModelInfer")
    codes: Counter[grpc.StatusCode] = Counter()

    @hostile(examples)
    @given(data=infer_requests)
    def send(data: bytes) -> None:
        _, code = outcome(unary, data)
        assert code in CONTRACT
        codes[code] += 1

    send()
    assert codes[C.OK] > 2, codes  # not all of them nonsense
    assert still_works(one)


@pytest.mark.parametrize("examples", SIZES)
def test_any_stream_of_requests_is_answered_one_by_one(one: RunningServer, examples: int) -> None:
    stream: Any = one.channel.stream_stream(
        f"/{messages.SERVICE}/ModelStreamInfer",
        response_deserializer=messages.ModelStreamInferResponse.FromString,
    )
    codes = {code.name for code in CONTRACT}

    @hostile(examples // 3)
    @given(requests=st.lists(infer_requests, max_size=6))
    def send(requests: list[bytes]) -> None:
        answers = list(stream(iter(requests), timeout=TIMEOUT_S))
        assert len(answers) == len(requests)
        for answer in answers:
            assert not answer.error_message or answer.error_message.split(":")[0] in codes

    send()
    assert still_works(one)


@pytest.mark.parametrize("method", METHODS)
def test_any_other_request_ends_as_the_table_says(one: RunningServer, method: str) -> None:
    unary: Any = one.channel.unary_unary(f"/{messages.SERVICE}/{method}")
    asked = message(messages.ModelReadyRequest, name=names | texts, version=texts)

    @hostile(EXAMPLES)
    @given(request=administrative | asked, junk=junk, is_admin=st.booleans())
    def send(request: Any, junk: bytes, is_admin: bool) -> None:
        unloads = method == "RepositoryModelUnload" and getattr(request, "model_name", "") == "fake"
        if unloads or (method == "RepositoryModelUnload" and b"fake" in junk):
            return  # it would do so
        for data in (request.SerializeToString(), junk):
            text, code = outcome(unary, data, metadata=ADMIN if is_admin else ())
            assert code in OWN, text
            assert "Traceback" not in text and "/work" not in text and "a" * 20 not in text

    send()
    assert still_works(one)


def outcome(unary: Any, data: bytes, **options: Any) -> tuple[str, grpc.StatusCode]:
    try:
        unary(data, timeout=TIMEOUT_S, **options)
    except grpc.RpcError as error:
        failed: Any = error
        return failed.details(), failed.code()
    return "", C.OK
