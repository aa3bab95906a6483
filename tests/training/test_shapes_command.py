"""Images, or a service's objects, become files that are sound or are named as not sound."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from click.testing import CliRunner, Result
from msgspec.structs import replace
from PIL import Image

from bundle.open import Bundle
from engines.fake import fake_bundle
from tests.service.harness import FakeModel, served
from tests.training.ellipsoids import SPHERE, ellipsoid, write_network
from training.__main__ import main
from training.errors import TrainingError

KINDS = (
    "depth.npy", "glb", "mask.png", "mtl", "normals.png", "obj", "texture.png", "turntable.png",
)  # fmt: skip
SMALL = ("--resolution", "8")


def shapes(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["shapes", *map(str, arguments)])


def report_of(out: Path) -> Any:
    text = (out / "report.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    return json.loads(text)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return write_network(tmp_path / "i.safetensors", ellipsoid())


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, size in {"a b.png": (40, 24, 3), "c.jpg": (7, 9, 3), "grey.png": (16, 16)}.items():
        Image.fromarray(random.integers(0, 256, size, np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    folder = tmp_path / "one"
    folder.mkdir()
    Image.new("RGB", (16, 16), (90, 60, 30)).save(folder / "a b.png")
    return folder


def test_every_image_gives_its_files_and_an_entry(
    tmp_path: Path, network: Path, images: Path
) -> None:
    masks, out = tmp_path / "masks", tmp_path / "out"
    masks.mkdir()
    Image.fromarray(np.ones((24, 24), np.uint8)).save(masks / "unused.png")
    Image.fromarray(np.full((40, 24), 3, np.uint8)).save(masks / "a b.png")
    run = shapes("--network", network, "--images", images, "--out", out, "--masks", masks, *SMALL)
    assert run.exit_code == 0, run.output
    assert f"wrote 3 of 3 shapes to {out}; 0 flagged" in run.output
    report = report_of(out)
    assert [o["source"] for o in report["objects"]] == ["a b.png", "c.jpg", "grey.png"]
    written = {path.name for path in out.iterdir()} - {"report.json"}
    assert written == {f"{name}.{kind}" for name in ("a_b", "c", "grey") for kind in KINDS}
    assert written == {file for o in report["objects"] for file in o["files"]}
    first, second, _ = report["objects"]
    assert first["camera"]["from"] == "front" and second["silhouette_iou"] is None
    # The mask is a band of 24/40 of the square's width, the object an ellipse within it.
    assert 0.2 < first["silhouette_iou"] < 0.8
    mesh = trimesh.load_scene(out / "a_b.glb", process=False).geometry["object"]
    assert np.allclose(mesh.vertices[mesh.faces], ellipsoid()[SPHERE.faces], atol=1e-5)
    depth = np.load(out / "a_b.depth.npy")
    assert depth.shape == (8, 8) and depth.dtype == np.float32 and np.isfinite(depth).all()
    assert (np.array(Image.open(out / "a_b.mask.png")) > 0).tolist() == (depth > 0).tolist()


@pytest.mark.long
def test_pictures_are_from_where_the_options_or_the_network_say(
    tmp_path: Path, image: Path
) -> None:
    network = write_network(tmp_path / "c.safetensors", ellipsoid(), camera=True)
    for name, options in {"told": (), "given": ("--azimuth", "90", "--elevation", "-5")}.items():
        out = tmp_path / name
        run = shapes("--network", network, "--images", image, "--out", out, *SMALL, *options)
        assert run.exit_code == 0, run.output
    told, given = (report_of(tmp_path / n)["objects"][0]["camera"] for n in ("told", "given"))
    assert told["from"] == "network" and told["azimuth_deg"] != 0
    assert given["from"] == "options"
    assert (given["azimuth_deg"], given["elevation_deg"]) == (pytest.approx(90), pytest.approx(-5))
    depth = np.load(tmp_path / "given" / "a_b.depth.npy")
    assert depth[depth > 0].min() == pytest.approx(6 - 0.8, abs=0.02)


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (-ellipsoid(), "100.0% of its faces are inverted or collapsed"),
        (ellipsoid() * torch.tensor([1, 1, 0.001]), "it is flat"),
        (torch.zeros(642, 3), "it collapsed"),
        (ellipsoid() * 1e5, "from the origin"),
    ],
)
def test_degenerate_meshes_are_named_and_written_only_when_asked_for(
    tmp_path: Path, image: Path, points: torch.Tensor, words: str
) -> None:
    network = write_network(tmp_path / "i.safetensors", points)
    run = shapes("--network", network, "--images", image, "--out", tmp_path / "o", *SMALL)
    assert run.exit_code == 0 and "wrote 0 of 1 shapes" in run.output and "1 flagged" in run.output
    assert f"flagged: a_b: {report_of(tmp_path / 'o')['objects'][0]['flags'][0]}" in run.output
    assert words in run.output
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["report.json"]
    kept = ("--keep-flagged", "--out", tmp_path / "k", *SMALL)
    run = shapes("--network", network, "--images", image, *kept)
    assert run.exit_code == 0, run.output
    assert "wrote 1 of 1 shapes" in run.output and "1 flagged" in run.output
    for path in (tmp_path / "k").glob("*.npy"):
        assert np.isfinite(np.load(path)).all()
    for path in (tmp_path / "k").glob("*.obj"):
        assert "nan" not in path.read_text() and "inf" not in path.read_text()
    for path in (tmp_path / "k").glob("*.glb"):
        assert np.isfinite(
            trimesh.load_scene(path, process=False).geometry["object"].vertices
        ).all()


def test_what_is_not_finite_is_never_written(tmp_path: Path, image: Path) -> None:
    for name, points, radius in (
        ("inf", ellipsoid() * 1e37, 1e9),
        ("far", ellipsoid() * 1e30, 1.0),
    ):
        network = write_network(tmp_path / "i.safetensors", points, radius=radius)
        out = tmp_path / name
        run = shapes("--network", network, "--images", image, "--out", out, "--keep-flagged")
        assert run.exit_code == 0, run.output
        assert "vertices are not finite" in run.output and "wrote 0 of 1" in run.output
        assert [path.name for path in out.iterdir()] == ["report.json"]
        assert report_of(out)["flagged"] == 1


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with served([FakeModel(bundle=fake_bundle(resolution=16, view_codes=4))]) as server:
        yield f"127.0.0.1:{server.server.port}"


def test_objects_of_a_service_have_keypoints_and_can_be_posed(
    tmp_path: Path, network: Path, service: str
) -> None:
    pose, out = tmp_path / "pose.json", tmp_path / "out"
    pose.write_text('{"top": [0, 1.4, 0]}')
    asked = ("--source", service, "--objects", 2, "--seed", 3, "--pose", pose, *SMALL)
    run = shapes("--network", network, "--out", out, *asked)
    assert run.exit_code == 0, run.output
    assert "note: " in run.output and "was trained on another bundle" in run.output
    first, second = report_of(out)["objects"]
    assert (first["name"], second["name"]) == ("object_000000", "object_000001")
    assert first["camera"]["from"] == "view bank" and first["silhouette_iou"] > 0
    assert first["camera"]["azimuth_deg"] == 0  # the bank's nearest to the front
    keypoints = json.loads((out / "object_000000.keypoints.json").read_text())["keypoints"]
    assert [keypoint["name"] for keypoint in keypoints] == ["left", "right", "top"]
    mesh = trimesh.load_scene(out / "object_000000.glb", process=False)
    for keypoint in keypoints:
        if keypoint["views"] == 0:
            assert keypoint["xyz"] is None
            continue
        assert keypoint["views"] <= 3  # the fourth camera is not known
        matrix, _ = mesh.graph.get(f"keypoint.{keypoint['name']}")
        assert np.allclose(matrix[:3, 3], keypoint["xyz"], atol=1e-6)
        vertices = mesh.geometry["object"].vertices
        near = np.linalg.norm(vertices - keypoint["xyz"], axis=1)
        assert near[keypoint["vertex"]] == pytest.approx(near.min(), abs=1e-6)


def test_faults_of_the_input_are_one_line(
    tmp_path: Path, network: Path, images: Path, service: str
) -> None:
    empty, broken, pose = tmp_path / "empty", tmp_path / "broken", tmp_path / "pose.json"
    for folder in (empty, broken):
        folder.mkdir()
    (broken / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    pose.write_text('{"chin": [0, 0, 0]}')
    (tmp_path / "far.json").write_text('{"top": [0, 1e300, 0]}')
    (tmp_path / "list.json").write_text("[1, 2]")
    other = tmp_path / "other.safetensors"
    other.write_bytes(network.read_bytes()[:500])
    other.with_suffix(".toml").write_text(network.with_suffix(".toml").read_text())
    alike = tmp_path / "alike"
    alike.mkdir()
    for name in ("a b.png", "a_b.png"):
        Image.new("RGB", (8, 8)).save(alike / name)
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    Image.new("L", (9, 9)).save(wrong / "grey.png")
    for options, words in [
        (("--images", empty), "holds no pictures"),
        (("--images", tmp_path / "nowhere"), "cannot be read"),
        (("--images", broken), "cannot be read as an image"),
        (("--images", alike), "rename one of them"),
        (("--images", images, "--out", images), "is the folder of --images"),
        (("--images", images, "--masks", empty), "has no mask of any picture; a b.png would be"),
        (("--images", images, "--masks", wrong), "is 9x9 pixels, its picture 16x16"),
        (("--images", images, "--network", other), "no intact safetensors file"),
        (("--images", images, "--network", tmp_path / "n.safetensors"), "does not exist"),
        (("--source", service, "--pose", pose), "chin is not among the keypoints left, right, top"),
        (("--source", service, "--pose", tmp_path / "far.json"), "top is at [0.0, 1e+300, 0.0]"),
        (("--source", service, "--pose", tmp_path / "list.json"), "is no JSON like"),
        (("--source", "127.0.0.1:1"), "--source 127.0.0.1:1"),
    ]:
        run = shapes("--network", network, "--out", tmp_path / "o", *options)
        assert isinstance(run.exception, Exception) and words in str(run.exception), run.output
        assert "\n" not in str(run.exception)
        assert not (tmp_path / "o").exists()


def without_keypoints(bundle: Bundle) -> Bundle:
    assert bundle.manifest.heads is not None
    heads = replace(bundle.manifest.heads, keypoints=None)
    return dataclasses.replace(bundle, manifest=replace(bundle.manifest, heads=heads))


def test_a_bundle_without_keypoints_gives_shapes_alone(tmp_path: Path, network: Path) -> None:
    pose = tmp_path / "pose.json"
    pose.write_text('{"top": [0, 1.4, 0]}')
    bare = without_keypoints(fake_bundle(resolution=16, view_codes=4))
    with served([FakeModel(bundle=bare)]) as server:
        asked = ("--source", f"127.0.0.1:{server.server.port}", "--objects", 1, *SMALL)
        run = shapes("--network", network, "--out", tmp_path / "o", *asked)
        posed = shapes("--network", network, "--out", tmp_path / "p", *asked, "--pose", pose)
    assert run.exit_code == 0, run.output
    assert "has no keypoints; shapes only" in run.output
    assert not list((tmp_path / "o").glob("*.keypoints.json"))
    assert isinstance(posed.exception, TrainingError)
    assert "has no keypoint top to move" in str(posed.exception)


@pytest.mark.parametrize(
    ("bundle", "words"),
    [
        (fake_bundle(resolution=16), "its bundle has no view bank; export it with --views"),
        (fake_bundle(resolution=16, view_codes=1), "no view of its bank has an azimuth"),
        (fake_bundle(resolution=16, view_codes=4, heads=False), "its bundle has no masks"),
    ],
)
def test_bundles_that_cannot_be_used_are_refused_in_one_line(
    tmp_path: Path, network: Path, bundle: Bundle, words: str
) -> None:
    with served([FakeModel(bundle=bundle)]) as server:
        source = f"127.0.0.1:{server.server.port}"
        run = shapes("--network", network, "--out", tmp_path / "o", "--source", source)
    assert isinstance(run.exception, TrainingError) and words in str(run.exception)
    assert "\n" not in str(run.exception) and not (tmp_path / "o").exists()


def test_a_report_is_not_written_over(tmp_path: Path, network: Path, image: Path) -> None:
    arguments = ("--network", network, "--images", image, "--out", tmp_path / "o", *SMALL)
    assert shapes(*arguments).exit_code == 0
    again = shapes(*arguments)
    assert isinstance(again.exception, TrainingError) and "name another" in str(again.exception)


def test_options_that_do_not_go_together_are_a_usage_error(
    tmp_path: Path, network: Path, images: Path
) -> None:
    for options, words in [
        ((), "either --images or --source"),
        (("--images", images, "--source", "h:1"), "either --images or --source"),
        (("--images", images, "--objects", 3), "--objects is for --source"),
        (("--source", "h:1", "--azimuth", 3), "--azimuth is for --images"),
        (("--images", images, "--azimuth", "nan"), "--azimuth"),
    ]:
        run = shapes("--network", network, "--out", tmp_path / "o", *options)
        assert run.exit_code == 2 and words in run.output
