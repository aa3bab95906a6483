"""Whatever a request holds, the answer is one the contract names, and the server goes on."""

from collections import Counter
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.fake import fake_bundle
from labelmint.v1 import label_service_pb2 as pb
from labelmint.wire.shared_memory import SharedMemory
from tests.service.harness import FakeModel, RunningServer, served
from tests.service.identities import config
from tests.service.test_real_engine import serving

EXAMPLES = 100  # for each of the five calls and the usual model
EXAMPLES_LONG = 320  # and for each of the five calls and the other: over two thousand with them
EXAMPLES_SLOW = 520  # for each of the five calls and the demo's bundle: over two thousand
TIMEOUT_S = 0.3  # endless streams are cut here
TIMEOUT_SLOW_S = 1.5  # a real engine needs so long for a few messages
READ = 3  # messages of a stream
COUNT_3 = pb.SampleQuery(count=3).SerializeToString()
C = grpc.StatusCode
CONTRACT = {
    C.OK, C.INVALID_ARGUMENT, C.NOT_FOUND, C.FAILED_PRECONDITION, C.OUT_OF_RANGE,
    C.RESOURCE_EXHAUSTED, C.DEADLINE_EXCEEDED, C.CANCELLED,
}  # fmt: skip

u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
small = st.integers(0, 20)
floats = st.floats(width=32) | st.sampled_from((0.0, 0.3, 0.5, 0.7, 1.0))
enums = st.integers(-1, 9) | st.integers(-(2**31), 2**31 - 1)
names = st.sampled_from(("fake", "x"))


def message(kind: Any, **fields: Any) -> Any:
    """Messages with any of the fields set."""
    return st.fixed_dictionaries({}, optional=fields).map(lambda given: kind(**given))


def mutated(kind: Any, most: int, **fields: Any) -> Any:
    """A message that means something, with a few of its fields overwritten."""
    some = st.lists(st.sampled_from(sorted(fields)), max_size=most, unique=True)
    changes = some.flatmap(lambda chosen: st.fixed_dictionaries({f: fields[f] for f in chosen}))
    return changes.map(lambda given: kind(**given))


sampling = mutated(
    pb.SamplingOptions,
    2,
    seed=u64,
    latent_source=st.sampled_from((1, 2)) | enums,
    truncation_psi=st.floats(0, 2, width=32) | floats,
    truncation_cutoff=st.integers(0, 6) | u32,
    class_index=st.integers(0, 2) | u32,
    views_per_object=st.integers(1, 5) | u32,
    view_mode=st.integers(0, 4) | enums,
    view=st.integers(0, 3) | u32,
)
filters = (
    st.builds(pb.Filter, mode=st.just(2), keep_fraction=st.floats(0.125, 1, width=32))
    | st.builds(
        pb.Filter, mode=st.just(3), max_uncertainty=st.floats(0, 2, width=32),
        filter_sets=st.booleans(),
    )
    | message(
        pb.Filter, mode=enums, keep_fraction=floats, max_uncertainty=floats,
        filter_sets=st.booleans(),
    )
)  # fmt: skip
good_rows = {"dtype": st.just(3), "shape": st.just([2, 16]), "data": st.just(bytes(128))}
tensors = st.builds(pb.Tensor, **good_rows) | message(
    pb.Tensor,
    output=enums,
    dtype=st.just(3) | enums,
    shape=st.just([1, 16]) | st.just([2, 6, 16]) | st.lists(small | u32, max_size=5),
    codec=enums,
    data=st.just(bytes(64)) | st.just(bytes(768)) | st.binary(max_size=80),
    offsets=st.lists(u32, max_size=2),
)
queries = mutated(
    pb.SampleQuery,
    5,
    model=names,
    bundle_id=st.sampled_from(("", "x")),
    sampling=sampling,
    filter=filters,
    start_index=small | u64,
    end_index=st.integers(20, 60) | u64,
    count=small | u64,
    shard_index=st.integers(0, 1) | u32,
    num_shards=st.integers(2, 4) | u32,
    indices=st.lists(u64, max_size=5) | st.lists(u64, max_size=5, unique=True).map(sorted),
    latents=message(pb.ExplicitLatents, space=st.just(1) | enums, rows=tensors),
    outputs=st.lists(st.integers(1, 7), max_size=4) | st.lists(enums, max_size=2),
    accept_codecs=st.lists(st.integers(0, 3) | enums, max_size=4),
    jpeg_quality=u32,
    max_message_bytes=st.sampled_from((4096, 1 << 20)) | u32,
    max_examined=st.integers(1, 300) | u64,
    max_message_samples=small | u32,
    weight=small | u32,
)
bounded = queries.map(lambda query: pb.SampleQuery.FromString(query.SerializeToString() + COUNT_3))
MEMORY = SharedMemory(4 << 20)  # of a caller that means well


def described(fields: dict[str, Any]) -> pb.SharedMemory:
    described = MEMORY.description()
    for name, value in fields.items():
        setattr(described, name, value)
    return described


memories = st.fixed_dictionaries(
    {},
    optional={
        "pid": u32, "fd": st.integers(0, 40) | u32, "slot_bytes": u64, "slots": small | u32,
        "nonce": st.binary(max_size=20),
    },
).map(described)  # fmt: skip
requests = {
    "StreamSharedSamples": st.builds(
        pb.StreamSharedSamplesRequest,
        query=queries | bounded,
        memory=st.builds(MEMORY.description) | memories,
        released=st.just(0) | u64,
    ),
    "StreamSamples": st.builds(pb.StreamSamplesRequest, query=queries),
    "GenerateSamples": st.builds(pb.GenerateSamplesRequest, query=queries | bounded),
    "ListModels": st.builds(pb.ListModelsRequest) | st.binary(max_size=20),
    "GetModel": mutated(
        pb.GetModelRequest, 3, model=names, sampling=sampling, keep_fraction=floats
    ),
}


@pytest.fixture(
    scope="module",
    params=[
        "heads",
        pytest.param("classes", marks=pytest.mark.long),
        pytest.param("demo", marks=pytest.mark.slow),
    ],
)
def one(request: pytest.FixtureRequest) -> Any:
    """A usual model with a view bank, one of images alone with classes, or the demo's own."""
    if request.param == "demo":
        with serving(request.getfixturevalue("demo_bundle"), name="fake") as server:
            yield server
        return
    bare = fake_bundle(resolution=16, num_classes=3, heads=False, view_layers=0)
    usual = fake_bundle(resolution=16, view_codes=3)
    model = FakeModel(bundle=usual if request.param == "heads" else bare)
    with served([model], config(shared_memory=True)) as server:
        yield server


@pytest.mark.parametrize("method", requests)
def test_any_request_ends_as_the_contract_says(
    one: RunningServer, method: str, request: pytest.FixtureRequest
) -> None:
    slow = request.node.get_closest_marker("slow") is not None
    long = request.node.get_closest_marker("long") is not None
    examples = EXAMPLES_SLOW if slow else EXAMPLES_LONG if long else EXAMPLES
    timeout_s = TIMEOUT_SLOW_S if slow else TIMEOUT_S
    call: Any = one.channel.unary_stream(f"/labelmint.v1.LabelService/{method}")
    codes: Counter[grpc.StatusCode] = Counter()

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(request=requests[method])
    def send(request: Any) -> None:
        data = request if isinstance(request, bytes) else request.SerializeToString()
        answers = call(data, timeout=timeout_s)
        try:
            for number, _ in enumerate(answers):
                if number >= READ:
                    answers.cancel()
        except grpc.RpcError as error:
            assert error.code() in CONTRACT, error
        assert answers.code() in CONTRACT
        codes[answers.code()] += 1

    send()
    assert codes[C.OK] + codes[C.CANCELLED] > 2, codes  # not all of them nonsense
    assert len(one.generate(count=3).batch.indices) == 3
    assert not one.server.failed.done()
