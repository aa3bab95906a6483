"""HTML report on a range of a stream: one self-contained page without scripts or links.

Enter: `StreamStatistics`. Leaves: HTML text. Needs the extra `cli`. Names come from a server, so
all text is escaped, and the page's content security policy forbids to load anything.
"""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass

import jinja2
import numpy as np
from PIL import Image

import labelmint
from labelmint import panels
from labelmint.batch import Batch
from labelmint.model import Model
from labelmint.preview import sheet_from_batch
from labelmint.report.histogram import histogram_from_scores
from labelmint.report.stream_statistics import ScoredSamples, StreamStatistics

SHEET_COLUMNS = 4  # as many as a window of 1280 px shows without scrolling


@dataclass(frozen=True)
class Picture:
    """A picture within the page."""

    uri: str  # data URI
    alt: str
    title: str = ""


@dataclass(frozen=True)
class Card:
    """An example sample."""

    index: int  # raw
    score: float  # uncertainty
    pictures: tuple[Picture, ...]


def html_from_statistics(
    statistics: StreamStatistics, options: dict[str, object], command: str
) -> str:
    """The report as an HTML page.

    Args:
        statistics: content of the page.
        options: names and values of stream options, listed at the top.
        command: command line that makes the page again, shown at the top.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("labelmint"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "score": score}
    return environment.get_template("report.html").render(
        statistics=statistics,
        model=statistics.model,
        options=options,
        command=command,
        version=labelmint.__version__,
        sheet=_sheet(statistics),
        delivered=statistics.delivered.frequencies(statistics.model),
        examined=statistics.examined.frequencies(statistics.model),
        keypoints=statistics.delivered.keypoints(statistics.model),
        depth=statistics.delivered.depth(),
        histogram=_histogram(statistics),
        quantiles=_quantiles(statistics),
        examples=_examples(statistics),
    )


def percent(share: float) -> str:
    """A fraction from 0 to 1 in percent; a small one as "< 0.1 %", not as 0."""
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def score(value: float) -> str:
    """A score with four significant digits; "none" if it is not finite."""
    return f"{value:.4g}" if math.isfinite(value) else "none"


def _histogram(statistics: StreamStatistics) -> object:
    limit = statistics.threshold.value if statistics.threshold else math.inf
    return histogram_from_scores(statistics.kept.scores, statistics.discarded.scores, limit)


def _quantiles(statistics: StreamStatistics) -> dict[str, float]:
    """Quantiles of the scores in the histogram, by name; empty without scores."""
    scores = np.concatenate([statistics.kept.scores, statistics.discarded.scores]).astype(
        np.float64
    )
    finite = scores[np.isfinite(scores)]
    if not len(finite):
        return {}
    names = ("lowest", "median", "90th percentile", "highest")
    return dict(zip(names, np.percentile(finite, (0, 50, 90, 100)).tolist(), strict=True))


def _sheet(statistics: StreamStatistics) -> Picture | None:
    if statistics.sheet is None or statistics.sheet.images is None:
        return None
    drawn = sheet_from_batch(statistics.sheet, statistics.model, SHEET_COLUMNS)
    not_drawn = ("w", "uncertainty_map", "view", "camera", "weight")
    shown = [name for name in statistics.model.outputs if name not in not_drawn]
    indices = ", ".join(map(str, statistics.sheet.indices.tolist()))
    return Picture(uri_from_picture(drawn), f"{', '.join(shown)} of samples {indices}")


def _examples(statistics: StreamStatistics) -> dict[str, list[Card]]:
    """Cards by list of `Examples`, with the same names; a list may be empty."""
    indices = vars(statistics.examples)
    batch = statistics.pictures
    if batch is None or batch.images is None:
        return {kind: [] for kind in indices}
    scores = _score_of_index(statistics.kept) | _score_of_index(statistics.discarded)
    rows = {index: row for row, index in enumerate(batch.indices.tolist())}
    return {
        kind: [
            Card(index, scores[index], _pictures(batch, rows[index], statistics.model))
            for index in chosen
            if index in rows
        ]
        for kind, chosen in indices.items()
    }


def _score_of_index(samples: ScoredSamples) -> dict[int, float]:
    return dict(zip(samples.indices.tolist(), samples.scores.tolist(), strict=True))


def _pictures(batch: Batch, row: int, model: Model) -> tuple[Picture, ...]:
    """Image, mask and uncertainty map of a sample, whichever the batch has."""
    assert batch.images is not None, "_examples has checked it"
    size = panels.size_from_images(batch.images)
    image = batch.images[row]
    drawn = {"image": panels.panel_from_image(image, size)}
    if batch.masks is not None:
        drawn["mask"] = panels.panel_from_mask(batch.masks[row], image, model.palette(), size)
    if batch.uncertainty_map is not None:
        finite = batch.uncertainty_map[np.isfinite(batch.uncertainty_map)].astype(np.float32)
        high = float(np.percentile(finite, 99.5)) if len(finite) else 1.0  # one scale for all
        drawn["uncertainty"] = panels.panel_from_values(
            batch.uncertainty_map[row], 0, high, panels.HEAT, size
        )
    return tuple(
        Picture(uri_from_picture(picture), f"{name} of sample {batch.indices[row]}", name)
        for name, picture in drawn.items()
    )


def uri_from_picture(picture: Image.Image) -> str:
    """Data URI of a picture as PNG."""
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
