"""Sample indices or explicit latents -> rows of w+, in numpy; used by service and calibration.

Row i depends on (bundle, options, i) alone, not on the batch in which it is computed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bundle.calibration import shortest_float32
from bundle.manifest import GeneratorFacts, SamplingKey
from bundle.views import CAMERA_FIELDS, ViewBank
from engines.errors import SamplingError
from engines.protocol import Mapping
from engines.signature import CAMERA, VIEW
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


class RowSource(Protocol):
    """Rows of latents by index, such as labelmint.latents.Mt19937Rows."""

    def rows(self, indices: NDArray[np.uint64], /) -> NDArray[np.float32]:
        """Rows of these indices: [n, z_dim]."""


MAX_PSI = 2.0
MAX_VIEWS = 1 << 16
OWN_VIEW = -1  # view number of a sample with one view per object that is not from the view bank


@dataclass(frozen=True)
class LatentOptions:
    """How latents are made from indices: all that a sample depends on besides bundle and index.

    With V views per object, index i is view i mod V of object i div V. The view mode chooses the
    rows of w+ that carry the viewpoint:

    drawn     view codes drawn from the seed; with V = 1 the object keeps its own view
    bank      the first V codes of the view bank
    fixed     the code `view` of the bank, for all samples
    random    one code of the bank, drawn for each index
    """

    seed: int  # in [0, 2^64)
    latent_source: LatentSource  # generator of z: Philox, or numpy's MT19937 as in research code
    truncation_psi: float  # in [0, 2], a float32 value; 1 leaves w unchanged
    truncation_cutoff: int  # number of rows of w+ that are truncated, in [0, num_ws]
    class_index: int | None  # None: drawn per object, or an unconditional generator
    views_per_object: int  # V, in [1, MAX_VIEWS]
    view_mode: ViewMode = "drawn"
    view: int | None = None  # code of the bank, set if and only if view_mode is "fixed"


def default_options(generator: GeneratorFacts, seed: int = 0) -> LatentOptions:
    """The bundle's own truncation, drawn classes, one view per object."""
    return LatentOptions(
        seed=seed,
        latent_source="philox",
        truncation_psi=generator.truncation_psi,
        truncation_cutoff=generator.truncation_cutoff,
        class_index=None,
        views_per_object=1,
    )


def default_view_mode(views_per_object: int, bank: ViewBank | None) -> ViewMode:
    """View mode of a request that names none: "bank" for several views if there is a bank."""
    return "bank" if views_per_object > 1 and bank is not None else "drawn"


def key_from_options(options: LatentOptions) -> SamplingKey:
    """Key of a calibration: the options without the seed, in canonical form.

    Psi 1 and cutoff 0 both mean no truncation; either becomes psi 1 with cutoff 0.
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
    generator: GeneratorFacts, options: LatentOptions, bank: ViewBank | None = None
) -> None:
    """Raises SamplingError unless the bundle, with this view bank, can serve these options."""
    o = options
    if not 0 <= o.seed < 1 << 64:
        raise SamplingError(f"seed is {o.seed}; it must be in [0, 2^64)")
    if o.latent_source not in ("philox", "mt19937"):
        raise SamplingError(f"latent_source is {o.latent_source!r}; it must be philox or mt19937")
    if o.latent_source == "mt19937" and o.seed >= MAX_MT19937_SEED:
        raise SamplingError(f"seed is {o.seed}; with MT19937 latents it must be under 2^32")
    if o.latent_source == "mt19937" and o.views_per_object > 1:
        raise SamplingError(
            f"views_per_object is {o.views_per_object}; MT19937 latents follow the order of "
            "research code, which has no views: use philox or 1"
        )
    if not 0 <= o.truncation_psi <= MAX_PSI:  # also refuses NaN
        raise SamplingError(f"truncation_psi is {o.truncation_psi}; it must be in [0, {MAX_PSI:g}]")
    if not 0 <= o.truncation_cutoff <= generator.num_ws:
        raise SamplingError(
            f"truncation_cutoff is {o.truncation_cutoff}; it must be in [0, {generator.num_ws}], "
            "the number of rows of w+"
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


def _check_views(o: LatentOptions, bank: ViewBank | None) -> None:
    if o.view_mode not in ("drawn", "bank", "fixed", "random"):
        raise SamplingError(
            f"view_mode is {o.view_mode!r}; it must be drawn, bank, fixed or random"
        )
    if (o.view is not None) != (o.view_mode == "fixed"):
        raise SamplingError(
            f"view is {o.view} with view_mode {o.view_mode}; set view if and only if view_mode is "
            "fixed"
        )
    if o.view_mode == "drawn":
        return
    view = o.view_mode if o.view is None else str(o.view)  # the client's argument `view`
    if bank is None:
        raise SamplingError(f"view is {view}; this bundle has no view bank, use drawn")
    if o.view is not None and not 0 <= o.view < len(bank):
        raise SamplingError(
            f"view is {view}; the view bank has {len(bank)} codes, it must be in [0, {len(bank)})"
        )
    if o.view_mode == "bank" and not 1 < o.views_per_object <= len(bank):
        raise SamplingError(
            f"views_per_object is {o.views_per_object} and view is bank; the bank has {len(bank)} "
            f"codes, so views_per_object must be in [2, {len(bank)}]; use view drawn for more "
            "views, or a number as view for one"
        )
    if o.view_mode != "bank" and o.views_per_object != 1:
        raise SamplingError(
            f"views_per_object is {o.views_per_object}; with view {view} an object has one view, "
            "so it must be 1"
        )


def ws_from_indices(
    mapping: Mapping,
    generator: GeneratorFacts,
    options: LatentOptions,
    indices: Sequence[int] | NDArray[np.uint64],
    mt19937: RowSource | None = None,
    bank: ViewBank | None = None,
) -> NDArray[np.float32]:
    """Rows of w+ for sample indices, truncated, with the rows of the view replaced.

    Codes of the view bank are not truncated, because their cameras were measured on
    untruncated codes.

    Args:
        mapping: mapping network.
        generator: generator of the bundle's manifest.
        options: how latents are made.
        indices: sample indices [n], in [0, 2^64).
        mt19937: position of a stream in the MT19937 sequence, so that ascending batches draw
            each row once; without it every call starts at row 0.
        bank: view bank of the bundle, if it has one.

    Returns:
        float32 [n, num_ws, w_dim].

    Raises:
        SamplingError: options or indices are out of range.
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
        # View v has the same z for all objects; it is mapped with the class of each object.
        z = latents(options.seed, Purpose.VIEW, view_of_object, generator.z_dim)
        view_ws = _ws_from_z(mapping, generator, options, z, objects)
        ws[:, : generator.view_layers] = view_ws[:, : generator.view_layers]
    return ws


def w_from_indices(
    mapping: Mapping,
    generator: GeneratorFacts,
    options: LatentOptions,
    objects: NDArray[np.uint64],
) -> NDArray[np.float32]:
    """Untruncated w of objects [n], float32 [n, w_dim]; Philox latents only.

    The rows of `ws_from_indices` that carry no viewpoint come from it.
    """
    z = latents(options.seed, Purpose.OBJECT, objects, generator.z_dim)
    return mapping.run(z, _one_hot(generator, options, objects))


def view_numbers(
    options: LatentOptions, indices: NDArray[np.uint64], bank: ViewBank | None = None
) -> NDArray[np.int32]:
    """View number of each index, int32 [n]: a code of the bank, i mod V, or OWN_VIEW."""
    if options.view is not None:
        return np.full(len(indices), options.view, np.int32)
    if options.view_mode == "random":
        assert bank is not None  # checked, see check_options
        return views(options.seed, indices, len(bank))
    if options.views_per_object == 1:
        return np.full(len(indices), OWN_VIEW, np.int32)
    return (indices % np.uint64(options.views_per_object)).astype(np.int32)


def view_arrays(
    options: LatentOptions, indices: NDArray[np.uint64], bank: ViewBank | None
) -> dict[str, NDArray[np.generic]]:
    """VIEW [n] and CAMERA [n, 4] of these indices, those that a bundle with this bank has.

    CAMERA is NaN for views that are no code of the bank.
    """
    if bank is None:
        return {}
    numbers = view_numbers(options, indices, bank)
    if bank.cameras is None:
        return {VIEW: numbers}
    if options.view_mode == "drawn":
        unknown = np.full((len(indices), len(CAMERA_FIELDS)), np.nan, np.float32)
        return {VIEW: numbers, CAMERA: unknown}
    return {VIEW: numbers, CAMERA: bank.cameras[numbers]}


def ws_from_latents(
    mapping: Mapping,
    generator: GeneratorFacts,
    options: LatentOptions,
    space: LatentSpace,
    rows: NDArray[np.float32],
    first_row: int = 0,
    bank: ViewBank | None = None,
) -> NDArray[np.float32]:
    """Rows of w+ for latents that the caller brings.

    Latents in z are mapped and truncated; w and w+ are taken unchanged. A view of the bank
    replaces the first `view_layers` rows of w+.

    Args:
        mapping: mapping network.
        generator: generator of the bundle's manifest.
        options: how to truncate, and which classes and views to draw; one view per object.
        space: latent space of `rows`.
        rows: [n, z_dim], [n, w_dim] or [n, num_ws, w_dim], by space.
        first_row: row number of rows[0], from which classes and random views are drawn.
        bank: view bank of the bundle, if it has one.

    Returns:
        float32 [n, num_ws, w_dim].

    Raises:
        SamplingError: options or latents do not fit the bundle.
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
        raise SamplingError(f"latent space is {space!r}; it must be one of {', '.join(extents)}")
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
    options: LatentOptions,
    index: NDArray[np.uint64],
    position: RowSource | None,
) -> NDArray[np.float32]:
    if len(index) and index.max() >= MAX_MT19937_INDEX:
        raise SamplingError(
            f"index is {index.max()}; with MT19937 latents it must be under {MAX_MT19937_INDEX}"
        )
    return (position or Mt19937Rows(options.seed, generator.z_dim)).rows(index)


def _ws_from_z(
    mapping: Mapping,
    generator: GeneratorFacts,
    options: LatentOptions,
    z: NDArray[np.float32],  # [n, z_dim]
    numbers: NDArray[np.uint64],  # [n], object or row numbers from which classes are drawn
) -> NDArray[np.float32]:
    w = mapping.run(z, _one_hot(generator, options, numbers))
    ws = np.repeat(w[:, None], generator.num_ws, axis=1)  # [n, num_ws, w_dim]
    if options.truncation_psi != 1:  # with psi 1 the formula would only round w
        w_avg = np.array(generator.w_avg, np.float32)
        truncated = w_avg + np.float32(options.truncation_psi) * (w - w_avg)
        ws[:, : options.truncation_cutoff] = truncated[:, None]
    return ws


def _one_hot(
    generator: GeneratorFacts, options: LatentOptions, numbers: NDArray[np.uint64]
) -> NDArray[np.float32] | None:
    """Classes of objects or rows, [n, num_classes]; None for a generator without."""
    if generator.num_classes == 0:
        return None
    class_ids = (
        classes(options.seed, numbers, generator.num_classes)
        if options.class_index is None
        else np.full(len(numbers), options.class_index)
    )
    return np.eye(generator.num_classes, dtype=np.float32)[class_ids]
