"""Native files of refiners: safetensors with nets' parameter names, and a card."""

from pathlib import Path

import torch

from bundle.records import range_problem
from checkpoints.card import RefinerCard, RefinerConfigCard
from checkpoints.errors import CardError
from checkpoints.pairs import write_pair
from checkpoints.toml import card_path, read_card
from checkpoints.weights import module_from_weights, tensors_of_module
from nets.refiner import Refiner, RefinerConfig


def refiner_from_file(path: Path) -> tuple[Refiner, RefinerCard]:
    """Reads weights (float32 or float16) and card.

    The refiner is float32, in evaluation mode. Raises CardError, WeightsError.
    """
    card = read_card(path, RefinerCard)
    refiner = module_from_weights(path, card_path(path), lambda: Refiner(config_from_card(card)))
    return refiner, card


def write_refiner(path: Path, refiner: Refiner, card: RefinerCard) -> None:
    """Writes float32 weights and card.

    Raises CardError when the card breaks a rule or does not fit the refiner, WeightsError when a
    weight is not finite.
    """
    if config_from_card(card) != refiner.config:
        raise CardError(f"{card_path(path)} is not written: its config is not the refiner's")
    problem = range_problem(card)
    if problem:
        raise CardError(f"{card_path(path)} is not written: {problem}")
    write_pair(path, tensors_of_module(path, refiner, torch.float32), card)


def config_card_from_refiner(refiner: Refiner) -> RefinerConfigCard:
    """The table [config] of a refiner's card."""
    c = refiner.config
    return RefinerConfigCard(channels=c.channels, width=c.width, blocks=c.blocks, grain=c.grain)


def config_from_card(card: RefinerCard) -> RefinerConfig:
    """nets' configuration of a card."""
    c = card.config
    return RefinerConfig(channels=c.channels, width=c.width, blocks=c.blocks, grain=c.grain)
