"""Runs are stored, never mixed, and give a table; bad input is a one-line error."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from examples.demo.scene import CLASS_NAMES
from examples.train_segmentation.__main__ import main
from examples.train_segmentation.evaluate import Score
from examples.train_segmentation.fit import UNetTrainConfig
from examples.train_segmentation.picture import picture_from_networks
from examples.train_segmentation.results import (
    NETWORK,
    Run,
    network_of_run,
    runs_of_folder,
    table_from_runs,
    write_run,
)
from examples.train_segmentation.samples import rendered
from examples.train_segmentation.unet import UNet
from tests.examples.train_segmentation.drawn import SMALL

CONFIG = UNetTrainConfig()
SCORE = Score(0.5, [0.5] * len(CLASS_NAMES), 0.25, 3.0)
RUN = Run("a", 0, asdict(CONFIG), SCORE, [(80, 0.25), (160, 0.5)], 12.5)


def test_a_run_and_its_network_come_back_as_they_were(tmp_path: Path) -> None:
    network = UNet(NETWORK)
    write_run(tmp_path, RUN, network)
    (run,) = runs_of_folder(tmp_path, CONFIG)
    assert run == RUN
    for name, value in network_of_run(tmp_path, run).state_dict().items():
        assert torch.equal(value, network.state_dict()[name])


def test_runs_of_another_configuration_are_refused_with_both_values(tmp_path: Path) -> None:
    write_run(tmp_path, RUN, UNet(NETWORK))
    with pytest.raises(ValueError, match=r"a-0\.json has steps 800, this command 7; .*--out"):
        runs_of_folder(tmp_path, replace(CONFIG, steps=7))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"arm": "a"}', "\0"])
def test_a_damaged_result_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "a-0.json").write_text(text)
    with pytest.raises(ValueError, match=r"a-0\.json is not a result"):
        runs_of_folder(tmp_path, CONFIG)


def test_the_table_has_means_over_seeds_and_their_extremes() -> None:
    other = replace(RUN, seed=1, score=replace(SCORE, miou=0.75, pck=0.35))
    stream = replace(RUN, arm="c")
    table = table_from_runs([RUN, other, stream]).splitlines()
    assert len(table) == 2 + 2
    assert table[2].startswith(
        "| a | 16 labeled images | 2 | 62.5 (50.0 to 75.0) | 30.0 | 3.00 | 50.0"
    )
    assert table[3].startswith("| c | stream, keep_fraction 0.9 | 1 | 50.0 | 25.0 | 3.00 |")
    assert len({line.count("|") for line in table}) == 1


def test_the_picture_has_a_column_for_each_image_and_rows_for_each_network() -> None:
    samples = rendered(SMALL).rows(torch.arange(3))
    one, two = (
        picture_from_networks(samples, [("net", UNet(NETWORK))] * networks) for networks in (1, 2)
    )
    assert two.width == one.width
    assert two.height - one.height == 2 * 134  # masks and keypoints
    assert len(np.unique(np.asarray(two).reshape(-1, 3), axis=0)) > 1000


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--arms", "a,x"), "'a,x' is not a list of arms; choose from a,b,c,d,e"),
        (("--arms", ""), "'' is not a list of arms"),
        (("--seeds", "1,-1"), "'1,-1' is not a list of seeds from 0 to 999999"),
        (("--seeds", "one"), "'one' is not a list of seeds"),
        (("--steps", "0"), "0 is not in the range x>=1"),
    ],
)
def test_wrong_options_end_with_2_and_the_right_ones(
    arguments: tuple[str, ...], message: str
) -> None:
    result = command(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_a_folder_without_the_demo_is_one_line(tmp_path: Path) -> None:
    result = command("--arms", "a", "--demo", str(tmp_path), "--out", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert f"{tmp_path / 'labels' / 'index.json'} cannot be read" in result.output
    assert len(result.output.splitlines()) == 1


def test_results_of_other_settings_stop_a_command_before_it_trains(tmp_path: Path) -> None:
    write_run(tmp_path, RUN, UNet(NETWORK))
    result = command("--arms", "a", "--steps", "7", "--out", str(tmp_path))
    assert result.exit_code == 1
    assert "has steps 800, this command 7" in result.output
