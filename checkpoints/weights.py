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

    `build` runs on torch's meta device: a card that asks for absurd extents costs no memory
    before the tensors contradict it. Raises CardError, WeightsError.
    """
    tensors = tensors_from_file(path)
    try:
        with torch.device("meta"):
            module = build()
    except (ValueError, RuntimeError, OverflowError, TypeError) as error:
        raise CardError(f"{card}: {_one_line(error)}") from error
    expected = module.state_dict()
    _refuse_names(path, "lacks", expected.keys() - tensors.keys())
    _refuse_names(path, "has unexpected", tensors.keys() - expected.keys())
    for name, tensor in tensors.items():
        _check_tensor(path, card, name, tensor, expected[name])
    stored = {name: t.to(expected[name].dtype) for name, t in tensors.items()}
    module.load_state_dict(stored, strict=True, assign=True)
    return module.eval().requires_grad_(False)


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
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
        os.replace(partial, path)
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


def _refuse_names(path: Path, what: str, names: Iterable[str]) -> None:
    found = sorted(names)
    if found:
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        raise WeightsError(f"{path} {what} {', '.join(found[:NAMED])}{more}")


def _check_tensor(path: Path, card: Path, name: str, tensor: Tensor, expected: Tensor) -> None:
    if tensor.shape != expected.shape:
        raise WeightsError(
            f"{path}: {name} is {list(tensor.shape)}; by {card.name} it must be "
            f"{list(expected.shape)}"
        )
    if tensor.is_floating_point() != expected.is_floating_point():
        raise WeightsError(f"{path}: {name} is {tensor.dtype}; it must be {expected.dtype}")
    if not torch.isfinite(tensor).all():
        raise WeightsError(f"{path}: {name} holds values that are not finite")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
