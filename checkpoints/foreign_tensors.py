"""Tensors with another project's names and conventions -> tensors named as in nets."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import count

from torch import Tensor

from checkpoints.errors import WeightsError
from checkpoints.weights import refuse_names
from nets.config import MAX_START, SQUARE


def unchanged(tensor: Tensor) -> Tensor:
    """The tensor itself, for a ForeignTensor stored as nets store it."""
    return tensor


@dataclass(frozen=True)
class ForeignTensor:
    """A tensor of another project's file, and the function that makes it one of nets'."""

    name: str  # in their file
    change: Callable[[Tensor], Tensor] = unchanged


def tensors_from_foreign(
    tensors: Mapping[str, Tensor],  # by their names
    wanted: Mapping[str, ForeignTensor],  # by nets' names
    source: str,
    ignored: Collection[str] = (),  # their names that nets have no use for
) -> dict[str, Tensor]:
    """Tensors by nets' names, floating-point tensors as float32.

    Every tensor of `tensors` must be wanted or ignored. Raises WeightsError for a name that is
    missing or left over; the message begins with `source`.
    """
    theirs = {foreign.name for foreign in wanted.values()}
    refuse_names(source, "lacks", theirs - tensors.keys())
    refuse_names(source, "has unexpected", tensors.keys() - theirs - set(ignored))
    ours = {}
    for name, foreign in wanted.items():
        tensor = tensors[foreign.name]
        try:
            ours[name] = foreign.change(tensor.float() if tensor.is_floating_point() else tensor)
        except (IndexError, RuntimeError, ValueError) as error:
            shape = list(tensor.shape)
            raise WeightsError(f"{source}: {foreign.name} has impossible shape {shape}") from error
    return ours


def tensors_of(content: object, source: str) -> dict[str, Tensor]:
    """`content` as a flat dict of tensors by name. Raises WeightsError for anything else."""
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(t, Tensor) for name, t in content.items()
    ):
        raise WeightsError(f"{source} is not a dictionary of tensors by name")
    return dict(content)


def run_length(tensors: Mapping[str, Tensor], name: Callable[[int], str]) -> int:
    """How many of name(0), name(1), ... are there before the first that is missing."""
    return next(k for k in count() if name(k) not in tensors)


def extents_of_blocks(
    tensors: Mapping[str, Tensor], name: Callable[[int], str], source: str
) -> list[int]:
    """Extents 4, 8, ... of a generator's blocks.

    name(extent) is a tensor that each block but the first has. Raises WeightsError if there is
    only the first.
    """
    blocks = run_length(tensors, lambda k: name(8 << k))
    refuse_names(source, "lacks", () if blocks else (name(8),))
    return [4 << k for k in range(blocks + 1)]


def extent_of(tensors: Mapping[str, Tensor], name: str, axis: int, source: str) -> int:
    """Size of a tensor along an axis. Raises WeightsError without the tensor or the axis."""
    refuse_names(source, "lacks", {name} - tensors.keys())
    shape = tensors[name].shape
    if not -len(shape) <= axis < len(shape):
        raise WeightsError(f"{source}: {name} has impossible shape {list(shape)}")
    return shape[axis]


def start_of(tensors: Mapping[str, Tensor], name: str, source: str) -> tuple[int, int]:
    """Rows and columns of a learned constant, its last axes; without two axes those of square
    images, which loading then compares. Raises WeightsError for sizes that no generator has."""
    refuse_names(source, "lacks", {name} - tensors.keys())
    shape = tensors[name].shape
    if len(shape) < 2:
        return SQUARE
    rows, columns = shape[-2:]
    if not (1 <= rows <= MAX_START and 1 <= columns <= MAX_START):
        raise WeightsError(
            f"{source}: {name} has {rows} rows and {columns} columns; both must be from 1 to "
            f"{MAX_START}"
        )
    return rows, columns


def refuse_not_square(tensors: Mapping[str, Tensor], name: str, source: str, family: str) -> None:
    """Raises WeightsError if a learned constant has as many axes as one, but not 4 x 4 values."""
    if name in tensors and tensors[name].ndim >= 2 and tensors[name].shape[-2:] != SQUARE:
        rows, columns = tensors[name].shape[-2:]
        raise WeightsError(
            f"{source}: the constant, {name}, has {rows} rows and {columns} columns; of {family} "
            "only square images are supported, whose constant has 4 and 4"
        )
