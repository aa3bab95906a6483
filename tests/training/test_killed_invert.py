"""An inversion goes on after the batches that were done when it was killed, with the same bytes."""

import random
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from checkpoints import WeightsError, tensors_from_file, write_tensors
from nets.stylegan2 import Generator
from tests.conftest import write_tiny_weights
from tests.training.killed import ended, files, killed, written
from tests.training.tiny_generator import tiny_generator
from training.__main__ import main
from training.errors import TrainingError
from training.inversion.distances import STRUCTURE, Distance
from training.inversion.optimise import (
    UNFINISHED,
    FinishedBatches,
    Inversion,
    InvertConfig,
    LatentEstimate,
    invert_images,
)
from training.label_crop import LabelCrop

CROP = LabelCrop(grid=16, crop_top=2, height=12)
SHORT = InvertConfig(steps=3, at_once=2)
IMAGES = 5
STEPS = 20


@pytest.fixture(scope="module")
def generator() -> Generator:
    return tiny_generator()


def noise(count: int = IMAGES) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (count, 12, 16, 3), np.uint8)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(16):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return folder


@pytest.mark.slow
def test_kill_9_changes_no_byte(
    tiny_weights: tuple[Path, Path], pictures: Path, tmp_path: Path
) -> None:
    out, whole, choice = tmp_path / "killed", tmp_path / "whole", random.Random(0)
    command = ["invert", "--generator", str(tiny_weights[0]), "--images", str(pictures)]
    command += ["--steps", str(STEPS), "--batch", "1", "--out"]
    seen: dict[str, object] = {}
    for _ in range(2):
        assert killed([*command, str(out)], lambda: len(done(out)), choice), "too late"
        assert not (out / "index.json").exists()
        assert seen.items() <= done(out).items(), "what was done was done again"
        seen = done(out)
    assert 1 < len(seen) < 16
    said = ended([*command, str(out)])
    assert re.findall(rf"(\d+)/{16 * STEPS}", said)[0] == str(len(seen) * STEPS)  # the bar's start
    assert CliRunner().invoke(main, [*command, str(whole)]).exit_code == 0
    assert files(out) == files(whole)
    assert len(files(whole)) == 16 + 5 and not (out / UNFINISHED).exists()


def done(out: Path) -> dict[str, object]:
    """Files of batches that are done, each with a value of its own."""
    return {path.name: written(path) for path in (out / UNFINISHED).glob("*.safetensors")}


def finished_in(
    folder: Path, config: InvertConfig = SHORT, images: int = IMAGES
) -> FinishedBatches:
    return FinishedBatches(folder, {"steps": config.steps}, (images, 6, 8), 2)


def counting(calls: list[int]) -> Distance:
    def between(a: Tensor, b: Tensor) -> Tensor:
        calls.append(len(a))
        return STRUCTURE.between(a, b)

    return Distance("counting", between)


def same(one: Inversion, two: Inversion) -> bool:
    pairs = [(one.start, two.start), (one.best, two.best), (one.last, two.last)]
    return torch.equal(one.failed, two.failed) and all(
        torch.equal(getattr(a, field.name), getattr(b, field.name))
        for a, b in pairs
        for field in fields(LatentEstimate)
    )


@pytest.mark.parametrize("missing", [(0,), (2,), (4,), (0, 4), (0, 2, 4), ()])
def test_only_what_is_missing_is_optimised_and_all_is_equal(
    generator: Generator, tmp_path: Path, missing: tuple[int, ...]
) -> None:
    whole = invert_images(generator, noise(), CROP, SHORT, finished=finished_in(tmp_path))
    for first in missing:
        (tmp_path / f"{first:06d}.safetensors").unlink()
    calls: list[int] = []
    again = invert_images(
        generator, noise(), CROP, SHORT, None, counting(calls), finished_in(tmp_path)
    )
    assert same(whole, again) and same(whole, invert_images(generator, noise(), CROP, SHORT))
    sizes = [1 if first == 4 else 2 for first in missing]
    assert calls == [size for size in sizes for _ in range(SHORT.steps + 1)]


def test_an_image_that_failed_stays_failed(generator: Generator, tmp_path: Path) -> None:
    start = generator.mapping.w_avg.repeat(IMAGES, 6, 1)
    start[2] = 1e30
    found = invert_images(generator, noise(), CROP, SHORT, start, finished=finished_in(tmp_path))
    again = invert_images(generator, noise(), CROP, SHORT, start, finished=finished_in(tmp_path))
    assert again.failed.tolist() == found.failed.tolist() == [i == 2 for i in range(IMAGES)]
    assert torch.equal(again.last.ws[3:], found.last.ws[3:])


def test_a_file_that_is_no_batch_is_one_line(generator: Generator, tmp_path: Path) -> None:
    invert_images(generator, noise(), CROP, SHORT, finished=finished_in(tmp_path))
    path = tmp_path / "000002.safetensors"
    whole, data = tensors_from_file(path), path.read_bytes()
    for change in (
        {"failed": torch.zeros(2)},
        {"best.ws": torch.zeros(1, 6, 8)},
        {"recipe": torch.tensor([7], dtype=torch.uint8)},
        {"stranger": torch.zeros(1)},
    ):
        write_tensors(path, whole | change)
        with pytest.raises(TrainingError, match=rf"no state of this .*remove {tmp_path}, or name"):
            finished_in(tmp_path)
    choice = random.Random(1)
    for _ in range(20):
        path.write_bytes(data[: choice.randrange(len(data))])
        with pytest.raises(WeightsError, match="no intact safetensors"):
            finished_in(tmp_path)
    path.write_bytes(data)
    with pytest.raises(TrainingError, match="made with steps 3, this command has 4"):
        finished_in(tmp_path, replace(SHORT, steps=4))
    with pytest.raises(
        TrainingError, match=r"best.loss is torch.float32 \[1\], not torch.float32 \[2\]"
    ):
        finished_in(tmp_path, images=6)


def test_only_the_same_command_goes_on_but_the_verdicts_may_be_others(
    tiny_weights: tuple[Path, Path], pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    start = ["invert", "--out", str(out)]
    generator = ["--generator", str(tiny_weights[0])]
    images = ["--images", str(pictures), "--steps", "2"]
    strict = ["--min-psnr", "99", "--on-bad", "drop"]

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, [*start, *arguments])

    def said(*arguments: str) -> str:
        result = run(*arguments)
        assert result.exit_code == 1 and isinstance(result.exception, TrainingError), result.output
        assert "\n" not in str(result.exception)
        return str(result.exception)

    assert "none of 16 images is kept" in said(*generator, *images, *strict)
    before = done(out)
    assert set(before) == {"000000.safetensors"}
    for changed, name in {
        ("--steps", "3"): "steps 2, this command has 3",
        ("--learning-rate", "0.2"): "learning_rate 0.1, this command has 0.2",
        ("--latent-weight", "0.5"): "latent_weight 1.0, this command has 0.5",
        ("--grid", "16"): "grid 32, this command has 16",
        ("--batch", "4"): "at_once 16, this command has 4",
    }.items():
        words = said(*generator, *images, *changed)
        assert words == (
            f"{out / UNFINISHED / '000000.safetensors'} was made with {name}; give the same, or "
            f"remove {out / UNFINISHED}, or name another --out"
        )
    other = write_tiny_weights(tmp_path, seed=1)[0]
    assert "made with other generator weights than this command has; give the same" in said(
        "--generator", str(other), *images
    )
    others = tmp_path / "others"
    shutil.copytree(pictures, others)
    with Image.open(others / "03.png") as picture:
        pixels = np.array(picture)
    pixels[7, 7, 1] ^= 1
    Image.fromarray(pixels).save(others / "03.png")
    assert "made with other images than" in said(*generator, *images[2:], "--images", str(others))
    weights = tmp_path / "e.safetensors"
    training = ["--latent-steps", "1", "--image-steps", "0", "--out", str(weights)]
    assert CliRunner().invoke(main, ["encoder", *generator, *training]).exit_code == 0
    words = said(*generator, *images, "--encoder", str(weights))
    assert "made with encoder weights null, this command has" in words
    assert done(out) == before
    assert run(*generator, *images, "--device", "cpu", "--max-mads", "9").exit_code == 0
    assert not (out / UNFINISHED).exists() and (out / "index.json").exists()
