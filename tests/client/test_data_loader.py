"""LabelStream in a DataLoader: one that would batch its batches again is told, others not."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import pytest
from torch.utils.data import DataLoader

from labelmint.torch import LabelBatch, LabelStream

multiprocessing.set_forkserver_preload(["labelmint.torch"])  # else each worker imports torch


def with_position(batch: LabelBatch) -> dict[str, Any]:
    return {"x": batch.images, "position": batch.position}


def of_indices(batch: LabelBatch) -> Any:
    return batch.indices


def first_of_one(batches: list[Any]) -> Any:
    (batch,) = batches
    return batch


AGAIN = [(None, None), (with_position, None), (None, "forkserver")]


@pytest.mark.parametrize(("transform", "workers"), AGAIN)
def test_a_data_loader_that_would_batch_batches_is_told_to_get_batch_size_none(
    target: str, transform: Callable[[LabelBatch], Any] | None, workers: str | None
) -> None:
    stream = LabelStream(target, batch_size=2, end_index=8, transform=transform)
    with pytest.raises(ValueError, match=r"DataLoader\(stream, batch_size=None\)$") as caught:
        next(iter(loader(stream, workers)))
    if not workers:  # else torch puts the worker's traceback before it
        assert "\n" not in str(caught.value)


LONG = pytest.mark.long  # a worker imports torch
USES: list[Any] = [
    ({"batch_size": None}, None, None, [[0, 1], [2, 3], [4]]),
    pytest.param({"batch_size": None}, None, "spawn", [[0, 1], [2, 3], [4]], marks=LONG),
    ({"batch_size": 1, "collate_fn": first_of_one}, None, "forkserver", [[0, 1], [2, 3], [4]]),
    ({"batch_size": 2, "drop_last": True}, of_indices, None, [[[0, 1], [2, 3]]]),
]


@pytest.mark.parametrize(("options", "transform", "workers", "indices"), USES)
def test_data_loaders_that_know_what_they_do_are_let_be(
    target: str,
    options: dict[str, Any],
    transform: Callable[[LabelBatch], Any] | None,
    workers: str | None,
    indices: list[Any],
) -> None:
    stream = LabelStream(target, batch_size=2, end_index=5, transform=transform)
    batches = list(loader(stream, workers, **options))
    found = [each.indices if isinstance(each, LabelBatch) else each for each in batches]
    assert [each.tolist() for each in found] == indices


def loader(stream: LabelStream, workers: str | None, **options: Any) -> Any:
    """With one worker of that start method, or none."""
    number = 0 if workers is None else 1
    return DataLoader(stream, num_workers=number, multiprocessing_context=workers, **options)


@pytest.mark.long
@pytest.mark.parametrize("stop", [3, 4])
def test_two_workers_resume_as_the_page_says(target: str, stop: int) -> None:
    """docs/training.md: in order after a stop at a multiple of the workers, else pairs swapped."""

    def loaded(stream: LabelStream) -> Any:
        return DataLoader(stream, None, num_workers=2, multiprocessing_context="forkserver")

    options: Any = {"batch_size": 2, "seed": 7, "end_index": 16}
    stopped, resumed = LabelStream(target, **options), LabelStream(target, **options)
    whole = [batch.indices.tolist() for batch in loaded(LabelStream(target, **options))]
    assert whole[:3] == [[0, 2], [1, 3], [4, 6]]
    for batch, _ in zip(loaded(stopped), range(stop), strict=False):
        stopped.consumed(batch)
    resumed.load_state_dict(stopped.state_dict())
    order = [4, 3, 6, 5, 7] if stop == 3 else [4, 5, 6, 7]
    assert [batch.indices.tolist() for batch in loaded(resumed)] == [whole[i] for i in order]
