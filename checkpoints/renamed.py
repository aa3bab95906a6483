"""Tensors under somebody else's names and conventions -> under ours, none left over."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

from checkpoints.errors import WeightsError
from checkpoints.weights import refuse_names


def as_stored(tensor: Tensor) -> Tensor:
    """No change."""
    return tensor


@dataclass(frozen=True)
class Origin:
    """Where one of our tensors comes from."""

    name: str  # theirs
    change: Callable[[Tensor], Tensor] = as_stored


def renamed(
    tensors: Mapping[str, Tensor],
    origins: Mapping[str, Origin],  # by our name
    source: str,
    ignored: Collection[str] = (),  # of theirs, which we knowingly do without
) -> dict[str, Tensor]:
    """Our tensors, float32. Raises WeightsError, beginning with `source`, for a name that is
    missing or left over."""
    theirs = {origin.name for origin in origins.values()}
    refuse_names(source, "lacks", theirs - tensors.keys())
    refuse_names(source, "has unexpected", tensors.keys() - theirs - set(ignored))
    ours = {}
    for name, origin in origins.items():
        tensor = tensors[origin.name]
        try:
            ours[name] = origin.change(tensor.float() if tensor.is_floating_point() else tensor)
        except (IndexError, RuntimeError, ValueError) as error:
            shape = list(tensor.shape)
            raise WeightsError(f"{source}: {origin.name} has impossible shape {shape}") from error
    return ours


def tensors_of(content: object, source: str) -> dict[str, Tensor]:
    """`content` as a flat dictionary of tensors. Raises WeightsError."""
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(t, Tensor) for name, t in content.items()
    ):
        raise WeightsError(f"{source} is no dictionary of tensors by name")
    return dict(content)


def extent_of(tensors: Mapping[str, Tensor], name: str, axis: int, source: str) -> int:
    """A tensor's extent along an axis. Raises WeightsError without the tensor or the axis."""
    refuse_names(source, "lacks", {name} - tensors.keys())
    shape = tensors[name].shape
    if not -len(shape) <= axis < len(shape):
        raise WeightsError(f"{source}: {name} has impossible shape {list(shape)}")
    return shape[axis]
