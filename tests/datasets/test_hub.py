"""Hugging Face `datasets` opens every format, offline, with a row for each sample."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as parquet
import pytest

from labelmint.datasets.request import FORMATS
from tests.datasets.folders import contents, made
from tests.datasets.test_formats import FAR, filled, streamed
from tests.service.harness import RunningServer

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # datasets' open files


def loaded(folder: Path, **options: Any) -> Any:
    """The split `train`; its cache is a folder of the test's own."""
    cache = folder.with_name(f"{folder.name}-cache")
    rows = datasets.load_dataset(str(folder), split="train", cache_dir=str(cache), **options)
    gc.collect()
    return rows


def test_parquet_files_open_with_every_output_exact(server: RunningServer, tmp_path: Path) -> None:
    options = ("--format", "hf", "--seed", "5", "--count", "25", "--samples-per-shard", "10")
    out = made(server, tmp_path / "d", *options)
    assert sorted(path.name for path in (out / "data").iterdir()) == [
        f"train-{n:06d}.parquet" for n in range(3)
    ]
    rows, batch = loaded(out), streamed(server, 25)
    assert rows["index"][:] == list(range(25))
    assert str(rows.features["depth"]).count("float16") == 1  # numpy format makes float32 of it
    for n, row in enumerate(rows):
        assert np.array_equal(np.asarray(row["image"]), filled(batch.images)[n])
        assert np.array_equal(np.asarray(row["mask"]), filled(batch.masks)[n])
    arrays = rows.with_format("numpy")
    for name, values in {
        "keypoints": batch.keypoints, "depth": batch.depth, "uncertainty": batch.uncertainty
    }.items():  # fmt: skip
        found = np.asarray(arrays[name][:])
        assert np.array_equal(found, filled(values)), name


@pytest.mark.parametrize("form", FORMATS)
def test_each_format_has_a_row_for_each_sample(
    server: RunningServer, tmp_path: Path, form: str
) -> None:
    out = made(server, tmp_path / "d", "--format", form, "--seed", "5", "--count", "6")
    rows, batch = loaded(out), streamed(server, 6)
    assert len(rows) == 6
    names = {"webdataset": ("png", "mask.png")}.get(form, ("image", "mask"))
    for n, row in enumerate(rows):
        assert np.array_equal(np.asarray(row[names[0]]), filled(batch.images)[n])
        if form not in ("coco", "yolo-seg", "yolo-pose"):
            assert np.array_equal(np.asarray(row[names[1]]), filled(batch.masks)[n])


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "webdataset"])
def test_far_indices_open_too(server: RunningServer, tmp_path: Path, form: str) -> None:
    out = made(server, tmp_path / "d", "--format", form, "--start-index", str(FAR), "--count", "2")
    row = loaded(out)[1]
    assert str(FAR + 1) in (str(row.get("index")), row.get("key"), row.get("__key__"))


def test_an_empty_data_set_has_a_file_with_its_columns(
    server: RunningServer, tmp_path: Path
) -> None:
    options = ("--format", "hf", "--end-index", "3", "--max-uncertainty", "0")
    table = parquet.read_table(made(server, tmp_path / "d", *options) / "data")
    assert table.num_rows == 0 and "keypoints" in table.column_names


def test_shards_share_a_folder(server: RunningServer, tmp_path: Path) -> None:
    for n in range(2):
        shard = ("--num-shards", "2", "--shard-index", str(n))
        out = made(server, tmp_path / str(n), "--format", "hf", "--count", "7", *shard)
        for name, data in contents(out).items():
            path = tmp_path / "all" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    assert sorted(loaded(tmp_path / "all")["index"][:]) == list(range(7))
