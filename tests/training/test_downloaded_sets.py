"""Sets of views from a downloaded folder are those of the service, and what a folder lacks is one
line that says what to do."""

import csv
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from checkpoints import inverse_graphics_from_file
from engines.fake import fake_bundle
from nets.inverse_graphics import InverseGraphicsConfig
from tests.datasets.folders import contents, made, target_of
from tests.service.harness import FakeModel, RunningServer, served
from tests.training.ellipsoids import ellipsoid, write_network
from training.__main__ import main
from training.errors import TrainingError
from training.shapes.config import InverseFit
from training.shapes.downloaded_sets import sets_from_folder, sets_from_source
from training.shapes.fit import InverseTraining
from training.shapes.inverse_graphics_command import radius_of_sets
from training.shapes.object_sets import (
    ObjectSets,
    Origin,
    SetsConfig,
    cameras_of_bank,
    codes_of_objects,
    sets_from_service,
)
from training.shapes.state import recipe_of, tensors_of
from training.state_file import state_path, write_state

ASKED = SetsConfig(objects=6, views=None, extent=16, background=(), seed=4)
VIEWS = 5  # of which the last has no azimuth
WHOLE = ("--views-per-object", "5", "--seed", "4", "--count", "30")
FORMATS = {"png": ("--format", "png"), "tars": ("--samples-per-shard", "13")}


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """A model whose bank has five views, and others that lack something."""
    models = {
        "bank": fake_bundle(resolution=16, view_codes=VIEWS),
        "plain": fake_bundle(resolution=16),
        "bare": fake_bundle(resolution=16, heads=False, view_codes=VIEWS),
    }
    with served([FakeModel(name, bundle) for name, bundle in models.items()]) as running:
        yield running


@pytest.fixture(scope="module")
def bank_server() -> Iterator[RunningServer]:
    """The first of them alone: training names no model."""
    with served([FakeModel(bundle=fake_bundle(resolution=16, view_codes=VIEWS))]) as running:
        yield running


@pytest.fixture(scope="module")
def folders(bank_server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six objects with five views each, in both formats."""
    root = tmp_path_factory.mktemp("downloads")
    for name, options in FORMATS.items():
        made(bank_server, root / name, *options, *WHOLE)
    return root


@pytest.fixture
def png(folders: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(folders / "png", tmp_path / "png"))


@pytest.fixture
def tars(folders: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(folders / "tars", tmp_path / "tars"))


def assert_same(found: tuple[ObjectSets, Origin], expected: tuple[ObjectSets, Origin]) -> None:
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


def test_a_training_has_the_bytes_of_one_from_the_service_and_goes_on_likewise(
    bank_server: RunningServer, folders: Path, tmp_path: Path
) -> None:
    """Goes on with the same sets, wherever they are by now, and with no others."""
    outs = {name: tmp_path / name / "n.safetensors" for name in ("service", "png", "cut")}
    assert trained(target_of(bank_server), outs["service"]).exit_code == 0
    assert trained(folders / "png", outs["png"]).exit_code == 0
    whole = contents(tmp_path / "service")
    assert len(whole) == 4 and contents(tmp_path / "png") == whole
    told = inverse_graphics_from_file(outs["png"])[1].made
    ends = {"stream_seed": 4, "first_object": 0, "last_object": 5}
    assert isinstance(told, dict) and ends.items() <= told.items()

    sets, origin = sets_from_folder(folders / "png", replace(ASKED, views=3))
    bank = cameras_of_bank(origin, 6.0, 2.4)
    network = InverseGraphicsConfig(16, 8, 4, radius_of_sets(sets, bank))
    config = InverseFit(network, steps=2, batch=2, resolution=16, seed=4)
    training = InverseTraining(config, sets, bank, torch.device("cpu"))
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


def refusal(source: Path | str, asked: SetsConfig = ASKED) -> str:
    with pytest.raises(TrainingError) as refused:
        sets_from_source(str(source), asked)
    said = str(refused.value)
    assert "\n" not in said and str(source) in said
    return said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("bank --count 10", "has no views: download with --views-per-object"),
        ("bank --count 10 --views-per-object 5 --view drawn", "has no cameras: download from"),
        ("plain --count 10 --views-per-object 5", "has no cameras: download from a bundle whose"),
        ("bare --count 10 --views-per-object 5", "has no masks: download from a bundle with a"),
        ("bank --count 10 --views-per-object 5 --format coco", "download with --format png or"),
        ("bank --end-index 10 --views-per-object 5 --max-uncertainty 0", "it has no samples"),
    ],
)
def test_data_sets_without_what_is_needed_are_refused(
    server: RunningServer, tmp_path: Path, options: str, words: str
) -> None:
    out = made(server, tmp_path / "d", "--model", *options.split())
    assert words in refusal(out)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"objects": 7}, "--objects is 7, it has 6; download more"),
        ({"views": 5}, "--views is 5; it has 4 of an object with an azimuth"),
        ({"background": ("sky",)}, "--background sky is none of its classes: part 0, part 1"),
    ],
)
def test_options_that_ask_for_more_are_refused(
    folders: Path, asked: dict[str, Any], words: str
) -> None:
    assert words in refusal(folders / "png", replace(ASKED, **asked))


def test_folders_that_no_download_completed_are_refused(png: Path, tmp_path: Path) -> None:
    assert "is neither a folder nor HOST:PORT" in refusal("nowhere")
    assert "is neither a folder nor HOST:PORT" in refusal(png / "card.json")
    assert "has no card.json; give a folder that `labelmint" in refusal(tmp_path)
    card = (png / "card.json").read_text()
    (png / "card.json").write_text(card.replace('"kept": 30', '"kept": "30"'))
    assert "card.json is damaged, or of another release" in refusal(png)
    (png / "card.json").write_text(card.replace('"kept": 30', '"kept": 31'))
    assert "has 30 samples of the 31 that its card tells" in refusal(png)
    (png / "card.json").unlink()
    (png / ".labelmint").mkdir()
    assert "is not complete; the same `labelmint download` goes on" in refusal(png)


def test_pictures_that_were_changed_are_named(png: Path) -> None:
    image, mask = png / "images" / "000000000007.png", png / "masks" / "000000000007.png"
    whole, ids = image.read_bytes(), mask.read_bytes()
    for file, content, words in (
        (image, whole[:-20], "000000000007.png cannot be read ("),
        (image, whole[: len(whole) // 2], "000000000007.png cannot be read ("),
        (image, whole[:50] + b"x" + whole[51:], "000000000007.png cannot be read ("),
        (image, whole[:20], "000000000007.png "),
        (image, b"GIF89a", "images/000000000007.png is no PNG or JPEG"),
        (image, None, "images/000000000007.png cannot be read (No such file or directory)"),
        (mask, None, "masks/000000000007.png cannot be read (No such file"),
        (image, _png(Image.new("RGB", (16, 8))), "is 16x8 pixels, its card says 16x16"),
        (image, _png(Image.new("L", (16, 16))), "has mode L, not RGB"),
        (mask, _png(Image.new("RGB", (16, 16))), "has mode RGB, not P or L"),
        (mask, _png(Image.new("L", (16, 16), 4)), "has class 4, there are 4"),
    ):
        file.unlink() if content is None else file.write_bytes(content)
        assert words in refusal(png)
        image.write_bytes(whole)
        mask.write_bytes(ids)
    sets_from_folder(png, ASKED)


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def test_rows_that_were_changed_are_told(png: Path) -> None:
    table = png / "index.csv"
    head, *rows = table.read_text().splitlines(keepends=True)
    for changed, words in (
        (rows[:7] + rows[8:], "keypoints.jsonl has sample 7 there"),
        (rows[:7] + rows[6:], "keypoints.jsonl has sample 7 there"),
        (rows[:-1], "has 29 samples of the 30"),
        ([*rows[:7], rows[7][:9] + "\n"], "is damaged after 7 samples"),
        ([r.replace(",10.0,", ",11.0,") if n == 6 else r for n, r in enumerate(rows)],
         "view 1 has one camera in sample 1 and another one in 6"),
        ([r.replace(",6.0,", ",-6.0,") for r in rows], "sample 0 has a Camera"),
        ([r.replace(",6.0,", ",inf,") for r in rows], "inf is no float32"),
        ([r.replace("7,", "7e,", 1) for r in rows], "is damaged after 7 samples"),
    ):  # fmt: skip
        table.write_text(head + "".join(changed))
        assert words in refusal(png)
    table.unlink()
    assert "index.csv cannot be read (No such file or directory)" in refusal(png)


def test_tars_that_were_changed_are_told(tars: Path) -> None:
    second = tars / "samples-000001.tar"
    whole = second.read_bytes()
    for length in (0, 700, 9000, len(whole) // 2):
        second.write_bytes(whole[:length])
        assert "is damaged after 1" in (said := refusal(tars)) or "samples of the 30" in said
    for left_out, words in (
        ("000000000014.mask.png", "is damaged after 14 samples ('mask.png')"),
        ("000000000014.", "has 29 samples of the 30"),
    ):
        with tarfile.open(fileobj=io.BytesIO(whole)) as tar, tarfile.open(second, "w") as changed:
            for member in tar:
                if not member.name.startswith(left_out):
                    changed.addfile(member, tar.extractfile(member))
        assert words in refusal(tars)
    second.write_bytes((tars / "samples-000000.tar").read_bytes())
    assert "has sample 0 after sample 12" in refusal(tars)
    second.unlink()
    assert "samples-000001.tar cannot be read (No such file or directory)" in refusal(tars)


@pytest.fixture(scope="module")
def damaged(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(folders, tmp_path_factory.mktemp("damaged") / "d"))


@settings(max_examples=60)
@given(
    st.sampled_from(
        ["png/card.json", "png/index.csv", "png/keypoints.jsonl", "png/images/000000000003.png",
         "png/masks/000000000003.png", "tars/samples-000000.tar"]
    ),
    st.floats(0, 1, exclude_max=True),
    st.binary(max_size=4) | st.sampled_from([b"-", b"9", b"null", b"NaN", b"1e99", b"[]", b"{}"]),
    st.integers(0, 8),
)  # fmt: skip
def test_whatever_a_folder_has_it_is_read_or_refused_in_a_line(
    damaged: Path, name: str, place: float, content: bytes, removed: int
) -> None:
    file = damaged / name
    whole = file.read_bytes()
    at = int(place * len(whole))
    file.write_bytes(whole[:at] + content + whole[at + removed :])
    try:
        sets, _ = sets_from_folder(file.parents[name.count("/") - 1], ASKED)
        assert sets.images.shape == (6, 4, 3, 16, 16)
    except TrainingError as error:
        assert "\n" not in str(error)
    finally:
        file.write_bytes(whole)
