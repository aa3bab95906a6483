"""Random queries and scripts, and what a stream of theirs has to deliver."""

from __future__ import annotations

from hypothesis import strategies as st

from labelmint.v1 import label_service_pb2 as pb
from tests.client.scripted_service import Script, keeps


@st.composite
def queries(draw: st.DrawFn) -> pb.SampleQuery:
    """Ranges of all layouts and filters; all of them end."""
    num_shards = draw(st.integers(1, 4))
    start = draw(st.integers(0, 40))
    query = pb.SampleQuery(
        sampling=pb.SamplingOptions(
            seed=draw(st.integers(0, 3)), views_per_object=draw(st.integers(0, 3))
        ),
        start_index=start,
        end_index=start + draw(st.integers(start == 0, 120)),  # 0 would be endless
        num_shards=num_shards,
        shard_index=draw(st.integers(0, num_shards - 1)),
        outputs=[pb.OUTPUT_MASK, pb.OUTPUT_UNCERTAINTY],
    )
    if draw(st.booleans()):
        query.filter.mode = pb.FILTER_MODE_MAX_UNCERTAINTY
        query.filter.max_uncertainty = draw(st.sampled_from([0.02, 0.5, 0.9]))
        query.filter.filter_sets = draw(st.booleans())
    if draw(st.booleans()):
        query.count = draw(st.integers(1, 30))
        query.end_index = draw(st.sampled_from([query.end_index, start + 600]))
    return query


SCRIPTS = st.builds(
    Script,
    message_samples=st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple),
    idle_after=st.integers(1, 12),
    messages_until_drop=st.integers(0, 4),
)
BATCH_SIZES, STREAMS = st.integers(1, 9), st.integers(1, 4)


def members(query: pb.SampleQuery) -> list[int]:
    """The raw indices of the reader's range, one by one."""
    views, shards = max(1, query.sampling.views_per_object), max(1, query.num_shards)
    return [
        index
        for index in range(query.start_index, query.end_index)
        if index // views % shards == query.shard_index
    ]


def expected(query: pb.SampleQuery) -> list[int]:
    kept = [index for index in members(query) if keeps(query, index)]
    return kept[: query.count] if query.count else kept
