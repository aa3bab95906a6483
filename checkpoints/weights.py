"""Safetensors files <-> modules, strict both ways; nothing is ever unpickled."""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from checkpoints.errors import CardError, WeightsError

Module = TypeVar("Module", bound=nn.Module)
NAMED = 4  # tensor names in a message, before "and so many more"


def module_from_weights(path: Path, card: Path, build: Callable[[], Module]) -> Module:
    """The module `build` makes, in evaluation mode, float32, with the file's tensors.

    Raises CardError, WeightsError.
    """
    tensors = tensors_from_file(path)
    try:
        module = meta_module(build)
    except ValueError as error:
        raise CardError(f"{card}: {_one_line(error)}") from error
    fill_module(module, tensors, str(path), f"by {card.name} it")
    return module


def meta_module(build: Callable[[], Module]) -> Module:
    """What `build` makes on torch's meta device: absurd extents cost no memory before the tensors
    contradict them. Raises ValueError."""
    try:
        with torch.device("meta"):
            return build()
    except (RuntimeError, OverflowError, TypeError) as error:
        raise ValueError(_one_line(error)) from error


def fill_module(module: nn.Module, tensors: dict[str, Tensor], source: str, by: str = "it") -> None:
    """Gives `module` these tensors, all of them and no others; evaluation mode, no gradients.

    `source` begins every message, `by` is who says what a shape must be. Raises WeightsError.
    """
    expected = module.state_dict()
    refuse_names(source, "lacks", expected.keys() - tensors.keys())
    refuse_names(source, "has unexpected", tensors.keys() - expected.keys())
    for name, tensor in tensors.items():
        _check_tensor(source, by, name, tensor, expected[name])
    stored = {name: t.to(expected[name].dtype) for name, t in tensors.items()}
    module.load_state_dict(stored, strict=True, assign=True)
    module.eval().requires_grad_(False)


def tensors_from_file(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, by name. Raises WeightsError."""
    try:
        # Read at once: a memory-mapped file that another process rewrites would change later.
        return {name: tensor.clone() for name, tensor in load_file(path).items()}
    except OSError as error:
        reason = error.strerror or _one_line(error)
        raise WeightsError(f"{path} cannot be read ({reason})") from error
    except (SafetensorError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is no intact safetensors file: {_one_line(error)}") from error


def write_weights(path: Path, module: nn.Module, storage: torch.dtype) -> None:
    """Writes the module's tensors in one step, floating ones as `storage`.

    Raises WeightsError when a value is not finite in `storage`.
    """
    tensors = {
        name: tensor.detach().to(storage if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in module.state_dict().items()
    }
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise WeightsError(f"{path} is not written: {name} has values not finite in {storage}")
    write_tensors(path, tensors)


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes tensors by name, in one step. Raises WeightsError."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, partial)
        partial.chmod(0o644)  # as the card's; safetensors makes files that only their owner reads
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())  # a machine that stops may else leave an empty file
        os.replace(partial, path)
    except SafetensorError as error:  # the disk is full, or the folder not there
        raise WeightsError(f"{path} cannot be written: {_one_line(error)}") from error
    finally:
        partial.unlink(missing_ok=True)


def sha256_of_file(path: Path) -> str:
    """Lower-case hexadecimal SHA-256. Raises WeightsError."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def refuse_names(source: str, what: str, names: Iterable[str]) -> None:
    """Raises WeightsError naming the first few, when there are any."""
    found = sorted(names)
    if found:
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        raise WeightsError(f"{source} {what} {', '.join(found[:NAMED])}{more}")


def _check_tensor(source: str, by: str, name: str, tensor: Tensor, expected: Tensor) -> None:
    if tensor.shape != expected.shape:
        raise WeightsError(
            f"{source}: {name} is {list(tensor.shape)}; {by} must be {list(expected.shape)}"
        )
    if tensor.is_floating_point() != expected.is_floating_point():
        raise WeightsError(f"{source}: {name} is {tensor.dtype}; it must be {expected.dtype}")
    if not torch.isfinite(tensor).all():
        raise WeightsError(f"{source}: {name} holds values that are not finite")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
