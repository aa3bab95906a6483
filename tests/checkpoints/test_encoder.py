"""Encoders load exactly as written, and only with a card that explains all of them."""

from pathlib import Path

import msgspec
import pytest
import torch

from checkpoints import (
    CardError,
    EncoderCard,
    encoder_from_file,
    write_encoder,
)
from nets.encoder import Encoder, EncoderConfig

CARD = EncoderCard(
    format=1,
    kind="encoder",
    generator_sha256="0" * 64,
    grid=32,
    crop_top=4,
    rows=24,
    height=12,
    width=16,
    num_ws=4,
    w_dim=6,
    channels=[16, 32],
    hidden=8,
    iterations=3,
    licences=["CC0-1.0"],
    provenance={"by": "hand", "steps": 3},
)


def encoder() -> Encoder:
    torch.manual_seed(0)
    config = EncoderConfig(12, 16, 4, 6, channels=(16, 32), hidden=8, iterations=3)
    network = Encoder(config)
    network.w_avg.normal_()
    network.w_std.uniform_(0.5, 2)
    return network.eval()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "encoder.safetensors"
    write_encoder(path, encoder(), CARD)
    return path


def test_what_was_written_is_read(path: Path) -> None:
    network, card = encoder_from_file(path)
    assert card == CARD and network.config == encoder().config and not network.training
    images = torch.rand(2, 3, 12, 16)
    ws = network.mean_ws(2)
    assert torch.equal(network(images, images, ws), encoder()(images, images, ws))


def test_a_card_of_another_encoder_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    for wrong in ({"hidden": 16}, {"rows": 40}):
        with pytest.raises(CardError, match="is not written"):
            write_encoder(path, encoder(), msgspec.structs.replace(CARD, **wrong))
    assert not list(tmp_path.iterdir())
