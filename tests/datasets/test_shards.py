"""Shards: together they are the unsharded data set, each sample once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from labelmint import Client
from labelmint.datasets.selection import positions_by_rule
from tests.datasets.folders import contents, keys, made, target_of
from tests.service.harness import RunningServer

REQUESTS = {
    "count": ("--start-index", "5", "--count", "61"),
    "range": ("--start-index", "5", "--end-index", "90", "--keep-fraction", "0.5"),
    "research": ("--start-index", "5", "--end-index", "190", "--filter", "research",
                 "--fraction", "0.7"),
    "views": ("--start-index", "3", "--end-index", "90", "--views-per-object", "4",
              "--filter", "top-fraction", "--fraction", "0.5"),
}  # fmt: skip


@pytest.mark.parametrize("options", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("shards", [pytest.param(2, marks=pytest.mark.long), 5])
def test_shards_are_the_whole_each_sample_once(
    server: RunningServer, tmp_path: Path, options: tuple[str, ...], shards: int
) -> None:
    form = ("--format", "png")
    whole = made(server, tmp_path / "whole", *form, *options)
    parts = [
        made(server, tmp_path / str(n), *form, *options,
             "--num-shards", str(shards), "--shard-index", str(n))
        for n in range(shards)
    ]  # fmt: skip
    assert sorted(key for part in parts for key in keys(part)) == keys(whole)
    pictures = {name: data for part in parts for name, data in contents(part / "images").items()}
    assert pictures == contents(whole / "images")
    cards = [json.loads((part / "card.json").read_text()) for part in (whole, *parts)]
    pixels = [[label["pixels"] for label in card["classes"]] for card in cards]
    assert np.sum(pixels[1:], axis=0).tolist() == pixels[0]
    if "--filter" not in options:  # else every shard ranks the whole
        examined = [card["samples"]["examined"] for card in cards]
        assert sum(examined[1:]) == examined[0]


def test_tars_of_shards_can_share_a_folder(server: RunningServer, tmp_path: Path) -> None:
    names = [
        path.name
        for n in range(2)
        for path in made(
            server, tmp_path / str(n), "--count", "6", "--num-shards", "2", "--shard-index", str(n)
        ).glob("*.tar")
    ]
    assert names == ["samples-0of2-000000.tar", "samples-1of2-000000.tar"]


@pytest.mark.parametrize("rule", ["research", "top-fraction"])
def test_a_filter_ranks_the_scores_of_the_whole_range(
    server: RunningServer, tmp_path: Path, rule: str
) -> None:
    out = made(
        server, tmp_path / "d", "--format", "png", "--seed", "9", "--start-index", "100",
        "--end-index", "400", "--filter", rule, "--fraction", "0.8",
    )  # fmt: skip
    with Client(target_of(server)) as client:
        scores = client.generate(
            seed=9, start_index=100, end_index=400, outputs=("uncertainty",)
        ).uncertainty
    assert scores is not None
    assert keys(out) == (100 + positions_by_rule(rule, scores, 0.8)).tolist()
    assert len(keys(out)) == 240
