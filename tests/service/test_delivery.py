"""A stream's samples leave in index order whatever order engine batches end in."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import EngineRunError
from engines.fake import fake_bundle
from engines.sampling import default_options
from service.delivery import HEARTBEAT_EXAMINED, HEARTBEAT_S, FilteredRows, Message, Stream
from service.query import Query
from service.sampler import IndexRange, plan_from_range
from service.scheduler import Lane
from tests.service.expected_samples import Wanted, expect


def stream_of(wanted: Wanted) -> Stream:
    plan = plan_from_range(
        IndexRange(
            wanted.start, wanted.end, wanted.shard, wanted.shards, wanted.views,
            wanted.filter_sets, wanted.max_examined,
        )
    )  # fmt: skip
    query = Query(
        options=default_options(fake_bundle().manifest.generator),
        latents=None,
        plan=plan,
        screen=None,
        max_uncertainty=np.float32(wanted.threshold or 0),
        selection=None,
        shift=None,
        applied=0,
        unmet_limit=0,
        count=wanted.count,
        weight=1,
        outputs=(),
        jpeg_quality=90,
        max_message_bytes=1 << 20,
        max_message_samples=8,
        bundle_id="",
        learned_id="",
    )
    return Stream(query, Lane(plan.first, plan.stop, plan.unit, window=1000, count=wanted.count))


def filtered_rows(stream: Stream, first: int, count: int, scores: list[float]) -> FilteredRows:
    """As an engine would: the rows whose scores pass, each with its index as its one value."""
    indices = stream.query.plan.indices(first, count)
    passed = np.array([scores[int(i)] <= stream.query.max_uncertainty for i in indices])
    rows = np.flatnonzero(passed)
    return FilteredRows(first, count, rows, {"index": indices[rows]}, since=0.0)


async def everything(stream: Stream, size: int) -> list[Message]:
    messages = []
    while message := await stream.next_message(size):
        messages.append(message)
        stream.sent(message)
    return messages


@given(
    wanted=st.builds(
        Wanted, start=st.integers(0, 20), end=st.integers(20, 80), count=st.integers(0, 20),
        shard=st.just(0), shards=st.integers(1, 3), views=st.integers(1, 5),
        threshold=st.sampled_from((0.3, 0.7, 1.0)), filter_sets=st.booleans(),
        max_examined=st.sampled_from((0, 9)),
    ),
    scores=st.lists(st.floats(0, 1), min_size=120, max_size=120),
    cuts=st.lists(st.integers(1, 16), min_size=1, max_size=8),
    order=st.randoms(use_true_random=False),
    size=st.integers(1, 9),
)  # fmt: skip
def test_order_of_engine_batches_does_not_matter(
    wanted: Wanted, scores: list[float], cuts: list[int], order: object, size: int
) -> None:
    wanted = replace(wanted, filter_sets=wanted.filter_sets and wanted.views > 1)
    stream = stream_of(wanted)
    plan = stream.query.plan
    filtered: list[FilteredRows] = []
    first = plan.first
    while first < plan.stop:
        count = min(cuts[len(filtered) % len(cuts)], plan.stop - first)
        filtered.append(filtered_rows(stream, first, count, scores))
        first += count
    order.shuffle(filtered)  # type: ignore[attr-defined]
    for rows in filtered:
        stream.add(rows)
    messages = asyncio.run(everything(stream, size))
    expected = expect(wanted, scores.__getitem__)
    kept = [kept for message in messages for kept in message.kept]
    got = [int(i) for k in kept for i in k.indices]
    values = [int(i) for k in kept for i in k.arrays["index"][k.picks]]
    assert got == values == expected.delivered
    assert all(message.size <= size for message in messages)
    assert sum(m.discarded for m in messages) == len(expected.examined) - len(got)
    assert stream.lane.unsent == 0


def test_256_discarded_samples_are_told_at_once() -> None:
    """And no more than that in one message."""
    stream = stream_of(Wanted(end=1000, threshold=0.0))
    scores = [0.5] * 1000

    async def read() -> None:
        stream.add(filtered_rows(stream, 0, 255, scores))
        silent = asyncio.ensure_future(stream.next_message(8))
        await asyncio.sleep(0.05)
        assert not silent.done()
        stream.add(filtered_rows(stream, 255, 300, scores))
        first = await asyncio.wait_for(silent, HEARTBEAT_S / 2)
        second = await asyncio.wait_for(stream.next_message(8), HEARTBEAT_S / 2)
        assert first and (first.next_index, first.discarded) == (256, 256)
        assert second and (second.next_index, second.discarded) == (512, 256)

    asyncio.run(read())


def test_a_heartbeat_comes_however_often_rows_are_discarded() -> None:
    """Each discarded row is news for the stream, and none of them may restart the heartbeat."""
    stream = stream_of(Wanted(end=1000, threshold=0.0))

    async def discard_rows() -> None:
        for first in range(1000):
            stream.add(filtered_rows(stream, first, 1, [0.5] * 1000))
            await asyncio.sleep(HEARTBEAT_S / 10)

    async def read() -> None:
        engine = asyncio.ensure_future(discard_rows())
        message = await stream.next_message(8)
        assert message and 0 < message.next_index == message.discarded < HEARTBEAT_EXAMINED
        engine.cancel()

    asyncio.run(read())


def test_what_came_before_an_error_is_delivered_first() -> None:
    stream = stream_of(Wanted(end=30, threshold=1.0))
    scores = [0.5] * 30
    failed = FilteredRows(8, 0, np.empty(0, np.intp), {}, 0.0, EngineRunError("no"))
    stream.add(filtered_rows(stream, 16, 8, scores))
    stream.add(failed)
    stream.add(filtered_rows(stream, 0, 8, scores))

    async def read() -> None:
        message = await stream.next_message(100)
        assert message and message.size == 8 and message.next_index == 8
        with pytest.raises(EngineRunError):
            await stream.next_message(100)

    asyncio.run(read())
