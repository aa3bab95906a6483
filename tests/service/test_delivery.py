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
from service.delivery import HEARTBEAT_S, Chunk, Outcome, Stream
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
        max_uncertainty=np.float32(wanted.threshold or 0),
        count=wanted.count,
        weight=1,
        outputs=(),
        jpeg_quality=90,
        max_message_bytes=1 << 20,
        max_message_samples=8,
        bundle_id="",
    )
    return Stream(query, Lane(plan.first, plan.stop, plan.unit, window=1000, count=wanted.count))


def outcome_of(stream: Stream, first: int, count: int, scores: list[float]) -> Outcome:
    """As an engine would: the rows whose scores pass, each with its index as its one value."""
    indices = stream.query.plan.indices(first, count)
    passed = np.array([scores[int(i)] <= stream.query.max_uncertainty for i in indices])
    rows = np.flatnonzero(passed)
    return Outcome(first, count, rows, {"index": indices[rows]}, since=0.0)


async def everything(stream: Stream, size: int) -> list[Chunk]:
    chunks = []
    while chunk := await stream.next_chunk(size):
        chunks.append(chunk)
        stream.sent(chunk)
    return chunks


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
def test_order_of_outcomes_does_not_matter(
    wanted: Wanted, scores: list[float], cuts: list[int], order: object, size: int
) -> None:
    wanted = replace(wanted, filter_sets=wanted.filter_sets and wanted.views > 1)
    stream = stream_of(wanted)
    plan = stream.query.plan
    outcomes: list[Outcome] = []
    first = plan.first
    while first < plan.stop:
        count = min(cuts[len(outcomes) % len(cuts)], plan.stop - first)
        outcomes.append(outcome_of(stream, first, count, scores))
        first += count
    order.shuffle(outcomes)  # type: ignore[attr-defined]
    for outcome in outcomes:
        stream.settle(outcome)
    chunks = asyncio.run(everything(stream, size))
    expected = expect(wanted, scores.__getitem__)
    got = [int(i) for c in chunks for p in c.pieces for i in p.indices]
    values = [int(i) for c in chunks for p in c.pieces for i in p.arrays["index"][p.picks]]
    assert got == values == expected.delivered
    assert all(chunk.size <= size for chunk in chunks)
    assert sum(c.discarded for c in chunks) == len(expected.examined) - len(got)
    assert stream.lane.unsent == 0


def test_256_discarded_samples_are_told_at_once() -> None:
    """And no more than that in one message."""
    stream = stream_of(Wanted(end=1000, threshold=0.0))
    scores = [0.5] * 1000

    async def read() -> None:
        stream.settle(outcome_of(stream, 0, 255, scores))
        silent = asyncio.ensure_future(stream.next_chunk(8))
        await asyncio.sleep(0.05)
        assert not silent.done()
        stream.settle(outcome_of(stream, 255, 300, scores))
        first = await asyncio.wait_for(silent, HEARTBEAT_S / 2)
        second = await asyncio.wait_for(stream.next_chunk(8), HEARTBEAT_S / 2)
        assert first and (first.next_index, first.discarded) == (256, 256)
        assert second and (second.next_index, second.discarded) == (512, 256)

    asyncio.run(read())


def test_what_came_before_an_error_is_delivered_first() -> None:
    stream = stream_of(Wanted(end=30, threshold=1.0))
    scores = [0.5] * 30
    failed = Outcome(8, 0, np.empty(0, np.intp), {}, 0.0, EngineRunError("no"))
    stream.settle(outcome_of(stream, 16, 8, scores))
    stream.settle(failed)
    stream.settle(outcome_of(stream, 0, 8, scores))

    async def read() -> None:
        chunk = await stream.next_chunk(100)
        assert chunk and chunk.size == 8 and chunk.next_index == 8
        with pytest.raises(EngineRunError):
            await stream.next_chunk(100)

    asyncio.run(read())
