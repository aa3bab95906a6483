"""A stream's position and what it is a stream of, as plain numbers and strings to be saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from labelmint.options import StreamOptions
from labelmint.position import Position, merged, position_from_state, state_from_position

_DEFAULTS: dict[str, Any] = {  # what has to be the same for a state to go on
    "model": "", "seed": 0, "latent_source": "philox", "truncation_psi": None,
    "truncation_cutoff": None, "class_index": None, "views_per_object": 1, "view": None,
    "keep_fraction": None, "max_uncertainty": None, "filter_sets": False,
}  # fmt: skip


def state_of_stream(position: Position, options: StreamOptions) -> dict[str, Any]:
    """For torch.save or JSON."""
    return {**state_from_position(position), "options": _identity(options)}


def position_of_batch(batch: Any) -> Position:
    """The position that a batch carries, or what a transform made of it.

    Raises:
        TypeError: it carries none.
    """
    item = batch.get("position") if isinstance(batch, Mapping) else None
    position = getattr(batch, "position", item)
    if not isinstance(position, Position):
        raise TypeError(
            f"a {type(batch).__name__} without a position was consumed; let the transform keep "
            "batch.position"
        )
    return position


def position_of_stream(state: Mapping[str, Any], options: StreamOptions) -> Position:
    """Where a stream of these options goes on.

    Raises:
        ValueError: it is no state, or of a stream with other options.
    """
    theirs = state.get("options") if isinstance(state, Mapping) else None
    mine = _identity(options)
    if not isinstance(theirs, Mapping):
        raise ValueError("the state has no options; it is not of a LabelStream")
    for name, value in mine.items():
        if theirs.get(name) != value:
            raise ValueError(
                f"the state is of a stream with {name} {theirs.get(name)!r}, and this one has "
                f"{value!r}; give the same"
            )
    return position_from_state(state)


def merged_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One state of those of all readers, for any layout.

    Raises:
        ValueError: they are no states, do not belong together, or some reader's is missing.
    """
    if isinstance(states, Mapping) or not all(isinstance(state, Mapping) for state in states):
        raise ValueError("states are not those of all ranks; give a list of what state_dict gave")
    options = [state.get("options") for state in states]
    if any(each != options[0] for each in options):
        raise ValueError("states of streams with different options; merge those of one run")
    position = merged([position_from_state(state) for state in states])
    if position.layer.missing:
        raise ValueError(
            f"the states of shards {', '.join(map(str, position.layer.missing))} of "
            f"{position.layer.num_shards} are missing; give those of all ranks"
        )
    return {**state_from_position(position), "options": options[0]}


def _identity(options: StreamOptions) -> dict[str, Any]:
    given: Mapping[str, Any] = options
    return {name: given.get(name, default) for name, default in _DEFAULTS.items()}
