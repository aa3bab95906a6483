"""Weights files and their card: the contract between training and export."""

from checkpoints.card import (
    ClassCard,
    ConfigCard,
    DepthCard,
    GeneratorCard,
    HeadCard,
    InterpreterCard,
    KeypointsCard,
    SegmentationCard,
)
from checkpoints.errors import CardError, CheckpointError, WeightsError
from checkpoints.generator import card_from_config, generator_from_file, write_generator
from checkpoints.interpreter import (
    head_cards,
    interpreter_from_file,
    write_interpreter,
)
from checkpoints.weights import sha256_of_file

__all__ = [
    "CardError",
    "CheckpointError",
    "ClassCard",
    "ConfigCard",
    "DepthCard",
    "GeneratorCard",
    "HeadCard",
    "InterpreterCard",
    "KeypointsCard",
    "SegmentationCard",
    "WeightsError",
    "card_from_config",
    "generator_from_file",
    "head_cards",
    "interpreter_from_file",
    "sha256_of_file",
    "write_generator",
    "write_interpreter",
]
