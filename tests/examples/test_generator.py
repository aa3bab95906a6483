"""The committed generator imitates the scene, and its training script writes such files."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from checkpoints import GeneratorCard, generator_from_file
from examples.demo import train_generator
from examples.demo.judge_generator import GeneratorScore, judge, sheet_from_images
from examples.demo.mixing import mixed_rows
from examples.demo.scene import CLASS_NAMES, Z_DIM
from nets.generator import Generator

WEIGHTS = Path("examples/demo/generator.safetensors")
IMAGES = 64


@pytest.fixture(scope="module")
def committed() -> tuple[Generator, GeneratorCard]:
    return generator_from_file(WEIGHTS)


def drawn(seed: int) -> Tensor:
    return torch.randn(IMAGES, Z_DIM, generator=torch.Generator().manual_seed(seed))


def assert_good(found: GeneratorScore) -> None:
    """Lower bounds well below the measured values, so that only real damage fails."""
    assert found.psnr_db > 30
    for name, share in zip(CLASS_NAMES, found.right, strict=True):
        assert share > 0.6, name


@pytest.mark.long
def test_every_part_has_its_color_on_fresh_latents(
    committed: tuple[Generator, GeneratorCard],
) -> None:
    generator, card = committed
    z = drawn(11)
    assert_good(judge(generator, card.view_layers, z, z))


@pytest.mark.long
def test_the_first_rows_carry_the_view_and_the_others_the_content(
    committed: tuple[Generator, GeneratorCard],
) -> None:
    generator, card = committed
    assert_good(judge(generator, card.view_layers, drawn(12), drawn(13)))


def test_the_committed_weights_are_small_noise_free_and_centered(
    committed: tuple[Generator, GeneratorCard],
) -> None:
    generator, card = committed
    assert WEIGHTS.stat().st_size <= 8 << 20
    strengths = [v for k, v in generator.named_parameters() if k.endswith("noise_strength")]
    assert strengths and all(v == 0 for v in strengths)
    assert (card.truncation_psi, card.truncation_cutoff) == (1.0, generator.config.num_ws)
    w = generator.mapping(torch.cat([drawn(seed) for seed in range(20, 52)]))
    offset = (w.mean(dim=0) - generator.mapping.w_avg).norm() / w.std(dim=0).norm()
    assert offset < 0.1


def test_mixed_rows_switch_at_the_crossover(
    committed: tuple[Generator, GeneratorCard],
) -> None:
    generator, _ = committed
    a, b = drawn(1), drawn(2)
    rows = mixed_rows(generator, a, b, 4)
    torch.testing.assert_close(rows[:, 3], generator.mapping(a))
    torch.testing.assert_close(rows[:, 4], generator.mapping(b))


def tiny_run(folder: Path, minutes: float) -> train_generator.Options:
    return train_generator.Options(
        out=folder / "generator.safetensors",
        checkpoint=folder / "generator.checkpoint",
        minutes=minutes,
        mapping_steps=50,
        batch=4,
        lr=3e-3,
        seed=3,
        view_layers=4,
        channels=(8, 8, 8, 8, 8),
        bf16=False,
        save_every_s=60.0,
    )


def test_training_writes_weights_that_load_and_a_run_that_resumes(tmp_path: Path) -> None:
    options = tiny_run(tmp_path, minutes=1e-6)  # the time is spent after one step
    train_generator.train(options)
    generator, card = generator_from_file(options.out)
    assert card.view_layers == options.view_layers and card.config.resolution == 64
    assert generator.mapping.w_avg.abs().sum() > 0
    resumed = train_generator.start(options)
    assert resumed.step == 1 and resumed.elapsed_s > 0
    for name, value in resumed.average.state_dict().items():
        torch.testing.assert_close(value, generator.state_dict()[name], atol=2e-2, rtol=2e-3)


@pytest.mark.long
def test_fitting_the_mapping_lets_a_straight_line_read_the_scene_from_w(tmp_path: Path) -> None:
    z = torch.randn(4096, Z_DIM, generator=torch.Generator().manual_seed(5))
    mean, deviation = train_generator.scene_statistics()
    truth = (train_generator.scene_vectors(z) - mean) / deviation

    def unexplained(steps: int) -> float:
        options = replace(tiny_run(tmp_path, minutes=1.0), mapping_steps=steps)
        w = train_generator.start(options).generator.mapping(z)
        readings = torch.cat([w, torch.ones(len(w), 1)], dim=1)
        fitted = readings @ torch.linalg.lstsq(readings[:2048], truth[:2048]).solution
        return float((fitted - truth)[2048:].square().mean())

    assert unexplained(steps=1500) < 0.5 * unexplained(steps=1)


@pytest.mark.long
def test_training_lowers_the_loss(tmp_path: Path) -> None:
    options = tiny_run(tmp_path, minutes=60.0)
    run = train_generator.start(options)
    losses = []
    for _ in range(60):
        losses.append(train_generator.train_step(run, options))
        run.step += 1
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_a_sheet_has_a_row_an_entry_and_a_column_an_image() -> None:
    images = torch.zeros(5, 3, 8, 8)
    sheet = sheet_from_images([images, images], scale=3)
    assert sheet.size == (5 * 8 * 3, 2 * 8 * 3)
    assert sheet.getpixel((0, 0)) == (128, 128, 128)
