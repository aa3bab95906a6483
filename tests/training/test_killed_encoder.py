"""An encoder's training goes on where it was killed, and ends with the same bytes."""

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from checkpoints import WeightsError, tensors_from_file, write_tensors
from nets.stylegan2 import Generator
from tests.conftest import write_tiny_weights
from tests.training.killed import ended, files, killed, written
from tests.training.tiny_generator import tiny_generator
from training.__main__ import main
from training.errors import TrainingError
from training.inversion.distances import STRUCTURE, Distance
from training.inversion.train_encoder import EncoderTrainConfig, fit_encoder
from training.label_crop import LabelCrop
from training.resume import StateFile, state_path

CROP = LabelCrop(grid=16, crop_top=2, height=12)
SHORT = EncoderTrainConfig(latent_steps=3, image_steps=4, batch=4, iterations=2)
STEPS = ["--latent-steps", "60", "--image-steps", "60", "--batch", "2", "--every", "4"]


@pytest.fixture(scope="module")
def generator() -> Generator:
    return tiny_generator(z_dim=4)


@pytest.mark.slow
def test_kill_9_changes_no_byte(tiny_weights: tuple[Path, Path], tmp_path: Path) -> None:
    out, whole = (tmp_path / name / "e.safetensors" for name in ("killed", "whole"))
    command = ["encoder", "--generator", str(tiny_weights[0]), *STEPS, "--out"]
    state, choice = state_path(out), random.Random(0)
    kills = [killed([*command, str(out)], lambda: written(state), choice) for _ in range(2)]
    assert all(kills), "the kills came too late to show anything"
    assert not out.exists()
    at = int(tensors_from_file(state)["step"])
    left = state.with_name(f".{state.name}.99999")  # by a kill in the middle of a writing
    left.write_bytes(b"half a state")
    said = ended([*command, str(out)])
    assert re.findall(r"(\d+)/120", said)[0] == str(at)  # where the bar starts
    assert CliRunner().invoke(main, [*command, str(whole)]).exit_code == 0
    assert files(out.parent) == files(whole.parent)
    assert set(files(whole.parent)) == {"e.safetensors", "e.toml"}


def counting(calls: list[int]) -> Distance:
    def between(a: Tensor, b: Tensor) -> Tensor:
        calls.append(1)
        return STRUCTURE.between(a, b)

    return Distance("counting", between)


@pytest.mark.parametrize(("every", "written_at"), [(2, 6), (4, 4), (5, 5), (7, 7)])
def test_a_training_goes_on_to_the_last_bit_and_repeats_no_step(
    generator: Generator, tmp_path: Path, every: int, written_at: int
) -> None:
    unfinished = StateFile(tmp_path / "state", {}, every)
    whole = fit_encoder(generator, CROP, SHORT, STRUCTURE, unfinished).state_dict()
    calls: list[int] = []
    again = fit_encoder(generator, CROP, SHORT, counting(calls), unfinished).state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert len(calls) == SHORT.iterations * (SHORT.steps - written_at)


def test_a_state_that_is_no_state_is_one_line(generator: Generator, tmp_path: Path) -> None:
    path = tmp_path / "state"
    unfinished = StateFile(path, {"seed": 0}, save_every=4)

    def train(config: EncoderTrainConfig = SHORT) -> None:
        fit_encoder(generator, CROP, config, STRUCTURE, unfinished)

    train()
    whole, data = tensors_from_file(path), path.read_bytes()
    for change in (
        {"encoder.linear1.weight": torch.zeros(2)},
        {"encoder.linear1.weight.exp_avg": whole["encoder.linear1.weight"].half()},
        {"recipe": torch.tensor([7], dtype=torch.uint8)},
        {"recipe": torch.tensor(list(b"[]"), dtype=torch.uint8)},
        {"chances": torch.zeros_like(whole["chances"])},
        {"stranger": torch.zeros(1)},
        {"step": torch.tensor(-1)},
        {"step": torch.tensor(8)},
    ):
        write_tensors(path, whole | change)
        with pytest.raises(TrainingError, match=r"is no state of this training \(.*delete it"):
            train()
    choice = random.Random(1)
    for _ in range(20):
        path.write_bytes(data[: choice.randrange(len(data))])
        with pytest.raises(WeightsError, match="no intact safetensors"):
            train()
    path.write_bytes(data)
    with pytest.raises(TrainingError, match="is no state of this training"):
        train(replace(SHORT, latent_steps=1, image_steps=1))


@pytest.mark.long
def test_only_the_same_command_goes_on(tiny_weights: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "e.safetensors"
    start = ["encoder", "--out", str(out), "--every", "3", "--batch", "2"]
    generator = ["--generator", str(tiny_weights[0])]
    wild = ["--learning-rate", "1e30"]  # ends in a loss that is not finite, after a state

    def said(*arguments: str) -> str:
        result = CliRunner().invoke(main, [*start, *arguments])
        assert result.exit_code == 1 and isinstance(result.exception, TrainingError), result.output
        assert "\n" not in str(result.exception)
        return str(result.exception)

    assert "lower --learning-rate" in said(*generator, *wild)
    state = state_path(out)
    before = state.read_bytes()
    advice = "; give the same, or delete it, or name another --out"
    assert said(*generator) == (
        f"{state} was made with learning_rate 1e+30, this command has 0.001{advice}"
    )
    for changed, name in {
        ("--seed", "1"): "seed 0, this command has 1",
        ("--rows", "4:28"): "crop_top 0, this command has 4",
        ("--psi", "0.5"): r"psi 1.0, this command has 0.5",
        ("--image-steps", "7"): "image_steps 1500, this command has 7",
        ("--force", "--grid", "16"): "grid 32, this command has 16",
    }.items():
        assert f"was made with {name}{advice}" in said(*generator, *wild, *changed)
    other = write_tiny_weights(tmp_path, seed=1)[0]
    assert "made with other generator weights than this command has" in said(
        "--generator", str(other), *wild
    )
    assert state.read_bytes() == before and not out.exists()


def test_force_goes_on_too_and_replaces_at_the_end(
    tiny_weights: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "e.safetensors"
    options = ["--generator", str(tiny_weights[0]), "--latent-steps", "2", "--image-steps", "3"]
    start = ["encoder", *options, "--batch", "2", "--out", str(out)]
    assert CliRunner().invoke(main, start).exit_code == 0
    whole = out.read_bytes()
    out.write_bytes(b"an older one")
    result = CliRunner().invoke(main, start)
    assert "exists; give --force" in str(result.exception) and out.read_bytes() == b"an older one"
    assert CliRunner().invoke(main, [*start, "--force"]).exit_code == 0
    assert out.read_bytes() == whole
