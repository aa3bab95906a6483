"""Refiners load exactly as written, and only with a card that fits their tensors."""

from pathlib import Path

import msgspec
import pytest
import torch

from checkpoints import (
    CardError,
    RefinerCard,
    RegulariserCard,
    WeightsError,
    config_card_from_refiner,
    refiner_from_file,
    write_refiner,
)
from nets.refiner import Refiner, RefinerConfig


def refiner() -> Refiner:
    torch.manual_seed(0)
    network = Refiner(RefinerConfig(width=5, blocks=2, grain=1))
    for parameter in network.parameters():
        parameter.data.normal_()
    return network


def card(network: Refiner) -> RefinerCard:
    return RefinerCard(
        format=1,
        kind="refiner",
        generator_sha256="0" * 64,
        height=30,
        width=40,
        grain_seed=3,
        config=config_card_from_refiner(network),
        regulariser=RegulariserCard(strength=0.5, reduction="image-sum", feature="gradients"),
        shift_px=0.25,
        structure=0.9,
        licences=["CC0-1.0"],
        provenance={"steps": 10},
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    network, path = refiner(), tmp_path / "r.safetensors"
    for given in (card(network), msgspec.structs.replace(card(network), generator_sha256=None)):
        write_refiner(path, network, given)
        read, found = refiner_from_file(path)
        assert found == given and not read.training
        assert read.config == network.config
        for name, tensor in network.state_dict().items():
            assert torch.equal(read.state_dict()[name], tensor)


def test_another_networks_card_is_not_written(tmp_path: Path) -> None:
    network = refiner()
    other = Refiner(RefinerConfig(width=6, blocks=2, grain=1))
    with pytest.raises(CardError, match="its config is not the refiner's"):
        write_refiner(tmp_path / "r.safetensors", other, card(network))
    network.stem.weight.data[0] = torch.nan
    with pytest.raises(WeightsError, match="not finite"):
        write_refiner(tmp_path / "r.safetensors", network, card(network))
    assert list(tmp_path.iterdir()) == []
