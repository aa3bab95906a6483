"""A file -> a generator: labelmint's own or somebody else's, whichever family it holds."""

from collections.abc import Mapping
from pathlib import Path

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
from checkpoints.rosinality import generator_from_rosinality, is_rosinality
from checkpoints.stylegan1 import generator_from_stylegan1, is_stylegan1
from checkpoints.stylegan2_ada import generator_from_pickled
from checkpoints.stylegan2_tf import generator_from_tensorflow
from nets.generator import Generator

NATIVE = ".safetensors"  # with a card beside it; whatever else a file is, its content says
SUPPORTED = (
    "supported are StyleGAN2 (the official PyTorch and TensorFlow pickles, rosinality's g_ema) and "
    "StyleGAN1 in DatasetGAN's layout"
)


def generator_from_path(
    path: Path, mean_latent: Path | None = None
) -> tuple[Generator, GeneratorCard]:
    """The generator of a file of any family, and its card; `mean_latent` is an .npy that a
    StyleGAN1 needs. Raises CheckpointError."""
    if path.suffix == NATIVE:
        return generator_from_file(path)
    mean = None if mean_latent is None else read_array(mean_latent)
    return generator_from_foreign(read_foreign(path), str(path), mean)


def generator_from_foreign(
    file: ForeignFile, source: str, mean_latent: Tensor | None = None
) -> tuple[Generator, GeneratorCard]:
    """The generator and its card; `source` names the file in messages and in the card.

    `mean_latent` [w_dim] or rows of it, overrides the file's mean of w. Raises WeightsError.
    """
    if isinstance(file, PickledNetwork):
        if is_stylegan3(file):
            raise WeightsError(
                f"{source} is a StyleGAN3, whose layers have no noise, no ToRGB of their own and "
                f"margins around every map, so that no published labels fit it; {SUPPORTED}"
            )
        generator, card = generator_from_pickled(file, source)
    elif isinstance(file, TensorFlowNetwork):
        generator, card = generator_from_tensorflow(file, source)
    elif is_rosinality(file.content):
        return generator_from_rosinality(file, source, mean_latent)
    elif is_stylegan1(file.content):
        return generator_from_stylegan1(file, source, mean_latent)
    else:
        raise WeightsError(f"{source} {_what(file.content)}; {SUPPORTED}")
    if mean_latent is not None:
        card = with_w_avg(generator, card, mean_latent, source)
    return generator, card


def is_stylegan3(file: PickledNetwork) -> bool:
    """Whether it is a generator that starts from Fourier features."""
    return "synthesis.input.freqs" in file.tensors


def _what(content: object) -> str:
    """What a file of no known layout holds, in a few words."""
    if not isinstance(content, Mapping):
        return f"holds a {type(content).__name__} and no generator"
    names = ", ".join(repr(str(name)[:40]) for name in list(content)[:3])
    return f"holds no generator of a known layout (it has {names or 'nothing'})"
