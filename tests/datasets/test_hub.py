"""Hugging Face `datasets` opens every format, offline, with a row for each sample."""

from __future__ import annotations

import gc
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest

from labelmint.datasets.request import FORMATS
from tests.datasets.folders import contents, made, target_of
from tests.datasets.test_formats import FAR, filled, streamed
from tests.service.harness import RunningServer

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # datasets' open files


def loaded(folder: Path, **options: Any) -> Any:
    """The split `train`; its cache is a folder of the test's own."""
    import datasets  # takes a second, and every worker imports this file

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
        if form in ("webdataset", "png", "hf", "fiftyone"):
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


def rows_of(server: RunningServer, **options: Any) -> Any:
    from labelmint.hub import iterable_dataset

    return iterable_dataset(target_of(server), seed=5, samples_per_shard=10, **options)


def test_an_iterable_dataset_has_the_samples_of_the_stream(server: RunningServer) -> None:
    rows, batch = list(rows_of(server, end_index=25)), streamed(server, 25)
    assert [row["index"] for row in rows] == list(range(25))
    for n, row in enumerate(rows):
        for name, values in {
            "image": batch.images, "mask": batch.masks, "keypoints": batch.keypoints,
            "depth": batch.depth, "uncertainty": batch.uncertainty,
        }.items():  # fmt: skip
            assert row[name].dtype == filled(values).dtype
            assert np.array_equal(row[name], filled(values)[n])
    row = next(iter(rows_of(server, end_index=25).with_format("torch")))
    assert np.array_equal(row["mask"], rows[0]["mask"])


def test_an_iterable_dataset_is_split_and_resumed(server: RunningServer) -> None:
    from datasets.distributed import split_dataset_by_node

    options: Any = {
        "start_index": 3,
        "end_index": 64,
        "views_per_object": 3,
        "max_uncertainty": 0.6,
    }
    whole = [row["index"] for row in rows_of(server, **options)]
    assert 20 < len(whole) < 61 and whole == sorted(set(whole))
    parts = []
    for rank in range(2):
        part = split_dataset_by_node(rows_of(server, **options), rank, 2)
        parts += [row["index"] for row in part]
    assert sorted(parts) == whole
    for stop in (1, 7, 20):
        rows = rows_of(server, **options)
        before = [row["index"] for row in itertools.islice(rows, stop)]
        state = rows.state_dict()
        again = rows_of(server, **options)
        again.load_state_dict(state)
        assert before + [row["index"] for row in again] == whole


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "give an end"),
        ({"end_index": 9, "count": 3}, "option 'count' is for a whole stream"),
        ({"end_index": 2**40}, "raise samples_per_shard"),
    ],
)
def test_what_has_no_shards_is_refused(
    server: RunningServer, options: dict[str, int], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        rows_of(server, **options)
