"""Generators and their cards from files of any supported family, labelmint's own or foreign."""

from collections.abc import Mapping
from pathlib import Path

import msgspec
from torch import Tensor

from checkpoints.card import GeneratorCard
from checkpoints.errors import WeightsError
from checkpoints.foreign import (
    ForeignFile,
    PickledNetwork,
    TensorFlowNetwork,
    read_array,
    read_foreign,
)
from checkpoints.generator import generator_from_file
from checkpoints.mean_latent import with_w_avg
from checkpoints.rosinality import generator_from_rosinality
from checkpoints.state_dicts import layout_of, part_from_content
from checkpoints.stylegan1 import generator_from_stylegan1
from checkpoints.stylegan1_tf import generator_from_tensorflow1, is_stylegan1_of_tensorflow
from checkpoints.stylegan2_ada import generator_from_pickled
from checkpoints.stylegan2_tf import generator_from_tensorflow
from nets.generator import Generator

NATIVE = ".safetensors"  # with a card beside it; the kind of other files follows from their content
SUPPORTED = (
    "supported are StyleGAN2 (the official PyTorch and TensorFlow pickles, rosinality's g_ema) and "
    "StyleGAN1 in DatasetGAN's layout"
)


def generator_from_path(
    path: Path, mean_latent: Path | None = None
) -> tuple[Generator, GeneratorCard]:
    """The generator of a file, and its card.

    `mean_latent` is an .npy file with the mean of w; DatasetGAN's StyleGAN1 files have none.
    Raises CheckpointError.
    """
    if path.suffix == NATIVE:
        return generator_from_file(path)
    mean = None if mean_latent is None else read_array(mean_latent)
    return generator_from_foreign(read_foreign(path), str(path), mean)


def generator_from_foreign(
    file: ForeignFile, source: str, mean_latent: Tensor | None = None
) -> tuple[Generator, GeneratorCard]:
    """The generator and its card; `source` names the file in messages and in the card.

    `mean_latent`, [w_dim] or [rows, w_dim] with equal rows, replaces the file's mean of w. Raises
    WeightsError.
    """
    if isinstance(file, PickledNetwork):
        if is_stylegan3(file):
            raise WeightsError(
                f"{source} is a StyleGAN3, which is not supported: its layers have no noise and no "
                f"ToRGB, and its feature maps have margins; {SUPPORTED}"
            )
        if layout_of(file.tensors) not in (None, "stylegan2-ada"):  # another project's module
            return _generator_from_content(file.tensors, source, mean_latent)
        generator, card = generator_from_pickled(file, source)
    elif isinstance(file, TensorFlowNetwork):
        read = (
            generator_from_tensorflow1
            if is_stylegan1_of_tensorflow(file)
            else generator_from_tensorflow
        )
        generator, card = read(file, source)
    else:
        return _generator_from_content(file.content, source, mean_latent)
    if mean_latent is not None:
        card = with_w_avg(generator, card, mean_latent, source)
    return generator, card


def _generator_from_content(
    content: object, source: str, mean_latent: Tensor | None
) -> tuple[Generator, GeneratorCard]:
    """The generator whose state dict is in this content."""
    part = part_from_content(content, source)
    if part is None:
        raise WeightsError(f"{source} {_what(content)}; {SUPPORTED}")
    mean = part.mean if mean_latent is None else mean_latent
    match part.layout:
        case "rosinality":
            generator, card = generator_from_rosinality(part.tensors, source, mean)
        case "stylegan1":
            generator, card = generator_from_stylegan1(part.tensors, source, mean)
        case "stylegan2-ada":
            network = PickledNetwork("Generator", {}, part.tensors, {})
            generator, card = generator_from_pickled(network, source)
    assert isinstance(card.provenance, dict)
    return generator, msgspec.structs.replace(card, provenance={**card.provenance, **part.notes})


def is_stylegan3(file: PickledNetwork) -> bool:
    """Whether the generator starts from Fourier features, as StyleGAN3 does."""
    return "synthesis.input.freqs" in file.tensors


def _what(content: object) -> str:
    """Description of a file of unknown layout."""
    if not isinstance(content, Mapping):
        return f"holds a {type(content).__name__}, not a generator"
    names = ", ".join(repr(str(name)[:40]) for name in list(content)[:3])
    return f"holds no generator of a known layout (it has {names or 'nothing'})"
