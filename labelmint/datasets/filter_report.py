"""What a filter removes of each class, measured on the first samples of the range.

Enter: the request and its state. Leaves: `filter_report` of card.json. A server does not send what
it rejects, so the first N samples of the range are drawn once more, without images: all of them,
and those that the filter keeps. Every shard draws the same samples, those of the whole range.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from labelmint.client import Client
from labelmint.datasets.folder import DownloadState
from labelmint.datasets.request import Request
from labelmint.latents import UInt64s
from labelmint.model import Model
from labelmint.options import StreamOptions
from labelmint.wire.sharding import END_OF_INDICES

_BATCH = 16
_IDS = 256
_RARER = 2  # a class is named if it is kept this many times less often than samples are


def report_from_range(
    client: Client, request: Request, model: Model, state: DownloadState, chosen: UInt64s | None
) -> dict[str, Any]:
    """Numbers of samples, images with each class and pixels of it, as [of all, of those kept]; with
    a balance or a proposal also the share of images with each class when kept ones count by their
    weights, and the number of equally weighted samples that tell as much, by Kish's formula.

    Args:
        client: client of the server.
        request: a request with filter_report.
        model: the model of the request; it has masks.
        state: the state of the download.
        chosen: raw indices that a filter that ranks keeps; None: the server filters.

    Raises:
        LabelmintError: a call failed.
    """
    options = _options(request, state)
    kept: dict[int, float]  # weights by index
    if chosen is not None:
        kept = dict.fromkeys(chosen.tolist(), 1.0)
    else:
        kept = _weights(client, request, model, state, options)
    weighted: npt.NDArray[np.float64] = np.zeros(_IDS)
    samples = [0, 0]
    images: npt.NDArray[np.int64] = np.zeros((_IDS, 2), np.int64)
    pixels = np.zeros_like(images)
    options["outputs"] = ("mask",)
    for batch in client.stream(_BATCH, **options):
        assert batch.masks is not None, "check_model refuses a model without masks"
        for index, mask in zip(batch.indices.tolist(), batch.masks, strict=True):
            counts = np.bincount(mask.ravel(), minlength=_IDS)
            for column in (0, 1) if index in kept else (0,):
                samples[column] += 1
                images[:, column] += counts > 0
                pixels[:, column] += counts
            weighted += kept.get(index, 0.0) * (counts > 0)
    total = sum(kept.values()) or 1.0

    def fields_of_weights(number: int) -> dict[str, float]:
        return {} if not request.weighted else {"weighted": float(weighted[number]) / total}

    squares = sum(weight**2 for weight in kept.values()) or 1.0
    return {
        "samples": samples,
        **({"effective": sum(kept.values()) ** 2 / squares} if request.weighted else {}),
        "classes": [
            {
                "id": label.id,
                "name": label.name,
                "images": images[label.id].tolist(),
                "pixels": pixels[label.id].tolist(),
                **fields_of_weights(label.id),
            }
            for label in model.classes
        ],
    }


def _weights(
    client: Client, request: Request, model: Model, state: DownloadState, options: StreamOptions
) -> dict[int, float]:
    """Weights of the samples that the server keeps, by index; 1 without any."""
    small = "uncertainty" if "uncertainty" in model.outputs else "mask"
    filtered = StreamOptions(**options)
    filtered |= request.filters(state.threshold)
    filtered["learned_id"] = state.learned_id
    filtered["outputs"] = (small,) if not request.weighted else (small, "weight")
    found: dict[int, float] = {}
    for batch in client.stream(_BATCH, **filtered):
        weights = np.ones(len(batch)) if batch.weights is None else batch.weights
        found |= zip(batch.indices.tolist(), weights.tolist(), strict=True)
    return found


def lines_from_report(report: dict[str, Any]) -> list[str]:
    """A line for each class that the filter keeps far less often than samples as a whole."""
    examined, kept = report["samples"]
    return [
        f"the filter keeps {label['images'][1]} of the {label['images'][0]} images with "
        f"{label['name']}, and {kept} of {examined} in all"
        for label in report["classes"]
        if label["images"][1] * _RARER * examined < label["images"][0] * kept
    ]


def _options(request: Request, state: DownloadState) -> StreamOptions:
    assert request.filter_report, "the caller checks it"
    options = request.sampling()
    options["model"], options["bundle_id"] = state.model, state.bundle_id
    samples = request.filter_report
    if request.filter_sets:
        samples += -samples % request.views_per_object  # whole objects
    options["start_index"] = request.start_index
    options["end_index"] = min(request.start_index + samples, request.stop or END_OF_INDICES)
    return options
