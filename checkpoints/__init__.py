"""Weights files and their cards: `training` writes them, `export` reads them."""

from bundle.files import exchange_folders, made_folder, replaced_file
from bundle.records import Strict, range_problem
from checkpoints.card import (
    CameraCard,
    ClassCard,
    ConfigCard,
    DepthCard,
    EncoderCard,
    GeneratorCard,
    HeadCard,
    InterpreterCard,
    InverseGraphicsCard,
    KeypointsCard,
    RefinerCard,
    RegulariserCard,
    SegmentationCard,
    TrainedOnCard,
    ViewsCard,
)
from checkpoints.classes import Classes, classes_from_file, classes_from_names, write_classes
from checkpoints.encoder import encoder_from_file, write_encoder
from checkpoints.errors import CardError, CheckpointError, ForeignFileError, WeightsError
from checkpoints.families import (
    NATIVE,
    generator_from_foreign,
    generator_from_path,
    generators_in,
)
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
from checkpoints.interruption import (
    HeldSignal,
    Interrupted,
    end_command,
    raise_on_signals,
    signals_held,
)
from checkpoints.inverse_graphics import inverse_graphics_from_file, write_inverse_graphics
from checkpoints.published_interpreter import (
    interpreter_from_published,
    is_pattern,
    member_paths,
    widths_of_member,
    write_members,
)
from checkpoints.recipes import (
    Recipe,
    card_with_recipe,
    matching_recipes,
    published_names,
    recipe_from_name,
    recipe_with_classes,
)
from checkpoints.refiner import config_card_from_refiner, refiner_from_file, write_refiner
from checkpoints.toml import kind_of_weights, read_toml, write_text
from checkpoints.views import views_from_file, write_views
from checkpoints.weights import sha256_of_file, tensors_from_file, write_tensors

__all__ = [
    "NATIVE",
    "CameraCard",
    "CardError",
    "CheckpointError",
    "ClassCard",
    "Classes",
    "ConfigCard",
    "DepthCard",
    "EncoderCard",
    "ForeignFile",
    "ForeignFileError",
    "GeneratorCard",
    "HeadCard",
    "HeldSignal",
    "InterpreterCard",
    "Interrupted",
    "InverseGraphicsCard",
    "KeypointsCard",
    "PickledNetwork",
    "Recipe",
    "RefinerCard",
    "RegulariserCard",
    "SegmentationCard",
    "Strict",
    "TensorFlowNetwork",
    "TorchFile",
    "TrainedOnCard",
    "ViewsCard",
    "WeightsError",
    "card_from_config",
    "card_with_recipe",
    "classes_from_file",
    "classes_from_names",
    "config_card_from_refiner",
    "encoder_from_file",
    "end_command",
    "exchange_folders",
    "generator_from_file",
    "generator_from_foreign",
    "generator_from_path",
    "generators_in",
    "head_cards",
    "interpreter_from_file",
    "interpreter_from_published",
    "inverse_graphics_from_file",
    "is_pattern",
    "kind_of_weights",
    "made_folder",
    "matching_recipes",
    "member_paths",
    "published_names",
    "raise_on_signals",
    "range_problem",
    "read_array",
    "read_foreign",
    "read_toml",
    "recipe_from_name",
    "recipe_with_classes",
    "refiner_from_file",
    "replaced_file",
    "sha256_of_file",
    "signals_held",
    "tensors_from_file",
    "views_from_file",
    "widths_of_member",
    "write_classes",
    "write_encoder",
    "write_generator",
    "write_interpreter",
    "write_inverse_graphics",
    "write_members",
    "write_refiner",
    "write_tensors",
    "write_text",
    "write_views",
]
