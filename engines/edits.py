"""Edits: the same sample with more or less of one class, by a move of its w+.

Sample i of a stream with edits has the seed, the index and the w+ of the plain sample i, plus

    sum over edits of strength * rows of the direction

in the direction's own rows of w+. So it depends on bundle, seed, i and the edits alone, and an edit
of strength 0 is the plain sample to the bit.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle.calibration import edit_command
from bundle.directions import Direction
from bundle.open import Bundle
from engines.errors import BundleLacks, SamplingError
from engines.sampling import LatentOptions, key_from_options
from engines.sampling_request import class_words, has_balance, is_fitted_for
from labelmint.options import MAX_EDITS
from labelmint.predicate import near_hint
from labelmint.v1 import label_service_pb2 as pb

Shift = NDArray[np.float32]  # [num_ws, w_dim]


def shift_from_query(proto: pb.SampleQuery, bundle: Bundle, options: LatentOptions) -> Shift | None:
    """What the edits of a request add to w+, float32 [num_ws, w_dim]; None without edits.

    The sum is made in float64, in ascending order of the names, and rounded once.

    Raises:
        SamplingError: there are too many edits, or a direction twice; the bundle has no direction
            of a name; a strength was not measured; the filter is calibrated on plain samples.
        BundleLacks: the bundle has no directions, or one is of other sampling options.
    """
    edits = sorted(proto.sampling.edits, key=lambda edit: edit.direction)
    if not edits:
        return None
    if len(edits) > MAX_EDITS:
        raise SamplingError(f"edits has {len(edits)} directions; it may have {MAX_EDITS}")
    names = [edit.direction for edit in edits]
    if len(set(names)) < len(names):
        raise SamplingError(f"edits has a direction twice ({', '.join(names):.200}); give it once")
    _check_filter(proto.filter)
    generator = bundle.manifest.generator
    total = np.zeros((generator.num_ws, generator.w_dim))
    for edit in edits:
        direction = _direction(edit.direction, bundle, options)
        _check_strength(edit, direction)
        rows = slice(direction.facts.first_row, direction.facts.end_row)
        total[rows] += edit.strength * direction.rows.astype(np.float64)
    return total.astype(np.float32)


def edited(ws: NDArray[np.float32], shift: Shift | None) -> NDArray[np.float32]:
    """Rows of w+ [n, num_ws, w_dim] with the shift of edits."""
    return ws if shift is None else ws + shift


def _check_filter(proto: pb.Filter) -> None:
    calibrated = (
        ("keep_fraction", proto.mode == pb.FILTER_MODE_KEEP_FRACTION, "use max_uncertainty, or "),
        ("balance", has_balance(proto), ""),
        ("keep_by", bool(proto.keep_by), ""),
    )
    for name, given, instead in calibrated:
        if given:
            raise SamplingError(
                f"edits and {name} exclude each other: {name} is calibrated on samples without "
                f"edits; {instead}leave one of them out"
            )


def _direction(name: str, bundle: Bundle, options: LatentOptions) -> Direction:
    if not bundle.directions:
        raise BundleLacks(
            f"edits has {name!r:.100}; this bundle has no directions, leave edits out or learn one "
            "with python -m training directions --edit"
        )
    if name not in bundle.directions:
        raise SamplingError(
            f"edits has {name!r:.100}; this bundle has no such direction, "
            f"{near_hint(name, bundle.directions)}"
        )
    direction, key = bundle.directions[name], key_from_options(options)
    fitted = direction.facts.options
    if not is_fitted_for(fitted, key):
        raise BundleLacks(
            f"edits has {name}, measured with psi {fitted.truncation_psi:g}, cutoff "
            f"{fitted.truncation_cutoff} and class {class_words(fitted)}; this request has psi "
            f"{key.truncation_psi:g}, cutoff {key.truncation_cutoff} and class "
            f"{class_words(key)}: ask for those, or run: "
            + edit_command(Path(bundle.path.name), name, direction.facts.changes, key)
        )
    return direction


def _check_strength(edit: pb.Edit, direction: Direction) -> None:
    measured = direction.facts.strengths
    least, most = measured[0].strength, measured[-1].strength
    if not least <= edit.strength <= most:  # also refuses NaN
        raise SamplingError(
            f"edits has {edit.direction} {edit.strength:g}; it was measured from {least:g} to "
            f"{most:g}: give a strength within, or learn it again with a greater --strength"
        )
