"""The native format of label ensembles: safetensors of nets' own names, and a card."""

from pathlib import Path

import torch

from checkpoints.card import HeadCard, InterpreterCard
from checkpoints.errors import CardError
from checkpoints.toml import card_path, read_card, toml_from_card, write_text
from checkpoints.weights import module_from_weights, write_weights
from nets.interpreter import HeadConfig, HeadKind, Interpreter

MAX_MEMBERS = 1024
MAX_WIDTH = 1 << 20  # of any layer; the tensors decide, this only bounds the arithmetic


def interpreter_from_file(path: Path) -> tuple[Interpreter, InterpreterCard]:
    """Reads weights (float32 or float16) and card; float32, in evaluation mode.

    Raises CardError, WeightsError.
    """
    card = read_card(path, InterpreterCard)
    problem = card_problem(card)
    if problem:
        raise CardError(f"{card_path(path)}: {problem}")
    interpreter = module_from_weights(
        path, card_path(path), lambda: Interpreter(configs_from_card(card))
    )
    return interpreter, card


def write_interpreter(path: Path, interpreter: Interpreter, card: InterpreterCard) -> None:
    """Writes float32 weights and card. Raises CardError when the card is not this ensemble's."""
    if head_cards(interpreter) != card.heads:
        raise CardError(f"{card_path(path)} is not written: its heads are not the interpreter's")
    problem = card_problem(card)
    if problem:
        raise CardError(f"{card_path(path)} is not written: {problem}")
    write_weights(path, interpreter, torch.float32)
    write_text(card_path(path), toml_from_card(card))


def head_cards(interpreter: Interpreter) -> list[HeadCard]:
    """The card's [[heads]] of an interpreter."""
    configs = [interpreter.head(kind).config for kind in interpreter.heads]
    return [
        HeadCard(kind=c.kind, hidden=c.hidden, outputs=c.outputs, members=c.members)
        for c in configs
    ]


def configs_from_card(card: InterpreterCard) -> tuple[HeadConfig, ...]:
    """nets' configurations of the heads."""
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
    """The first value out of range or at odds with another, in words."""
    if card.crop_top < 0 or card.height < 1 or card.crop_top + card.height > card.grid:
        return (
            f"crop_top is {card.crop_top} and height {card.height}; the rows must lie within the "
            f"grid of {card.grid}"
        )
    if not 1 <= card.width <= card.grid:
        return f"width is {card.width}; it must be in [1, {card.grid}], the grid"
    if not 0 < card.score_fraction <= 1:
        return f"score_fraction is {card.score_fraction}; it must be in (0, 1]"
    if card.score_source is not None and card.score_source not in {h.kind for h in card.heads}:
        return f"score_source is {card.score_source}, a head this interpreter lacks"
    return _heads_problem(card)


def _heads_problem(card: InterpreterCard) -> str | None:
    meanings: dict[HeadKind, int | None] = {
        "segmentation": None if card.segmentation is None else len(card.segmentation.classes),
        "keypoints": None if card.keypoints is None else len(card.keypoints.names),
        "depth": None if card.depth is None else 1,
    }
    trained = {head.kind: head for head in card.heads}
    for kind, outputs in meanings.items():
        head = trained.get(kind)
        if (head is None) != (outputs is None):
            return f"the head {kind} needs both an entry of heads and a table [{kind}]"
        if head is not None and head.outputs != outputs:
            return f"the head {kind} has {head.outputs} outputs; [{kind}] names {outputs}"
    for head in card.heads:
        if not 1 <= head.members <= MAX_MEMBERS:
            return f"the head {head.kind} has {head.members} members, not 1 to {MAX_MEMBERS}"
        for width in (card.features, *head.hidden, head.outputs):
            if not 1 <= width <= MAX_WIDTH:
                return f"the head {head.kind} has a layer of width {width}, not 1 to {MAX_WIDTH}"
    if card.keypoints is not None:
        for edge in card.keypoints.skeleton:
            if not all(0 <= end < len(card.keypoints.names) for end in edge):
                return (
                    f"keypoints.skeleton has edge {list(edge)}; there are "
                    f"{len(card.keypoints.names)} keypoints, counted from 0"
                )
    return None
