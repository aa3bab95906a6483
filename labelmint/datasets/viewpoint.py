"""Which object a sample shows, and from where: what only data sets with views tell.

Enter: samples. Leave: fields for JSON, and the same as cells of a table; and back.
"""

from __future__ import annotations

from typing import Any

from labelmint.datasets.request import Request
from labelmint.datasets.samples import Sample, outputs_from_model, shortest
from labelmint.model import Camera, Model


def viewpoint_from_sample(sample: Sample, request: Request) -> dict[str, Any]:
    """`object` where several views share one, `view`, `camera`; nothing without views.

    The camera has the names of model.Camera, and None for what is not known.
    """
    fields: dict[str, Any] = {}
    if request.views_per_object > 1:
        # Views of the bank and drawn ones are counted alike, so that both have numbers.
        fields["object"], fields["view"] = divmod(sample.index, request.views_per_object)
    if sample.view is not None:
        fields["view"] = sample.view
    if sample.camera is not None:
        values = map(shortest, sample.camera)
        fields["camera"] = dict(zip(Camera._fields, values, strict=True))
    return fields


def viewpoint_columns(model: Model, request: Request) -> tuple[str, ...]:
    """The names of `cells_from_viewpoint`."""
    outputs = outputs_from_model(model, request)
    several = request.views_per_object > 1
    return (
        *(("object",) if several else ()),
        *(("view",) if several or "view" in outputs else ()),
        *(Camera._fields if "camera" in outputs else ()),
    )


def cells_from_viewpoint(viewpoint: dict[str, Any], columns: tuple[str, ...]) -> list[str]:
    """A row's cells of a table; empty where something is not known."""
    flat = {**viewpoint, **viewpoint.get("camera", {})}
    values = (flat.get(name) for name in columns)
    return ["" if value is None else str(value) for value in values]


def viewpoint_from_cells(row: dict[str, str]) -> dict[str, Any]:
    """The fields of a row by column, where all of them are there; raises KeyError, ValueError."""
    camera = {name: float(row[name]) if row[name] else None for name in Camera._fields}
    return {"object": int(row["object"]), "view": int(row["view"]), "camera": camera}
