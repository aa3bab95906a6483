"""Native files of view banks: safetensors with one tensor, "codes", and a card."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bundle.records import range_problem
from checkpoints.card import ViewsCard
from checkpoints.errors import CardError, WeightsError
from checkpoints.pairs import write_pair
from checkpoints.toml import card_path, read_card
from checkpoints.weights import refuse_names, tensors_from_file

CODES = "codes"


def views_from_file(path: Path) -> tuple[NDArray[np.float32], ViewsCard]:
    """Reads view codes, float32 [codes, view_layers, w_dim], and card.

    Raises CardError, WeightsError.
    """
    card = read_card(path, ViewsCard, _contradiction)
    tensors = tensors_from_file(path)
    refuse_names(str(path), "lacks", {CODES} - tensors.keys())
    refuse_names(str(path), "has unexpected", tensors.keys() - {CODES})
    codes, expected = tensors[CODES], [card.codes, card.view_layers, card.w_dim]
    if list(codes.shape) != expected or codes.dtype != torch.float32:
        raise WeightsError(
            f"{path}: {CODES} is {codes.dtype} {list(codes.shape)}; by {card_path(path).name} it "
            f"must be {torch.float32} {expected}"
        )
    if not torch.isfinite(codes).all():
        raise WeightsError(f"{path}: {CODES} holds values that are not finite")
    return codes.numpy(), card


def write_views(path: Path, codes: NDArray[np.float32], card: ViewsCard) -> None:
    """Writes view codes, float32 [codes, view_layers, w_dim], and card.

    Raises CardError when the card breaks a rule or does not fit the codes, WeightsError when a
    value is not finite.
    """
    problem = range_problem(card) or _contradiction(card)
    if codes.shape != (card.codes, card.view_layers, card.w_dim):
        expected = [card.codes, card.view_layers, card.w_dim]
        problem = f"the codes are {list(codes.shape)}; they must be {expected}"
    if problem:
        raise CardError(f"{card_path(path)} is not written: {problem}")
    if not np.isfinite(codes).all():
        raise WeightsError(f"{path} is not written: {CODES} has values that are not finite")
    write_pair(path, {CODES: torch.from_numpy(codes.astype(np.float32))}, card)


def _contradiction(card: ViewsCard) -> str | None:
    if card.cameras is not None and len(card.cameras) != card.codes:
        return f"cameras has {len(card.cameras)} entries; there are {card.codes} codes"
    return None
