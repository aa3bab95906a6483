"""Streams: exact batches, correct positions, and merging that nobody can notice."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelmint.errors import MalformedMessage, NotReady, OutOfRange
from labelmint.v1 import label_service_pb2 as pb
from labelmint.wire.sharding import (
    foreign_indices,
    remaining_query,
    shard_indices_before,
    subshards,
)
from tests.client.scripted_calls import Server
from tests.client.scripted_queries import (
    BATCH_SIZES,
    SCRIPTS,
    STREAMS,
    expected,
    members,
    queries,
)
from tests.client.scripted_service import BUNDLE_ID, Script, keeps, responses, sample


@given(queries(), SCRIPTS, BATCH_SIZES, STREAMS)
def test_batches_are_exact_ordered_and_complete(
    query: pb.SampleQuery, script: Script, batch_size: int, streams: int
) -> None:
    got = list(Server(script).batches(query, batch_size, streams))
    assert [int(index) for batch in got for index in batch.indices] == expected(query)
    assert all(len(batch) == batch_size for batch in got[:-1])
    assert all(1 <= len(batch) <= batch_size for batch in got)
    for batch in got:
        assert batch.masks is not None
        assert batch.uncertainty is not None
        assert batch.images is None
        for row, index in enumerate(batch.indices.tolist()):
            truth = sample(query.sampling.seed, index)
            assert (batch.masks[row] == truth["mask"]).all()
            assert batch.uncertainty[row] == truth["uncertainty"]


@given(queries(), SCRIPTS, BATCH_SIZES, STREAMS)
def test_next_index_splits_delivered_from_undelivered_and_discards_add_up(
    query: pb.SampleQuery, script: Script, batch_size: int, streams: int
) -> None:
    kept = [index for index in members(query) if keeps(query, index)]
    delivered, position = 0, query.start_index
    for batch in Server(script).batches(query, batch_size, streams):
        delivered += len(batch)
        assert [index for index in kept if index < batch.next_index] == kept[:delivered]
        examined = [i for i in members(query) if position <= i < batch.next_index]
        assert batch.discarded == len(examined) - len(batch)
        position = batch.next_index


@given(queries(), SCRIPTS, BATCH_SIZES, STREAMS, STREAMS, st.data())
def test_resuming_at_any_batch_gives_the_identical_rest(
    query: pb.SampleQuery,
    script: Script,
    batch_size: int,
    streams: int,
    streams_later: int,
    data: st.DataObject,
) -> None:
    batches = list(Server(script).batches(query, batch_size, streams))
    if not batches:
        return
    stop = data.draw(st.integers(1, len(batches)))
    delivered = sum(len(batch) for batch in batches[:stop])
    if delivered == query.count:
        return
    rest = pb.SampleQuery()
    rest.CopyFrom(query)
    rest.start_index = batches[stop - 1].next_index
    rest.count = query.count and query.count - delivered
    again = Server(data.draw(SCRIPTS)).batches(rest, batch_size, streams_later)
    assert [int(i) for batch in again for i in batch.indices] == expected(query)[delivered:]


@given(queries(), st.integers(0, 400))
def test_counting_and_judging_members_follow_the_definition(
    query: pb.SampleQuery, index: int
) -> None:
    query.start_index, query.end_index = 0, index
    mine = members(query)
    assert shard_indices_before(query, index) == len(mine)
    everything = np.arange(index, dtype=np.uint64)
    assert np.flatnonzero(~foreign_indices(query, everything)).tolist() == mine


@given(queries(), STREAMS)
def test_subshards_split_a_shard_without_gap_or_overlap(
    query: pb.SampleQuery, streams: int
) -> None:
    parts = [members(part) for part in subshards(query, streams)]
    assert sorted(itertools.chain.from_iterable(parts)) == members(query)


@pytest.mark.parametrize("streams", [1, 3])
def test_explicit_indices_come_in_their_order_and_resume_after_a_drop(streams: int) -> None:
    wanted = [2, 3, 5, 8, 13, 21, 34, 2**64 - 2]
    server = Server(Script(message_samples=(3,), messages_until_drop=2), drops=1)
    got = list(server.batches(pb.SampleQuery(indices=wanted), 3, streams))
    assert [batch.indices.tolist() for batch in got] == [wanted[:3], wanted[3:6], wanted[6:]]
    assert list(server.queries[1].indices) == wanted[6:]
    assert server.queries[1].start_index == 0
    assert [batch.next_index for batch in got] == [6, 22, 2**64 - 1]
    assert [batch.discarded for batch in got] == [0, 0, 0]


def test_max_examined_ends_with_out_of_range_after_what_came_before() -> None:
    query = pb.SampleQuery(max_examined=10)
    batches = Server().batches(query, 4)
    assert [len(next(batches)) for _ in range(3)] == [4, 4, 2]
    with pytest.raises(OutOfRange, match="examined 10") as caught:
        next(batches)
    assert caught.value.next_index == 10


def test_closing_early_cancels_every_call() -> None:
    server = Server()
    batches = server.batches(pb.SampleQuery(), 4, streams=3)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert [call.cancelled for call in server.calls] == [True] * 3


def test_replicas_with_different_bundles_are_not_mixed() -> None:
    server = Server(Script(), Script(bundle_id="sha256:other"))
    with pytest.raises(NotReady, match="sha256:other and sha256:scripted"):
        list(itertools.islice(server.batches(pb.SampleQuery(), 4, streams=2), 2))


def test_a_whole_message_is_delivered_without_a_copy() -> None:
    batch = next(Server(Script(message_samples=(8,))).batches(pb.SampleQuery(), 8))
    assert batch.images is not None
    assert not batch.images.flags.owndata
    assert not batch.images.flags.writeable
    merged = next(Server(Script(message_samples=(3,))).batches(pb.SampleQuery(), 8))
    assert merged.images is not None
    assert (merged.images == batch.images).all()
    assert not merged.images.flags.writeable


def response(**changes: Any) -> pb.StreamSamplesResponse:
    message = next(responses(pb.SampleQuery(start_index=3), Script()))
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def faulty_responses() -> dict[str, pb.StreamSamplesResponse]:
    faults = {
        "again": next(responses(pb.SampleQuery(), Script())),
        "position before its samples": response(next_index=5),
        "position going back": pb.StreamSamplesResponse(next_index=1, bundle_id=BUNDLE_ID),
        "of another shard": next(responses(pb.SampleQuery(start_index=5), Script())),
    }
    for name in ("descending", "missing row", "output twice", "no output named", "other outputs"):
        faults[name] = response()
    faults["descending"].batch.indices[:] = [4, 3, 5]
    del faults["missing row"].batch.indices[2]
    tensors = faults["output twice"].batch.tensors
    tensors.append(tensors[0])
    faults["no output named"].batch.tensors[0].output = pb.OUTPUT_UNSPECIFIED
    del faults["other outputs"].batch.tensors[1:]
    return faults


@pytest.mark.parametrize("fault", faulty_responses().items(), ids=faulty_responses())
def test_a_message_that_breaks_the_contract_ends_the_stream(
    fault: tuple[str, pb.StreamSamplesResponse],
) -> None:
    name, message = fault
    query = pb.SampleQuery(num_shards=2 if name == "of another shard" else 1)
    server = Server(Script(message_samples=(3,), faults={1: message}))
    with pytest.raises(MalformedMessage) as caught:
        list(itertools.islice(server.batches(query, 6), 3))
    if name == "of another shard":
        assert "not of shard 0 of 2" in str(caught.value)
    assert server.calls[0].cancelled


def test_a_resumed_stream_whose_predicate_was_met_is_searched_on() -> None:
    """A server ends a call of which the first 10,000 samples do not meet it."""
    query = pb.SampleQuery(filter=pb.Filter(where="uncertainty <= 0.1"), count=9)
    for received, limit in ((0, 0), (3, 2**64 - 1)):
        rest = remaining_query(query, 50, received, "b")
        assert rest is not None and rest.max_examined == limit
    query.max_examined = 100
    rest = remaining_query(query, 50, 3, "b")
    assert rest is not None and rest.max_examined == 50
    query.filter.where = ""
    query.max_examined = 0
    rest = remaining_query(query, 50, 3, "b")
    assert rest is not None and rest.max_examined == 0
