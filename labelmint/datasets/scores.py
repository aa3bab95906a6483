"""First pass of a filter that ranks: downloads uncertainty scores, without images.

Enters: a request with a filter. Leave: the raw indices that the filter keeps, of all shards. Scores
are stored in the scratch folder, so that an interrupted pass resumes. Each shard downloads the
scores of the whole range, because a rank depends on all of them.
"""

from __future__ import annotations

import dataclasses
from contextlib import closing

import numpy as np
from tqdm import tqdm

from labelmint.client import Client
from labelmint.datasets.append_file import AppendFile
from labelmint.datasets.folder import Commits, Folder
from labelmint.datasets.request import Request
from labelmint.datasets.selection import positions_by_rule
from labelmint.errors import LabelmintError, MalformedMessage
from labelmint.latents import UInt64s

_BATCH = 64
_SCORE_BYTES = 4  # little-endian float32


def chosen_indices(
    client: Client,
    request: Request,
    folder: Folder,
    commits: Commits,
) -> UInt64s:
    """Raw indices that the filter keeps, uint64 [n] ascending, of all shards.

    Raises LabelmintError, OSError.
    """
    assert request.filter and request.fraction, "checked_request fills in the fraction"
    scores_file = folder.scratch / "scores.f32"
    with closing(AppendFile(scores_file, _SCORE_BYTES * commits.state.scored)) as file:
        _complete(client, request, file, commits)
    scores = np.fromfile(scores_file, "<f4", request.ranked)
    try:
        positions = positions_by_rule(request.filter, scores, request.fraction)
    except ValueError as error:
        raise LabelmintError(str(error)) from error
    indices: UInt64s = np.uint64(request.start_index) + positions.astype(np.uint64)
    return indices


def _complete(client: Client, request: Request, file: AppendFile, commits: Commits) -> None:
    state = commits.state
    if state.scored == request.ranked:
        return
    options = request.sampling()
    options["model"], options["bundle_id"] = state.model, state.bundle_id
    options["learned_id"] = state.learned_id
    options["outputs"] = ("uncertainty",)
    options["start_index"] = request.start_index + state.scored
    options["end_index"] = request.stop or 0
    bar = tqdm(
        desc="scores", total=request.ranked, initial=state.scored, unit=" samples",
        disable=None, dynamic_ncols=True,
    )  # fmt: skip
    with bar:
        for batch in client.stream(_BATCH, **options):
            first = request.start_index + state.scored
            expected = np.uint64(first) + np.arange(len(batch), dtype=np.uint64)
            if batch.uncertainty is None or not np.array_equal(batch.indices, expected):
                raise MalformedMessage(f"the server left out scores from raw index {first} on")
            file.append(batch.uncertainty.astype("<f4").tobytes())
            state = dataclasses.replace(state, scored=state.scored + len(batch))
            commits.note(state)
            bar.update(len(batch))
    if state.scored != request.ranked:
        raise MalformedMessage(f"the server sent {state.scored} of {request.ranked} scores")
