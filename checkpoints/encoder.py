"""Native files of encoders: safetensors with nets' parameter names, and a card."""

from pathlib import Path

import torch

from bundle.records import range_problem
from checkpoints.card import EncoderCard
from checkpoints.errors import CardError
from checkpoints.pairs import write_pair
from checkpoints.toml import card_path, read_card
from checkpoints.weights import module_from_weights, tensors_of_module
from nets.config import SQUARE, size_at
from nets.encoder import Encoder, EncoderConfig


def encoder_from_file(path: Path) -> tuple[Encoder, EncoderCard]:
    """Reads weights (float32 or float16) and card.

    The encoder is float32, in evaluation mode. Raises CardError, WeightsError.
    """
    card = read_card(path, EncoderCard, _contradiction)
    encoder = module_from_weights(
        path, card_path(path), lambda: Encoder(config_from_encoder_card(card))
    )
    return encoder, card


def write_encoder(path: Path, encoder: Encoder, card: EncoderCard) -> None:
    """Writes float32 weights and card.

    Raises CardError when the card breaks a rule or does not fit the encoder, WeightsError when a
    weight is not finite.
    """
    problem = range_problem(card) or _contradiction(card)
    if problem is None and config_from_encoder_card(card) != encoder.config:
        problem = "its shape is not the encoder's"
    if problem:
        raise CardError(f"{card_path(path)} is not written: {problem}")
    write_pair(path, tensors_of_module(path, encoder, torch.float32), card)


def config_from_encoder_card(card: EncoderCard) -> EncoderConfig:
    """nets' configuration of a card. Raises ValueError for impossible channels."""
    return EncoderConfig(
        height=card.height,
        width=card.width,
        num_ws=card.num_ws,
        w_dim=card.w_dim,
        channels=tuple(card.channels),
        hidden=card.hidden,
        iterations=card.iterations,
    )


def _contradiction(card: EncoderCard) -> str | None:
    rows, _ = size_at(card.grid, card.start or SQUARE)
    if card.crop_top >= rows:
        return f"crop_top is {card.crop_top}; it must be in [0, {rows - 1}]"
    if card.rows > rows - card.crop_top:
        return f"rows is {card.rows}; it must be in [1, {rows - card.crop_top}]"
    return None
