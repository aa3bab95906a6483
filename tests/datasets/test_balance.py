"""--balance and --keep-by choose the samples of downloads, previews and LabelStreams; each sample
of a data set has its weight."""

from __future__ import annotations

import csv
import html
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.fake import fake_bundle, with_content
from labelmint import Client
from labelmint.cli import main
from labelmint.torch import LabelStream
from tests.datasets.folders import contents, download, keys, made, target_of
from tests.service.harness import FakeModel, RunningServer, served

END = 90
LARGE = "share('part 1') >= 0.7"  # of one sample in ten
BALANCE = {LARGE: 0.4}
OPTION = ("--balance", f"{LARGE}=0.4")


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with served([FakeModel(bundle=with_content(fake_bundle(16)))]) as running:
        yield running


@pytest.fixture(scope="module")
def weights(server: RunningServer) -> dict[int, float]:
    """Of the samples that the balance keeps, by index."""
    with Client(target_of(server)) as client:
        batch = client.generate(end_index=END, outputs=["weight"], balance=BALANCE)
    assert batch.weights is not None and 5 < len(batch) < END - 5
    return dict(zip(batch.indices.tolist(), batch.weights.tolist(), strict=True))


def test_a_table_has_the_weights_and_its_card_the_three_shares(
    server: RunningServer, tmp_path: Path, weights: dict[int, float]
) -> None:
    options = ("--format", "png", *OPTION, "--end-index", str(END))
    out = tmp_path / "set"
    ran = download(server, out, *options, "--filter-report", str(END))
    assert ran.code == 0 and keys(out) == sorted(weights)
    with (out / "index.csv").open() as file:
        rows = {int(row["index"]): float(row["weight"]) for row in csv.DictReader(file)}
    assert rows == pytest.approx(weights, rel=1e-6)
    lines = (out / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(line)["weight"] for line in lines] == list(rows.values())
    card = json.loads((out / "card.json").read_text())
    assert card["request"]["balance"] == BALANCE and "weight" in card["outputs"]
    part = card["filter_report"]["classes"][1]
    with Client(target_of(server)) as client:
        masks = client.generate(end_index=END, outputs=["mask"]).masks
    assert masks is not None
    shown = {index for index in weights if (masks[index] == 1).any()}
    assert part["images"] == [int((masks == 1).any(axis=(1, 2)).sum()), len(shown)]
    assert part["weighted"] == pytest.approx(
        sum(weights[index] for index in shown) / sum(weights.values())
    )
    total = np.array(list(weights.values()))
    effective = total.sum() ** 2 / (total**2).sum()
    assert card["filter_report"]["effective"] == pytest.approx(effective)
    readme = (out / "README.md").read_text()
    assert f"as much as {effective:.0f} equally weighted" in " ".join(readme.split())
    assert f"| filter | balanced to 0.4 {LARGE} |".replace("<", "&lt;") in readme
    assert "images, weighted" in readme and "## Weights" in readme


@pytest.mark.parametrize("form", ["webdataset", "coco", "hf", "yolo-pose", "fiftyone", "cvat"])
def test_every_format_has_the_weights(
    server: RunningServer, tmp_path: Path, form: str, weights: dict[int, float]
) -> None:
    first = min(weights)
    options = ("--format", form, *OPTION, "--end-index", str(first + 1))
    found = b"".join(contents(made(server, tmp_path / form, *options)).values())
    text = str(np.float32(weights[first])).encode()
    if form == "hf":
        text = np.float32(weights[first]).tobytes()
    assert b"weight" in found and text in found


def test_a_download_that_was_stopped_goes_on_with_the_same_balance_alone(
    server: RunningServer, tmp_path: Path
) -> None:
    options = ("--format", "png", "--end-index", "20")
    folder = made(server, tmp_path / "set", *options, *OPTION)
    before = contents(folder)
    done = download(server, folder, *options, "--balance", f"{LARGE}=0.5")
    assert done.code != 0 and "--balance {" in done.err
    assert made(server, folder, *options, *OPTION) and contents(folder) == before
    strata = ("--keep-by", LARGE, "--keep-fraction", "0.5")
    divided = made(server, tmp_path / "strata", *options, *strata)
    with Client(target_of(server)) as client:
        batch = client.generate(end_index=20, keep_by=LARGE, keep_fraction=0.5, outputs=["mask"])
    assert keys(divided) == batch.indices.tolist()
    readme = (divided / "README.md").read_text()
    assert f"keep fraction 0.5 of each with and without {LARGE}" in readme


def test_a_report_shows_shares_in_all_in_the_delivered_and_weighted(
    server: RunningServer, tmp_path: Path, weights: dict[int, float]
) -> None:
    out = tmp_path / "report.html"
    given = ["preview", "--target", target_of(server), "--out", str(out), "--count", str(END)]
    assert main([*given, *OPTION]) == 0
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", out.read_text()))
    number = r"([\d.]+) % \(([\d.]+) %\)"
    (shares,) = re.findall(rf"part 1 1 {number} {number} ([\d.]+) %", text)
    pixels, all_pixels, images, all_images, weighted = map(float, shares)
    assert pixels > all_pixels
    assert abs(weighted - all_images) < abs(images - all_images) + 5
    total = np.array(list(weights.values()))
    assert f"as much as {total.sum() ** 2 / (total**2).sum():.0f} equally weighted" in text
    assert shlex.join(OPTION) in html.unescape(out.read_text())


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("--balance", "part 1"), "'part 1' has no share; write CLASS=0.5"),
        (("--balance", "part 1=2"), "balance of 'part 1' is 2.0; a share is over 0"),
        (("--balance", "part 1=nan"), "is nan; a share is over 0"),
        (("--balance", "=0.5"), "has no share"),
        (("--balance", "depth(0.5) >= 0.5"), "has no share; write CLASS=0.5, CONDITION=0.5"),
        (("--balance", "a=0.5", "--balance", "a=0.6"), "'a' is given twice"),
        (
            ("--max-class-uncertainty", "a=1", "--max-class-uncertainty", "a=2"),
            "'a' is given twice",
        ),
        (("--balance", "part 9=0.5"), "'part 9', which is neither a class of this bundle nor"),
        (("--keep-by", "part 1"), "keep_by needs keep_fraction"),
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
    said = capsys.readouterr().err
    assert code != 0 and words in said and "Traceback" not in said


def test_a_loop_resumes_with_the_same_balance_alone(
    server: RunningServer, weights: dict[int, float]
) -> None:
    options: Any = {"batch_size": 2, "end_index": END, "balance": BALANCE, "keep_by": (LARGE,),
                    "keep_fraction": 1.0}  # fmt: skip
    stream, seen = LabelStream(target_of(server), **options), dict[int, float]()

    def note(batch: Any) -> None:
        seen.update(zip(batch.indices.tolist(), batch.weights.tolist(), strict=True))

    for batch in stream:
        note(batch)
        if len(seen) >= 4:
            break
    state = json.loads(json.dumps(stream.state_dict()))
    rest = LabelStream(target_of(server), **options)
    rest.load_state_dict(state)
    for batch in rest:
        note(batch)
    assert seen == weights
    other = LabelStream(target_of(server), **{**options, "balance": "classes"})
    with pytest.raises(ValueError, match="the state is of a stream with balance"):
        other.load_state_dict(state)


def test_pinned_options_and_the_schema_have_the_balance(
    server: RunningServer, weights: dict[int, float]
) -> None:
    options: Any = {"end_index": END, "balance": BALANCE}
    with Client(target_of(server)) as client:
        pinned = client.pin(**options)
        assert pinned["balance"] == BALANCE
        (batch,) = client.stream(END, **pinned)
        assert list(client.model().schema(**pinned)) == list(batch.columns())
        divided = client.pin(keep_by=LARGE, keep_fraction=0.5)
        assert (divided["keep_by"], divided["keep_fraction"]) == (LARGE, 0.5)
    assert batch.indices.tolist() == sorted(weights)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"balance": "rare"}, "balance is 'rare'; give 'classes', or shares"),
        ({"balance": {}}, "balance has 0 conditions"),
        ({"balance": {"a": "half"}}, "balance of 'a' is 'half'; give a number"),
        ({"balance": {3: 0.5}}, "a condition of balance is 3; give a class name"),
        ({"balance": {"": 0.5}}, "a condition of 0 characters"),
        ({"balance": ["glasses"]}, "balance is .*; give 'classes', or a dict"),
        ({"balance": "classes", "filter_sets": True, "views_per_object": 2}, "a coin is tossed"),
        ({"keep_by": list("abcd"), "keep_fraction": 0.5}, "keep_by has 4 conditions; give 1 to 3"),
        ({"keep_by": "a", "max_uncertainty": 0.5}, "keep_by needs keep_fraction"),
        (
            {"balance": "classes", "group_views": True, "views_per_object": 2},
            "group_views and balance exclude each other",
        ),
    ],
)
def test_options_that_cannot_be_sent_are_refused_at_once(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        LabelStream("localhost:1", **options)
