"""The id of what a request depends on and its bundle_id leaves open: proposal, directions, and what
a calibration gives to keep_fraction, keep_by and balance.

These are made after the export, and may be replaced under the same name. Server and client make
the same id of their digests, so that a stream which goes on with others is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from labelmint.v1 import label_service_pb2 as pb


class CalibrationDigests(NamedTuple):
    """What a calibration is, for one set of sampling options; empty: none, or not told."""

    thresholds: str = ""  # by keep_fraction
    content: str = ""  # what its samples show


NO_CALIBRATION = CalibrationDigests()


@dataclass(frozen=True)
class Dependencies:
    """What a request depends on, of all that is made after an export."""

    proposal: str  # its name; empty: none
    directions: tuple[str, ...]  # names
    thresholds: bool  # of the calibration
    content: bool  # of the calibration's samples

    def __str__(self) -> str:
        """In words, for messages; names are cut to 80 characters."""
        words = [f"proposal {self.proposal[:80]}"] if self.proposal else []
        words += [f"direction {name[:80]}" for name in self.directions]
        words += ["the calibration"] if self.thresholds or self.content else []
        return " and ".join(words) or "no proposal, no edits and no calibration"

    @property
    def replaced(self) -> str:
        """That one of them is another one now, in words, for messages."""
        learned, calibrated = self.proposal or self.directions, self.thresholds or self.content
        if not learned and not calibrated:
            return "it is of a stream with other options"
        if not calibrated:
            return "one was learned anew since"
        return "one was learned or calibrated anew since" if learned else "it was calibrated anew"


def dependencies_of_query(query: pb.SampleQuery) -> Dependencies:
    """What the samples of a request depend on."""
    asked = query.filter
    some = asked.mode == pb.FILTER_MODE_KEEP_FRACTION and asked.keep_fraction != 1  # 1: no limit
    return Dependencies(
        asked.proposal,
        tuple(edit.direction for edit in query.sampling.edits),
        thresholds=some,
        content=bool(asked.balance) or asked.balance_classes or (some and bool(asked.keep_by)),
    )


def learned_id_from_digests(
    needed: Dependencies,
    proposals: Mapping[str, str],
    directions: Mapping[str, str],
    calibration: CalibrationDigests,
) -> str:
    """The id, 64 hexadecimal digits; empty if nothing is needed.

    Args:
        needed: what the request depends on.
        proposals, directions: digests by name; the model's.
        calibration: digests for the sampling options of the request.

    Raises:
        KeyError: a name is unknown.
    """
    lines = [f"proposal {needed.proposal} {proposals[needed.proposal]}"] if needed.proposal else []
    lines += [f"direction {name} {directions[name]}" for name in needed.directions]
    lines += [f"thresholds {calibration.thresholds}"] if needed.thresholds else []
    lines += [f"content {calibration.content}"] if needed.content else []
    text = "".join(f"{line}\n" for line in sorted(lines))
    return hashlib.sha256(text.encode()).hexdigest() if lines else ""
