"""LabelStream: every index once in any layout, as tensors that are ready to train on."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from labelmint.errors import Refused
from labelmint.options import StreamOptions, query_from_options
from labelmint.torch import IGNORE_INDEX, LabelBatch, LabelStream
from labelmint.wire.answers import WHERE
from tests.client.scripted_service import CLOSED_PORT, Script, ScriptedService, keeps, sample
from tests.hangs import HANG_S

IGNORED = (
    "ignore:This DataLoader will create",  # more workers than a machine has cores
    "ignore:'set_vital' is deprecated",  # torchdata's own use of torch
)
LAYOUTS = [(world_size, workers) for world_size in (1, 2, 3, 8) for workers in (0, 1, 4)]


def run(module: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    flags = [flag for ignored in IGNORED for flag in ("-W", ignored)]
    return subprocess.Popen(
        [sys.executable, "-W", "error", *flags, "-m", f"tests.client.{module}", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1", **environment},
    )  # fmt: skip


def said(process: subprocess.Popen[str]) -> Any:
    out, err = process.communicate(timeout=HANG_S)
    assert process.returncode == 0, (out, err)
    return json.loads(out.splitlines()[-1])


def kept(options: dict[str, Any]) -> list[int]:
    query = query_from_options(cast(StreamOptions, options))
    return [i for i in range(query.start_index, query.end_index) if keeps(query, i)]


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_every_layout_resumed_under_another_sees_every_index_once(target: str, seed: int) -> None:
    layouts = LAYOUTS.copy()
    random.Random(seed).shuffle(layouts)
    options = {"seed": 3, "start_index": 11, "end_index": 2200, "outputs": ["uncertainty"]}
    if not seed:
        options |= {"views_per_object": 3, "max_uncertainty": 0.7}
    job = json.dumps({"layouts": layouts, "options": options})
    assert sorted(said(run("torch_layouts", target, job))) == kept(options)


@pytest.mark.long
def test_two_ddp_processes_and_then_one_see_every_index_once(target: str, tmp_path: Path) -> None:
    seen: list[int] = []
    for world_size in (2, 1):
        meeting, words = tmp_path / f"of_{world_size}", (target, "5", str(tmp_path / "state.json"))
        ended = said(run("torch_ranks", "torch_ddp", str(world_size), *words, str(meeting)))
        assert [code for code, _, _ in ended] == [0] * world_size, ended
        (indices, same_weights), *others = (json.loads(out) for _, out, _ in ended)
        assert others == [None] * (world_size - 1)
        assert same_weights and all(len(of_rank) == 20 for of_rank in indices)
        seen += [i for of_rank in indices for i in of_rank]
    assert len(seen) == len(set(seen)) == 60
    options = {"seed": 7, "keep_fraction": 0.8, "end_index": min(set(range(999)) - set(seen)) + 1}
    assert set(kept(options)[:-1]) <= set(seen)


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_data_loader_goes_on_where_it_was(target: str, workers: int) -> None:
    before, after = said(run("torch_stateful", target, str(workers)))
    assert len(before) == 36
    assert sorted(before + after) == kept({"seed": 7, "keep_fraction": 0.8, "end_index": 200})


def test_samples_become_tensors_that_may_be_written_to(target: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of read-only arrays
        batch = next(iter(LabelStream(target, batch_size=3, seed=5)))
    assert isinstance(batch, LabelBatch)
    truth = [sample(5, i) for i in range(3)]
    images = np.concatenate([t["image"] for t in truth]).transpose(0, 3, 1, 2)
    masks = np.concatenate([t["mask"] for t in truth])
    assert batch.images is not None and batch.masks is not None and batch.keypoints is not None
    assert batch.depth is not None and batch.uncertainty is not None
    assert batch.images.dtype is torch.uint8 and (batch.images.numpy() == images).all()
    assert batch.masks.dtype is torch.int64 and (batch.masks.numpy() == masks).all()
    assert batch.keypoints.dtype is torch.float32 and batch.keypoints.shape == (3, 3, 3)
    assert batch.depth.dtype is torch.float16 and batch.uncertainty.dtype is torch.float32
    assert batch.w is None and batch.uncertainty_map is None
    assert batch.indices.tolist() == [0, 1, 2]
    assert batch.images.is_contiguous()
    batch.images.zero_()


@pytest.mark.parametrize("asked", [None, ["mask"], ["mask", "uncertainty_map"]])
def test_doubtful_pixels_are_ignored(target: str, asked: list[str] | None) -> None:
    limit = 0.05
    options: Any = {} if asked is None else {"outputs": asked}
    stream = LabelStream(target, batch_size=8, seed=5, ignore_above=limit, **options)
    batch = next(iter(stream))
    assert batch.masks is not None
    for row in range(8):
        truth = sample(5, row)
        doubtful = truth["uncertainty_map"][0] > limit
        expected = np.where(doubtful, IGNORE_INDEX, truth["mask"][0])
        assert (batch.masks[row].numpy() == expected).all()
    assert (batch.masks == IGNORE_INDEX).any() and not (batch.masks == IGNORE_INDEX).all()
    assert (batch.uncertainty_map is None) == (asked is None or "uncertainty_map" not in asked)
    assert (batch.images is None) == (asked is not None)


def test_a_transform_makes_the_batches(target: str) -> None:
    stream = LabelStream(target, batch_size=2, end_index=6, transform=lambda b: b.indices.sum())
    assert [int(total) for total in stream] == [1, 5, 9]
    assert stream.state_dict()["next"] == {"0": 6}  # it does not need the position


def test_a_finished_range_stays_finished(target: str) -> None:
    stream = LabelStream(target, batch_size=4, end_index=10)
    assert sum(len(batch.indices) for batch in stream) == 10
    again = LabelStream(target, batch_size=4, end_index=10)
    again.load_state_dict(stream.state_dict())
    assert list(again) == []
    longer = LabelStream(target, batch_size=4, end_index=14)
    longer.load_state_dict(stream.state_dict())
    assert [i for batch in longer for i in batch.indices.tolist()] == [10, 11, 12, 13]


def test_another_iteration_begins_at_the_start(target: str) -> None:
    stream = LabelStream(target, batch_size=4, end_index=10)
    first, second = ([b.indices.tolist() for b in stream] for _ in range(2))
    assert first == second
    batches = list(stream)
    fresh = LabelStream(target, batch_size=4, end_index=10)
    for batch in (*batches, batches[0]):
        fresh.consumed(batch)
    assert fresh.state_dict()["next"] == {"0": 4}


def test_a_drained_server_changes_nothing(target: str, service: ScriptedService) -> None:
    service.script = Script(messages_until_drop=2)
    stream = LabelStream(target, batch_size=4, end_index=50)
    assert [i for batch in stream for i in batch.indices.tolist()] == list(range(50))
    assert len(service.queries) == 2


def test_a_state_pins_its_bundle(target: str) -> None:
    stream = LabelStream(target, batch_size=4, end_index=50)
    next(iter(stream))
    state = {**stream.state_dict(), "bundle_id": "sha256:other"}
    stream.load_state_dict(state)
    with pytest.raises(Refused, match="the bundle is sha256:scripted"):
        next(iter(stream))


def test_a_resumed_loop_whose_predicate_was_met_is_searched_on(
    target: str, service: ScriptedService
) -> None:
    """A server ends a call of which the first 10,000 samples do not meet it."""

    def met(_: Any, honest: Iterator[Any]) -> Iterator[Any]:
        for response in honest:
            response.applied = WHERE
            yield response

    service.lie = met
    for more, limit in (({"where": "uncertainty <= 1"}, 2**64 - 1), ({}, 0)):
        options: Any = {"batch_size": 4, "end_index": 50, **more}
        stream = LabelStream(target, **options)
        next(iter(stream))
        assert service.queries[-1].max_examined == 0
        resumed = LabelStream(target, **options)
        resumed.load_state_dict(stream.state_dict())
        next(iter(resumed))
        assert service.queries[-1].max_examined == limit


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"count": 5}, "'count' is not for LabelStream"),
        ({"indices": [1]}, "'indices' is not for LabelStream"),
        ({"num_shards": 2}, "'num_shards' is not for LabelStream"),
        ({"batch_size": 0}, "batch_size 0 is under 1"),
        ({"ignore_above": -1.0}, "ignore_above -1.0 is under 0"),
        ({"ignore_above": 0.2, "outputs": ["image"]}, "outputs has no mask; add it"),
        ({"rank": 2, "world_size": 2}, "rank 2 is outside 0 to world_size - 1 = 1"),
        ({"rank": 1}, "go together"),
        ({"keep_fraction": 2.0}, r"outside \(0, 1\]"),
    ],
)
def test_options_that_cannot_be_sharded_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LabelStream("localhost:1", **options)


def of_dict(batch: LabelBatch) -> dict[str, Any]:
    return {"x": batch.images, "position": batch.position}


def test_what_is_consumed_carries_its_position_however_a_transform_packs_it(target: str) -> None:
    for transform in (None, of_dict):
        stream = LabelStream(target, batch_size=4, end_index=50, transform=transform)
        batch = next(iter(stream))
        fresh = LabelStream(target, batch_size=4, end_index=50)
        fresh.consumed(batch)
        assert fresh.state_dict()["next"] == {"0": 4}
        others: list[Any] = [None, {"x": 1}, batch["x"] if transform else batch.images]
        for wrong in others:
            with pytest.raises(TypeError, match="without a position; let the tran"):
                fresh.consumed(wrong)


def test_what_is_no_state_is_refused(target: str) -> None:
    stream = LabelStream(target)
    states: list[Any] = [None, {}, [stream.state_dict()]]
    for wrong in states:
        with pytest.raises(ValueError, match="not of a LabelStream"):
            stream.load_state_dict(wrong)
    for several in (stream.state_dict(), [None]):
        with pytest.raises(ValueError, match="needs a list of the states that state_dict gave"):
            LabelStream.merge_states(several)  # type: ignore[arg-type]


def test_states_of_other_streams_are_refused(target: str) -> None:
    state = LabelStream(target, seed=7).state_dict()
    with pytest.raises(ValueError, match="seed 7, and this one has 8; give the same"):
        LabelStream(target, seed=8).load_state_dict(state)
    with pytest.raises(ValueError, match="not of a LabelStream"):
        LabelStream(target).load_state_dict({})
    of_one = LabelStream(target, rank=1, world_size=2, end_index=100, batch_size=4)
    next(iter(of_one))
    for name, of_the_state in (("bundle_id", "sha256:scripted"), ("learned_id", "other")):
        state = {**of_one.state_dict(), "learned_id": "other"}
        asked: Any = {name: "another"}
        message = f"{name} '{of_the_state}', and this one has 'another'"
        with pytest.raises(ValueError, match=message):
            LabelStream(target, **asked).load_state_dict(state)
        same: Any = {name: of_the_state}
        LabelStream(target, **same).load_state_dict(state)
    with pytest.raises(ValueError, match="shards 0 of 2 are missing; give those of all ranks"):
        LabelStream.merge_states([of_one.state_dict()])
    other = LabelStream(target, rank=0, world_size=2)
    other.load_state_dict(of_one.state_dict())
    with pytest.raises(ValueError, match="no position of shard 0 of 2"):
        next(iter(other))
    alone = LabelStream(target)
    alone.load_state_dict(of_one.state_dict())
    with pytest.raises(ValueError, match="merge_states"):
        next(iter(alone))


def test_ranks_come_from_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    stream = LabelStream(CLOSED_PORT)
    assert stream._rank_and_world_size() == (2, 3)
    monkeypatch.setenv("RANK", "")
    with pytest.raises(ValueError, match="RANK is ''; it must be a number"):
        LabelStream(CLOSED_PORT)
