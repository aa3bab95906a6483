"""Formats: stock readers get the samples back exactly as the stream delivers them."""

from __future__ import annotations

import csv
import gc
import io
import json
import tarfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import webdataset
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from labelmint import Batch, Client
from tests.datasets.folders import download, keys, made, target_of
from tests.service.harness import RunningServer

FAR = 2**63 + 12345  # indices are 64 bits wide, whatever numbers JSON readers like


def streamed(server: RunningServer, count: int, start: int = 0) -> Batch:
    with Client(target_of(server)) as client:
        return client.generate(seed=5, start_index=start, count=count)


def filled(array: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    assert array is not None
    return array


def read_tars(folder: Path) -> list[dict[str, Any]]:
    tars = sorted(map(str, folder.glob("*.tar")))
    masks = webdataset.handle_extension("mask.png", lambda data: np.asarray(_picture(data)))
    pipeline = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset leaves its files open
        samples = list(pipeline.decode(masks, "rgb8"))
        del pipeline
        gc.collect()
    return samples


def _picture(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_webdataset_reads_the_shards(server: RunningServer, tmp_path: Path) -> None:
    made(server, tmp_path / "d", "--seed", "5", "--count", "25", "--samples-per-shard", "10")
    tars = sorted(path.name for path in (tmp_path / "d").glob("*.tar"))
    assert tars == ["samples-000000.tar", "samples-000001.tar", "samples-000002.tar"]
    batch, read = streamed(server, 25), read_tars(tmp_path / "d")
    assert [sample["__key__"] for sample in read] == [f"{n:012d}" for n in range(25)]
    for n, sample in enumerate(read):
        assert np.array_equal(sample["png"], filled(batch.images)[n])
        assert np.array_equal(sample["mask.png"], filled(batch.masks)[n])
        assert np.array_equal(sample["depth.npy"], filled(batch.depth)[n])
        assert sample["depth.npy"].dtype == np.float16
        assert sample["json"]["index"] == n
        assert np.float32(sample["json"]["uncertainty"]) == filled(batch.uncertainty)[n]
        points = np.array(sample["json"]["keypoints"], np.float32)
        assert np.array_equal(points, filled(batch.keypoints)[n])


def test_tars_tell_nothing_of_when_and_where(server: RunningServer, tmp_path: Path) -> None:
    made(server, tmp_path / "d", "--count", "3")
    with tarfile.open(tmp_path / "d" / "samples-000000.tar") as tar:
        facts = {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in tar.getmembers()}
        assert len(tar.getmembers()) == 12
    assert facts == {(0, 0, 0, "", "", 0o644)}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
def test_coco_reads_the_annotations(server: RunningServer, tmp_path: Path) -> None:
    made(server, tmp_path / "d", "--format", "coco", "--seed", "5", "--count", "25")
    coco, batch = COCO(tmp_path / "d" / "annotations.json"), streamed(server, 25)
    assert coco.getImgIds() == list(range(25))
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == [
        "part 1", "part 2", "part 3", "object",
    ]  # fmt: skip
    numbers = []
    for n in range(25):
        image = coco.loadImgs(n)[0]
        with Image.open(tmp_path / "d" / "images" / image["file_name"]) as picture:
            assert np.array_equal(np.asarray(picture), filled(batch.images)[n])
        rebuilt = np.zeros((16, 16), np.uint8)
        parts = coco.loadAnns(coco.getAnnIds(n, catIds=[1, 2, 3]))
        for annotation in parts:
            inside = coco.annToMask(annotation).astype(bool)
            assert not rebuilt[inside].any()
            rebuilt[inside] = annotation["category_id"]
            rows, columns = np.nonzero(inside)
            left, top = int(columns.min()), int(rows.min())
            box = [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top]
            assert (annotation["area"], annotation["bbox"]) == (inside.sum(), box)
        assert np.array_equal(rebuilt, filled(batch.masks)[n])
        numbers += [annotation["id"] for annotation in coco.loadAnns(coco.getAnnIds(n))]
        for whole in coco.loadAnns(coco.getAnnIds(n, catIds=[4])):
            _check_keypoints(whole, filled(batch.keypoints)[n])
            assert np.array_equal(coco.annToMask(whole) > 0, rebuilt > 0)
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    whole_object: Any = coco.loadCats(4)[0]
    assert whole_object["skeleton"] == [[1, 3], [2, 3]]


def _check_keypoints(annotation: Any, points: npt.NDArray[np.float32]) -> None:
    found = np.array(annotation["keypoints"]).reshape(-1, 3)
    seen = points[:, 2] >= 0.2
    assert annotation["num_keypoints"] == seen.sum() > 0
    assert found[:, 2].tolist() == [2 if each else 0 for each in seen]
    # COCO counts from the first pixel's center, which is at 0.5 here.
    assert np.allclose(found[seen, :2], points[seen, :2] - 0.5, atol=1e-3)
    assert not found[~seen].any()


def test_coco_evaluates_labels_against_themselves_as_perfect(
    server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(server, tmp_path / "d", "--format", "coco", "--count", "12")
    truth = COCO(tmp_path / "d" / "annotations.json")
    found = [{**a, "score": 1.0} for a in truth.loadAnns(truth.getAnnIds(catIds=[1, 2, 3]))]
    evaluation = COCOeval(truth, truth.loadRes(found), "segm")
    evaluation.params.catIds = [1, 2, 3]
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1)


def test_folders_hold_every_sample(server: RunningServer, tmp_path: Path) -> None:
    out = made(server, tmp_path / "d", "--format", "png", "--seed", "5", "--count", "25")
    batch = streamed(server, 25)
    with (out / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    points = [json.loads(line) for line in (out / "keypoints.jsonl").read_text().splitlines()]
    assert len(rows) == len(points) == len(keys(out)) == 25
    for n, (row, line) in enumerate(zip(rows, points, strict=True)):
        assert int(row["index"]) == line["index"] == n
        assert np.float32(row["uncertainty"]) == filled(batch.uncertainty)[n]
        with Image.open(out / row["image"]) as image, Image.open(out / row["mask"]) as mask:
            assert np.array_equal(np.asarray(image), filled(batch.images)[n])
            assert np.array_equal(np.asarray(mask), filled(batch.masks)[n])
            assert mask.mode == "P"
            colours = np.asarray(mask.convert("RGB")).reshape(-1, 3)
        assert {tuple(c) for c in colours.tolist()} <= {
            (0, 0, 0), (0xE6, 0x19, 0x4B), (0x3C, 0xB4, 0x4B), (0x43, 0x63, 0xD8),
        }  # fmt: skip
        assert np.array_equal(np.load(out / row["depth"]), filled(batch.depth)[n])
        found = np.array(line["keypoints"], np.float32)
        assert np.array_equal(found, filled(batch.keypoints)[n])


@pytest.mark.parametrize("form", ["webdataset", "coco", "png"])
def test_far_indices_keep_all_their_digits(
    server: RunningServer, tmp_path: Path, form: str
) -> None:
    out = made(server, tmp_path / "d", "--format", form, "--start-index", str(FAR), "--count", "2")
    if form == "webdataset":
        assert [sample["json"]["index"] for sample in read_tars(out)] == [FAR, FAR + 1]
    else:
        assert keys(out) == [FAR, FAR + 1]
    if form == "coco":
        assert COCO(out / "annotations.json").getImgIds() == [FAR, FAR + 1]


@pytest.mark.parametrize("form", ["webdataset", "png"])
def test_a_model_without_heads_gives_images_alone(
    bare_server: RunningServer, tmp_path: Path, form: str
) -> None:
    out = made(bare_server, tmp_path / "d", "--format", form, "--count", "3")
    if form == "webdataset":
        assert [
            set(sample) - {"__key__", "__url__", "__local_path__"} for sample in read_tars(out)
        ] == ([{"png", "json"}] * 3)
    else:
        assert {path.name for path in out.iterdir()} == {
            "README.md", "card.json", "images", "index.csv", "metadata.jsonl",
        }  # fmt: skip
        assert (out / "index.csv").read_text().startswith("index,uncertainty,image\n0,,images/")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--format", "coco", "--count", "3"], "neither masks nor keypoints"),
        (["--filter", "top-fraction", "--end-index", "9"], "no uncertainty to filter by"),
        (["--max-uncertainty", "0.5", "--end-index", "9"], "no uncertainty to filter by"),
    ],
)
def test_what_a_model_cannot_give_is_refused_in_a_line(
    bare_server: RunningServer, tmp_path: Path, options: list[str], words: str
) -> None:
    ran = download(bare_server, tmp_path / "d", *options)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert words in ran.err
    made(bare_server, tmp_path / "d", "--count", "2")  # and leaves nothing in the way


def test_jpeg_is_smaller_and_close(server: RunningServer, tmp_path: Path) -> None:
    options = ("--format", "coco", "--seed", "5", "--count", "3", "--image-codec", "jpeg")
    out = made(server, tmp_path / "d", *options, "--jpeg-quality", "90")
    batch = streamed(server, 3)
    for n, path in enumerate(sorted((out / "images").iterdir())):
        with Image.open(path) as picture:
            assert picture.format == "JPEG"
            error = np.asarray(picture, np.float32) - filled(batch.images)[n]
        assert 0 < np.abs(error).mean() < 20  # the fake's slopes wrap around: hard for JPEG
