"""Sets of views from a downloaded folder are those of the service, as far as they are in it."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from checkpoints import inverse_graphics_from_file
from nets.inverse_graphics import InverseGraphicsConfig
from tests.datasets.folders import contents, made, target_of
from tests.service.harness import RunningServer
from tests.training.downloads import ASKED, FORMATS, WHOLE, refusal
from tests.training.ellipsoids import ellipsoid, write_network
from training.__main__ import main
from training.errors import TrainingError
from training.inverse_graphics.command import radius_of_sets
from training.inverse_graphics.config import InverseGraphicsTrainConfig
from training.inverse_graphics.downloaded_sets import sets_from_folder, sets_from_source
from training.inverse_graphics.object_sets import (
    ObjectSets,
    SetsOrigin,
    cameras_of_bank,
    codes_of_objects,
    sets_from_service,
)
from training.inverse_graphics.run import recipe_of, tensors_of
from training.inverse_graphics.train import InverseGraphicsTraining
from training.resume import state_path, write_state


def assert_same(
    found: tuple[ObjectSets, SetsOrigin], expected: tuple[ObjectSets, SetsOrigin]
) -> None:
    for name in ("images", "silhouettes", "codes", "keypoints"):
        ours, theirs = (getattr(sets, name) for sets, _ in (found, expected))
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    assert (found[0].numbers, found[0].stream_seed) == (expected[0].numbers, 4)
    cameras = [cameras_of_bank(origin, 6.0, 2.4) for _, origin in (found, expected)]
    for name, angle in vars(cameras[0]).items():
        torch.testing.assert_close(angle, vars(cameras[1])[name], rtol=0, atol=0, equal_nan=True)
    for name in ("bundle_id", "licences", "classes", "keypoints", "image_size"):
        assert getattr(found[1], name) == getattr(expected[1], name)


@pytest.mark.parametrize("form", FORMATS)
def test_sets_are_those_of_the_service(
    bank_server: RunningServer, folders: Path, form: str
) -> None:
    for asked in (
        ASKED,
        replace(ASKED, views=1),
        replace(ASKED, objects=4, views=3, extent=12, background=("part 1", "part 2")),
    ):
        expected = sets_from_service(target_of(bank_server), asked)
        assert_same(sets_from_source(str(folders / form), asked), expected)
    everything, _ = sets_from_folder(folders / form, replace(ASKED, objects=None))
    assert len(everything) == 6


def test_shards_and_jpegs_are_sets_of_what_they_hold(
    bank_server: RunningServer, folders: Path, tmp_path: Path
) -> None:
    asked = replace(ASKED, objects=None)
    whole, _ = sets_from_folder(folders / "png", asked)
    second = ("--num-shards", "2", "--shard-index", "1", "--samples-per-shard", "7")
    shard, _ = sets_from_folder(made(bank_server, tmp_path / "s", *WHOLE, *second), asked)
    assert shard.numbers == (1, 3, 5) and torch.equal(shard.images, whole.images[1::2])
    for form in ("png", "webdataset"):
        options = (*WHOLE, "--format", form, "--image-codec", "jpeg", "--jpeg-quality", "100")
        lossy, _ = sets_from_folder(made(bank_server, tmp_path / form, *options), asked)
        assert torch.equal(lossy.silhouettes, whole.silhouettes)
        difference = (lossy.images.float() - whole.images.float()).abs()
        assert 0 < difference.mean() < 4


def trained(source: object, out: Path, *options: object) -> Result:
    line = (
        "inverse-graphics", "--source", source, "--out", out, "--objects", 6, "--views", 3,
        "--extent", 16, "--texture", 4, "--hidden", 8, "--batch", 2, "--resolution", 16,
        "--steps", 2, "--every", 2, "--seed", 4, *options,
    )  # fmt: skip
    return CliRunner().invoke(main, [str(word) for word in line])


@pytest.mark.long
def test_a_training_has_the_bytes_of_one_from_the_service_and_goes_on_likewise(
    bank_server: RunningServer, folders: Path, tmp_path: Path
) -> None:
    """Goes on with the same sets, wherever they are by now, and with no others."""
    outs = {name: tmp_path / name / "n.safetensors" for name in ("service", "png", "cut")}
    assert trained(target_of(bank_server), outs["service"]).exit_code == 0
    assert trained(folders / "png", outs["png"]).exit_code == 0
    whole = contents(tmp_path / "service")
    assert len(whole) == 4 and contents(tmp_path / "png") == whole
    told = inverse_graphics_from_file(outs["png"])[1].provenance
    ends = {"stream_seed": 4, "first_object": 0, "last_object": 5}
    assert isinstance(told, dict) and ends.items() <= told.items()

    sets, origin = sets_from_folder(folders / "png", replace(ASKED, views=3))
    bank = cameras_of_bank(origin, 6.0, 2.4)
    network = InverseGraphicsConfig(16, 8, 4, radius_of_sets(sets, bank))
    config = InverseGraphicsTrainConfig(network, steps=2, batch=2, resolution=16, seed=4)
    training = InverseGraphicsTraining(config, sets, bank, torch.device("cpu"))
    training.advance()
    outs["cut"].parent.mkdir()
    write_state(state_path(outs["cut"]), tensors_of(training), recipe_of(training))
    others = ("--start-index", "5", *WHOLE)
    other = made(bank_server, tmp_path / "other", "--format", "png", *others)
    refused = trained(other, outs["cut"], "--resume")
    assert isinstance(refused.exception, TrainingError)
    assert "was made with other images of objects (--source," in str(refused.exception)
    assert trained(folders / "tars", outs["cut"], "--resume").exit_code == 0
    assert contents(tmp_path / "cut") == whole


def test_shapes_of_a_folder_are_those_of_the_service(
    bank_server: RunningServer, tmp_path: Path
) -> None:
    network = write_network(tmp_path / "i.safetensors", ellipsoid())
    folder = made(bank_server, tmp_path / "d", "--format", "png", *WHOLE[:2], "--count", "5")
    for name, source in {"s": target_of(bank_server), "d": str(folder)}.items():
        line = [
            "shapes", "--network", str(network), "--out", str(tmp_path / "out" / name),
            "--source", source, "--objects", "1", "--views", "2", "--resolution", "8",
        ]  # fmt: skip
        ran = CliRunner().invoke(main, line)
        assert ran.exit_code == 0 and "wrote 1 of 1 shapes" in ran.output, ran.output
        assert CliRunner().invoke(main, [*line, "--seed", "3"]).exit_code == (
            2 if name == "d" else 1
        )
    assert CliRunner().invoke(main, [*line, "--seed", "3"]).exit_code == 2
    written = [contents(tmp_path / "out" / name) for name in ("s", "d")]
    reports = [json.loads(files.pop("report.json"))["objects"] for files in written]
    assert written[0] == written[1] and reports[0] == reports[1]


LIMITED = ("--max-uncertainty", "0.8")


def test_sets_that_a_filter_cut_are_completed_from_what_is_there(
    bank_server: RunningServer, tmp_path: Path
) -> None:
    """As evenly in what each object has as whole ones have them."""
    options = (*WHOLE[:4], "--end-index", "60", "--format", "png")
    out = made(bank_server, tmp_path / "d", *options, *LIMITED)
    with (out / "index.csv").open() as file:
        rows = [(int(row["object"]), int(row["view"])) for row in csv.DictReader(file)]
    own = {o: [v for n, v in rows if n == o and v < 4] for o in sorted({o for o, _ in rows})}
    sizes = list(map(len, own.values()))
    assert len(set(sizes)) > 1 and min(sizes) > 0
    asked = replace(ASKED, objects=None, views=min(sizes))
    sets, _ = sets_from_folder(out, asked)
    assert sets.numbers == tuple(own)
    whole = codes_of_objects(len(own), min(sizes), 4, asked.seed).tolist()
    for codes, there, as_whole in zip(sets.codes.tolist(), own.values(), whole, strict=True):
        assert sorted(set(codes)) == codes and set(codes) <= set(there)
        assert len(there) < 4 or codes == as_whole
    first = next(number for number, there in own.items() if len(there) < 4)
    lacks = ", ".join(str(code) for code in range(4) if code not in own[first])
    said = refusal(out, replace(asked, views=None))
    assert f"object {first} lacks view" in said and f"{lacks}; give --views {min(sizes)}," in said
    assert "with --filter-sets" in said
    whole_sets = made(bank_server, tmp_path / "w", *options, *LIMITED, "--filter-sets")
    assert len(sets_from_folder(whole_sets, replace(asked, views=None))[0]) == sizes.count(4)


def test_ranges_and_ranks_that_cut_an_object_are_told(
    bank_server: RunningServer, tmp_path: Path
) -> None:
    asked = replace(ASKED, objects=None)
    ranged = made(bank_server, tmp_path / "r", *WHOLE[:4], "--count", "12", "--format", "png")
    assert "object 2 lacks views 2, 3; give --views 2, which every object has, or download" in (
        refusal(ranged, asked)
    )
    assert "--count that are multiples of 5" in refusal(ranged, asked)
    assert len(sets_from_folder(ranged, replace(asked, objects=2))[0]) == 2
    one = made(bank_server, tmp_path / "o", *WHOLE[:4], "--count", "3", "--format", "png")
    assert "object 0 lacks views 3, 4; give --views 3" in refusal(one, asked)
    ranks = ("--filter", "top-fraction", "--fraction", "0.5", "--end-index", "30")
    ranked = made(bank_server, tmp_path / "f", *WHOLE[:4], *ranks, "--format", "png")
    assert "--filter-sets in place of --filter" in refusal(ranked, asked)
