"""Filter report: what the card says a filter removes is what it removes of the first samples."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from labelmint import Client, LabelmintError
from labelmint.datasets.filter_report import lines_from_report
from labelmint.datasets.request import checked_request
from labelmint.datasets.writer import check_model
from labelmint.model import model_from_proto
from tests.client.scripted_service import MODEL
from tests.datasets.folders import download, keys, made, target_of
from tests.service.harness import RunningServer

FILTERS = {
    "keep fraction": ("--end-index", "80", "--keep-fraction", "0.4"),
    "count": ("--count", "30", "--max-uncertainty", "0.3"),
    "sets": ("--end-index", "80", "--views-per-object", "2", "--max-uncertainty", "0.7",
             "--filter-sets"),
    "rank": ("--end-index", "80", "--filter", "top-fraction", "--fraction", "0.3"),
}  # fmt: skip


@pytest.mark.parametrize("options", FILTERS.values(), ids=FILTERS)
def test_the_card_counts_what_the_filter_removes(
    server: RunningServer, tmp_path: Path, options: tuple[str, ...]
) -> None:
    form = ("--format", "png", "--seed", "3", "--filter-report", "49")
    out = made(server, tmp_path / "d", *form, *options)
    examined = 50 if "--filter-sets" in options else 49
    kept = [key for key in keys(out) if key < examined]
    views = 2 if "--filter-sets" in options else 1
    with Client(target_of(server)) as client:
        every = client.generate(
            seed=3, count=examined, outputs=("mask",), views_per_object=views
        ).masks
    assert every is not None
    report = json.loads((out / "card.json").read_text())["filter_report"]
    assert report["samples"] == [examined, len(kept)] and 0 < len(kept) < examined
    for label in report["classes"]:
        shown = every == label["id"]
        assert label["pixels"] == [shown.sum(), shown[kept].sum()]
        images = shown.any((1, 2))
        assert label["images"] == [images.sum(), images[kept].sum()]
    text = (out / "README.md").read_text()
    assert f"first {examined} samples of the range, of which the filter keeps {len(kept)}" in text


def test_every_shard_reports_on_the_whole_range(server: RunningServer, tmp_path: Path) -> None:
    for options in (FILTERS["keep fraction"], FILTERS["rank"]):
        cards = []
        for n in range(2):
            shard = ("--num-shards", "2", "--shard-index", str(n), "--filter-report", "20")
            out = made(server, tmp_path / options[2] / str(n), "--format", "png", *options, *shard)
            cards.append(json.loads((out / "card.json").read_text())["filter_report"])
        assert cards[0] == cards[1] and cards[0]["samples"][0] == 20


def test_the_card_says_where_nothing_was_measured(server: RunningServer, tmp_path: Path) -> None:
    out = made(server, tmp_path / "d", "--count", "5", "--keep-fraction", "0.5")
    assert "not measured; --filter-report" in (out / "README.md").read_text()
    out = made(server, tmp_path / "all", "--format", "png", "--count", "5")
    assert "--filter-report" not in (out / "README.md").read_text()
    card = json.loads((out / "card.json").read_text())
    masks = Client(target_of(server)).generate(count=5, outputs=("mask",)).masks
    assert masks is not None
    for label in card["classes"]:
        assert label["images"] == np.any(masks == label["id"], (1, 2)).sum()


def test_a_class_that_is_lost_is_named() -> None:
    classes = [
        {"name": "skin", "images": [100, 80]},
        {"name": "ear", "images": [10, 3]},
        {"name": "hat", "images": [10, 4]},
        {"name": "none", "images": [0, 0]},
    ]
    lines = lines_from_report({"samples": [100, 80], "classes": classes})
    assert lines == ["the filter keeps 3 of the 10 images with ear, and 80 of 100 in all"]


def test_a_report_on_nothing_is_refused(server: RunningServer, tmp_path: Path) -> None:
    ran = download(server, tmp_path / "d", "--count", "3", "--filter-report", "5")
    assert ran.code == 2 and "--filter-report 5 needs a filter" in ran.err
    model = dataclasses.replace(model_from_proto(MODEL), outputs=("image", "uncertainty"))
    request = checked_request(format="png", count=3, max_uncertainty=0.5, filter_report=5)
    with pytest.raises(LabelmintError, match="no masks, whose classes --filter-report counts"):
        check_model(request, model)
