"""The report: one file that needs nothing else, with statistics that a reader can trust."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engines.fake import fake_bundle
from labelmint.cli import main
from labelmint.report.page import percent
from labelmint.report.stream_statistics import EXAMPLES
from labelmint.v1 import label_service_pb2 as pb
from tests.client.report_page import Page
from tests.client.scripted_service import MODEL, ScriptedService, sample, score
from tests.service.harness import FakeModel, served

Captured = pytest.CaptureFixture[str]
MAX_PICTURE_PX = 1118  # width that a window of 1280 px leaves to a picture, by the style sheet


def report(capsys: Captured, folder: Path, target: str, *arguments: str) -> tuple[str, Page]:
    """What `preview --out x.html` writes."""
    out = folder / "report.html"
    code = main(["preview", "--target", target, "--out", str(out), *arguments])
    assert (code, capsys.readouterr().err) == (0, "")
    html = out.read_text("utf-8")
    return html, Page(html)


def test_a_report_holds_everything_and_asks_for_nothing(
    capsys: Captured, tmp_path: Path, target: str
) -> None:
    html, page = report(capsys, tmp_path, target, "--count", "60", "--keep-fraction", "0.5")
    assert len(page.pictures) == 1 + 4 * EXAMPLES * 3  # the sheet; image, mask and map of examples
    for attributes in page.pictures:
        assert attributes["alt"]
        kind, _, data = (attributes["src"] or "").partition(",")
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as picture:
            picture.load()
            assert picture.width <= MAX_PICTURE_PX
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & set(page.tags)
    for tag, attributes in page.elements:
        names = set(attributes) - ({"src"} if tag == "img" else set())
        assert not {"src", "href", "srcset", "action", "data", "poster"} & names
        assert not any(name.startswith("on") for name in names)
    assert (
        "url(" not in html
        and "@import" not in html
        and "http" not in html.replace("http-equiv", "")
    )
    policy = next(each for tag, each in page.elements if tag == "meta" and "http-equiv" in each)
    assert (policy["content"] or "").startswith("default-src 'none'")


def test_the_same_command_writes_the_same_page(
    capsys: Captured, tmp_path: Path, target: str
) -> None:
    pages = [report(capsys, tmp_path, target, "--count", "20", "--seed", "5")[0] for _ in range(2)]
    assert pages[0] == pages[1]
    assert f"--out {tmp_path / 'report.html'} --count 20 --seed 5" in pages[0]


def test_no_token_is_in_the_page(
    capsys: Captured, tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABELMINT_TOKEN", "a-secret-of-mine")
    assert "a-secret-of-mine" not in report(capsys, tmp_path, target, "--count", "9")[0]


def test_statistics_are_those_of_the_samples(capsys: Captured, tmp_path: Path, target: str) -> None:
    """Against the scripted samples themselves, counted the long way."""
    seed, first, count, fraction = 3, 5, 90, 0.4
    _, page = report(
        capsys, tmp_path, target, "--count", str(count), "--seed", str(seed),
        "--start-index", str(first), "--keep-fraction", str(fraction),
    )  # fmt: skip
    everything = range(first, first + count)
    kept = [index for index in everything if score(seed, index) <= fraction]
    text = page.text
    dropped = count - len(kept)
    assert f"{count} samples examined, {len(kept)} delivered, {dropped} discarded" in text
    assert f"kept: {len(kept)} discarded: {dropped}" in text
    for label in MODEL.classes:
        shares = []
        for indices in (kept, everything):
            masks = [sample(seed, index)["mask"] == label.id for index in indices]
            shares.append((np.mean(masks), np.mean([mask.any() for mask in masks])))
        (pixels, images), (all_pixels, all_images) = shares
        row = (
            f"{label.name} {label.id} {100 * pixels:.1f} % ({100 * all_pixels:.1f} %) "
            f"{100 * images:.1f} % ({100 * all_images:.1f} %)"
        )
        assert row in text
    confidences = [sample(seed, index)["keypoints"][0, 0, 2] for index in kept]
    assert f"left {np.median(confidences):.2f} " in text
    depths = np.concatenate([sample(seed, index)["depth"].ravel() for index in kept])
    assert f"nearest {depths.min():.4g} farthest {depths.max():.4g}" in text
    scores = np.array([score(seed, index) for index in everything])
    assert f"median {np.median(scores):.4g}" in text and f"highest {scores.max():.4g}" in text


def test_examples_lie_on_both_sides_of_the_threshold_and_are_fetched_unfiltered(
    capsys: Captured, tmp_path: Path, target: str, service: ScriptedService
) -> None:
    _, page = report(capsys, tmp_path, target, "--count", "50", "--max-uncertainty", "0.5")
    ranked = sorted(range(50), key=lambda index: score(0, index))
    kept = [index for index in ranked if score(0, index) <= 0.5]
    discarded = [index for index in ranked if score(0, index) > 0.5]
    wanted = [*kept[-EXAMPLES:], *kept[:EXAMPLES], *discarded[:EXAMPLES], *discarded[-EXAMPLES:]]
    captions = re.findall(r"#(\d+), score (\S+)", page.text)
    assert captions == [(str(index), f"{score(0, index):.4g}") for index in wanted]
    first, rest, sheet, examples = service.queries
    assert first.filter.max_uncertainty == 0.5 and first.end_index == 50 and not first.indices
    assert list(rest.indices) == sorted(discarded)
    assert list(sheet.indices) == sorted(kept)[:8]
    assert list(examples.indices) == sorted(wanted)
    for query in (rest, sheet, examples):
        assert query.filter.mode == pb.FILTER_MODE_NONE
    assert {query.bundle_id for query in service.queries} == {MODEL.bundle_id}


@pytest.mark.parametrize(
    ("arguments", "words", "absent"),
    [
        ([], ["would keep scores up to 0.9", "by the bundle's calibration", "Would be kept"], []),
        (
            ["--truncation-psi", "0.5"],
            ["not calibrated for these options", "the 10 % most uncertain", "Would be discarded"],
            ["calibration,"],
        ),
        (["--keep-fraction", "0.5"], ["keeps a fraction of 0.5", "Kept"], ["ould"]),
        (
            ["--max-uncertainty", "0"],
            ["The filter keeps none of the examined samples"],
            ["Classes"],
        ),
        (["--max-uncertainty", "1"], ["40 delivered", "discarded: 0", "None."], ["ould"]),
        (["--max-uncertainty", "inf"], ["40 delivered", "scores up to none"], []),
    ],
)
def test_the_page_says_what_the_threshold_is(
    capsys: Captured, tmp_path: Path, arguments: list[str], words: list[str], absent: list[str]
) -> None:
    with served() as server:
        target = f"localhost:{server.server.port}"
        text = report(capsys, tmp_path, target, "--count", "40", *arguments)[1].text
    for word in words:
        assert word in text
    for word in absent:
        assert word not in text


def test_a_model_without_labels_gets_what_it_has(capsys: Captured, tmp_path: Path) -> None:
    bare = FakeModel(bundle=fake_bundle(resolution=16, heads=False))
    with served([bare]) as server:
        _, page = report(capsys, tmp_path, f"localhost:{server.server.port}", "--count", "10")
    assert len(page.pictures) == 1
    assert not any(title in page.text for title in ("Classes", "Uncertainty", "Keypoints", "Depth"))


def test_rare_is_not_never() -> None:
    assert [percent(share) for share in (0, 1e-6, 0.0005, 0.5, 1)] == [
        "0.0 %", "< 0.1 %", "0.1 %", "50.0 %", "100.0 %",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["--keep-fraction", "2"], 2, "keep_fraction 2.0"),
        (
            ["--start-index", str(2**64 - 10)],
            2,
            f"--start-index {2**64 - 10} and --count 256 go beyond",
        ),
        (["--model", "other"], 4, "'other' is not served"),
    ],
)
def test_a_report_that_cannot_be_made_writes_nothing(
    capsys: Captured, tmp_path: Path, target: str, arguments: list[str], code: int, word: str
) -> None:
    out = tmp_path / "report.html"
    assert main(["preview", "--target", target, "--out", str(out), *arguments]) == code
    assert word in capsys.readouterr().err
    assert not out.exists()


def test_a_missing_folder_is_told_before_anything_is_asked(
    capsys: Captured, tmp_path: Path, target: str, service: ScriptedService
) -> None:
    out = tmp_path / "missing" / "report.html"
    assert main(["preview", "--target", target, "--out", str(out)]) == 1
    assert str(out.parent) in capsys.readouterr().err
    assert service.queries == []
