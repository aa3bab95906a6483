"""Native files of interpreters (label ensembles): safetensors with nets' names, and a card."""

from pathlib import Path

import torch

from bundle.records import range_problem
from checkpoints.card import HeadCard, InterpreterCard
from checkpoints.errors import CardError
from checkpoints.pairs import write_pair
from checkpoints.toml import card_path, read_card
from checkpoints.weights import module_from_weights, tensors_of_module
from nets.config import SQUARE, size_at
from nets.interpreter import HeadConfig, HeadKind, Interpreter


def interpreter_from_file(path: Path) -> tuple[Interpreter, InterpreterCard]:
    """Reads weights (float32 or float16) and card.

    The interpreter is float32, in evaluation mode. Raises CardError, WeightsError.
    """
    card = read_card(path, InterpreterCard, _contradiction)
    interpreter = module_from_weights(
        path, card_path(path), lambda: Interpreter(configs_from_card(card))
    )
    return interpreter, card


def write_interpreter(path: Path, interpreter: Interpreter, card: InterpreterCard) -> None:
    """Writes float32 weights and card.

    Raises CardError when the card breaks a rule or does not fit the interpreter, WeightsError when
    a weight is not finite.
    """
    if head_cards(interpreter) != card.heads:
        raise CardError(f"{card_path(path)} is not written: its heads are not the interpreter's")
    problem = card_problem(card)
    if problem:
        raise CardError(f"{card_path(path)} is not written: {problem}")
    write_pair(path, tensors_of_module(path, interpreter, torch.float32), card)


def head_cards(interpreter: Interpreter) -> list[HeadCard]:
    """The tables [[heads]] of an interpreter's card."""
    configs = [interpreter.head(kind).config for kind in interpreter.heads]
    return [
        HeadCard(kind=c.kind, hidden=c.hidden, outputs=c.outputs, members=c.members)
        for c in configs
    ]


def configs_from_card(card: InterpreterCard) -> tuple[HeadConfig, ...]:
    """nets' configurations of the heads of a card."""
    return tuple(
        HeadConfig(
            kind=head.kind,
            features=card.features,
            hidden=head.hidden,
            outputs=head.outputs,
            members=head.members,
        )
        for head in card.heads
    )


def card_problem(card: InterpreterCard) -> str | None:
    """The first value out of range or broken rule between fields; None without one."""
    return range_problem(card) or _contradiction(card)


def _contradiction(card: InterpreterCard) -> str | None:
    rows, columns = size_at(card.grid, card.start or SQUARE)
    if card.crop_top + card.height > rows:
        return (
            f"crop_top is {card.crop_top} and height {card.height}; the rows must lie within the "
            f"grid of {rows}"
        )
    if card.width > columns:
        return f"width is {card.width}; it must be in [1, {columns}], the grid"
    if card.score_source is not None and card.score_source not in {h.kind for h in card.heads}:
        return f"score_source is {card.score_source}, a head this interpreter lacks"
    if card.score_measure != "jensen_shannon" and card.score_source != "segmentation":
        return (
            f"score_measure is {card.score_measure}, but score_source is {card.score_source}; only "
            "segmentation has a choice"
        )
    return _heads_problem(card)


def _heads_problem(card: InterpreterCard) -> str | None:
    described: dict[HeadKind, int | None] = {  # outputs that each table describes
        "segmentation": None if card.segmentation is None else len(card.segmentation.classes),
        "keypoints": None if card.keypoints is None else len(card.keypoints.names),
        "depth": None if card.depth is None else 1,
    }
    trained = {head.kind: head for head in card.heads}
    for kind, outputs in described.items():
        head = trained.get(kind)
        if (head is None) != (outputs is None):
            return f"the head {kind} needs both an entry of heads and a table [{kind}]"
        if head is not None and head.outputs != outputs:
            return f"the head {kind} has {head.outputs} outputs; [{kind}] describes {outputs}"
    if card.keypoints is not None:
        for edge in card.keypoints.skeleton:
            if not all(0 <= end < len(card.keypoints.names) for end in edge):
                return (
                    f"keypoints.skeleton has edge {list(edge)}; there are "
                    f"{len(card.keypoints.names)} keypoints, counted from 0"
                )
    return None
