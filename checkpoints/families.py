"""Generators and their cards from files of any supported family, labelmint's own or foreign."""

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from torch import Tensor

from checkpoints.card import GeneratorCard
from checkpoints.errors import CheckpointError, WeightsError
from checkpoints.foreign import (
    ForeignFile,
    PickledNetwork,
    TensorFlowNetwork,
    read_array,
    read_foreign,
)
from checkpoints.generator import generator_from_file
from checkpoints.mean_latent import with_w_avg
from checkpoints.other_families import family_of, names_in
from checkpoints.rosinality import generator_from_rosinality
from checkpoints.state_dicts import layout_of, part_from_content
from checkpoints.stylegan1 import generator_from_stylegan1
from checkpoints.stylegan1_tf import generator_from_tensorflow1, is_stylegan1_of_tensorflow
from checkpoints.stylegan2_ada import generator_from_pickled
from checkpoints.stylegan2_tf import generator_from_tensorflow
from checkpoints.stylegan3 import generator_from_alias_free, is_alias_free
from nets.generator import Generator

NATIVE = ".safetensors"  # with a card beside it; the kind of other files follows from their content
SUFFIXES = (NATIVE, ".pkl", ".pt", ".pth", ".bin", ".ckpt")  # of weights in a folder
MAX_FILES = 32  # of a folder that are read to find its generator
SUPPORTED = (
    "supported are StyleGAN2 (NVIDIA's PyTorch and TensorFlow pickles, rosinality's layout and its "
    "copies), StyleGAN1 (NVIDIA's TensorFlow pickles, DatasetGAN's layout) and StyleGAN3 (NVIDIA's "
    "pickles)"
)


def generator_from_path(
    path: Path, mean_latent: Path | None = None
) -> tuple[Generator, GeneratorCard]:
    """The generator of a file, and its card.

    `mean_latent` is an .npy file with the mean of w; DatasetGAN's StyleGAN1 files have none.
    Raises CheckpointError.
    """
    if path.is_dir():
        raise WeightsError(f"{path} is a folder; {generators_in(path)}")
    if path.suffix == NATIVE:
        return generator_from_file(path)
    mean = None if mean_latent is None else read_array(mean_latent)
    return generator_from_foreign(read_foreign(path), str(path), mean)


def generators_in(folder: Path) -> str:
    """Which files of a folder are generators, such as of a repository of Hugging Face."""
    try:
        files = sorted(f for f in folder.iterdir() if f.suffix in SUFFIXES and f.is_file())
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    found = []
    for file in files[:MAX_FILES]:
        with contextlib.suppress(CheckpointError):
            generator_from_path(file)
            found.append(file.name)
    if len(files) > MAX_FILES:
        return f"it has over {MAX_FILES} files of weights; give the one with the generator"
    if len(found) == 1:
        return f"its generator is {found[0]}, give that"
    if found:
        return f"its generators are {', '.join(found)}; give one of them"
    return f"none of its {len(files)} files of weights is a generator that can be read"


def generator_from_foreign(
    file: ForeignFile, source: str, mean_latent: Tensor | None = None
) -> tuple[Generator, GeneratorCard]:
    """The generator and its card; `source` names the file in messages and in the card.

    `mean_latent`, [w_dim] or [rows, w_dim] with equal rows, replaces the file's mean of w. Raises
    WeightsError.
    """
    if isinstance(file, PickledNetwork):
        _refuse_other_families(file.tensors, source)
        if layout_of(file.tensors) not in (
            None,
            "stylegan2-ada",
            "stylegan3",
        ):  # another project's module
            return _generator_from_content(file.tensors, source, mean_latent)
        pickled = generator_from_alias_free if is_alias_free(file) else generator_from_pickled
        generator, card = pickled(file, source)
    elif isinstance(file, TensorFlowNetwork):
        _refuse_other_families(file.variables, source)
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
        _refuse_other_families(names_in(content), source)
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
        case "stylegan3":
            network = PickledNetwork("Generator", {}, part.tensors, {})
            generator, card = generator_from_alias_free(network, source)
    assert isinstance(card.provenance, dict)
    return generator, msgspec.structs.replace(card, provenance={**card.provenance, **part.notes})


def _refuse_other_families(names: Iterable[str], source: str) -> None:
    family = family_of(names)
    if family:
        raise WeightsError(f"{source} is {family}; {SUPPORTED}")


def _what(content: object) -> str:
    """Description of a file of unknown layout."""
    if not isinstance(content, Mapping):
        return f"holds a {type(content).__name__}, not a generator"
    names = ", ".join(repr(str(name)[:40]) for name in list(content)[:3])
    return f"holds no generator of a known layout (it has {names or 'nothing'})"
