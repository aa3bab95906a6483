"""--filter-sets: every object is there with all its views or not at all, however often a download
was cut short."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelmint import Client
from labelmint.datasets.folder import Commits, DownloadState, Folder
from labelmint.datasets.pipeline import write_samples
from labelmint.datasets.request import checked_request
from labelmint.datasets.writer import Writer, writer_from_format
from tests.datasets.folders import contents, download, made, target_of
from tests.datasets.test_views import told
from tests.service.harness import RunningServer

END = 120
LIMIT = 0.8  # about half of all objects have three views under it
WHOLE = ("--views-per-object", "3", "--max-uncertainty", str(LIMIT), "--filter-sets")
CALIBRATED = ("--views-per-object", "4", "--keep-fraction", "0.8", "--filter-sets")


def indices_under(server: RunningServer, limit: float, views: int) -> list[int]:
    """Of the objects whose views are all under it."""
    with Client(target_of(server)) as client:
        batch = client.generate(end_index=END, views_per_object=views, outputs=["uncertainty"])
    assert batch.uncertainty is not None
    whole = np.flatnonzero((batch.uncertainty.reshape(-1, views) <= limit).all(axis=1))
    indices: list[int] = (whole[:, None] * views + np.arange(views)).ravel().tolist()
    return indices


class Stopping:
    """A writer that somebody stops by Ctrl-C after so many samples."""

    def __init__(self, writer: Writer, samples: int) -> None:
        self.encoded, self.mark, self.finish = writer.encoded, writer.mark, writer.finish
        self.close, self._add, self._left = writer.close, writer.add, samples

    def add(self, encoded: Any) -> None:
        if not self._left:
            raise KeyboardInterrupt
        self._left -= 1
        self._add(encoded)


@pytest.mark.parametrize("form", ["webdataset", "coco", "png"])
def test_stopped_within_an_object_or_not_whole_objects_are_kept_or_dropped(
    server: RunningServer, tmp_path: Path, form: str
) -> None:
    options = ("--format", form, *WHOLE, "--end-index", str(END))
    whole = made(server, tmp_path / "whole", *options, "--streams", "3")
    assert sorted(told(whole, form)) == indices_under(server, LIMIT, 3)
    request = checked_request(
        format=form, views_per_object=3, max_uncertainty=LIMIT, filter_sets=True, end_index=END
    )
    for kept in (1, 17):
        out = tmp_path / str(kept)
        with Client(target_of(server)) as client, Folder(out, request) as folder:
            model = client.model()
            state = DownloadState(model.name, model.bundle_id, LIMIT, 0)
            writer = writer_from_format(form)(folder, request, model, state)
            with (
                pytest.raises(KeyboardInterrupt), Commits(folder, state) as commits,
                closing(Stopping(writer, kept)) as stopping,
            ):  # fmt: skip
                write_samples(client, request, model, None, stopping, commits)
        stored = json.loads((out / ".labelmint" / "state.json").read_text())
        assert stored["state"]["kept"] == kept
        assert contents(made(server, out, *options)) == contents(whole)


def test_a_count_ends_with_a_whole_object_and_the_card_tells(
    server: RunningServer, tmp_path: Path
) -> None:
    out = made(server, tmp_path / "d", "--format", "png", *CALIBRATED, "--count", "24")
    card = json.loads((out / "card.json").read_text())
    expected = indices_under(server, card["max_uncertainty"], 4)[:24]
    assert len(expected) == 24 and sorted(told(out, "png")) == expected
    assert card["request"]["filter_sets"] is True
    assert card["samples"] == {"kept": 24, "examined": expected[-1] + 1}
    assert "by all views of an object" in (out / "README.md").read_text()


def test_shards_are_the_whole(server: RunningServer, tmp_path: Path) -> None:
    options = ("--format", "png", *WHOLE, "--end-index", str(END), "--num-shards", "2")
    parts = [
        told(made(server, tmp_path / str(n), *options, "--shard-index", str(n)), "png")
        for n in range(2)
    ]
    found = sorted(i for part in parts for i in part)
    assert found == indices_under(server, LIMIT, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--count 8 --max-uncertainty 1", "needs --views-per-object of 2 or more"),
        ("--count 8 --views-per-object 4", "needs a filter"),
        (
            "--end-index 80 --views-per-object 4 --filter top-fraction",
            "to filter whole objects, use",
        ),
        ("--count 10 --views-per-object 4 --max-uncertainty 1", "--count 10 cuts an object of 4"),
        ("--end-index 9 --views-per-object 4 --keep-fraction 0.5", "--end-index 9 cuts an object"),
        (
            "--start-index 2 --count 8 --views-per-object 4 --keep-fraction 0.5",
            "--start-index 2 cuts an object of 4 views, but --filter-sets needs whole objects; "
            "give a multiple of 4",
        ),
    ],
)
def test_what_excludes_whole_objects_is_usage(tmp_path: Path, options: str, words: str) -> None:
    ran = download("localhost:1", tmp_path / "d", "--filter-sets", *options.split())
    assert (ran.code, ran.out) == (2, "") and words in ran.err.replace("\n", " ")
    assert not (tmp_path / "d").exists()


def test_a_folder_goes_on_as_it_was_begun(server: RunningServer, tmp_path: Path) -> None:
    """Also one that was begun before --filter-sets could be asked for."""
    options = ("--views-per-object", "4", "--max-uncertainty", "0.9", "--count", "8")
    out = made(server, tmp_path / "d", *options)
    for begun, asked, words in (
        (options, (*options, "--filter-sets"), "no --filter-sets, not --filter-sets"),
        ((*options, "--filter-sets"), options, "--filter-sets, not no --filter-sets"),
    ):
        shutil.rmtree(out)
        made(server, out, *begun)
        ran = download(server, out, *asked)
        assert ran.code == 5 and f"was started with {words};" in ran.err
    shutil.rmtree(out)
    card = made(server, out, *options) / "card.json"
    before = json.loads(card.read_text())
    del before["request"]["filter_sets"]
    card.write_text(json.dumps(before))
    assert download("localhost:1", out, *options).code == 0
