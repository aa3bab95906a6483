"""Views: each sample says which object it shows, and from where, in every format."""

from __future__ import annotations

import ast
import csv
import json
import math
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest

from engines.fake import FakeOptions, fake_bundle
from labelmint import Client
from labelmint.latents import views
from tests.datasets.folders import contents, download, made, target_of
from tests.service.harness import FakeModel, RunningServer, served

CODES = 5
FORMATS = ("webdataset", "coco", "png", "hf")
FAR = 2**63 + 1  # beyond what float64 counts, and in the midst of an object
CAMERA = ("azimuth_deg", "elevation_deg", "distance", "focal")
BANK = FakeModel("bank", fake_bundle(resolution=16, view_codes=CODES))
SEVERAL = ("--model", "bank", "--views-per-object", "5")


@pytest.fixture(scope="module")
def bank_server() -> Iterator[RunningServer]:
    """A model with a bank, whose last camera is not known, and one without."""
    with served([BANK, FakeModel("plain")]) as running:
        yield running


def told(out: Path, form: str) -> dict[int, dict[str, Any]]:
    """Object, view and camera of each sample, by raw index, read as strictly as JSON is meant."""
    if form == "webdataset":
        entries = [
            (entry["index"], entry) for tar in sorted(out.glob("*.tar")) for entry in _members(tar)
        ]
    elif form == "coco":
        entries = [
            (image["id"], image)
            for image in _json((out / "annotations.json").read_bytes())["images"]
        ]
    elif form == "hf":
        rows = parquet.read_table(out / "data").to_pylist()
        entries = [(row["index"], row) for row in rows]
    else:
        with (out / "index.csv").open(newline="") as file:
            entries = [(int(row["index"]), _from_row(row)) for row in csv.DictReader(file)]
    fields = ("object", "view", "camera")
    return {index: {k: e[k] for k in fields if k in e} for index, e in entries}


def _members(tar: Path) -> list[dict[str, Any]]:
    with tarfile.open(tar) as opened:
        files = {m.name: opened.extractfile(m) for m in opened if m.name.endswith(".json")}
        return [_json(file.read()) for file in files.values() if file]


def _json(data: bytes) -> Any:
    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is no JSON")

    return json.loads(data, parse_constant=refuse)


def _from_row(row: dict[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {k: int(row[k]) for k in ("object", "view") if k in row}
    if set(CAMERA) <= row.keys():
        fields["camera"] = {name: float(row[name]) if row[name] else None for name in CAMERA}
    return fields


def camera_of(code: int) -> dict[str, float | None]:
    """What the fake bank says of a code."""
    if code == CODES - 1:
        return dict.fromkeys(CAMERA)
    return dict(zip(CAMERA, (10.0 * code, -5.0, 6.0, None), strict=True))


@pytest.mark.parametrize("form", FORMATS)
def test_every_view_of_an_object_has_its_number_code_and_camera(
    bank_server: RunningServer, tmp_path: Path, form: str
) -> None:
    out = made(
        bank_server, tmp_path / "d", "--format", form, *SEVERAL,
        "--start-index", str(FAR), "--count", "17",
    )  # fmt: skip
    found = told(out, form)
    assert sorted(found) == list(range(FAR, FAR + 17))
    for index, fields in found.items():
        code = index % CODES
        assert fields == {"object": index // CODES, "view": code, "camera": camera_of(code)}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("view", ["3", "random"])
def test_one_view_of_each_object_has_code_and_camera(
    bank_server: RunningServer, tmp_path: Path, form: str, view: str
) -> None:
    options = ("--model", "bank", "--format", form, "--seed", "7", "--view", view, "--count", "20")
    found = told(made(bank_server, tmp_path / "d", *options), form)
    codes = [3] * 20 if view == "3" else views(7, range(20), CODES).tolist()
    assert len(set(codes)) == (1 if view == "3" else CODES)
    assert [found[n] for n in range(20)] == [{"view": c, "camera": camera_of(c)} for c in codes]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "options", [("--model", "plain"), ("--model", "bank", "--view", "drawn")], ids=["plain", "bank"]
)
def test_drawn_views_have_numbers_and_no_camera(
    bank_server: RunningServer, tmp_path: Path, form: str, options: tuple[str, ...]
) -> None:
    made(
        bank_server, tmp_path / "d", "--format", form, *options,
        "--views-per-object", "3", "--count", "7",
    )  # fmt: skip
    assert told(tmp_path / "d", form) == {n: {"object": n // 3, "view": n % 3} for n in range(7)}


def test_without_views_no_file_speaks_of_them(bank_server: RunningServer, tmp_path: Path) -> None:
    """What was written before there were views is written still."""
    outs = {
        form: made(
            bank_server, tmp_path / form, "--model", "bank", "--format", form, "--count", "4"
        )
        for form in FORMATS
    }
    assert all(told(out, form) == {n: {} for n in range(4)} for form, out in outs.items())
    (entry, *_) = _members(outs["webdataset"] / "samples-000000.tar")
    assert list(entry) == ["index", "uncertainty", "keypoints"]
    image = _json((outs["coco"] / "annotations.json").read_bytes())["images"][0]
    assert list(image) == ["id", "file_name", "width", "height", "license", "uncertainty"]
    head = (outs["png"] / "index.csv").read_text().splitlines()[0]
    assert head == "index,uncertainty,image,mask,depth"
    for out in outs.values():
        assert "## Views" not in (out / "README.md").read_text()
        assert "camera" not in (out / "card.json").read_text()


def test_a_filter_leaves_each_sample_what_it_was(
    bank_server: RunningServer, tmp_path: Path
) -> None:
    ranked = (*SEVERAL, "--filter", "top-fraction", "--fraction", "0.4", "--end-index", "60")
    limited = (*SEVERAL, "--max-uncertainty", "0.4", "--end-index", "60")
    for form in FORMATS:
        whole = told(
            made(bank_server, tmp_path / form, "--format", form, *SEVERAL, "--count", "60"), form
        )
        for name, options in (("ranked", ranked), ("limited", limited)):
            out = made(bank_server, tmp_path / f"{form}-{name}", "--format", form, *options)
            found = told(out, form)
            assert 10 < len(found) < 40
            assert all(whole[index] == fields for index, fields in found.items())


@pytest.mark.parametrize("form", FORMATS)
def test_failures_change_no_byte_of_views(
    bank_server: RunningServer, tmp_path: Path, form: str
) -> None:
    options = ("--format", form, "--model", "bank", "--view", "random", "--count", "40")
    whole = made(bank_server, tmp_path / "whole", *options)
    out, failures = tmp_path / "cut", 0
    fails_soon = FakeModel("bank", BANK.bundle, FakeOptions(fail_after_runs=2))
    while not (out / "card.json").exists():
        with served([fails_soon]) as fails:
            failures += download(fails, out, *options).code
        assert failures < 20
    assert failures > 1
    assert contents(out) == contents(whole)


@pytest.mark.parametrize("form", FORMATS)
def test_shards_hold_whole_objects_and_say_what_the_unsharded_set_says(
    bank_server: RunningServer, tmp_path: Path, form: str
) -> None:
    options = ("--format", form, *SEVERAL, "--start-index", "2", "--end-index", "48")
    whole = told(made(bank_server, tmp_path / "whole", *options), form)
    parts = [
        told(
            made(
                bank_server, tmp_path / str(shard), *options,
                "--num-shards", "2", "--shard-index", str(shard),
            ),
            form,
        )
        for shard in range(2)
    ]  # fmt: skip
    assert parts[0] | parts[1] == whole and len(parts[0]) + len(parts[1]) == len(whole)
    assert [{f["object"] % 2 for f in part.values()} for part in parts] == [{0}, {1}]


def test_the_card_explains_the_fields_that_are_there(
    bank_server: RunningServer, tmp_path: Path
) -> None:
    several = made(bank_server, tmp_path / "s", *SEVERAL, "--count", "5")
    drawn = made(bank_server, tmp_path / "d", *SEVERAL, "--view", "drawn", "--count", "5")
    said, less = ((out / "README.md").read_text() for out in (several, drawn))
    assert "the raw index div 5" in said and "azimuth" in said
    assert "the raw index div 5" in less and "azimuth" not in less
    assert json.loads((several / "card.json").read_text())["outputs"][-2:] == ["view", "camera"]


def test_the_stream_tells_the_same(bank_server: RunningServer, tmp_path: Path) -> None:
    found = told(
        made(bank_server, tmp_path / "d", "--seed", "3", *SEVERAL, "--count", "10"), "webdataset"
    )
    with Client(target_of(bank_server)) as client:
        batch = client.generate(model="bank", seed=3, count=10, views_per_object=5)
    assert batch.cameras is not None and batch.views is not None
    rows = [[math.nan if v is None else v for v in found[n]["camera"].values()] for n in range(10)]
    np.testing.assert_array_equal(np.array(rows, np.float32), batch.cameras)
    assert [found[n]["view"] for n in range(10)] == batch.views.tolist()


def test_the_documented_matrix_is_that_of_the_cameras_we_render_with() -> None:
    import torch

    from nets.textured import Cameras, camera_axes

    page = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text("utf-8")
    (snippet,) = re.findall(r"(?ms)^```python\n(import numpy as np\n+def camera.*?)^```", page)
    scope: dict[str, Any] = {}
    exec(compile(ast.parse(snippet), "docs/datasets.md", "exec"), scope)
    random = np.random.default_rng(5)
    points = random.normal(size=(4, 3))
    for azimuth, elevation, distance in random.uniform((-180, -90, 1), (180, 90, 9), (20, 3)):
        matrix = scope["camera_to_world"](azimuth, elevation, distance)
        seen = (np.c_[points, np.ones(4)] @ np.linalg.inv(matrix).T)[:, :3]
        angles = np.radians([azimuth, elevation])
        cameras = Cameras(*(torch.tensor([v]) for v in (*angles, distance, 1.0)))
        expected = camera_axes(torch.from_numpy(points)[None], cameras)[0]
        np.testing.assert_allclose(seen, expected.numpy(), atol=1e-9)
