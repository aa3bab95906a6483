"""The native format of view banks: safetensors with the one tensor "codes", and a card."""

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from checkpoints.card import CameraCard, ViewsCard
from checkpoints.errors import CardError, WeightsError
from checkpoints.toml import card_path, read_card, toml_from_card, write_text
from checkpoints.weights import refuse_names, tensors_from_file, write_tensors

CODES = "codes"
MAX_LENGTH = 1e9  # of cameras, which are served as float32
MAX_CODES = 1 << 16  # as many as a stream may have views of an object


def views_from_file(path: Path) -> tuple[NDArray[np.float32], ViewsCard]:
    """View codes, float32 [codes, view_layers, w_dim], and card. Raises CardError, WeightsError."""
    card = read_card(path, ViewsCard)
    problem = _problem(card)
    if problem:
        raise CardError(f"{card_path(path)}: {problem}")
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
    """Writes codes, [codes, view_layers, w_dim], and card. Raises CardError, WeightsError."""
    problem = _problem(card)
    if codes.shape != (card.codes, card.view_layers, card.w_dim):
        problem = f"its codes are {list(codes.shape)}"
    if problem:
        raise CardError(f"{card_path(path)} is not written: {problem}")
    if not np.isfinite(codes).all():
        raise WeightsError(f"{path} is not written: {CODES} has values that are not finite")
    write_tensors(path, {CODES: torch.from_numpy(codes.astype(np.float32))})
    write_text(card_path(path), toml_from_card(card))


def camera_problem(camera: CameraCard) -> str | None:
    """The first value out of range, in words."""
    for name in ("azimuth_deg", "elevation_deg", "distance", "focal"):
        value = getattr(camera, name)
        if value is not None and not math.isfinite(value):
            return f"{name} is {value}; it must be finite, or left out when it is not known"
    ranges = {"azimuth_deg": 360, "elevation_deg": 90}
    for name, limit in ranges.items():
        value = getattr(camera, name)
        if value is not None and abs(value) > limit:
            return f"{name} is {value:g}; it must be in [-{limit}, {limit}]"
    for name in ("distance", "focal"):
        value = getattr(camera, name)
        if value is not None and not 0 < value <= MAX_LENGTH:
            return f"{name} is {value:g}; it must be over 0 and at most {MAX_LENGTH:g}"
    return None


def _problem(card: ViewsCard) -> str | None:
    ranges = {"codes": MAX_CODES, "view_layers": 1 << 10, "w_dim": 1 << 20}
    for name, most in ranges.items():
        value = getattr(card, name)
        if not 1 <= value <= most:
            return f"{name} is {value}; it must be in [1, {most}]"
    if card.cameras is None:
        return None
    if len(card.cameras) != card.codes:
        return f"cameras has {len(card.cameras)} entries; there are {card.codes} codes"
    for i, camera in enumerate(card.cameras):
        problem = camera_problem(camera)
        if problem:
            return f"cameras[{i}].{problem}"
    return None
