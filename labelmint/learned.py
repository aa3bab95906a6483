"""The id of what a request names of a bundle and its bundle_id leaves open: proposal, directions.

These are learned after the export, and may be replaced under the same name. Server and client make
the same id of their digests, so that a stream which goes on with others is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping


def learned_id_from_digests(
    proposals: Mapping[str, str],
    directions: Mapping[str, str],
    proposal: str | None,
    edits: Iterable[str],
) -> str:
    """The id, 64 hexadecimal digits; empty if nothing is named.

    Args:
        proposals, directions: digests by name; the model's.
        proposal: the name that the request has, if any.
        edits: the names of the directions that the request has.

    Raises:
        KeyError: a name is unknown.
    """
    lines = [f"proposal {proposal} {proposals[proposal]}\n"] if proposal else []
    lines += [f"direction {name} {directions[name]}\n" for name in edits]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest() if lines else ""
