"""The download of a data set: from a request to a complete folder.

Enter: a client, a request and a path. Leaves: a folder with a data card. A download that was
interrupted resumes with the same request from its last commit, and from the same bundle.
"""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path
from typing import Any

from labelmint.client import Client
from labelmint.datasets.card import README, card_from_state, readme_from_card
from labelmint.datasets.filter_report import report_from_range
from labelmint.datasets.folder import Commits, DownloadState, Folder, replace_file
from labelmint.datasets.pipeline import write_samples
from labelmint.datasets.request import Request
from labelmint.datasets.scores import chosen_indices
from labelmint.datasets.writer import OpenWriter, check_model, writer_from_format
from labelmint.errors import LabelmintError, WrongFolder
from labelmint.learned import dependencies_of_query
from labelmint.model import Model, learned_id_from_model
from labelmint.options import SamplingOptions, StreamOptions, query_from_options
from labelmint.wire.sharding import foreign_indices


def complete_folder(client: Client, request: Request, path: Path) -> dict[str, Any]:
    """Starts or resumes the download of a data set, and returns the content of card.json.

    If the folder is complete already, nothing is written and no call is made. A progress bar is
    shown if stderr is a terminal.

    Args:
        client: client of the server.
        request: a request from `checked_request`.
        path: folder of the data set; created if it does not exist.

    Raises:
        WrongFolder: the folder belongs to another request or bundle, or is damaged.
        LabelmintError: the disk is full or not writable, the folder is locked, or a call failed.
            Once the cause is mended, the same call resumes.
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
            f"{error.filename or path}: {error.strerror or error}; no data is lost: fix it and run "
            "the same command again, which resumes"
        ) from error
    assert folder.card, "_complete has written it"
    return folder.card


def _complete(client: Client, request: Request, folder: Folder, open_writer: OpenWriter) -> None:
    # The server refuses wrong sampling options here, before the first file is written.
    sampling: SamplingOptions = request.sampling()
    if folder.state:
        model = client.model(folder.state.model, **sampling)
        state = folder.state
    else:
        model = client.model(request.model, keep_fraction=request.keep_fraction, **sampling)
        state = _first_state(request, model)
    check_model(request, model)
    if model.bundle_id != state.bundle_id:
        raise WrongFolder(
            f"{folder.path} was started with bundle {state.bundle_id}, but {model.name} now has "
            f"bundle {model.bundle_id}; serve the first one again, or give another --out"
        )
    options = _dependent_options(request, state.threshold)
    learned_id = learned_id_from_model(model, options)
    if state.learned_id not in ("", learned_id):
        needed = dependencies_of_query(query_from_options(options))
        raise WrongFolder(
            f"{folder.path} was not started with {needed} that {model.name} has now: "
            f"{needed.replaced}; serve the bundle as it was, or give another --out"
        )
    with Commits(folder, state) as commits:
        chosen = chosen_indices(client, request, folder, commits) if request.filter else None
        own = None if chosen is None else chosen[~foreign_indices(request.query(), chosen)]
        with closing(open_writer(folder, request, model, commits.state)) as writer:
            write_samples(client, request, model, own, writer, commits)
            writer.finish()
        report = None
        if request.filter_report:
            report = report_from_range(client, request, model, commits.state, chosen)
    card = card_from_state(request, model, commits.state, report)
    replace_file(folder.path / README, readme_from_card(card, request))
    folder.finish(card)


def _first_state(request: Request, model: Model) -> DownloadState:
    # Kept to the end: the calibration of a bundle may change during the download.
    threshold = model.max_uncertainty if request.keep_fraction else request.max_uncertainty
    if request.keep_by:
        threshold = None  # there is one for each stratum
    if threshold is not None and math.isinf(threshold):
        threshold = None  # no limit
    return DownloadState(
        model.name, model.bundle_id, threshold, request.start_index,
        learned_id=learned_id_from_model(model, _dependent_options(request, threshold)),
    )  # fmt: skip


def _dependent_options(request: Request, threshold: float | None) -> StreamOptions:
    """Options of the download that its learned_id depends on."""
    return {**request.filters(threshold), "edits": request.edits}
