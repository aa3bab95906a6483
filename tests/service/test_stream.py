"""Streams deliver exactly the expected samples, message by message, and resume at every one."""

from dataclasses import replace
from functools import cache
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.fake import fake_bundle
from labelmint.v1 import label_service_pb2 as pb
from service.errors import NEXT_INDEX
from tests.service.expected_samples import Expected, Wanted, candidates, expect, fake_scores
from tests.service.harness import RunningServer

SEED = 11
SCORED = 600  # indices whose scores are known here
KEEP = 0.5
MESSAGE_BYTES = 8192  # six samples of 16 px, so that messages end inside engine batches

FIXTURES = [HealthCheck.function_scoped_fixture]  # the server keeps nothing between examples

wanted_queries = st.builds(
    Wanted,
    start=st.integers(0, 70),
    end=st.integers(0, 120),
    count=st.integers(0, 40),
    shard=st.integers(0, 3),
    shards=st.integers(1, 4),
    views=st.sampled_from((1, 2, 3, 4)),
    threshold=st.sampled_from((None, 0.0, 0.2, 0.6, 0.95)),
    filter_sets=st.booleans(),
    max_examined=st.sampled_from((0, 0, 1, 13, 100)),
)


@cache
def scores(views: int) -> list[float]:
    return fake_scores(fake_bundle(resolution=16), SEED, views, SCORED)


def bounded(wanted: Wanted) -> Wanted:
    """The query with a shard that exists and an end."""
    end = max(wanted.end, wanted.start) if wanted.end else 0
    sparse = wanted.threshold is not None and (wanted.threshold < 0.5 or wanted.filter_sets)
    if not end and not wanted.max_examined:
        end = 120 if sparse else 0
    return replace(
        wanted, shard=wanted.shard % wanted.shards, end=end,
        count=wanted.count if end or wanted.max_examined else max(wanted.count, 1),
    )  # fmt: skip


def query_of(wanted: Wanted) -> dict[str, Any]:
    filtered = wanted.threshold is not None
    return {
        "sampling": pb.SamplingOptions(seed=SEED, views_per_object=wanted.views),
        "filter": pb.Filter(
            mode=pb.FILTER_MODE_MAX_UNCERTAINTY if filtered else pb.FILTER_MODE_NONE,
            max_uncertainty=wanted.threshold or 0,
            filter_sets=wanted.filter_sets,
        ),
        "start_index": 0 if wanted.indices else wanted.start,
        "indices": wanted.indices,
        "end_index": wanted.end,
        "count": wanted.count,
        "shard_index": wanted.shard,
        "num_shards": wanted.shards,
        "max_examined": wanted.max_examined,
        "max_message_bytes": MESSAGE_BYTES,
    }


def read(server: RunningServer, wanted: Wanted) -> tuple[list[pb.StreamSamplesResponse], Any]:
    """All messages, and the finished call."""
    call = server.stream(**query_of(wanted))
    messages = []
    try:
        for message in call:
            messages.append(message)
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.OUT_OF_RANGE, error
    return messages, call


def score_of(wanted: Wanted) -> Any:
    return scores(wanted.views).__getitem__


def check_messages(
    messages: list[pb.StreamSamplesResponse], wanted: Wanted, expected: Expected
) -> None:
    """Every message is resumable: it accounts for all indices before its next_index."""
    delivered = [i for message in messages for i in message.batch.indices]
    assert delivered == expected.delivered
    position, kept = 0, 0
    for message in messages:
        assert message.ByteSize() <= MESSAGE_BYTES
        kept += len(message.batch.indices)
        position += len(message.batch.indices) + message.discarded
        examined = expected.examined[:position]
        assert message.next_index == (examined[-1] + 1 if examined else wanted.start)
        assert expected.delivered[:kept] == [i for i in examined if i in set(expected.delivered)]
    assert position == len(expected.examined)


@settings(max_examples=120, deadline=None, suppress_health_check=FIXTURES)
@given(drawn=wanted_queries)
def test_a_range_is_delivered_exactly(server: RunningServer, drawn: Wanted) -> None:
    wanted = bounded(drawn)
    expected = expect(wanted, score_of(wanted))
    messages, call = read(server, wanted)
    check_messages(messages, wanted, expected)
    code = grpc.StatusCode.OUT_OF_RANGE if expected.spent else grpc.StatusCode.OK
    assert call.code() is code
    end = messages[-1].next_index if messages else wanted.start
    assert dict(call.trailing_metadata())[NEXT_INDEX] == str(end)


@settings(max_examples=60, deadline=None, suppress_health_check=FIXTURES)
@given(drawn=wanted_queries)
def test_resuming_at_any_message_loses_and_repeats_nothing(
    server: RunningServer, drawn: Wanted
) -> None:
    wanted = replace(bounded(drawn), max_examined=0)
    wanted = replace(wanted, end=wanted.end or 100 + wanted.start)
    expected = expect(wanted, score_of(wanted))
    messages, _ = read(server, wanted)
    got: list[int] = []
    for message in messages:
        got += message.batch.indices
        left = wanted.count - len(got)
        if wanted.count and not left:
            break
        rest = replace(wanted, start=message.next_index, count=left if wanted.count else 0)
        again, _ = read(server, rest)
        assert got + [i for m in again for i in m.batch.indices] == expected.delivered


@settings(max_examples=80, deadline=None, suppress_health_check=FIXTURES)
@given(
    drawn=wanted_queries,
    indices=st.lists(st.integers(0, 300), min_size=1, max_size=60, unique=True).map(sorted),
)
def test_listed_indices_are_delivered_exactly(
    server: RunningServer, drawn: Wanted, indices: list[int]
) -> None:
    wanted = replace(drawn, start=0, end=0, shard=0, shards=1, indices=tuple(indices))
    expected = expect(wanted, score_of(wanted))
    messages, call = read(server, wanted)
    check_messages(messages, replace(wanted, start=indices[0]), expected)
    assert (call.code() is grpc.StatusCode.OUT_OF_RANGE) == expected.spent
    for position, message in enumerate(messages):
        rest = tuple(i for i in indices if i >= message.next_index)
        left = wanted.count and wanted.count - sum(
            len(m.batch.indices) for m in messages[: position + 1]
        )
        if not rest or (wanted.count and not left) or wanted.max_examined:
            continue
        again, _ = read(server, replace(wanted, indices=rest, count=left))
        before = [i for m in messages[: position + 1] for i in m.batch.indices]
        assert before + [i for m in again for i in m.batch.indices] == expected.delivered


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("shards", [1, 2, 5])
def test_shards_partition_the_stream(server: RunningServer, shards: int, views: int) -> None:
    wanted = Wanted(end=90, views=views, shards=shards, threshold=KEEP, filter_sets=views > 1)
    whole = expect(replace(wanted, shards=1), score_of(wanted)).delivered
    parts = [
        i for shard in range(shards)
        for m in read(server, replace(wanted, shard=shard))[0] for i in m.batch.indices
    ]  # fmt: skip
    assert sorted(parts) == whole
    assert len(set(candidates(replace(wanted, shard=shards - 1)))) > 0


def test_keep_fraction_uses_the_calibrated_threshold(server: RunningServer) -> None:
    model = server.stub.GetModel(pb.GetModelRequest(keep_fraction=0.75))
    assert model.max_uncertainty == 0.75  # the fake score is uniform
    call = server.stream(
        sampling=pb.SamplingOptions(seed=SEED), end_index=200,
        filter=pb.Filter(mode=pb.FILTER_MODE_KEEP_FRACTION, keep_fraction=0.75),
    )  # fmt: skip
    delivered = [i for message in call for i in message.batch.indices]
    expected = expect(Wanted(end=200, threshold=model.max_uncertainty), scores(1).__getitem__)
    assert delivered == expected.delivered


def test_a_stream_that_keeps_nothing_says_where_it_is(server: RunningServer) -> None:
    """At least every 256 examined."""
    call = server.stream(
        filter=pb.Filter(mode=pb.FILTER_MODE_MAX_UNCERTAINTY), max_examined=1300, num_shards=3
    )
    positions, discarded = [0], 0
    with pytest.raises(grpc.RpcError) as ended:
        for message in call:
            assert not message.batch.indices
            positions.append(message.next_index)
            discarded += message.discarded
            assert message.discarded <= 256
    assert ended.value.code() is grpc.StatusCode.OUT_OF_RANGE
    assert discarded == 1300
    assert positions[-1] == 3 * 1299 + 1


def test_generate_samples_answers_in_one_message(server: RunningServer) -> None:
    wanted = Wanted(start=5, count=4, threshold=KEEP)
    query = query_of(wanted) | {"max_message_bytes": 0}
    answer = server.generate(**query)
    expected = expect(wanted, scores(1).__getitem__)
    assert list(answer.batch.indices) == expected.delivered
    assert answer.next_index == expected.examined[-1] + 1
    assert answer.discarded == len(expected.examined) - len(expected.delivered)
