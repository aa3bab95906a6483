"""Object, view and camera of a sample, as stored in data sets with several views, and its weight.

Enter: samples. Leave: JSON fields, or the same as cells of a table; and from cells to fields.
"""

from __future__ import annotations

from typing import Any

from labelmint.datasets.request import Request
from labelmint.datasets.samples import Sample, outputs_from_model, shortest
from labelmint.model import Camera, Model


def viewpoint_from_sample(sample: Sample, request: Request) -> dict[str, Any]:
    """JSON fields `object`, `view`, `camera` and `weight` of a sample, whichever the request has.

    `object` needs several views per object. `camera` has the fields of model.Camera; a field is
    None if it is unknown.
    """
    fields: dict[str, Any] = {}
    if request.views_per_object > 1:
        # With or without a view bank, views are numbered by the index.
        fields["object"], fields["view"] = divmod(sample.index, request.views_per_object)
    if sample.view is not None:
        fields["view"] = sample.view
    if sample.camera is not None:
        values = map(shortest, sample.camera)
        fields["camera"] = dict(zip(Camera._fields, values, strict=True))
    if sample.weight is not None:
        fields["weight"] = sample.weight
    return fields


def viewpoint_columns(model: Model, request: Request) -> tuple[str, ...]:
    """Names of the columns that `cells_from_viewpoint` fills."""
    outputs = outputs_from_model(model, request)
    several = request.views_per_object > 1
    return (
        *(("object",) if several else ()),
        *(("view",) if several or "view" in outputs else ()),
        *(Camera._fields if "camera" in outputs else ()),
        *(("weight",) if "weight" in outputs else ()),
    )


def cells_from_viewpoint(viewpoint: dict[str, Any], columns: tuple[str, ...]) -> list[str]:
    """Cells of these columns for one sample; an empty cell means unknown."""
    flat = {**viewpoint, **viewpoint.get("camera", {})}
    values = (flat.get(name) for name in columns)
    return ["" if value is None else str(value) for value in values]


def viewpoint_from_cells(row: dict[str, str]) -> dict[str, Any]:
    """The fields of a row with all columns, given by name; raises KeyError, ValueError."""
    camera = {name: float(row[name]) if row[name] else None for name in Camera._fields}
    return {"object": int(row["object"]), "view": int(row["view"]), "camera": camera}
