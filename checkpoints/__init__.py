"""Weights files and their card: the contract between training and export."""

from checkpoints.card import (
    ClassCard,
    DepthCard,
    GeneratorCard,
    HeadCard,
    InterpreterCard,
    KeypointsCard,
    SegmentationCard,
    StyleGAN2Config,
)
from checkpoints.errors import CardError, CheckpointError, ForeignFileError, WeightsError
from checkpoints.foreign import (
    ForeignFile,
    PickledNetwork,
    TensorFlowNetwork,
    TorchFile,
    read_array,
    read_foreign,
)
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
    "DepthCard",
    "ForeignFile",
    "ForeignFileError",
    "GeneratorCard",
    "HeadCard",
    "InterpreterCard",
    "KeypointsCard",
    "PickledNetwork",
    "SegmentationCard",
    "StyleGAN2Config",
    "TensorFlowNetwork",
    "TorchFile",
    "WeightsError",
    "card_from_config",
    "generator_from_file",
    "head_cards",
    "interpreter_from_file",
    "read_array",
    "read_foreign",
    "sha256_of_file",
    "write_generator",
    "write_interpreter",
]
