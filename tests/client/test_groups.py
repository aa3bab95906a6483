"""group_views: whole objects, in order, over filters, sub-shards, resumes and errors."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from engines.fake import fake_bundle
from labelmint import Client
from labelmint.batch import Batch, KeptSamples, batch_from_kept
from labelmint.errors import LabelmintError
from labelmint.torch import LabelStream
from labelmint.wire.sharding import grouped_batch
from tests.service.harness import FakeModel, served

VIEWS = 3
SETS: dict[str, Any] = {"max_uncertainty": 0.8, "filter_sets": True}
COMMON: dict[str, Any] = {
    "seed": 5, "views_per_object": VIEWS, "outputs": ["image", "uncertainty", "view", "camera"],
    "max_message_samples": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    bundle = fake_bundle(resolution=16, view_codes=4)
    with served([FakeModel(bundle=bundle)]) as running:
        yield f"127.0.0.1:{running.server.port}"


def read(target: str, streams: int = 1, batch_size: int = 6, **options: Any) -> list[Batch]:
    with Client(target, streams=streams) as client:
        return list(client.stream(batch_size, **{**COMMON, **options}))


def fields(batches: list[Batch]) -> dict[str, Any]:
    names = ("indices", "images", "uncertainty", "views", "cameras")
    return {name: np.concatenate([getattr(b, name) for b in batches]) for name in names}


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("filtered", [{}, SETS])
def test_groups_are_the_stream_in_order(
    target: str, streams: int, filtered: dict[str, Any]
) -> None:
    plain = fields(read(target, end_index=300, **filtered))
    batches = read(target, streams, end_index=300, group_views=True, **filtered)
    grouped = fields(batches)
    assert [len(batch) for batch in batches[:-1]] == [2] * (len(batches) - 1)
    for name, array in plain.items():
        found = grouped[name]
        assert found.shape == (len(array) // VIEWS, VIEWS, *array.shape[1:])
        assert found.tobytes() == array.tobytes(), name
    assert (grouped["indices"] % VIEWS == range(VIEWS)).all()
    assert (grouped["views"] == range(VIEWS)).all()
    examined = sum(b.discarded for b in batches) + grouped["indices"].size
    assert examined == batches[-1].next_index


@pytest.mark.parametrize("streams", [1, 2])
def test_every_batch_is_a_place_to_resume(target: str, streams: int) -> None:
    whole = read(target, streams, end_index=120, group_views=True, **SETS)
    sets = fields(whole)["indices"].tolist()
    seen = 0
    for batch in whole[:-1]:
        seen += len(batch)
        rest = read(
            target, streams, end_index=120, group_views=True, start_index=batch.next_index, **SETS
        )
        assert fields(rest)["indices"].tolist() == sets[seen:]


def test_a_range_that_begins_within_an_object_begins_at_the_next(target: str) -> None:
    (batch,) = read(target, start_index=4, end_index=12, group_views=True)
    assert batch.indices.tolist() == [[6, 7, 8], [9, 10, 11]]


def test_an_object_that_an_error_cuts_comes_again(target: str) -> None:
    for spent in range(1, 14):
        batches: list[Batch] = []
        with Client(target) as client, pytest.raises(LabelmintError) as caught:
            for batch in client.stream(6, **COMMON, group_views=True, max_examined=spent):
                batches.append(batch)
        delivered = sum(len(batch) for batch in batches)
        assert delivered == spent // VIEWS
        assert caught.value.next_index == delivered * VIEWS


def test_listed_objects_are_grouped_too(target: str) -> None:
    (batch,) = read(target, indices=[0, 1, 2, 30, 31, 32], group_views=True)
    assert batch.indices.tolist() == [[0, 1, 2], [30, 31, 32]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views_per_object": 1}, "views_per_object 1 gives no groups"),
        ({"batch_size": 7}, "batch_size 7 is no multiple of 3"),
        ({"count": 10}, "count 10 is no multiple of 3"),
        ({"end_index": 10}, "end_index 10 is no multiple of 3"),
        ({"max_uncertainty": 0.5}, "filter_sets=True"),
        ({"indices": [0, 1, 3]}, "not whole objects of 3 views"),
        ({"indices": [1, 2, 3]}, "not whole objects"),
        ({"indices": [0, 1]}, "not whole objects"),
        ({"views_per_object": 2**32 - 1, "indices": [0]}, "no multiple|not whole"),
    ],
)
def test_what_would_cut_an_object_is_refused_at_once(
    target: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message), Client(target) as client:
        client.stream(**{"batch_size": 6, **COMMON, **options, "group_views": True})


def test_samples_that_are_no_sets_are_never_grouped() -> None:
    for indices in ([0, 1, 3], [1, 2, 3], [0, 1], [3, 4, 5, 0, 1, 2, 6]):
        kept = KeptSamples(np.array(indices, np.uint64), {})
        with pytest.raises(ValueError, match="not whole objects of 3 views"):
            grouped_batch(batch_from_kept([kept], 9, 0, ""), VIEWS)


def test_a_skip_that_cuts_an_object_is_told(target: str) -> None:
    with pytest.raises(ValueError, match="check `skip`"):
        read(target, end_index=30, group_views=True, skip=lambda indices: indices == 4)


def test_tensors_have_the_axes_of_groups(target: str) -> None:
    stream = LabelStream(target, batch_size=6, group_views=True, end_index=30, **COMMON)
    batches = list(stream)
    first = batches[0]
    assert first.images.shape == (2, VIEWS, 3, 16, 16) and first.indices.shape == (2, VIEWS)
    assert first.views.tolist() == [[0, 1, 2]] * 2 and first.views.dtype is torch.int32
    assert first.cameras.shape == (2, VIEWS, 4) and first.cameras[0, 1, 0] == 10
    flat = torch.cat([batch.indices for batch in batches]).flatten().tolist()
    assert flat == list(range(30))


def test_a_grouped_stream_goes_on_under_another_layout(target: str) -> None:
    options = {**COMMON, **SETS, "end_index": 300}
    expected = fields(read(target, end_index=300, group_views=True, **SETS))["indices"].tolist()

    def streams(ranks: int) -> list[LabelStream]:
        return [
            LabelStream(
                target, batch_size=3, group_views=True, rank=rank, world_size=ranks, **options
            )
            for rank in range(ranks)
        ]

    seen, first = [], streams(3)
    for stream, taken in zip(first, (4, 1, 2), strict=True):
        for _, batch in zip(range(taken), stream, strict=False):
            seen += batch.indices.tolist()
    state = LabelStream.merge_states([stream.state_dict() for stream in first])
    for stream in streams(2):
        stream.load_state_dict(state)
        seen += [row for batch in stream for row in batch.indices.tolist()]
    assert sorted(seen) == expected


def test_a_state_of_other_views_is_refused(target: str) -> None:
    one = LabelStream(target, view="random", seed=5)
    with pytest.raises(ValueError, match="view 'random'"):
        LabelStream(target, view=2, seed=5).load_state_dict(one.state_dict())


def test_ignoring_pixels_asks_for_no_view_that_is_not_the_banks(target: str) -> None:
    cases: list[tuple[Any, bool]] = [
        ({}, False), ({"view": 1}, True), ({"views_per_object": 2}, True),
    ]  # fmt: skip
    for options, told in cases:
        stream = LabelStream(target, batch_size=2, ignore_above=0.5, end_index=2, **options)
        (batch,) = stream
        assert (batch.views is not None) is told and batch.masks is not None


def test_views_are_asked_for_by_number_or_name(target: str) -> None:
    with Client(target) as client:
        fixed = client.generate(view=2, count=5).views
        random = client.generate(view="random", count=64, outputs=["view"]).views
        assert fixed is not None and set(fixed.tolist()) == {2}
        assert random is not None and set(random.tolist()) == {0, 1, 2, 3}
        assert client.generate(view="drawn", count=2, views_per_object=2).views is None
        (model,) = client.models()
        assert [camera.azimuth_deg for camera in model.view_bank[:3]] == [0, 10, 20]
        assert np.isnan(model.view_bank[3]).all()
        for view, message in (("front", "'front' is unknown"), (-1, "-1 is outside")):
            with pytest.raises(ValueError, match=message):
                client.stream(view=view)
