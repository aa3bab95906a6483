"""The job: a request becomes a complete folder, in as many runs as it takes.

Enter: a client, a request, a path. Leaves: a folder with a card. Whatever ends a run, the next
one with the same request goes on where the last commit was, with the same bundle.
"""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path
from typing import Any

from labelmint.client import Client
from labelmint.datasets.card import README, card_from_state, readme_from_card
from labelmint.datasets.folder import Commits, Folder, State, replace_file
from labelmint.datasets.pipeline import write_samples
from labelmint.datasets.request import Request
from labelmint.datasets.scores import chosen_indices
from labelmint.datasets.writer import OpenWriter, check_model, writer_from_format
from labelmint.errors import LabelmintError, NotReady
from labelmint.model import Model
from labelmint.options import SamplingOptions


def download(client: Client, request: Request, path: Path) -> dict[str, Any]:
    """Makes or completes the data set of a checked request, and returns its card.

    A complete folder is left as it is, and the server is not asked for anything. Progress is
    shown on stderr where that is a terminal.

    Raises:
        LabelmintError: the folder is not this request's, the disk is full or not writable, or
            a call failed. Where that can be put right, the same request goes on from there.
    """
    open_writer = writer_from_format(request.format)
    try:
        folder = Folder(path, request)
        if not folder.card:
            with folder:
                if not folder.card:
                    _complete(client, request, folder, open_writer)
        folder.clear()
    except OSError as error:
        raise LabelmintError(
            f"{error.filename or path}: {error.strerror or error}; nothing is lost, the same "
            "command goes on when that is repaired"
        ) from error
    assert folder.card, "made, or found"
    return folder.card


def _complete(client: Client, request: Request, folder: Folder, open_writer: OpenWriter) -> None:
    sampling: SamplingOptions = request.sampling()  # refused here, before a folder is begun
    if folder.state:
        model = client.model(folder.state.model, **sampling)
        state = folder.state
    else:
        model = client.model(request.model, keep_fraction=request.keep_fraction, **sampling)
        state = _first_state(request, model)
    check_model(request, model)
    if model.bundle_id != state.bundle_id:
        raise NotReady(
            f"{folder.path} was begun with bundle {state.bundle_id}, but {model.name} is now "
            f"{model.bundle_id}; serve the former, or give another --out",
            "FAILED_PRECONDITION",
        )
    with Commits(folder, state) as commits:
        chosen = chosen_indices(client, request, folder, commits) if request.filter else None
        with closing(open_writer(folder, request, model, commits.state)) as writer:
            write_samples(client, request, model, chosen, writer, commits)
            writer.finish()
    card = card_from_state(request, model, commits.state)
    replace_file(folder.path / README, readme_from_card(card, request))
    folder.finish(card)


def _first_state(request: Request, model: Model) -> State:
    # Calibration may change under the same bundle: what it says now holds to the end.
    threshold = model.max_uncertainty if request.keep_fraction else request.max_uncertainty
    if threshold is not None and math.isinf(threshold):
        threshold = None  # keeps everything
    return State(model.name, model.bundle_id, threshold, request.start_index)
