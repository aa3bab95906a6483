"""Training is repeatable, goes on to the last bit, learns a look, and stops in time."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor

from checkpoints import WeightsError, refiner_from_file, tensors_from_file, write_tensors
from nets.refiner import RefinerConfig
from training.__main__ import main
from training.errors import RefinerError, TrainingError
from training.images.pool import Pool
from training.refiner.config import RefinerTrainConfig, Regulariser
from training.refiner.run import (
    SOURCE_IMAGES,
    RefinerRunOptions,
    recipe_of,
    run_refiner,
    sheet_path,
)
from training.refiner.train import RefinerTraining, refined_bytes
from training.resume import state_path, write_state

FAST = RefinerTrainConfig(
    network=RefinerConfig(width=6, blocks=1),
    warm_up=2,
    critic_warm_up=2,
    steps=4,
    batch_size=4,
    crop=16,
    critic_width=6,
    history=6,
)


def blobs(seed: int, gain: float = 1.0) -> Tensor:
    """uint8 [12, 3, 32, 32] with something to hold on to."""
    source = torch.Generator().manual_seed(seed)
    coarse = torch.rand(12, 3, 8, 8, generator=source)
    fine = torch.nn.functional.interpolate(coarse, size=32, mode="bilinear")
    return (fine * 255 * gain).byte()


SOURCE, REAL = Pool(blobs(0), None, ("CC0-1.0",), "a" * 64), Pool(blobs(1, 0.4))


def run_at(
    out: Path, every: int = 4, shift: float = 9.0, structure: float = -1.0
) -> RefinerRunOptions:
    return RefinerRunOptions(out, every, shift, structure, 0.0, 3, ["CC0-1.0"])


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.parent.iterdir())}


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        out = tmp_path / name / "r.safetensors"
        out.parent.mkdir()
        run_refiner(replace(FAST, seed=seed), SOURCE, REAL, run_at(out), resume=False)
        found.append(files(out))
    assert found[0] == found[1]
    assert set(found[0]) == {
        "r.safetensors", "r.toml", "r.state.safetensors", "r-000004.png", "r-000008.png"
    }  # fmt: skip
    assert found[0]["r.safetensors"] != found[2]["r.safetensors"]


@pytest.mark.parametrize("crop", [16, 0])  # 0: whole images
@pytest.mark.parametrize("ended_at", [1, 3, 4, 6])  # in every phase
def test_a_resumed_training_leaves_the_same_bytes(tmp_path: Path, ended_at: int, crop: int) -> None:
    config = replace(FAST, crop=crop)
    whole, parts = tmp_path / "whole" / "r.safetensors", tmp_path / "parts" / "r.safetensors"
    for out in (whole, parts):
        out.parent.mkdir()
    run_refiner(config, SOURCE, REAL, run_at(whole, every=100), resume=False)
    begun(parts, config, SOURCE, ended_at)
    run_refiner(config, SOURCE, REAL, run_at(parts, every=100), resume=True)
    assert files(parts) == files(whole)


def begun(out: Path, config: RefinerTrainConfig, source: Pool, steps: int) -> None:
    """Writes the state of a training that ended after these steps."""
    training = RefinerTraining(config, source, REAL.images)
    training.fill_pool()
    for _ in range(steps):
        training.advance()
    recipe = {**recipe_of(config, source, REAL), SOURCE_IMAGES: source.digest}
    write_state(state_path(out), training.state.tensors(), recipe)


def drawn_pool(count: int, asked: list[int], other: int | None = None) -> Pool:
    """A pool that is filled while training runs; `asked` gets what is drawn, image `other`
    differs."""
    images = blobs(0).repeat(20, 1, 1, 1)[:count]
    masks = (images[:, 0] > 128).byte()

    def draw(part: range) -> tuple[np.ndarray, np.ndarray]:
        asked.extend(part)
        pixels = images[part.start : part.stop].permute(0, 2, 3, 1).numpy().copy()
        pixels[[i == other for i in part]] = 0
        return pixels, masks[part.start : part.stop].numpy()

    return Pool(torch.empty_like(images), torch.empty_like(masks), draw=draw)


def test_a_training_begins_while_its_pool_is_filled() -> None:
    asked: list[int] = []
    source, config = drawn_pool(200, asked), replace(FAST, warm_up=6)
    training = RefinerTraining(config, source, REAL.images)
    assert not asked
    sizes = []
    for _ in range(config.total):
        training.advance()
        sizes.append(len(source.images))
    assert sizes == [64, 64, 75, 100, 125, 150, 175, *[200] * 5]  # an eighth of 200 at each step
    assert asked == list(range(200))


# Step 8 is the first with all images.
@pytest.mark.parametrize(
    "ended_at", [5, *(pytest.param(step, marks=pytest.mark.long) for step in (0, 8))]
)
def test_a_training_resumes_to_the_same_bytes_while_its_pool_is_filled(
    tmp_path: Path, ended_at: int
) -> None:
    config = replace(FAST, warm_up=6)
    whole, parts = tmp_path / "whole" / "r.safetensors", tmp_path / "parts" / "r.safetensors"
    for out in (whole, parts):
        out.parent.mkdir()
    run_refiner(config, drawn_pool(200, []), REAL, run_at(whole, every=100), resume=False)
    begun(parts, config, drawn_pool(200, []), ended_at)
    run_refiner(config, drawn_pool(200, []), REAL, run_at(parts, every=100), resume=True)
    assert files(parts) == files(whole)


def test_a_pool_of_other_images_is_refused_where_steps_drew_from_it(tmp_path: Path) -> None:
    config, out = replace(FAST, warm_up=6), tmp_path / "r.safetensors"
    begun(out, config, drawn_pool(200, []), 5)  # 125 images
    for count, other, words in (
        (200, 124, "other source images than this command has"),
        (199, None, "source image count 200, this command has 199"),
    ):
        with pytest.raises(TrainingError, match=f"was made with {words}; .*leave --resume out"):
            run_refiner(config, drawn_pool(count, [], other), REAL, run_at(out), resume=True)
    run_refiner(config, drawn_pool(200, [], other=125), REAL, run_at(out), resume=True)


def test_the_pool_limits_the_source_alone_and_is_announced(tmp_path: Path) -> None:
    line = refiner_line(tmp_path)
    result = CliRunner().invoke(main, [*line, "--images", "9", "--pool", "5"])
    assert result.exit_code == 0, result.output
    assert "5 images from" in result.output
    _, card = refiner_from_file(tmp_path / "r.safetensors")
    assert isinstance(card.provenance, dict)
    assert (card.provenance["source_images"], card.provenance["real_images"]) == (5, 9)


def test_a_refused_training_leaves_no_folder(tmp_path: Path) -> None:
    line = refiner_line(tmp_path)
    out = tmp_path / "new" / "deep" / "r.safetensors"
    empty = tmp_path / "none"
    empty.mkdir()
    result = CliRunner().invoke(main, [*line, "--real", str(empty), "--out", str(out)])
    assert result.exit_code != 0 and not (tmp_path / "new").exists()


def write_images(folder: Path, images: Tensor) -> None:
    """A new folder of uint8 [n, 3, H, W]."""
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i:02d}.png")


def refiner_line(folder: Path) -> list[str]:
    """Command line of a short training on files, that writes r.safetensors."""
    for name, pool in (("source", SOURCE), ("real", REAL)):
        write_images(folder / name, pool.images)
    words = [
        "refiner", "--source", folder / "source", "--real", folder / "real",
        "--out", folder / "r.safetensors", "--warm-up", 1, "--critic-warm-up", 1, "--steps", 2,
        "--batch", 4, "--width", 4, "--blocks", 1, "--history", 4, "--max-shift", 99,
        "--min-structure", -1,
    ]  # fmt: skip
    return [str(word) for word in words]


def test_a_job_that_always_says_resume_begins_and_goes_on(tmp_path: Path) -> None:
    line = [*refiner_line(tmp_path), "--resume"]
    said = [CliRunner().invoke(main, line) for _ in range(2)]
    assert [result.exit_code for result in said] == [0, 0], said[0].output
    assert ["is not there yet" in result.output for result in said] == [True, False]


def test_a_state_of_another_recipe_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "r.safetensors"
    run_refiner(FAST, SOURCE, REAL, run_at(out), resume=False)
    changes = {
        "learning_rate": (replace(FAST, learning_rate=1e-4), REAL),
        "regulariser": (replace(FAST, regulariser=Regulariser(feature="gradients")), REAL),
        "other real images": (FAST, Pool(blobs(2))),
    }
    for name, (config, real) in changes.items():
        with pytest.raises(TrainingError, match=rf"was made with {name} .*leave --resume out"):
            run_refiner(config, SOURCE, real, run_at(out), resume=True)
    with pytest.raises(RefinerError, match="at step 8, beyond the 5"):
        run_refiner(replace(FAST, steps=1), SOURCE, REAL, run_at(out), resume=True)


def test_a_damaged_state_is_one_line(tmp_path: Path) -> None:
    out = tmp_path / "r.safetensors"
    with pytest.raises(WeightsError, match="cannot be read"):
        run_refiner(FAST, SOURCE, REAL, run_at(out), resume=True)
    run_refiner(FAST, SOURCE, REAL, run_at(out), resume=False)
    whole = tensors_from_file(state_path(out))
    for change in (
        {"critic.layers.0.weight": torch.zeros(2)},
        {"recipe": torch.tensor([7], dtype=torch.uint8)},
        {"stranger": torch.zeros(1)},
        {"history.filled": torch.tensor(10**9)},
        {"chances": torch.zeros_like(whole["chances"])},
    ):
        write_tensors(state_path(out), whole | change)
        with pytest.raises(TrainingError, match=r"r\.state\.safetensors is no state of this"):
            run_refiner(FAST, SOURCE, REAL, run_at(out), resume=True)
    state_path(out).write_bytes(state_path(out).read_bytes()[:1000])
    with pytest.raises(WeightsError, match="no intact safetensors"):
        run_refiner(FAST, SOURCE, REAL, run_at(out), resume=True)


@pytest.mark.long
def test_images_come_to_look_like_the_real_ones() -> None:
    config = replace(FAST, steps=150, learning_rate=2e-3, regulariser=Regulariser(0.2))
    training = RefinerTraining(config, SOURCE, REAL.images)
    while training.state.step < config.total:
        training.advance()
    refined = refined_bytes(training.state.average, SOURCE.images, seed=0).float().mean()
    before, wanted = SOURCE.images.float().mean(), REAL.images.float().mean()
    assert abs(refined - wanted) < 0.5 * abs(before - wanted)


def test_a_bound_that_is_passed_ends_it_and_keeps_the_last_good_weights(tmp_path: Path) -> None:
    out = tmp_path / "r.safetensors"
    run_refiner(FAST, SOURCE, REAL, run_at(out), resume=False)
    kept = out.read_bytes()
    longer = replace(FAST, steps=8)
    with pytest.raises(RefinerError, match=r"step 12 .*shift_px is .*limit 1e-06.*last check's"):
        run_refiner(longer, SOURCE, REAL, run_at(out, shift=1e-6), resume=True)
    assert out.read_bytes() == kept
    assert sheet_path(out, 12).exists()  # to see what became of it
    new = tmp_path / "new.safetensors"
    with pytest.raises(RefinerError, match=r"structure is .*nothing is written"):
        run_refiner(FAST, SOURCE, REAL, run_at(new, structure=1.5), resume=False)
    assert not new.exists() and not state_path(new).exists()


def test_a_kill_before_the_first_weights_is_resumed_to_the_same_bytes(tmp_path: Path) -> None:
    """Their state is there, also if its last step is done."""
    whole, killed = tmp_path / "whole" / "r.safetensors", tmp_path / "killed" / "r.safetensors"
    for out in (whole, killed):
        out.parent.mkdir()
        run_refiner(FAST, SOURCE, REAL, run_at(out, every=100), resume=False)
    killed.unlink()
    run_refiner(FAST, SOURCE, REAL, run_at(killed, every=100), resume=True)
    assert files(killed) == files(whole)


def test_a_segmenter_that_no_longer_sees_the_same_ends_it_too(tmp_path: Path) -> None:
    out = tmp_path / "r.safetensors"
    masks = (SOURCE.images[:, 0] > 128).byte()
    labelled = Pool(SOURCE.images, masks)
    run = replace(run_at(out), min_agreement=1.5)
    with pytest.raises(RefinerError, match=r"agreement is [01]\.\d+, the limit 1\.5; nothing"):
        run_refiner(FAST, labelled, REAL, run, resume=False)
    run_refiner(FAST, SOURCE, REAL, run, resume=False)  # without masks there is none
    assert refiner_from_file(out)[1].agreement is None


def test_a_loss_that_is_not_finite_ends_it_before_it_does_harm(tmp_path: Path) -> None:
    out = tmp_path / "r.safetensors"
    wild = replace(FAST, learning_rate=1e30, steps=50)
    with pytest.raises(RefinerError, match=r"is (nan|inf) at step .*learning rate under 1e.30"):
        run_refiner(wild, SOURCE, REAL, run_at(out, every=1000), resume=False)
    assert not out.exists()


def test_the_card_says_how(tmp_path: Path) -> None:
    out = tmp_path / "r.safetensors"
    found = run_refiner(FAST, SOURCE, REAL, run_at(out), resume=False)
    _, card = refiner_from_file(out)
    assert card.generator_sha256 == "a" * 64 and (card.height, card.width) == (32, 32)
    assert (card.regulariser.strength, card.regulariser.reduction) == (2.0, "mean")
    assert card.shift_px == pytest.approx(found.shift_px, abs=1e-4)
    assert isinstance(card.provenance, dict) and card.provenance["refiner_updates"] == 1
    assert json.dumps(card.provenance)
