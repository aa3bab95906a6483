"""Generators whose images are not square: from a few labels to batches, data sets and previews."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from bundle import open_bundle
from checkpoints import (
    GeneratorCard,
    InterpreterCard,
    card_from_config,
    classes_from_names,
    generator_from_file,
    interpreter_from_file,
    write_generator,
)
from engines.fake import fake_bundle
from export.__main__ import main as export_command
from export.checks.reference import reference_outputs
from export.manifest_from_cards import spec_from_cards
from labelmint import Client
from labelmint.cli import main as client_command
from labelmint.latents import Purpose, latents
from labelmint.preview import sheet_from_batch
from nets.stylegan2 import Generator, GeneratorConfig, SynthesisLayer
from service.config import Config, NamedBundle
from service.loading import open_models
from tests.datasets.folders import made, target_of
from tests.service.harness import FakeModel, RunningServer, served, served_by
from training.__main__ import main as training_command
from training.images.image_set import image_set_from_folder
from training.labels.labelled_set import LabelledSet
from training.labels.write import write_labels

SIZES = {(4, 2): (32, 16), (3, 5): (24, 40)}  # height and width of images, by the constant's


@pytest.fixture(scope="module", params=[*SIZES])
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    return SIZES[request.param]


@pytest.fixture(scope="module")
def server(size: tuple[int, int]) -> Iterator[RunningServer]:
    start = next(start for start, known in SIZES.items() if known == size)
    with served([FakeModel(bundle=fake_bundle(resolution=32, start=start))]) as running:
        yield running


def test_a_client_gets_arrays_of_the_images_shape(
    server: RunningServer, size: tuple[int, int]
) -> None:
    with Client(target_of(server)) as client:
        model = client.model()
        batch = client.generate(seed=1, count=3, outputs=[*model.outputs])
        assert model.image_size == model.label_size == size
        sheet = sheet_from_batch(batch, model)
    assert batch.images is not None and batch.images.shape == (3, *size, 3)
    for plane in (batch.masks, batch.depth, batch.uncertainty_map):
        assert plane is not None and plane.shape == (3, *size)
    assert sheet.width > 3 * size[1]


@pytest.mark.parametrize("kind", ["webdataset", "coco", "png"])
def test_a_data_set_keeps_the_shape(
    server: RunningServer, size: tuple[int, int], kind: str, tmp_path: Path
) -> None:
    folder = made(server, tmp_path / "d", "--count", "3", "--format", kind)
    if kind == "webdataset":
        with tarfile.open(folder / "samples-000000.tar") as tar:
            pictures = [m for m in tar.getmembers() if m.name.endswith(".png")]
            assert len(pictures) == 6
            for member in pictures:
                file = tar.extractfile(member)
                assert file is not None and Image.open(file).size == size[::-1]
        return
    for path in (folder / "images").iterdir():
        with Image.open(path) as picture:
            assert picture.size == size[::-1]
    if kind == "coco":
        content = json.loads((folder / "annotations.json").read_text())
        assert {(im["height"], im["width"]) for im in content["images"]} == {size}
        masks = [a["segmentation"] for a in content["annotations"] if a.get("segmentation")]
        assert masks and all(tuple(m["size"]) == size for m in masks)


def test_fractions_of_a_pose_are_of_the_width_and_the_height(
    server: RunningServer, size: tuple[int, int], tmp_path: Path
) -> None:
    options = ("--count", "3", "--format", "yolo-pose", "--min-confidence", "0")
    folder = made(server, tmp_path / "d", *options)
    with Client(target_of(server)) as client:
        batch = client.generate(seed=0, count=3)
    assert batch.keypoints is not None
    for path, points in zip(sorted(folder.rglob("*.txt")), batch.keypoints, strict=True):
        values = np.array(path.read_text().split()[5:], float).reshape(-1, 3)
        seen = values[:, 2] > 0
        assert seen.any()
        found = values[seen, :2] * size[::-1]
        np.testing.assert_allclose(found, points[seen, :2], atol=1e-4)


def run(command: Any, *arguments: object) -> str:
    result = CliRunner().invoke(command, [str(a) for a in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def written_generator(path: Path, start: tuple[int, int]) -> Path:
    torch.manual_seed(3)
    config = GeneratorConfig(32, (12, 12, 10, 8), z_dim=8, w_dim=8, mapping_layers=2, start=start)
    generator = Generator(config).eval()
    for layer in generator.synthesis.modules():
        if isinstance(layer, SynthesisLayer):
            layer.noise_strength.data.fill_(0.1)
    for block in generator.synthesis.blocks():
        block.torgb.weight.data.mul_(0.2)  # else most colours are cut off
    card = GeneratorCard(
        format=1, kind="generator", family="stylegan2", config=card_from_config(config),
        view_layers=0, truncation_psi=0.7, truncation_cutoff=8, licences=["CC0-1.0"],
        provenance="random",
    )  # fmt: skip
    write_generator(path, generator, card)
    return path


def label(folder: Path) -> None:
    """Bright parts, and the brightest pixel as the keypoint."""
    images = image_set_from_folder(folder)
    grey = np.stack([images.image(row)[..., 0] for row in range(len(images))])
    peaks = [np.unravel_index(int(plane.argmax()), plane.shape) for plane in grey]
    points = np.array([[[x + 0.5, y + 0.5, 1]] for y, x in peaks], np.float32)
    write_labels(
        folder,
        LabelledSet(
            images.crop, tuple(images.stems), images.ws,
            classes=classes_from_names(["low", "high"]),
            masks=(grey > grey.mean(axis=(1, 2), keepdims=True)).astype(np.uint8),
            keypoints=points, keypoint_names=("peak",),
        ),
    )  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(
    ("start", "rows"), [((4, 2), "2:30"), pytest.param((2, 4), "0:16", marks=pytest.mark.slow)]
)
def test_from_a_few_labels_to_batches_as_a_user_types_it(
    start: tuple[int, int], rows: str, tmp_path: Path
) -> None:
    path = written_generator(tmp_path / "g.safetensors", start)
    weights = ("--generator", path)
    for name, seed in (("set", 1), ("held-out", 2)):
        out = ("--out", tmp_path / name, "--rows", rows)
        run(training_command, "sample", *weights, *out, "--count", 6, "--seed", seed)
        label(tmp_path / name)
    trained = tmp_path / "i.safetensors"
    settings = ("--members", 2, "--steps", 150, "--hidden", "16,8", "--out", trained)
    run(training_command, "interpreter", *weights, "--labels", tmp_path / "set", *settings)
    report = ("--interpreter", trained, "--out", tmp_path / "report")
    run(training_command, "evaluate", *weights, "--labels", tmp_path / "held-out", *report)
    scores = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert scores["all"]["miou"] > 0.5

    pictures = ("--images", tmp_path / "set" / "images", "--out", tmp_path / "inverted")
    run(training_command, "invert", *weights, *pictures, "--rows", rows, "--steps", 5)
    height, width = image_set_from_folder(tmp_path / "inverted").image(0).shape[:2]

    run(
        export_command, "bundle", *weights, "--interpreter", trained, "--out",
        tmp_path / "bundle", "--calibrate", 64,
    )  # fmt: skip
    bundle = open_bundle(tmp_path / "bundle")
    assert bundle.manifest.generator.start == start
    exact = next(p for p in bundle.manifest.parity if p.graph == "labeller.onnx")
    assert (exact.mask_mismatch_share, exact.image_max_steps) in ((0, 0), (0, 1))

    config = Config(bundles=(NamedBundle("tall", bundle.path),), listen="127.0.0.1:0", threads=1)
    with served_by(config, lambda metrics: open_models(config, metrics)) as server:
        with Client(target_of(server)) as client:
            assert client.model().image_size == client.model().label_size == (height, width)
            batch = client.generate(seed=5, count=4, truncation_psi=1.0)
        sheet = tmp_path / "sheet.png"
        arguments = ["preview", "--target", target_of(server), "--out", str(sheet), "--count", "4"]
        assert client_command(arguments) == 0 and sheet.stat().st_size > 0

    generator, generator_card = generator_from_file(path)
    interpreter, card = interpreter_from_file(trained)
    assert isinstance(card, InterpreterCard) and isinstance(generator, Generator)
    z = torch.from_numpy(latents(5, Purpose.OBJECT, list(range(4)), 8))
    ws = generator.mapping(z).detach()[:, None].repeat(1, generator.config.num_ws, 1).numpy()
    expected = reference_outputs(generator, interpreter, spec_from_cards(generator_card, card), ws)
    assert batch.images is not None and batch.masks is not None and batch.keypoints is not None
    assert batch.images.shape == (4, height, width, 3)
    assert np.abs(batch.images.astype(int) - expected["image"]).max() <= 1
    clear = expected["mask_margin"] > 1e-3
    assert clear.mean() > 0.98 and (batch.masks == expected["mask"])[clear].all()
    sure = expected["keypoints_margin"] > 1e-4
    assert sure.any()
    np.testing.assert_allclose(
        batch.keypoints[sure], expected["keypoints"][sure], atol=1e-2, rtol=1e-3
    )
    points = batch.keypoints[..., :2]
    assert (points >= 0).all() and (points <= (width, height)).all()
