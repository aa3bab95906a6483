"""A survey as one HTML page that needs nothing else: no script, no network, no other file.

Enters: a survey. Leaves: HTML text. Needs the extra `cli`. Names come from a server, so all text
is escaped, and the page forbids itself to load anything.
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
from labelmint.report.stream_statistics import Scored, Survey


@dataclass(frozen=True)
class Picture:
    """A picture that the page holds."""

    uri: str
    alt: str


@dataclass(frozen=True)
class Card:
    """An example."""

    index: int
    score: float
    pictures: tuple[Picture, ...]


def html_from_survey(survey: Survey, options: dict[str, object], command: str) -> str:
    """The page.

    Args:
        survey: what to show.
        options: names and values of what was asked for, to be listed.
        command: what makes the page again, to be shown.
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
        survey=survey,
        model=survey.model,
        options=options,
        command=command,
        version=labelmint.__version__,
        sheet=_sheet(survey),
        delivered=survey.delivered.frequencies(survey.model),
        examined=survey.examined.frequencies(survey.model),
        keypoints=survey.delivered.keypoints(survey.model),
        depth=survey.delivered.depth(),
        histogram=_histogram(survey),
        quantiles=_quantiles(survey),
        examples=_examples(survey),
    )


def percent(share: float) -> str:
    """A share from 0 to 1, so that what is rare does not look like nothing."""
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def score(value: float) -> str:
    """An uncertainty in four significant digits."""
    return f"{value:.4g}" if math.isfinite(value) else "none"


def _histogram(survey: Survey) -> object:
    limit = survey.threshold.value if survey.threshold else math.inf
    return histogram_from_scores(survey.kept.scores, survey.discarded.scores, limit)


def _quantiles(survey: Survey) -> dict[str, float]:
    """Of all examined samples; empty without scores."""
    scores = np.concatenate([survey.kept.scores, survey.discarded.scores]).astype(np.float64)
    finite = scores[np.isfinite(scores)]
    if not len(finite):
        return {}
    names = ("lowest", "median", "90th percentile", "highest")
    return dict(zip(names, np.percentile(finite, (0, 50, 90, 100)).tolist(), strict=True))


def _sheet(survey: Survey) -> Picture | None:
    if survey.sheet is None or survey.sheet.images is None:
        return None
    drawn = sheet_from_batch(survey.sheet, survey.model)
    unshown = ("w", "uncertainty_map", "view", "camera")
    shown = [name for name in survey.model.outputs if name not in unshown]
    indices = ", ".join(map(str, survey.sheet.indices.tolist()))
    return Picture(uri_from_picture(drawn), f"{', '.join(shown)} of samples {indices}")


def _examples(survey: Survey) -> dict[str, list[Card]]:
    """Cards by kind, as `Examples` names them; a kind without samples is an empty list."""
    indices = vars(survey.examples)
    batch = survey.pictures
    if batch is None or batch.images is None:
        return {kind: [] for kind in indices}
    scores = _score_of_index(survey.kept) | _score_of_index(survey.discarded)
    rows = {index: row for row, index in enumerate(batch.indices.tolist())}
    return {
        kind: [
            Card(index, scores[index], _pictures(batch, rows[index], survey.model))
            for index in chosen
            if index in rows
        ]
        for kind, chosen in indices.items()
    }


def _score_of_index(samples: Scored) -> dict[int, float]:
    return dict(zip(samples.indices.tolist(), samples.scores.tolist(), strict=True))


def _pictures(batch: Batch, row: int, model: Model) -> tuple[Picture, ...]:
    """The sample's image, mask and uncertainty map, as far as there are any."""
    assert batch.images is not None, "callers look"
    extent = panels.extent_from_images(batch.images)
    image = batch.images[row]
    drawn = {"image": panels.panel_from_image(image, extent)}
    if batch.masks is not None:
        drawn["mask"] = panels.panel_from_mask(batch.masks[row], image, model.palette(), extent)
    if batch.uncertainty_map is not None:
        finite = batch.uncertainty_map[np.isfinite(batch.uncertainty_map)].astype(np.float32)
        high = float(np.percentile(finite, 99.5)) if len(finite) else 1.0  # one scale for all
        drawn["uncertainty"] = panels.panel_from_values(
            batch.uncertainty_map[row], 0, high, panels.HEAT, extent
        )
    return tuple(
        Picture(uri_from_picture(picture), f"{name} of sample {batch.indices[row]}")
        for name, picture in drawn.items()
    )


def uri_from_picture(picture: Image.Image) -> str:
    """A picture as a data URI, PNG."""
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
