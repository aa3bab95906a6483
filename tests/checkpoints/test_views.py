"""A view bank and its card: what is written is read again, and nothing else is."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from checkpoints import CameraCard, CardError, ViewsCard, WeightsError, views_from_file, write_views

CODES = np.random.default_rng(0).standard_normal((3, 2, 8)).astype(np.float32)
CARD = ViewsCard(
    format=1,
    kind="views",
    generator_sha256="0" * 64,
    codes=3,
    view_layers=2,
    w_dim=8,
    licences=["CC0-1.0"],
    provenance={"seed": 7},
    cameras=[
        CameraCard(azimuth_deg=-57.25, elevation_deg=3.0, distance=6.0, focal=2.4),
        CameraCard(azimuth_deg=1e-7),
        CameraCard(),
    ],
)


@pytest.mark.parametrize("cameras", [CARD.cameras, None])
def test_a_bank_is_read_as_it_was_written(tmp_path: Path, cameras: list[CameraCard] | None) -> None:
    card = msgspec.structs.replace(CARD, cameras=cameras)
    write_views(tmp_path / "v.safetensors", CODES, card)
    codes, found = views_from_file(tmp_path / "v.safetensors")
    assert codes.tobytes() == CODES.tobytes() and found == card


def not_finite() -> NDArray[np.float32]:
    codes = CODES.copy()
    codes[1, 0, 3] = np.nan
    return codes


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"codes": torch.from_numpy(CODES[:2].copy())}, r"codes is torch.float32 \[2, 2, 8\]"),
        ({"codes": torch.from_numpy(CODES).half()}, "torch.float16"),
        ({"codes": torch.from_numpy(not_finite())}, "not finite"),
        ({"other": torch.from_numpy(CODES)}, "lacks codes"),
        ({"codes": torch.from_numpy(CODES), "more": torch.zeros(1)}, "unexpected more"),
    ],
)
def test_tensors_that_are_no_bank_are_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor], message: str
) -> None:
    write_views(tmp_path / "v.safetensors", CODES, CARD)
    save_file(tensors, tmp_path / "v.safetensors")
    with pytest.raises(WeightsError, match=message):
        views_from_file(tmp_path / "v.safetensors")


def test_codes_that_are_not_the_cards_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="not written"):
        write_views(tmp_path / "v.safetensors", CODES[:2], CARD)
    with pytest.raises(WeightsError, match="not written"):
        write_views(tmp_path / "v.safetensors", not_finite(), CARD)
    assert not list(tmp_path.iterdir())


def test_a_card_with_half_a_character_is_not_written(tmp_path: Path) -> None:
    """As words of a command line that are no UTF-8."""
    card = msgspec.structs.replace(CARD, licences=["\udcff"])
    with pytest.raises(CardError, match=r"v\.toml is not written.*is no character"):
        write_views(tmp_path / "v.safetensors", CODES, card)
    assert not list(tmp_path.iterdir())
