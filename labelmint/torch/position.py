"""How far the readers of a sharded stream are, and how readers of another layout continue.

Enter: what each reader received. Leave: starts of readers, and states for checkpoints.

Shard s of S takes every raw index i whose object i div V has (i div V) mod S = s. Readers of
another layout begin at the smallest next index of the old ones, and skip the indices that an old
reader is past. Example: V = 1, and 2 readers become 3:

    index        0  1  2  3  4  5  6  7
    old shard    0  1  0  1  0  1  0  1      next of shard 0 is 6, next of shard 1 is 3
    done         x  x  x  .  x  .  .  .
    new shard             0  1  2  0  1      all begin at 3; the reader of shard 1 skips 4

Several changes in a row leave several such layouts behind, until every reader is past them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from labelmint.filter_options import balance_from_option, keep_by_from_option
from labelmint.latents import UInt64s
from labelmint.options import (
    StreamOptions,
    edits_from_option,
)
from labelmint.wire.sharding import END_OF_INDICES

VERSION = 1
_MAX_SHOWN = 8  # missing shards in a message
_DEFAULTS: dict[str, Any] = {  # options that must be the same when a state is loaded
    "model": "", "seed": 0, "latent_source": "philox", "truncation_psi": None,
    "truncation_cutoff": None, "class_index": None, "views_per_object": 1, "view": None,
    "keep_fraction": None, "max_uncertainty": None, "where": None, "max_class_uncertainty": None,
    "filter_sets": False, "balance": None, "keep_by": None, "proposal": None, "edits": None,
}  # fmt: skip


@dataclass(frozen=True)
class ShardLayout:
    """A number of shards, and how far their readers are.

    All indices of shard s under next[s] are done: delivered, or rejected by the filter.
    """

    num_shards: int
    next: Mapping[int, int]  # by shard; shards of other readers may be missing

    def done(self, indices: UInt64s, views: int) -> npt.NDArray[np.bool_]:
        """Marks those of the indices, [n], that are done. No shard may be missing."""
        ends = np.array([self.next[shard] for shard in range(self.num_shards)], np.uint64)
        shards = indices // np.uint64(views) % np.uint64(self.num_shards)
        marked: npt.NDArray[np.bool_] = indices < ends[shards]
        return marked

    @property
    def missing(self) -> str:
        """Shards without a next index, in words, of which the first are listed; empty: none.

        A state may claim billions, so this takes time and memory for those that it has alone.
        """
        without = (shard for shard in range(self.num_shards) if shard not in self.next)
        shown = list(islice(without, _MAX_SHOWN))
        more = self.num_shards - len(self.next) - len(shown)
        return _list(shown) + (f" and {more} more" if more else "")


class Position:
    """How far readers of a stream are: in their own layout, and in those before it.

    It is never changed. It is no dataclass, tuple or mapping, because libraries that move batches
    to a device, such as Lightning, take those apart and build them anew.
    """

    def __init__(
        self,
        layout: ShardLayout,
        earlier: tuple[ShardLayout, ...] = (),
        bundle_id: str = "",
        learned_id: str = "",
    ) -> None:
        self.layout = layout
        self.earlier = earlier  # without missing shards
        self.bundle_id = bundle_id  # bundle that made the samples; empty until one came
        self.learned_id = learned_id  # of what it depends on besides; empty without any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Position) and vars(self) == vars(other)

    def __repr__(self) -> str:
        return f"Position({self.layout}, {self.earlier}, {self.bundle_id!r})"

    def advanced(
        self, shard: int, next_index: int, bundle_id: str, learned_id: str = ""
    ) -> Position:
        """The position of this shard's reader alone, after its next batch."""
        layout = ShardLayout(self.layout.num_shards, {shard: next_index})
        return Position(layout, self.earlier, bundle_id, learned_id)

    def for_layout(self, num_shards: int) -> Position:
        """The position from which readers of `num_shards` shards continue.

        Raises ValueError when the number changes and shards of the old layout are missing.
        """
        if self.layout.num_shards == num_shards:
            return self
        if self.layout.missing:
            raise ValueError(
                f"the state has shards {_list(self.layout.next)} of {self.layout.num_shards}, and "
                f"the layout changes to {num_shards} shards; merge the states of all readers "
                "first, with merge_states"
            )
        start = min(self.layout.next.values())
        layouts = (*self.earlier, self.layout)
        earlier = tuple(layout for layout in layouts if max(layout.next.values()) > start)
        starts = dict.fromkeys(range(num_shards), start)
        layout = ShardLayout(num_shards, starts)
        return Position(layout, earlier, self.bundle_id, self.learned_id)

    def done(self, indices: UInt64s, views: int) -> npt.NDArray[np.bool_]:
        """Marks those of the indices, [n], that are done by readers of earlier layouts."""
        marked = np.zeros(len(indices), np.bool_)
        for layout in self.earlier:
            marked |= layout.done(indices, views)
        return marked


def position_from_batch(batch: Any) -> Position:
    """The position of a LabelBatch, or of what a transform made of it.

    Raises TypeError when it has none.
    """
    item = batch.get("position") if isinstance(batch, Mapping) else None
    position = getattr(batch, "position", item)
    if not isinstance(position, Position):
        raise TypeError(
            f"consumed a {type(batch).__name__} without a position; let the transform keep "
            "batch.position"
        )
    return position


def merged_positions(positions: Sequence[Position]) -> Position:
    """One position of several readers of one layout; for each shard the furthest.

    Raises ValueError when there are none, or they differ in layout, start or bundle.
    """
    if not positions:
        raise ValueError("there are no states to merge; give those of all readers")
    first = positions[0]
    following: dict[int, int] = {}
    for position in positions:
        layout = position.layout
        if (layout.num_shards, position.earlier) != (first.layout.num_shards, first.earlier):
            raise ValueError(
                f"a state of {layout.num_shards} shards does not go with one of "
                f"{first.layout.num_shards} shards from the same start; merge states that were "
                "saved together"
            )
        for shard, index in layout.next.items():
            following[shard] = max(index, following.get(shard, 0))
    bundle_id = _only("bundles", [position.bundle_id for position in positions])
    learned_id = _only("learned_ids", [position.learned_id for position in positions])
    layout = ShardLayout(first.layout.num_shards, following)
    return Position(layout, first.earlier, bundle_id, learned_id)


def _only(what: str, ids: Iterable[str]) -> str:
    """The one id that is not empty, or none. Raises ValueError when there are several."""
    given = sorted({*ids} - {""})
    if len(given) > 1:
        raise ValueError(
            f"the states are of different {what}, {given[0][:80]!r} and {given[1][:80]!r}; merge "
            "states of one run"
        )
    return given[0] if given else ""


def stream_state_from_position(position: Position, options: StreamOptions) -> dict[str, Any]:
    """Plain numbers, strings and dicts, for torch.save or JSON: a position and its options."""
    return {**state_from_position(position), "options": _identity(options)}


def position_from_stream_state(state: Mapping[str, Any], options: StreamOptions) -> Position:
    """The position from which a stream of these options continues.

    Raises ValueError when the state is none of a LabelStream, or of one with other options.
    """
    saved = state.get("options") if isinstance(state, Mapping) else None
    if not isinstance(saved, Mapping):
        raise ValueError("the state has no options, so it is not of a LabelStream")
    for name, value in _identity(options).items():
        if saved.get(name) != value:
            raise ValueError(
                f"the state is of a stream with {name} {saved.get(name)!r}, and this one has "
                f"{value!r}; give the same"
            )
    position = position_from_state(state)
    for name, asked, saved_id in (
        ("bundle_id", options.get("bundle_id"), position.bundle_id),
        ("learned_id", options.get("learned_id"), position.learned_id),
    ):
        if asked and saved_id and asked != saved_id:
            raise ValueError(
                f"the state is of a stream with {name} {saved_id[:80]!r}, and this one has "
                f"{asked[:80]!r}; give the same, or leave it out"
            )
    return position


def merged_stream_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One state of the states of all readers, from which any layout continues.

    Raises ValueError when one is no state, they do not belong together, or a shard is missing.
    """
    if isinstance(states, Mapping) or not all(isinstance(state, Mapping) for state in states):
        raise ValueError("merge_states needs a list of the states that state_dict gave, one a rank")
    options = [state.get("options") for state in states]
    if any(each != options[0] for each in options):
        raise ValueError("the states are of streams with different options; merge those of one run")
    position = merged_positions([position_from_state(state) for state in states])
    if position.layout.missing:
        raise ValueError(
            f"the states of shards {position.layout.missing} of "
            f"{position.layout.num_shards} are missing; give those of all ranks"
        )
    return {**state_from_position(position), "options": options[0]}


def _identity(options: StreamOptions) -> dict[str, Any]:
    """The options that decide which sample an index is, with their defaults."""
    given: Mapping[str, Any] = options
    values = {name: given.get(name, default) for name, default in _DEFAULTS.items()}
    # As JSON gives them back.
    values["balance"] = balance_from_option(values["balance"])
    values["keep_by"] = keep_by_from_option(values["keep_by"])
    values["edits"] = edits_from_option(values["edits"])
    return values


def state_from_position(position: Position) -> dict[str, Any]:
    """Plain numbers, strings and dicts that hold a position."""
    return {
        "version": VERSION,
        **_state_from_layout(position.layout),
        "earlier": [_state_from_layout(layout) for layout in position.earlier],
        "bundle_id": position.bundle_id,
        **({"learned_id": position.learned_id} if position.learned_id else {}),
    }


def position_from_state(state: Mapping[str, Any]) -> Position:
    """The position that a state holds. Raises ValueError when it holds none."""
    version = state.get("version")
    if version != VERSION:
        raise ValueError(f"state version {version!r} is unknown; this release reads {VERSION}")
    earlier = state.get("earlier")
    if not isinstance(earlier, list):
        raise ValueError(f"earlier layouts {earlier!r:.100} of the state are not a list")
    layouts = [_layout_from_state(layout) for layout in earlier]
    for layout in layouts:
        if layout.missing:
            raise ValueError(f"the state misses shards {layout.missing} of an earlier layout")
    bundle_id = state.get("bundle_id")
    if not isinstance(bundle_id, str):
        raise ValueError(f"bundle_id {bundle_id!r} of the state is not text")
    learned_id = state.get("learned_id", "")
    if not isinstance(learned_id, str):
        raise ValueError(f"learned_id {learned_id!r:.100} of the state is not text")
    return Position(_layout_from_state(state), tuple(layouts), bundle_id, learned_id)


def _state_from_layout(layout: ShardLayout) -> dict[str, Any]:
    # Keys are text, because JSON has no others.
    ends = {str(shard): layout.next[shard] for shard in sorted(layout.next)}
    return {"num_shards": layout.num_shards, "next": ends}


def _layout_from_state(state: object) -> ShardLayout:
    found = state if isinstance(state, Mapping) else {}
    num_shards, following = found.get("num_shards"), found.get("next")
    if not _is_count(num_shards, 1, 2**32 - 1) or not isinstance(following, Mapping):
        raise ValueError(f"{state!r:.200} is no state of a stream: num_shards or next is missing")
    ends: dict[int, int] = {}
    for shard, index in following.items():
        number = int(shard) if str(shard).isdecimal() else -1
        if not 0 <= number < num_shards or not _is_count(index, 0, END_OF_INDICES):
            raise ValueError(
                f"next[{shard!r}] = {index!r} of the state is no index of a shard of {num_shards}"
            )
        ends[number] = index
    if not ends:
        raise ValueError("the state holds no shard's position")
    return ShardLayout(num_shards, ends)


def _is_count(value: object, least: int, most: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _list(shards: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(shards)))
