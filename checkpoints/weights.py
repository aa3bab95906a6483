"""Modules from safetensors files and the reverse. Names and shapes must match exactly."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from bundle import files
from bundle.files import opened_regular_file, replaced_file
from bundle.records import one_line
from checkpoints.downloads import refuse_failed_download, unfinished_download
from checkpoints.errors import CardError, WeightsError
from checkpoints.interruption import signals_held

Module = TypeVar("Module", bound=nn.Module)
MAX_NAMES = 4  # tensor names in a message


def module_from_weights(path: Path, card: Path, build: Callable[[], Module]) -> Module:
    """The module that `build` makes, with the tensors of a file; float32, in evaluation mode.

    `card` is the path of the card, for messages. Raises CardError when `build` fails, WeightsError
    when the tensors do not fit.
    """
    tensors = tensors_from_file(path)
    try:
        module = meta_module(build)
    except ValueError as error:
        raise CardError(f"{card}: {one_line(error)}") from error
    fill_module(module, tensors, str(path), f"by {card.name} it")
    return module


def meta_module(build: Callable[[], Module]) -> Module:
    """The module that `build` makes, on torch's meta device.

    It takes no memory, so a card with absurd sizes costs none. Signals wait meanwhile: raised
    within torch's change of the device, they became an error of the card. Raises ValueError,
    Interrupted.
    """
    try:
        with signals_held(), torch.device("meta"):
            return build()
    except (RuntimeError, OverflowError, TypeError) as error:
        raise ValueError(one_line(error)) from error


def fill_module(module: nn.Module, tensors: dict[str, Tensor], source: str, by: str = "it") -> None:
    """Loads exactly these tensors into `module`; evaluation mode, no gradients.

    Raises WeightsError. Messages begin with `source`; `by` is the subject of "must be <shape>".
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
    refuse_failed_download(path)
    try:
        with opened_regular_file(path):  # safetensors would wait for a FIFO
            pass
        # clone: load_file maps the file, and another process may rewrite it.
        return {name: tensor.clone() for name, tensor in load_file(path).items()}
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise WeightsError(f"{path} cannot be read ({reason})") from error
    except (SafetensorError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path} is no intact safetensors file: {one_line(error)}{unfinished_download(path)}"
        ) from error


def tensors_of_module(path: Path, module: nn.Module, storage: torch.dtype) -> dict[str, Tensor]:
    """The tensors of a module by name, floating-point ones as dtype `storage`.

    Raises WeightsError, naming the path that they are for, when a value is not finite in `storage`.
    """
    tensors = {
        name: tensor.detach().to(storage if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in module.state_dict().items()
    }
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise WeightsError(f"{path} is not written: {name} has values not finite in {storage}")
    return tensors


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes tensors by name, in one step. Raises WeightsError."""
    try:
        with replaced_file(path) as partial:
            save_tensors(partial, tensors)
    except (OSError, SafetensorError) as error:  # no such folder, or the disk is full
        raise WeightsError(f"{path} cannot be written: {one_line(error)}") from error


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes tensors by name into a file, and into no other: that of save_file stays behind when
    the process is killed, under a name that tells nothing. Raises OSError, SafetensorError."""
    path.write_bytes(save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}))


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file, 64 lower-case hexadecimal digits. Raises WeightsError."""
    try:
        return files.sha256_of_file(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror})") from error


def refuse_names(source: str, what: str, names: Iterable[str]) -> None:
    """Raises WeightsError "<source> <what> <names>" unless `names` is empty."""
    found = sorted(names)
    if found:
        more = f" and {len(found) - MAX_NAMES} more" if len(found) > MAX_NAMES else ""
        raise WeightsError(f"{source} {what} {', '.join(found[:MAX_NAMES])}{more}")


def _check_tensor(source: str, by: str, name: str, tensor: Tensor, expected: Tensor) -> None:
    if tensor.shape != expected.shape:
        raise WeightsError(
            f"{source}: {name} is {list(tensor.shape)}; {by} must be {list(expected.shape)}"
        )
    if tensor.is_floating_point() != expected.is_floating_point():
        raise WeightsError(f"{source}: {name} is {tensor.dtype}; it must be {expected.dtype}")
    if not torch.isfinite(tensor).all():
        raise WeightsError(f"{source}: {name} holds values that are not finite")
