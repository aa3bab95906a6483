"""Lightning and Accelerate train on a stream, on one rank and on two, each index once, resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grain
import numpy as np
import pytest
import torch
from lightning_utilities.core.apply_func import apply_to_collection

from labelmint import Client
from labelmint.torch import LabelStream
from tests.client.test_torch import kept, run, said
from tests.datasets.test_formats import filled

OPTIONS = {"seed": 7, "keep_fraction": 0.8, "end_index": 200}
QUIET = {"PYTHONWARNINGS": "ignore"}  # both warn of their own code


def both_runs(rank: int, ranks: int) -> list[int]:
    """What a rank trains on in two runs of 5 batches of 4."""
    return [index for index in kept(OPTIONS) if index % ranks == rank][:40]


def test_a_batch_goes_through_lightnings_copy_to_a_device(target: str) -> None:
    """As it is, and as the dict that a transform makes of it."""
    batch = next(iter(LabelStream(target, batch_size=3)))
    moved = batch.to("meta")
    assert moved.images.device.type == moved.indices.device.type == "meta"
    assert moved.w is None and moved.position == batch.position
    for given in (batch, {"x": batch.images, "position": batch.position}):
        copied: Any = apply_to_collection(given, torch.Tensor, torch.Tensor.double)
        stream = LabelStream(target, batch_size=3)
        stream.consumed(copied)
        assert stream.state_dict()["next"] == {"0": 3}


@pytest.mark.long
@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_lightning_trains_on_each_index_once_and_resumes(
    target: str, tmp_path: Path, ranks: int
) -> None:
    """Its loop reads a batch ahead, so that a state of what was read would lose one."""
    done = said(run("torch_lightning", target, str(ranks), str(tmp_path), **QUIET))
    assert len(done) == ranks
    for rank, (before, after) in enumerate(done):
        assert len(before) == 20
        assert before + after == both_runs(rank, ranks)


def test_grain_reads_each_batch_once_and_resumes_after_the_one_it_had(target: str) -> None:
    """The recipe is the block of docs/training.md."""
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    recipe = page.split("```python\nimport grain\n")[1].split("\nlabels = Labels(")[0]
    names: dict[str, Any] = {"grain": grain}
    exec(recipe, names)
    with Client(target) as client:
        stream = client.stream(4, seed=7, keep_fraction=0.8, end_index=200)
        wanted = [filled(batch.images) for batch in stream]
    labels = names["Labels"](target, batch_size=4, **OPTIONS)
    halved = iter(labels.map(lambda batch: {**batch, "image": batch["image"] // 2}))
    before = [next(halved)["image"] for _ in range(7)]
    again = iter(labels.map(lambda batch: {**batch, "image": batch["image"] // 2}))
    again.set_state(json.loads(json.dumps(halved.get_state())))
    after = [batch["image"] for batch in again]
    found = np.concatenate(before + after)
    assert np.array_equal(found, np.concatenate(wanted) // 2)


def accelerated(target: str, folder: Path, ranks: int, loader: str) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of each rank."""
    meeting = folder / f"meeting-{len(list(folder.iterdir()))}"
    words = (target, "5", str(folder / "checkpoint"), str(meeting), loader)
    ended: list[tuple[int, str, str]] = said(
        run("torch_ranks", "torch_accelerate", str(ranks), *words, **QUIET)
    )
    return ended


@pytest.mark.long
@pytest.mark.parametrize(
    ("ranks", "loader"),
    [
        pytest.param(1, "LabelLoader", marks=pytest.mark.slow),
        pytest.param(1, "DataLoader", marks=pytest.mark.slow),
        (2, "LabelLoader"),
    ],
)
def test_accelerate_trains_on_each_index_once_and_resumes(
    target: str, tmp_path: Path, ranks: int, loader: str
) -> None:
    runs = []
    for _ in range(2):
        ended = accelerated(target, tmp_path, ranks, loader)
        assert [code for code, _, _ in ended] == [0] * ranks, ended
        runs.append(json.loads(ended[0][1].splitlines()[-1]))
    for rank in range(ranks):
        assert len(runs[0][rank]) == 20
        assert runs[0][rank] + runs[1][rank] == both_runs(rank, ranks)


@pytest.mark.long
def test_accelerate_is_not_let_to_split_a_stream_again(target: str, tmp_path: Path) -> None:
    for code, _, complaint in accelerated(target, tmp_path, 2, "DataLoader"):
        assert code == 1 and "prepare LabelLoader(stream)" in complaint
