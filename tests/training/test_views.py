"""A view bank has the rows it says, spread over what it was told to spread over."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image

from checkpoints import GeneratorCard, card_from_config, views_from_file, write_generator
from labelmint.latents import Purpose, latents
from tests.training.sets import SHA, tiny_generator
from training.__main__ import main
from training.errors import TrainingError
from training.images.sample import spread_rows
from training.label_crop import LabelCrop, images_from_ws
from training.views.bank import (
    ViewsConfig,
    bank_from_cameras,
    bank_from_draws,
    directions,
    drawn_ws,
    identity_of_draws,
    images_of_average,
    small_images,
    view_layers_of,
)
from training.views.cameras import CameraRow, cameras_from_file, write_cameras
from training.views.command import captions_from_bank

GENERATOR = tiny_generator()
CARD = GeneratorCard(
    format=1,
    kind="generator",
    family="stylegan2",
    config=card_from_config(GENERATOR.config),
    view_layers=2,
    truncation_psi=0.5,
    truncation_cutoff=6,
    licences=["CC0-1.0"],
    provenance="by a test",
)
CONFIG = ViewsConfig(view_layers=2, psi=0.5, cutoff=6, count=4, seed=7)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    write_generator(tmp_path / "g.safetensors", GENERATOR, CARD)
    return tmp_path / "g.safetensors"


def config_of(count: int) -> ViewsConfig:
    return ViewsConfig(view_layers=2, psi=0.5, cutoff=6, count=count, seed=7)


def size_of(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as image:
        return image.size


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["views", *(str(a) for a in arguments)])


def cameras(*azimuths: float) -> list[CameraRow]:
    return [CameraRow(row=row, azimuth_deg=azimuth) for row, azimuth in enumerate(azimuths)]


def test_codes_are_the_first_rows_of_the_streams_samples() -> None:
    bank = bank_from_draws(GENERATOR, CONFIG, 32, "w")
    z = latents(7, Purpose.OBJECT, bank.rows, 8)
    with_torch = GENERATOR.mapping(torch.from_numpy(z)).numpy()
    mean = GENERATOR.mapping.w_avg.numpy()
    expected = mean + np.float32(0.5) * (with_torch - mean)
    assert bank.codes.shape == (4, 2, 8)
    assert np.allclose(bank.codes, expected[:, None], atol=1e-6)


def test_w_is_covered_better_than_by_the_first_draws() -> None:
    w = drawn_ws(GENERATOR, CONFIG, 64)[:, 0]
    bank = bank_from_draws(GENERATOR, CONFIG, 64, "w")

    def farthest(chosen: NDArray[np.float32]) -> float:
        return float(np.linalg.norm(w[:, None] - chosen[None], axis=2).min(axis=1).max())

    assert len(set(bank.rows.tolist())) == 4
    assert farthest(bank.codes[:, 0]) < 0.8 * farthest(w[:4])


def test_views_that_look_alike_are_not_taken_both() -> None:
    codes = drawn_ws(GENERATOR, CONFIG, 64)[:, :2]
    images = small_images(GENERATOR, codes)
    assert images.shape == (64, 16 * 16 * 3)

    def nearest(rows: NDArray[np.int64]) -> float:
        apart = np.linalg.norm(images[rows][:, None] - images[rows][None], axis=2)
        return float(apart[~np.eye(len(rows), dtype=bool)].min())

    spread = bank_from_draws(GENERATOR, CONFIG, 64)
    assert nearest(spread.rows) > 1.5 * nearest(np.arange(4))
    assert nearest(spread.rows) >= nearest(bank_from_draws(GENERATOR, CONFIG, 64, "w").rows)


def test_the_view_rows_alone_decide_the_small_images() -> None:
    codes = drawn_ws(GENERATOR, CONFIG, 3)[:, :2]
    images = images_of_average(GENERATOR, codes, LabelCrop(16, 0, 16))
    ws = np.tile(GENERATOR.mapping.w_avg.numpy(), (3, 6, 1))
    ws[:, :2] = codes
    assert (images == images_from_ws(GENERATOR, ws, LabelCrop(16, 0, 16))).all()


def test_cameras_are_spread_over_azimuth_and_stay_with_their_codes() -> None:
    crowd = cameras(*np.random.default_rng(0).normal(0, 3, 40), -60, 60, 30, -30)
    bank = bank_from_cameras(GENERATOR, config_of(5), crowd)
    assert bank.cameras is not None
    azimuths = [camera.azimuth_deg for camera in bank.cameras]
    assert azimuths[0] == -60 and azimuths[1] == -30 and azimuths[3:] == [30, 60]
    assert abs(azimuths[2] or 0) < 10
    every = drawn_ws(GENERATOR, CONFIG, 44)
    for code, camera, row in zip(bank.codes, bank.cameras, bank.rows, strict=True):
        assert camera.row == row and (code == every[row, :2]).all()


def test_a_full_turn_is_no_distance() -> None:
    turned = directions(cameras(-180, 180, 0))
    assert np.allclose(turned[0], turned[1]) and np.linalg.norm(turned[0] - turned[2]) > 1.9
    bank = bank_from_cameras(GENERATOR, config_of(2), cameras(-180, 179.9, 180, 0))
    assert bank.cameras is not None
    assert 0.0 in [camera.azimuth_deg for camera in bank.cameras]


def test_equal_cameras_are_taken_once_each() -> None:
    assert sorted(spread_rows(np.zeros((5, 3)), 5)) == [0, 1, 2, 3, 4]


def test_too_few_cameras_are_refused() -> None:
    with pytest.raises(TrainingError, match="2 rows have an azimuth, --count is 4"):
        bank_from_cameras(GENERATOR, CONFIG, cameras(1, 2))


def test_the_rows_that_carry_the_view_must_be_known() -> None:
    silent = msgspec.structs.replace(CARD, view_layers=0)
    assert view_layers_of(CARD, None) == view_layers_of(CARD, 2) == view_layers_of(silent, 2) == 2
    for card, given, message in (
        (silent, None, "give --view-layers"),
        (CARD, 3, "--view-layers is 3, the generator's card says 2"),
        (silent, 7, "this generator has 6 rows"),
    ):
        with pytest.raises(TrainingError, match=message):
            view_layers_of(card, given)


def test_draws_of_another_seed_or_truncation_have_another_identity() -> None:
    one = identity_of_draws(SHA, CONFIG)
    assert one == identity_of_draws(SHA, config_of(9))  # the number of views is no part of it
    others = [
        identity_of_draws("1" * 64, CONFIG),
        identity_of_draws(SHA, ViewsConfig(view_layers=2, psi=0.5, cutoff=6, seed=8)),
        identity_of_draws(SHA, ViewsConfig(view_layers=2, psi=0.6, cutoff=6, seed=7)),
        identity_of_draws(SHA, ViewsConfig(view_layers=3, psi=0.5, cutoff=6, seed=7)),
    ]
    assert len({one, *others}) == 5


def test_candidates_are_annotated_and_become_a_bank_with_a_sheet(
    weights: Path, tmp_path: Path
) -> None:
    annotations, out = tmp_path / "cameras.csv", tmp_path / "bank.safetensors"
    given = ("--generator", weights, "--seed", 7)
    result = command(*given, "--annotate", annotations, "--candidates", 14)
    assert result.exit_code == 0, result.output
    assert size_of(tmp_path / "cameras.png") == (6 + 12 * 198, 12 + 2 * (17 + 198) + 17 + 6)
    draw = annotations.read_text().splitlines()[1].split(",")[1]
    assert cameras_from_file(annotations, draw) == []  # nobody has annotated yet
    annotations.unlink()
    filled = [
        CameraRow(row=row, draw=draw, azimuth_deg=10.0 * row, elevation_deg=-row / 2)
        for row in range(13)
    ]
    write_cameras(annotations, filled)
    result = command(*given, "--cameras", annotations, "--out", out, "--count", 3, "--objects", 2)
    assert result.exit_code == 0, result.output
    codes, card = views_from_file(out)
    assert codes.shape == (3, 2, 8) and card.cameras is not None
    assert [camera.azimuth_deg for camera in card.cameras] == [0, 60, 120]
    assert card.cameras[2].elevation_deg == -6 and card.licences == ["CC0-1.0"]
    width, height = size_of(tmp_path / "bank.png")
    assert width > 6 + 3 * 198 and height > 6 + 17 + 6 + 2 * 198  # titles, and pictures of 192


def test_annotations_of_other_draws_are_refused(weights: Path, tmp_path: Path) -> None:
    annotations = tmp_path / "cameras.csv"
    given = ("--generator", weights, "--candidates", 2)
    assert command(*given, "--annotate", annotations, "--seed", 7).exit_code == 0
    out = ("--out", tmp_path / "bank.safetensors")
    result = command("--generator", weights, "--cameras", annotations, *out, "--seed", 8)
    assert isinstance(result.exception, TrainingError) and "is of draw" in str(result.exception)
    assert not (tmp_path / "bank.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give --out for a bank, or --annotate"),
        (("--out", "b.safetensors", "--annotate", "c.csv"), "give --out for a bank"),
        (("--annotate", "c.csv", "--cameras", "c.csv"), "give one of them"),
        (
            ("--out", "b.safetensors", "--cameras", "c", "--candidates", "5"),
            "leave --candidates and --spread",
        ),
        (
            ("--out", "b.safetensors", "--cameras", "c", "--spread", "w"),
            "leave --candidates and --spread",
        ),
    ],
)
def test_options_that_exclude_each_other_are_a_usage_error(
    weights: Path, arguments: tuple[str, ...], words: str
) -> None:
    result = command("--generator", weights, *arguments)
    assert result.exit_code == 2 and words in " ".join(result.output.split())


def test_captions_name_what_is_known() -> None:
    known = [
        CameraRow(row=0, azimuth_deg=-57.4, elevation_deg=3.2),
        CameraRow(row=1, azimuth_deg=4.0),
    ]
    bank = bank_from_cameras(GENERATOR, config_of(2), known)
    assert captions_from_bank(bank) == ["view 0: -57° +3°", "view 1: +4°"]
    assert captions_from_bank(bank_from_draws(GENERATOR, config_of(2), 4)) == ["view 0", "view 1"]
