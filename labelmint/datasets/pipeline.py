"""Download of samples: streams them, encodes them in threads and writes them in order.

Enter: a client, a request, and a state to resume from. Leave: files of a `Writer`, and commits.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np
from tqdm import tqdm

from labelmint.batch import Batch
from labelmint.client import Client
from labelmint.datasets.folder import Commits, DownloadState
from labelmint.datasets.request import Request
from labelmint.datasets.samples import Sample, outputs_from_model, samples_from_batch
from labelmint.datasets.writer import Writer
from labelmint.errors import MalformedMessage
from labelmint.latents import UInt64s
from labelmint.model import Model
from labelmint.wire.sharding import END_OF_INDICES

_BATCH = 16
_MAX_INDICES = 4096  # per call; the server's default limit is 65,536
_MAX_THREADS = 8  # for encoding


def write_samples(
    client: Client,
    request: Request,
    model: Model,
    chosen: UInt64s | None,
    writer: Writer,
    commits: Commits,
) -> None:
    """Writes all samples that the last commit does not have.

    Args:
        client: client of the server.
        request: the data set.
        model: the model of the request.
        chosen: raw indices to write, uint64 [n] ascending, from a filter that ranks. None: all
            samples of the range that pass the server's filter.
        writer: writer of the format, opened at the last commit.
        commits: receives the state after each sample.

    Raises:
        LabelmintError: the stream failed; all samples received before are written.
        OSError: a file could not be written.
    """

    def prepared(sample: Sample) -> tuple[Sample, dict[int, int], Any]:
        return sample, _class_pixels(sample), writer.encoded(sample)

    state = commits.state
    batches = closing(_batches(client, request, model, state, chosen))
    pool = ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1))
    bar = tqdm(
        desc="samples", total=_total(request, state, chosen), initial=state.kept,
        unit=" samples", disable=None, dynamic_ncols=True,
    )  # fmt: skip
    with batches as arriving, pool, bar:
        for batch in arriving:
            for sample, pixels, encoded in pool.map(prepared, samples_from_batch(batch)):
                writer.add(encoded)
                state = dataclasses.replace(
                    state,
                    next_index=sample.index + 1,
                    kept=state.kept + 1,
                    mark=writer.mark(),
                    class_pixels=_sum(state.class_pixels, pixels),
                    class_images=_sum(state.class_images, dict.fromkeys(pixels, 1)),
                )
                commits.note(state)
            bar.set_postfix(examined=_examined(request, state), refresh=False)
            bar.update(len(batch))
    if chosen is not None and state.kept != len(chosen):
        raise MalformedMessage(f"the server sent {state.kept} of {len(chosen)} requested samples")
    if request.stop is not None and state.kept != request.limit:
        commits.note(dataclasses.replace(state, next_index=request.stop))


def _batches(
    client: Client,
    request: Request,
    model: Model,
    state: DownloadState,
    chosen: UInt64s | None,
) -> Generator[Batch, None, None]:
    options = request.sampling()
    options["model"], options["bundle_id"] = state.model, state.bundle_id
    options["learned_id"] = state.learned_id
    options["outputs"] = outputs_from_model(model, request)
    if chosen is not None:
        rest = chosen[state.kept :]
        for start in range(0, len(rest), _MAX_INDICES):
            options["indices"] = rest[start : start + _MAX_INDICES]
            yield from client.stream(_BATCH, **options)
    elif state.kept != request.limit and state.next_index != request.stop:
        options |= request.filters(state.threshold)
        options["start_index"] = state.next_index
        options["end_index"] = request.stop or 0
        options["count"] = 0 if request.limit is None else request.limit - state.kept
        if request.where is not None and state.kept:
            options["max_examined"] = END_OF_INDICES  # it was met; a server counts misses anew
        options["shard_index"] = request.shard_index
        options["num_shards"] = request.num_shards
        yield from client.stream(_BATCH, **options)


def _total(request: Request, state: DownloadState, chosen: UInt64s | None) -> int | None:
    """Number of samples of the complete data set; None if a filter decides it."""
    if chosen is not None:
        return len(chosen)
    chosen_by_server = (
        state.threshold, request.where, request.balance, request.keep_by, request.proposal,
    )  # fmt: skip
    if request.stop is None or any(option is not None for option in chosen_by_server):
        return request.limit
    return request.examined(request.stop)


def _examined(request: Request, state: DownloadState) -> str:
    examined = request.examined(state.next_index)
    return str(examined) if request.stop is None else f"{examined}/{request.examined(request.stop)}"


def _class_pixels(sample: Sample) -> dict[int, int]:
    if sample.mask is None:
        return {}
    counts = np.bincount(sample.mask.ravel())
    return {int(label): int(counts[label]) for label in np.flatnonzero(counts)}


def _sum(left: dict[int, int], right: dict[int, int]) -> dict[int, int]:
    return {label: left.get(label, 0) + right.get(label, 0) for label in sorted({*left, *right})}
