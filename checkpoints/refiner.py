"""The native format of refiners: safetensors of nets' own names, and a card."""

from pathlib import Path

import torch

from checkpoints.card import RefinerCard, RefinerConfigCard
from checkpoints.errors import CardError
from checkpoints.toml import card_path, read_card, toml_from_card, write_text
from checkpoints.weights import module_from_weights, write_weights
from nets.refiner import Refiner, RefinerConfig

MAX_WIDTH = 1 << 16  # of a layer; the tensors decide, this only bounds the arithmetic
MAX_BLOCKS = 1 << 10
MAX_GRAIN = 64


def refiner_from_file(path: Path) -> tuple[Refiner, RefinerCard]:
    """Reads weights (float32 or float16) and card; float32, in evaluation mode.

    Raises CardError, WeightsError.
    """
    card = read_card(path, RefinerCard)
    problem = _problem(card)
    if problem:
        raise CardError(f"{card_path(path)}: {problem}")
    refiner = module_from_weights(path, card_path(path), lambda: Refiner(config_from_card(card)))
    return refiner, card


def write_refiner(path: Path, refiner: Refiner, card: RefinerCard) -> None:
    """Writes float32 weights and card. Raises CardError when the card is not this refiner's."""
    if config_from_card(card) != refiner.config:
        raise CardError(f"{card_path(path)} is not written: its config is not the refiner's")
    problem = _problem(card)
    if problem:
        raise CardError(f"{card_path(path)} is not written: {problem}")
    write_weights(path, refiner, torch.float32)
    write_text(card_path(path), toml_from_card(card))


def config_card_from_refiner(refiner: Refiner) -> RefinerConfigCard:
    """The card's [config]."""
    c = refiner.config
    return RefinerConfigCard(channels=c.channels, width=c.width, blocks=c.blocks, grain=c.grain)


def config_from_card(card: RefinerCard) -> RefinerConfig:
    """nets' configuration."""
    c = card.config
    return RefinerConfig(channels=c.channels, width=c.width, blocks=c.blocks, grain=c.grain)


def _problem(card: RefinerCard) -> str | None:
    """The first value out of range, in words."""
    ranges = {
        "config.channels": (card.config.channels, 3, 3),
        "config.width": (card.config.width, 1, MAX_WIDTH),
        "config.blocks": (card.config.blocks, 0, MAX_BLOCKS),
        "config.grain": (card.config.grain, 0, MAX_GRAIN),
        "height": (card.height, 1, MAX_WIDTH),
        "width": (card.width, 1, MAX_WIDTH),
        "grain_seed": (card.grain_seed, 0, 2**63 - 1),
    }
    for name, (value, low, high) in ranges.items():
        if not low <= value <= high:
            return f"{name} is {value}; it must be in [{low}, {high}]"
    return None
