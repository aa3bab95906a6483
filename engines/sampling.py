"""Indices or explicit latents -> w+ rows, in numpy; service and calibration share it.

Row i is a function of (bundle, options, i) alone: not of the batch it is drawn in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bundle.calibration import shortest_float32
from bundle.manifest import GeneratorFacts, SamplingKey
from bundle.views import ViewBank
from engines.errors import SamplingError
from engines.protocol import Mapping
from labelmint.latents import (
    MAX_MT19937_INDEX,
    MAX_MT19937_SEED,
    Mt19937Rows,
    Purpose,
    classes,
    latents,
    views,
)

LatentSource = Literal["philox", "mt19937"]
LatentSpace = Literal["z", "w", "w+"]
ViewMode = Literal["drawn", "bank", "fixed", "random"]

MAX_PSI = 2.0
MAX_VIEWS = 1 << 16
OWN_VIEW = -1  # number of a view that is neither one of several nor of the bank


@dataclass(frozen=True)
class SamplingOptions:
    """Everything besides the bundle and the index that a sample depends on."""

    seed: int  # in [0, 2^64)
    latent_source: LatentSource
    truncation_psi: float  # in [0, 2], a float32 value; 1: w stays as it is
    truncation_cutoff: int  # rows of w+ that are truncated, the first ones, in [0, num_ws]
    class_index: int | None  # None: drawn per object, or unconditional
    views_per_object: int  # V: index i is view i mod V of object i div V
    # drawn: view codes of the seed, with V 1 the object's own view; the others are of the bank:
    # its first V codes, the code `view` for all, or one drawn for each index.
    view_mode: ViewMode = "drawn"
    view: int | None = None  # of the mode fixed


def default_options(generator: GeneratorFacts, seed: int = 0) -> SamplingOptions:
    """The bundle's own truncation, drawn classes, one view."""
    return SamplingOptions(
        seed=seed,
        latent_source="philox",
        truncation_psi=generator.truncation_psi,
        truncation_cutoff=generator.truncation_cutoff,
        class_index=None,
        views_per_object=1,
    )


def default_view_mode(views_per_object: int, bank: ViewBank | None) -> ViewMode:
    """What several views of an object are when nobody says."""
    return "bank" if views_per_object > 1 and bank is not None else "drawn"


def key_from_options(options: SamplingOptions) -> SamplingKey:
    """What a calibration is keyed by: the options without the seed, in one form.

    Psi 1 and cutoff 0 both mean no truncation, and both become psi 1 with cutoff 0.
    """
    psi = shortest_float32(options.truncation_psi)
    truncated = psi != 1 and options.truncation_cutoff > 0
    return SamplingKey(
        latent_source=options.latent_source,
        truncation_psi=psi if truncated else 1.0,
        truncation_cutoff=options.truncation_cutoff if truncated else 0,
        class_index=options.class_index,
        views_per_object=options.views_per_object,
        view_mode=options.view_mode,
        view=options.view,
    )


def check_options(
    generator: GeneratorFacts, options: SamplingOptions, bank: ViewBank | None = None
) -> None:
    """Raises SamplingError unless the bundle, with this view bank, can serve these options."""
    o = options
    if not 0 <= o.seed < 1 << 64:
        raise SamplingError(f"seed is {o.seed}; it must be in [0, 2^64)")
    if o.latent_source not in ("philox", "mt19937"):
        raise SamplingError(f"latent_source is {o.latent_source!r}; it is philox or mt19937")
    if o.latent_source == "mt19937" and o.seed >= MAX_MT19937_SEED:
        raise SamplingError(f"seed is {o.seed}; with MT19937 latents it must be under 2^32")
    if o.latent_source == "mt19937" and o.views_per_object > 1:
        raise SamplingError(
            f"views_per_object is {o.views_per_object}; MT19937 latents are the research code's "
            "order, which has no views: use philox or 1"
        )
    if not 0 <= o.truncation_psi <= MAX_PSI:  # also refuses NaN
        raise SamplingError(f"truncation_psi is {o.truncation_psi}; it must be in [0, {MAX_PSI:g}]")
    if not 0 <= o.truncation_cutoff <= generator.num_ws:
        raise SamplingError(
            f"truncation_cutoff is {o.truncation_cutoff}; it must be in [0, {generator.num_ws}], "
            "the rows of w+"
        )
    if o.class_index is not None and generator.num_classes == 0:
        raise SamplingError(
            f"class_index is {o.class_index}; this generator has no classes, leave it out"
        )
    if o.class_index is not None and not 0 <= o.class_index < generator.num_classes:
        raise SamplingError(
            f"class_index is {o.class_index}; it must be under {generator.num_classes}"
        )
    if not 1 <= o.views_per_object <= MAX_VIEWS:
        raise SamplingError(
            f"views_per_object is {o.views_per_object}; it must be in [1, {MAX_VIEWS}]"
        )
    if o.views_per_object > 1 and generator.view_layers == 0:
        raise SamplingError(
            f"views_per_object is {o.views_per_object}; this bundle does not say which rows of w+ "
            "carry the viewpoint (view_layers is 0), so it must be 1"
        )
    _check_views(o, bank)


def _check_views(o: SamplingOptions, bank: ViewBank | None) -> None:
    if o.view_mode not in ("drawn", "bank", "fixed", "random"):
        raise SamplingError(f"view_mode is {o.view_mode!r}; it is drawn, bank, fixed or random")
    if (o.view is not None) != (o.view_mode == "fixed"):
        raise SamplingError(
            f"view is {o.view} with view_mode {o.view_mode}; fixed has a view, other modes none"
        )
    if o.view_mode == "drawn":
        return
    asked = o.view_mode if o.view is None else str(o.view)  # as callers spell it
    if bank is None:
        raise SamplingError(f"view is {asked}; this bundle has no view bank, use drawn")
    if o.view is not None and not 0 <= o.view < len(bank):
        raise SamplingError(f"view is {asked}; the view bank has {len(bank)}, counted from 0")
    if o.view_mode == "bank" and not 1 < o.views_per_object <= len(bank):
        raise SamplingError(
            f"views_per_object is {o.views_per_object} and view is bank; the bank has {len(bank)}, "
            f"so it must be in [2, {len(bank)}]; use drawn for more, a number for one"
        )
    if o.view_mode != "bank" and o.views_per_object != 1:
        raise SamplingError(
            f"views_per_object is {o.views_per_object} and view is {asked}, which gives an object "
            "one view; it must be 1"
        )


def ws_from_indices(
    mapping: Mapping,
    generator: GeneratorFacts,
    options: SamplingOptions,
    indices: Sequence[int] | NDArray[np.uint64],
    mt19937: Mt19937Rows | None = None,
    bank: ViewBank | None = None,
) -> NDArray[np.float32]:
    """Raw indices [n] -> float32 [n, num_ws, w_dim], truncated, views mixed in; codes of the
    bank as they are, because they were measured so.

    `mt19937` is a stream's own position in that sequence, so that ascending batches draw each
    row once; without it every call starts at row 0. Raises SamplingError for options or
    indices out of range.
    """
    check_options(generator, options, bank)
    index = np.asarray(indices, np.uint64)
    objects, view_of_object = np.divmod(index, np.uint64(options.views_per_object))
    if options.latent_source == "mt19937":
        z = _mt19937_rows(generator, options, index, mt19937)
    else:
        z = latents(options.seed, Purpose.OBJECT, objects, generator.z_dim)
    ws = _ws_from_z(mapping, generator, options, z, objects)
    if options.view_mode != "drawn":
        assert bank is not None  # checked, see check_options
        ws[:, : generator.view_layers] = bank.codes[view_numbers(options, index, bank)]
    elif options.views_per_object > 1:
        # One view code for all objects; only the class it is mapped with is the object's own.
        z = latents(options.seed, Purpose.VIEW, view_of_object, generator.z_dim)
        view_ws = _ws_from_z(mapping, generator, options, z, objects)
        ws[:, : generator.view_layers] = view_ws[:, : generator.view_layers]
    return ws


def view_numbers(
    options: SamplingOptions, indices: NDArray[np.uint64], bank: ViewBank | None = None
) -> NDArray[np.int32]:
    """Which view each index is, int32 [n]: a code of the bank, i mod V, or OWN_VIEW."""
    if options.view is not None:
        return np.full(len(indices), options.view, np.int32)
    if options.view_mode == "random":
        assert bank is not None  # checked, see check_options
        return views(options.seed, indices, len(bank))
    if options.views_per_object == 1:
        return np.full(len(indices), OWN_VIEW, np.int32)
    return (indices % np.uint64(options.views_per_object)).astype(np.int32)


def ws_from_latents(
    mapping: Mapping,
    generator: GeneratorFacts,
    options: SamplingOptions,
    space: LatentSpace,
    rows: NDArray[np.float32],
    first_row: int = 0,
    bank: ViewBank | None = None,
) -> NDArray[np.float32]:
    """The caller's latents -> float32 [n, num_ws, w_dim]; only z is mapped and truncated, and a
    view of the bank takes the place of the first rows.

    `rows` is [n, z_dim], [n, w_dim] or [n, num_ws, w_dim] by `space`; `first_row` is the row
    number of rows[0], which classes and random views are drawn by. Raises SamplingError.
    """
    if options.views_per_object != 1:
        raise SamplingError(
            f"views_per_object is {options.views_per_object}; with explicit latents it must be 1"
        )
    check_options(generator, options, bank)
    extents = {
        "z": (generator.z_dim,),
        "w": (generator.w_dim,),
        "w+": (generator.num_ws, generator.w_dim),
    }
    if space not in extents:
        raise SamplingError(f"latent space is {space!r}; it is one of {', '.join(extents)}")
    if rows.shape[1:] != extents[space]:
        raise SamplingError(
            f"latents have shape {list(rows.shape)}; {space} rows of this bundle are "
            f"[n, {', '.join(map(str, extents[space]))}]"
        )
    if not np.isfinite(rows).all():
        row = int(np.flatnonzero(~np.isfinite(rows.reshape(len(rows), -1)).all(axis=1))[0])
        raise SamplingError(f"latent row {first_row + row} holds values that are not finite")
    rows = np.ascontiguousarray(rows, np.float32)
    numbers = np.arange(first_row, first_row + len(rows), dtype=np.uint64)
    if space == "z":
        ws = _ws_from_z(mapping, generator, options, rows, numbers)
    elif space == "w":
        ws = np.repeat(rows[:, None], generator.num_ws, axis=1)
    else:
        ws = rows if options.view_mode == "drawn" else rows.copy()
    if options.view_mode != "drawn":
        assert bank is not None  # checked, see check_options
        ws[:, : generator.view_layers] = bank.codes[view_numbers(options, numbers, bank)]
    return ws


def _mt19937_rows(
    generator: GeneratorFacts,
    options: SamplingOptions,
    index: NDArray[np.uint64],
    position: Mt19937Rows | None,
) -> NDArray[np.float32]:
    if len(index) and index.max() >= MAX_MT19937_INDEX:
        raise SamplingError(
            f"index is {index.max()}; with MT19937 latents it must be under {MAX_MT19937_INDEX}"
        )
    return (position or Mt19937Rows(options.seed, generator.z_dim)).rows(index)


def _ws_from_z(
    mapping: Mapping,
    generator: GeneratorFacts,
    options: SamplingOptions,
    z: NDArray[np.float32],  # [n, z_dim]
    numbers: NDArray[np.uint64],  # [n], what a drawn class is drawn by
) -> NDArray[np.float32]:
    one_hot = None
    if generator.num_classes > 0:
        class_ids = (
            classes(options.seed, numbers, generator.num_classes)
            if options.class_index is None
            else np.full(len(z), options.class_index)
        )
        one_hot = np.eye(generator.num_classes, dtype=np.float32)[class_ids]
    w = mapping.run(z, one_hot)
    ws = np.repeat(w[:, None], generator.num_ws, axis=1)  # [n, num_ws, w_dim]
    if options.truncation_psi != 1:  # at 1 the formula would round w
        w_avg = np.array(generator.w_avg, np.float32)
        truncated = w_avg + np.float32(options.truncation_psi) * (w - w_avg)
        ws[:, : options.truncation_cutoff] = truncated[:, None]
    return ws
