"""Where the readers of a sharded stream are, and how other readers take over.

Shard s of S takes whole objects o = i div V with o mod S = s. Readers of another layout begin
at the smallest next index of the old ones and leave out i < next[(i div V) mod S]: that was
delivered or discarded before. Several changes in a row leave several such layers, until every
reader is past them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from labelmint.latents import UInt64s
from labelmint.options import StreamOptions

VERSION = 1
_MOST = 2**64 - 1


@dataclass(frozen=True)
class Layer:
    """The shards of one layout: all indices of shard s under next[s] are done."""

    num_shards: int
    next: Mapping[int, int]  # by shard; those of other readers may be missing

    def done(self, indices: UInt64s, views: int) -> npt.NDArray[np.bool_]:
        """Marks those of indices, [n], that are done; needs every shard."""
        ends = np.array([self.next[shard] for shard in range(self.num_shards)], np.uint64)
        shards = indices // np.uint64(views) % np.uint64(self.num_shards)
        marked: npt.NDArray[np.bool_] = indices < ends[shards]
        return marked

    @property
    def missing(self) -> list[int]:
        """Shards that nothing is known of."""
        return [shard for shard in range(self.num_shards) if shard not in self.next]


@dataclass(frozen=True)
class Position:
    """What readers did of a stream: `layer` is their layout, `earlier` those before it."""

    layer: Layer
    earlier: tuple[Layer, ...] = ()  # complete
    bundle_id: str = ""  # what made the samples; empty while none came

    def advanced(self, shard: int, next_index: int, bundle_id: str) -> Position:
        """The position of this shard's reader alone, one batch later."""
        return Position(Layer(self.layer.num_shards, {shard: next_index}), self.earlier, bundle_id)

    def for_layout(self, num_shards: int) -> Position:
        """Where readers of this layout start.

        Raises:
            ValueError: the layout changes, and some shards of the old one are not known.
        """
        if self.layer.num_shards == num_shards:
            return self
        if self.layer.missing:
            raise ValueError(
                f"the state is of shards {_list(self.layer.next)} of {self.layer.num_shards}, and "
                f"the layout changes to {num_shards} shards; merge the states of all readers "
                "first, with merge_states"
            )
        start = min(self.layer.next.values())
        layers = (*self.earlier, self.layer)
        earlier = tuple(layer for layer in layers if max(layer.next.values()) > start)
        starts = dict.fromkeys(range(num_shards), start)
        return Position(Layer(num_shards, starts), earlier, self.bundle_id)

    def done(self, indices: UInt64s, views: int) -> npt.NDArray[np.bool_]:
        """Marks those of indices, [n], that readers of earlier layouts took."""
        marked = np.zeros(len(indices), np.bool_)
        for layer in self.earlier:
            marked |= layer.done(indices, views)
        return marked


def merged(positions: Sequence[Position]) -> Position:
    """What several readers of one layout did together; of one shard, the furthest.

    Raises:
        ValueError: there are none, or they are of different layouts, starts or bundles.
    """
    if not positions:
        raise ValueError("there are no states to merge; give those of all readers")
    first = positions[0]
    following: dict[int, int] = {}
    for position in positions:
        if (position.layer.num_shards, position.earlier) != (first.layer.num_shards, first.earlier):
            raise ValueError(
                f"a state of {position.layer.num_shards} shards does not go with one of "
                f"{first.layer.num_shards} shards from the same start; merge states that were "
                "saved together"
            )
        for shard, index in position.layer.next.items():
            following[shard] = max(index, following.get(shard, 0))
    bundles = sorted({position.bundle_id for position in positions} - {""})
    if len(bundles) > 1:
        raise ValueError(f"states of different bundles, {bundles[0]} and {bundles[1]}")
    bundle_id = bundles[0] if bundles else ""
    return Position(Layer(first.layer.num_shards, following), first.earlier, bundle_id)


def state_from_position(position: Position) -> dict[str, Any]:
    """Plain numbers, strings and dicts, for torch.save or JSON."""
    return {
        "version": VERSION,
        **_state_from_layer(position.layer),
        "earlier": [_state_from_layer(layer) for layer in position.earlier],
        "bundle_id": position.bundle_id,
    }


def position_from_state(state: Mapping[str, Any]) -> Position:
    """The position that a state holds. Raises ValueError when it is none."""
    version = state.get("version")
    if version != VERSION:
        raise ValueError(f"state version {version!r} is unknown; this release reads {VERSION}")
    layers = [_layer_from_state(layer) for layer in _listed(state.get("earlier"))]
    for layer in layers:
        if layer.missing:
            raise ValueError(f"the state misses shards {_list(layer.missing)} of an earlier layout")
    bundle_id = state.get("bundle_id")
    if not isinstance(bundle_id, str):
        raise ValueError(f"bundle_id {bundle_id!r} of the state is no text")
    return Position(_layer_from_state(state), tuple(layers), bundle_id)


def _state_from_layer(layer: Layer) -> dict[str, Any]:
    # JSON knows only text as keys.
    ends = {str(shard): layer.next[shard] for shard in sorted(layer.next)}
    return {"num_shards": layer.num_shards, "next": ends}


def _layer_from_state(state: object) -> Layer:
    found = state if isinstance(state, Mapping) else {}
    num_shards, following = found.get("num_shards"), found.get("next")
    if not _is_count(num_shards, 1, 2**32 - 1) or not isinstance(following, Mapping):
        raise ValueError(f"{state!r:.200} is no state of a stream: num_shards or next is missing")
    ends: dict[int, int] = {}
    for shard, index in following.items():
        number = int(shard) if str(shard).isdecimal() else -1
        if not 0 <= number < num_shards or not _is_count(index, 0, _MOST):
            raise ValueError(
                f"next[{shard!r}] = {index!r} of the state is no index of a shard of {num_shards}"
            )
        ends[number] = index
    if not ends:
        raise ValueError("the state holds no shard's position")
    return Layer(num_shards, ends)


def _is_count(value: object, least: int, most: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _listed(value: object) -> list[object]:
    if not isinstance(value, list):
        raise ValueError(f"earlier layouts {value!r:.100} of the state are no list")
    return value


def _list(shards: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(shards)))


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
