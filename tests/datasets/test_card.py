"""Card: says what made the data set, in a form that people, machines and the hub read."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engines.fake import fake_bundle
from labelmint.datasets.card import card_from_state, readme_from_card
from labelmint.datasets.folder import DownloadState
from labelmint.datasets.request import FORMATS, checked_request
from labelmint.model import Certificate, CertifiedThreshold, LabelClass, model_from_proto
from tests.client.scripted_service import MODEL
from tests.datasets.folders import contents, made
from tests.service.harness import RunningServer


def front_matter(readme: str) -> dict[str, Any]:
    _, head, _ = readme.split("---\n", 2)
    fields: dict[str, Any] = yaml.safe_load(head)
    return fields


def test_the_card_has_what_it_takes_to_make_the_same_again(
    server: RunningServer, tmp_path: Path
) -> None:
    options = ("--format", "png", "--count", "20", "--seed", "4", "--keep-fraction", "0.5")
    out = made(server, tmp_path / "d", *options)
    card = json.loads((out / "card.json").read_text())
    assert card["bundle_id"] == fake_bundle(resolution=16).manifest.bundle_id
    assert card["licences"] == ["CC0-1.0"]
    assert card["max_uncertainty"] == pytest.approx(0.5)
    assert card["samples"]["kept"] == 20 < card["samples"]["examined"]
    assert card["keypoints"] == ["left", "right", "top"]
    pixels = np.zeros(256, int)
    for path in (out / "masks").iterdir():
        with Image.open(path) as mask:
            pixels += np.bincount(np.asarray(mask).ravel(), minlength=256)
    assert [label["pixels"] for label in card["classes"]] == pixels[:4].tolist()
    again = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in card["request"].items()
        if value is not None and name != "release"
    ]
    assert contents(made(server, tmp_path / "again", *again)) == contents(out)


def test_the_hub_reads_the_front_matter(server: RunningServer, tmp_path: Path) -> None:
    out = made(server, tmp_path / "d", "--count", "2")
    fields = front_matter((out / "README.md").read_text())
    assert fields["license"] == ["cc0-1.0"]
    assert fields["task_categories"] == [
        "image-segmentation", "keypoint-detection", "depth-estimation",
    ]  # fmt: skip


@given(st.text(), st.sampled_from(FORMATS))
def test_no_name_breaks_the_card(name: str, form: str) -> None:
    model = dataclasses.replace(
        model_from_proto(MODEL),
        name=name,
        licences=(name,),
        classes=(LabelClass(0, name, (1, 2, 3)),),
        keypoints=(name,),
        score_source=name,
        score_measure=name,
    )
    request = checked_request(format=form, count=1)
    card = card_from_state(request, model, DownloadState(name, "sha256:b", None, 1, kept=1))
    assert json.loads(json.dumps(card)) == card
    readme = readme_from_card(card, request)
    assert front_matter(readme)["license"] == [name.lower()]
    rows = [line for line in readme.splitlines() if line.startswith("| 0 |")]
    assert len(rows) == 2
    assert readme.replace("\n", "").isprintable(), "a terminal obeys none of it"


def test_a_name_is_neither_a_link_nor_markup_in_the_card() -> None:
    name = "[a](http://b) ![c](d) `e` <img src=f> \\| g"
    model = dataclasses.replace(model_from_proto(MODEL), name=name, keypoints=(name,))
    request = checked_request(format="png", count=1)
    card = card_from_state(request, model, DownloadState(name, "sha256:b", None, 1, kept=1))
    shown = r"\[a\](http://b) !\[c\](d) \`e\` &lt;img src=f> \\\| g"
    readme = readme_from_card(card, request)
    assert f"| 0 | {shown} |" in readme and f"# {shown}: 1 labeled samples" in readme


CERTIFIED = dataclasses.replace(
    model_from_proto(MODEL),
    truncation_psi=0.7,
    truncation_cutoff=3,
    certificate=Certificate(
        0.95, 200, 0.7, 3,
        (CertifiedThreshold(None, 0.0541, 200), CertifiedThreshold(0.125, 0.0281, 150)),
    ),
)  # fmt: skip


def certificate_words(threshold: float | None, **options: Any) -> tuple[Any, str]:
    """What card and README say of the certificate of a request with this threshold."""
    request = checked_request(format="png", end_index=8, **options)
    state = DownloadState("m", "sha256:b", threshold, 1, kept=1)
    card = card_from_state(request, CERTIFIED, state)
    assert json.loads(json.dumps(card)) == card
    lines = readme_from_card(card, request).splitlines()
    (row,) = [line for line in lines if line.startswith("| certificate |")]
    return card["certificate"]["wrong_pixels_at_most"], row


def test_the_card_states_the_certificate_of_the_threshold_that_was_used() -> None:
    bound, row = certificate_words(None)
    assert bound == 0.0541 and "at most 5.5%" in row and "200 other samples" in row, "rounded up"
    bound, row = certificate_words(float(np.float32(0.125)), keep_fraction=0.75)
    assert bound == 0.0281 and "at most 2.9%" in row and "of which 150 are kept" in row
    bound, row = certificate_words(0.125, max_uncertainty=0.125)
    assert bound == 0.0281


@pytest.mark.parametrize(
    ("threshold", "options", "reason"),
    [
        (0.1, {"max_uncertainty": 0.1}, "threshold was not reviewed; no limit, 0.125 were"),
        (None, {"truncation_psi": 0.5}, "truncation psi 0.7"),
        (None, {"class_index": 2}, "drawn classes"),
        (None, {"views_per_object": 2}, "one view per object"),
        (None, {"where": "share('a') > 0.1"}, "--where"),
        (None, {"filter": "top-fraction"}, "--filter top-fraction"),
        (None, {"balance": {"a": 0.5}}, "--balance"),
        (None, {"balance": "classes"}, "--balance"),
        (None, {"proposal": "rare"}, "--proposal"),
        (None, {"keep_by": ["a"], "keep_fraction": 0.75}, "--keep-by"),
    ],
)
def test_the_card_says_why_a_certificate_says_nothing_of_its_samples(
    threshold: float | None, options: dict[str, Any], reason: str
) -> None:
    bound, row = certificate_words(threshold, **options)
    assert bound is None and "none for these samples" in row and reason in row
