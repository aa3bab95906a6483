"""The answers to one query, each checked against the query and the answers before it.

Enters: responses of a server, which may be wrong in any way. Leave: `Message`s, and the query of
what is still missing. What cannot be checked from outside is whether the samples are those of the
bundle, and which of them a filter rejected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from labelmint.batch import FIELDS, KeptSamples, kept_from_proto
from labelmint.codec import name_from_output
from labelmint.errors import MalformedMessage
from labelmint.latents import UInt64s
from labelmint.learned import dependencies_of_query
from labelmint.v1 import label_service_pb2 as pb
from labelmint.wire.sharding import (
    end_of_query,
    foreign_indices,
    remaining_query,
    shard_indices_between,
)

MAX_ID = 256  # characters of a bundle_id or learned_id; those of our server have 71 and 64
# Bits of a response's `applied`, and what the client says of an option that is not among them.
WHERE, BALANCE, KEEP_BY, PROPOSAL, EDITS = 1, 2, 4, 8, 16
_NAMES = {
    WHERE: "where", BALANCE: "balance", KEEP_BY: "keep_by", PROPOSAL: "proposal", EDITS: "edits",
}  # fmt: skip
_REJECTING = (pb.FILTER_MODE_KEEP_FRACTION, pb.FILTER_MODE_MAX_UNCERTAINTY)


@dataclass(frozen=True, eq=False)
class Message:
    """What one StreamSamplesResponse says; a heartbeat when it has no samples."""

    kept: KeptSamples
    next_index: int  # raw index at which to resume after this message
    bundle_id: str  # bundle that made the samples
    learned_id: str = ""  # of the proposal, directions and calibration that chose and made them

    @property
    def nbytes(self) -> int:
        """Bytes of the samples' arrays."""
        return sum(array.nbytes for array in self.kept.arrays.values())


class Answers:
    """The position in the answers to one query, however many calls they take."""

    def __init__(self, query: pb.SampleQuery) -> None:
        self._query = query
        self._listed: UInt64s = np.array(query.indices, np.uint64)
        self._end = end_of_query(query)
        self._fields = {FIELDS[name_from_output(output)] for output in query.outputs}
        self._layout: dict[str, Any] | None = None  # dtype and shape of each output's sample
        self._bundle_id, self._learned_id = query.bundle_id, query.learned_id
        self._received = 0  # number of samples
        self.next_index = query.start_index  # as the last message said

    def checked(self, response: pb.StreamSamplesResponse | pb.GenerateSamplesResponse) -> Message:
        """The message of a response, and this position behind it. Raises MalformedMessage."""
        for name in ("bundle_id", "learned_id"):
            length = len(getattr(response, name))
            if length > MAX_ID:  # batches and states keep it
                raise MalformedMessage(
                    f"the server sent a {name} of {length} characters; one has up to {MAX_ID}"
                )
        self._check_bundle(response.bundle_id)
        self._check_learned(response.learned_id)
        ignored = applied_by_query(self._query) & ~response.applied
        if ignored:
            names = " and ".join(name for bit, name in _NAMES.items() if bit & ignored)
            raise MalformedMessage(
                f"the server ignored {names}, because it is of an older version; upgrade it, or "
                f"leave {names} out"
            )
        kept = kept_from_proto(response.batch, self._query.accept_codecs)
        self._check_indices(kept.indices, response.next_index)
        self._check_numbers(len(kept), response)
        if len(kept):
            self._check_outputs(kept)
        self.next_index = response.next_index
        self._received += len(kept)
        self._bundle_id, self._learned_id = response.bundle_id, response.learned_id
        return Message(kept, response.next_index, self._bundle_id, self._learned_id)

    def remaining(self) -> pb.SampleQuery | None:
        """The query that resumes behind the last message; None when all is answered."""
        return remaining_query(
            self._query, self.next_index, self._received, self._bundle_id, self._learned_id
        )

    def _check_bundle(self, bundle_id: str) -> None:
        if not bundle_id or bundle_id != (self._bundle_id or bundle_id):
            raise MalformedMessage(
                f"the server sent samples of bundle {bundle_id[:100]!r}; this stream is one of "
                f"bundle {self._bundle_id[:100]!r}"
            )

    def _check_learned(self, learned_id: str) -> None:
        if self._learned_id and learned_id != self._learned_id:
            needed = dependencies_of_query(self._query)
            raise MalformedMessage(
                f"learned_id of this stream is {self._learned_id[:80]}; that of {needed} of the "
                f"server is {learned_id[:80] or 'empty'}: {needed.replaced}, or it is of an older "
                "version; start a new stream without learned_id, or serve the bundle as it was"
            )

    def _check_indices(self, indices: UInt64s, next_index: int) -> None:
        if next_index < self.next_index:
            raise MalformedMessage(f"next_index went back from {self.next_index} to {next_index}")
        if next_index > self._end:
            raise MalformedMessage(f"next_index is {next_index}, and the range ends at {self._end}")
        if not len(indices):
            return
        first, last = int(indices[0]), int(indices[-1])
        if first < self.next_index or last >= next_index:
            raise MalformedMessage(
                f"samples {first} to {last} are outside {self.next_index} to {next_index}, the "
                "indices that the message covers"
            )
        foreign = indices[
            ~np.isin(indices, self._listed)
            if len(self._listed)
            else foreign_indices(self._query, indices)
        ]
        if len(foreign):
            raise MalformedMessage(
                f"sample {foreign[0]} is not one of the requested indices"
                if len(self._listed)
                else f"sample {foreign[0]} is not of shard {self._query.shard_index} of "
                f"{self._query.num_shards}"
            )

    def _check_numbers(
        self, kept: int, response: pb.StreamSamplesResponse | pb.GenerateSamplesResponse
    ) -> None:
        """Checks that each index of the message is a sample or discarded, as the filter may."""
        examined = self._examined(response.next_index)
        if kept + response.discarded != examined:
            raise MalformedMessage(
                f"the server sent {kept} samples and discarded {response.discarded} of indices "
                f"{self.next_index} to {response.next_index}, which are {examined}"
            )
        filters = self._query.filter.mode in _REJECTING or applied_by_query(self._query) & ~EDITS
        if response.discarded and not filters:
            raise MalformedMessage(
                f"the server discarded {response.discarded} samples from index {self.next_index} "
                "on, and the stream has no filter"
            )
        if self._query.count and self._received + kept > self._query.count:
            raise MalformedMessage(
                f"the server sent {self._received + kept} samples; count is {self._query.count}"
            )

    def _check_outputs(self, kept: KeptSamples) -> None:
        layout = {name: (array.dtype, array.shape[1:]) for name, array in kept.arrays.items()}
        if self._fields and layout.keys() != self._fields:
            raise MalformedMessage(
                f"the server sent {_listed(layout)}; requested are {', '.join(self._fields)}"
            )
        if "images" not in layout and not self._fields:
            raise MalformedMessage(f"the server sent {_listed(layout)}, and no images")
        if self._layout is not None and layout != self._layout:
            raise MalformedMessage(
                f"outputs changed within a stream, from {self._layout} to {layout}"
            )
        self._layout = layout
        weights = kept.arrays.get("weights")
        if weights is not None and not ((weights > 0) & (weights < np.inf)).all():
            raise MalformedMessage("a weight is not over 0 and finite, so no loss can be corrected")
        scores = kept.arrays.get("uncertainty")
        limit = self._query.filter.max_uncertainty
        if scores is not None and self._query.filter.mode == pb.FILTER_MODE_MAX_UNCERTAINTY:
            above = np.flatnonzero(~(scores <= np.float32(limit)))
            if len(above):
                raise MalformedMessage(
                    f"sample {kept.indices[above[0]]} has uncertainty {scores[above[0]]:g}; "
                    f"max_uncertainty is {limit:g}"
                )

    def _examined(self, stop: int) -> int:
        """Number of the query's indices from this position to `stop`."""
        if len(self._listed):
            first, last = np.searchsorted(
                self._listed, np.array([self.next_index, stop], np.uint64)
            )
            return int(last - first)
        return shard_indices_between(self._query, self.next_index, stop)


def applied_by_query(query: pb.SampleQuery) -> int:
    """The bits of `applied` that a server has to answer this query with."""
    proto = query.filter
    balance = bool(proto.balance) or proto.balance_classes
    bits = WHERE * bool(proto.where) | BALANCE * balance | KEEP_BY * bool(proto.keep_by)
    return bits | PROPOSAL * bool(proto.proposal) | EDITS * bool(query.sampling.edits)


def _listed(layout: Mapping[str, object]) -> str:
    return ", ".join(layout) or "no outputs"


def kept_from_answer(query: pb.SampleQuery, response: pb.GenerateSamplesResponse) -> KeptSamples:
    """The samples of an answer in one message.

    Raises MalformedMessage, also when samples are missing.
    """
    answers = Answers(query)
    message = answers.checked(response)
    if answers.remaining() is not None:
        raise MalformedMessage(
            f"the answer ends at index {answers.next_index} with {len(message.kept)} samples, "
            "before all requested ones"
        )
    return message.kept
