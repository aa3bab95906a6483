"""--where chooses the samples of downloads, previews and LabelStreams, and is part of these."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelmint import Client
from labelmint.cli import main
from labelmint.torch import LabelStream
from tests.datasets.folders import contents, download, keys, made, target_of
from tests.service.harness import FakeModel, RunningServer, served

END = 60
WHERE = "share('part 1') >= 0.25"
LIMITED = "uncertainty('part 1') <= 0.5"


@pytest.fixture(scope="module")
def met(server: RunningServer) -> list[int]:
    """Indices of the samples that meet WHERE."""
    with Client(target_of(server)) as client:
        batch = client.generate(end_index=END, outputs=["mask"])
    assert batch.masks is not None
    shares = (batch.masks == 1).mean(axis=(1, 2))
    found: list[int] = np.flatnonzero(shares >= 0.25).tolist()
    assert 5 < len(found) < END - 5
    return found


def test_a_download_has_the_samples_that_meet_it(
    server: RunningServer, tmp_path: Path, met: list[int]
) -> None:
    options = ("--format", "png", "--where", WHERE)
    ranged = made(server, tmp_path / "range", *options, "--end-index", str(END))
    assert keys(ranged) == met
    counted = tmp_path / "count"
    ran = download(server, counted, *options, "--count", "5", "--filter-report", "30")
    assert ran.code == 0 and "the filter keeps 2 of the 24 images with part 3" in ran.err
    assert keys(counted) == met[:5]
    card = json.loads((counted / "card.json").read_text())
    assert card["request"]["where"] == WHERE
    report = card["filter_report"]
    assert report["samples"] == [30, sum(index < 30 for index in met)]
    part = next(label for label in report["classes"] if label["name"] == "part 1")
    assert part["images"][1] == report["samples"][1]
    readme = (counted / "README.md").read_text()
    assert "| filter | where share('part 1') >= 0.25 |" in readme
    assert "| 1 | part 1 |" in readme.partition("## What the filter removes")[2]


def test_limits_of_classes_are_a_part_of_where(server: RunningServer, tmp_path: Path) -> None:
    options = ("--format", "png", "--end-index", str(END), "--where", WHERE)
    short = made(server, tmp_path / "short", *options, "--max-class-uncertainty", "part 1=0.5")
    written = f"({WHERE}) and {LIMITED}"
    long = made(server, tmp_path / "long", *options[:-1], written)
    assert contents(short) == contents(long)
    with Client(target_of(server)) as client:
        limits = {"part 1": 0.5}
        batches = client.stream(64, end_index=END, where=WHERE, max_class_uncertainty=limits)
        assert [i for batch in batches for i in batch.indices.tolist()] == keys(short)


def test_another_predicate_is_another_data_set(server: RunningServer, tmp_path: Path) -> None:
    folder = made(
        server, tmp_path / "set", "--format", "png", "--end-index", "20", "--where", WHERE
    )
    before = contents(folder)
    for other in ((), ("--where", LIMITED)):
        done = download(server, folder, "--format", "png", "--end-index", "20", *other)
        assert done.code != 0 and WHERE in done.err
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("--where", "share("), "where is wrong at its end"),
        (("--where", "share('hair') > 0"), "the class 'hair', which this bundle lacks"),
        (("--where", "share('part 1') > 2"), "which no sample can meet"),
        (("--max-class-uncertainty", "part 1"), "'part 1' has no limit; write CLASS=0.1"),
        (("--max-class-uncertainty", "part 1=-1"), "is -1.0; give a limit from 0 up"),
    ],
)
@pytest.mark.parametrize("name", ["download", "preview"])
def test_commands_refuse_in_a_line(
    server: RunningServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    command: tuple[str, ...],
    words: str,
) -> None:
    out = tmp_path / ("report.html" if name == "preview" else "set")
    code = main([name, "--target", target_of(server), "--out", str(out), "--count", "4", *command])
    assert code != 0 and words in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_a_report_compares_classes_in_all_and_in_the_delivered(
    server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], met: list[int]
) -> None:
    out = tmp_path / "report.html"
    given = ["preview", "--target", target_of(server), "--out", str(out), "--count", str(END)]
    assert main([*given, "--where", WHERE]) == 0
    assert f"{END} samples examined, {len(met)} delivered" in capsys.readouterr().out
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", out.read_text()))
    (share,) = re.findall(r"part 1 1 ([\d.]+) % \(([\d.]+) %\)", text)
    assert float(share[0]) > float(share[1])  # delivered, examined
    assert "share(&#39;part 1&#39;) &gt;= 0.25" in text


def report_text(server: RunningServer, out: Path, *options: str) -> str:
    line = ["preview", "--target", target_of(server), "--out", str(out), "--count", str(END)]
    assert main([*line, *options]) == 0
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", out.read_text()))


def test_the_scores_of_a_report_are_said_to_be_of_the_samples_that_they_are_of(
    server: RunningServer, tmp_path: Path, met: list[int]
) -> None:
    out = tmp_path / "report.html"
    text = report_text(server, out)
    assert "Without a filter." in text and f" of these {END}." in text
    text = report_text(server, out, "--where", WHERE)
    assert "Of the delivered samples, without a threshold." in text
    assert f" of these {len(met)}." in text and "Without a filter" not in text
    assert f"Histogram of the uncertainty of {len(met)} samples" in out.read_text()
    text = report_text(server, out, "--max-uncertainty", "0.5")
    assert "The filter keeps scores up to 0.5." in text and "whatever their score" not in text
    text = report_text(server, out, "--max-uncertainty", "0.5", "--where", WHERE)
    assert "also discards samples by where, whatever their score" in text


def test_a_range_with_an_end_is_searched_to_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where none of the first 10,000 samples meets the predicate."""
    where = "confidence('left') > 0.99 and share('part 1') > 0.4"  # no sample of the fake model
    end = 10_500
    with served([FakeModel(batch_sizes=(128,))]) as server:
        options = ["--target", target_of(server), "--where", where]
        line = ["download", *options, "--out", str(tmp_path / "set"), "--format", "png"]
        assert main([*line, "--count", "1"]) != 0
        said = capsys.readouterr().err
        assert "loosen it, or set end_index or max_examined to search further" in said
        line[line.index(str(tmp_path / "set"))] = str(tmp_path / "range")
        assert main([*line, "--end-index", str(end), "--filter-report", str(end)]) == 0
        card = json.loads((tmp_path / "range" / "card.json").read_text())
        assert card["samples"] == {"kept": 0, "examined": end}
        report = str(tmp_path / "report.html")
        assert main(["preview", *options, "--out", report, "--count", str(end)]) == 0
    assert f"{end} samples examined, 0 delivered" in capsys.readouterr().out


def test_a_picture_of_nothing_says_what_was_wanted(
    server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = "confidence('left') > 0.99 and share('part 1') > 0.4"  # no sample of the fake model
    given = ["preview", "--target", target_of(server), "--out", str(tmp_path / "a.png")]
    assert main([*given, "--count", "1", "--where", where]) != 0
    words = f"none of the 200 samples from --start-index 0 on has {where}"
    assert words in capsys.readouterr().err


def test_a_loop_resumes_with_the_same_predicate_alone(
    server: RunningServer, met: list[int]
) -> None:
    options: Any = {"batch_size": 2, "end_index": END, "where": WHERE}
    stream, seen = LabelStream(target_of(server), **options), list[int]()
    for batch in stream:
        seen += batch.indices.tolist()
        if len(seen) >= 4:
            break
    state = json.loads(json.dumps(stream.state_dict()))
    rest = LabelStream(target_of(server), **options)
    rest.load_state_dict(state)
    for batch in rest:
        seen += batch.indices.tolist()
    assert seen == met
    other = LabelStream(target_of(server), **{**options, "where": LIMITED})
    with pytest.raises(ValueError, match="is of a stream with where"):
        other.load_state_dict(state)
    plain = LabelStream(target_of(server), batch_size=2, end_index=END)
    saved = plain.state_dict()
    for name in ("where", "max_class_uncertainty"):
        del saved["options"][name]  # as in a state of an earlier version
    plain.load_state_dict(saved)
