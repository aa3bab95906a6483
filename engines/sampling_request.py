"""Sampling options and filters of requests -> what engines and samplers take.

Used by the service, and by what draws the same samples without one.
"""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle.calibration import (
    calibration_for,
    content_table_for,
    directions_command,
    threshold_for,
)
from bundle.errors import FileError
from bundle.manifest import SamplingKey
from bundle.open import Bundle
from bundle.proposals import Proposal
from engines.content import ContentPredicate, content_columns, is_within, predicate_of_bundle
from engines.errors import BundleLacks, SamplingError
from engines.sampling import (
    LatentOptions,
    LatentSource,
    ViewMode,
    check_options,
    default_view_mode,
    key_from_options,
)
from engines.selection import (
    ANYTHING,
    MIN_SAMPLES,
    Balance,
    Selection,
    balance_of_classes,
    balance_of_shares,
    limits_of_strata,
)
from engines.signature import boxes_extents
from labelmint.filter_options import MAX_STRATA_CONDITIONS, MAX_TARGETS
from labelmint.predicate import PredicateError, near_hint
from labelmint.v1 import label_service_pb2 as pb

_SOURCES: dict[int, LatentSource] = {
    pb.LATENT_SOURCE_UNSPECIFIED: "philox",
    pb.LATENT_SOURCE_PHILOX: "philox",
    pb.LATENT_SOURCE_MT19937: "mt19937",
}
_VIEW_MODES: dict[int, ViewMode] = {
    pb.VIEW_MODE_DRAWN: "drawn",
    pb.VIEW_MODE_BANK: "bank",
    pb.VIEW_MODE_FIXED: "fixed",
    pb.VIEW_MODE_RANDOM: "random",
}
_FILTERS = (pb.FILTER_MODE_KEEP_FRACTION, pb.FILTER_MODE_MAX_UNCERTAINTY)
_NO_FILTERS = (pb.FILTER_MODE_UNSPECIFIED, pb.FILTER_MODE_NONE)


def options_from_proto(proto: pb.SamplingOptions, bundle: Bundle) -> LatentOptions:
    """The request's sampling options, with the bundle's defaults filled in.

    Raises:
        SamplingError: an option is out of range, or contradicts another.
        BundleLacks: views of a view bank are requested, and the bundle has none.
    """
    generator = bundle.manifest.generator
    if proto.latent_source not in _SOURCES:
        raise SamplingError(
            f"latent_source is {proto.latent_source}; it is one of "
            f"{', '.join(map(str, _SOURCES))}, see LatentSource"
        )
    view_mode = _view_mode(proto, bundle)
    default_psi, default_cutoff = generator.truncation_psi, generator.truncation_cutoff
    options = LatentOptions(
        seed=proto.seed,
        latent_source=_SOURCES[proto.latent_source],
        truncation_psi=proto.truncation_psi if proto.HasField("truncation_psi") else default_psi,
        truncation_cutoff=(
            proto.truncation_cutoff if proto.HasField("truncation_cutoff") else default_cutoff
        ),
        class_index=proto.class_index if proto.HasField("class_index") else None,
        views_per_object=proto.views_per_object or 1,
        view_mode=view_mode,
        view=proto.view if view_mode == "fixed" else None,
    )
    check_options(generator, options, bundle.views)
    return options


def _view_mode(proto: pb.SamplingOptions, bundle: Bundle) -> ViewMode:
    if proto.view_mode not in (pb.VIEW_MODE_UNSPECIFIED, *_VIEW_MODES):
        raise SamplingError(
            f"view_mode is {proto.view_mode}; it is one of 0, {', '.join(map(str, _VIEW_MODES))}, "
            "see ViewMode"
        )
    if proto.view and proto.view_mode != pb.VIEW_MODE_FIXED:
        raise SamplingError(
            f"view is {proto.view} with view_mode {proto.view_mode}; leave view 0 or set "
            "view_mode to fixed, see ViewMode"
        )
    default = default_view_mode(proto.views_per_object, bundle.views)
    mode = _VIEW_MODES.get(proto.view_mode, default)
    if mode != "drawn" and bundle.views is None:
        requested = proto.view if mode == "fixed" else mode
        raise BundleLacks(
            f"view is {requested}, but this bundle has no view bank; leave it out, or export the "
            "bundle with --views"
        )
    return mode


def can_reject(proto: pb.Filter) -> bool:
    """Whether this filter can reject a sample. Raises SamplingError when it contradicts itself."""
    return _has_limit(proto) or bool(proto.where) or has_balance(proto) or bool(proto.proposal)


def has_balance(proto: pb.Filter) -> bool:
    """Whether the filter keeps samples by coins."""
    return bool(proto.balance) or proto.balance_classes


def is_weighted(proto: pb.Filter) -> bool:
    """Whether samples have weights other than 1."""
    return has_balance(proto) or bool(proto.proposal)


def _has_limit(proto: pb.Filter) -> bool:
    """Whether it limits the uncertainty. Raises SamplingError when it contradicts itself."""
    if proto.mode not in (*_FILTERS, *_NO_FILTERS):
        known = ", ".join(map(str, (*_NO_FILTERS, *_FILTERS)))
        raise SamplingError(f"filter.mode is {proto.mode}; it is one of {known}, see FilterMode")
    if proto.keep_fraction != 0 and proto.mode != pb.FILTER_MODE_KEEP_FRACTION:
        raise SamplingError(
            f"filter.keep_fraction is {proto.keep_fraction:g} in mode {proto.mode}; leave it 0 or "
            "set filter.mode to KEEP_FRACTION"
        )
    if proto.max_uncertainty != 0 and proto.mode != pb.FILTER_MODE_MAX_UNCERTAINTY:
        raise SamplingError(
            f"filter.max_uncertainty is {proto.max_uncertainty:g} in mode {proto.mode}; leave it "
            "0 or set filter.mode to MAX_UNCERTAINTY"
        )
    return proto.mode in _FILTERS


def max_uncertainty_from_filter(
    proto: pb.Filter, bundle: Bundle, options: LatentOptions
) -> np.float32:
    """The largest uncertainty that is delivered; inf without a filter.

    Raises:
        SamplingError: a value is out of range.
        BundleLacks: the bundle has no uncertainty score.
        NotCalibrated: keep_fraction needs a calibration for these options.
    """
    if not _has_limit(proto):
        return np.float32(math.inf)
    if proto.keep_by:
        return np.float32(math.inf)  # the selection has a threshold for each stratum
    if proto.mode == pb.FILTER_MODE_KEEP_FRACTION:
        return threshold_from_fraction(proto.keep_fraction, "filter.", bundle, options)
    if not proto.max_uncertainty >= 0:  # also refuses NaN
        raise SamplingError(
            f"filter.max_uncertainty is {proto.max_uncertainty:g}; it must be at least 0"
        )
    check_has_score(bundle)
    return np.float32(proto.max_uncertainty)


def selection_from_filter(
    proto: pb.Filter, bundle: Bundle, options: LatentOptions
) -> Selection | None:
    """What the content of delivered samples has to be; None for a filter that compares none.

    May take some tens of ms with balance or keep_by.

    Raises:
        SamplingError: a text is no condition, or none that samples of the bundle can meet; a
            share cannot be reached; options exclude each other.
        BundleLacks: the bundle does not compute what is compared, or the content of its
            calibration cannot be read.
        NotCalibrated: the bundle has no content of a calibration for these options.
    """
    where, manifest = _predicate(proto, bundle), bundle.manifest
    limits, balance = ANYTHING, None
    if proto.keep_by or has_balance(proto):
        _check_selection(proto)
        content = _calibrated_content(bundle, options)
        if proto.keep_by:
            threshold = threshold_from_fraction(proto.keep_fraction, "filter.", bundle, options)
            limits = limits_of_strata(
                proto.keep_by, proto.keep_fraction, float(threshold), manifest, content
            )
        if has_balance(proto):
            most = max_uncertainty_from_filter(proto, bundle, options)
            passed = Selection(where, limits, None, (0, 0)).region
            certain = content[:, 0] <= most  # the score, which every calibration has
            balance = _balance(proto, bundle, content[is_within(content, passed) & certain])
    extents = boxes_extents(manifest)
    if extents is None or (where is None and balance is None and limits is ANYTHING):
        return None
    selection = Selection(where, limits, balance, (extents[0], extents[2]))
    _check_alternatives(selection)
    return selection


def _check_selection(proto: pb.Filter) -> None:
    if has_balance(proto) and proto.filter_sets:
        raise SamplingError(
            "filter.balance and filter.filter_sets exclude each other: a coin is tossed for a "
            "sample, not for all views of an object; leave one out"
        )
    if proto.balance and proto.balance_classes:
        raise SamplingError(
            "filter.balance and filter.balance_classes exclude each other; leave one out"
        )
    if proto.keep_by and proto.mode != pb.FILTER_MODE_KEEP_FRACTION:
        raise SamplingError(
            "filter.keep_by needs filter.keep_fraction, which it divides; set filter.mode to "
            "KEEP_FRACTION, or leave keep_by out"
        )
    for name, given, most in (
        ("balance", proto.balance, MAX_TARGETS),
        ("keep_by", proto.keep_by, MAX_STRATA_CONDITIONS),
    ):
        if len(given) > most:
            raise SamplingError(f"filter.{name} has {len(given)} conditions; it may have {most}")
    for target in proto.balance:
        if not 0 < target.share < 1:  # also refuses NaN
            raise SamplingError(
                f"filter.balance of {target.condition[:100]!r} is {target.share:g}; a share is "
                "over 0 and under 1: use where for samples that all meet a condition, or none"
            )


def _calibrated_content(bundle: Bundle, options: LatentOptions) -> NDArray[np.float32]:
    """Content of the calibration for these options, [N, S]."""
    columns = content_columns(bundle.manifest)
    if not columns:
        raise BundleLacks(
            "this bundle's graph computes no content to balance or divide by, because it has no "
            "labels or is of an older version: export it again with python -m export bundle, or "
            "leave balance and keep_by out"
        )
    check_has_score(bundle)
    table = content_table_for(bundle.manifest, key_from_options(options), Path(bundle.path.name))
    try:
        content = bundle.content(table)
    except FileError as error:  # its message has the place on the server
        raise BundleLacks(
            f"the content of the calibration of {bundle.path.name} cannot be read "
            f"({table.name}); calibrate the bundle again, with --replace, or copy it again"
        ) from error
    if content.shape[1] != len(columns):
        raise BundleLacks(
            f"the calibration's content has {content.shape[1]} statistics, the graph computes "
            f"{len(columns)}; calibrate the bundle again, with --replace"
        )
    return content


def _balance(proto: pb.Filter, bundle: Bundle, content: NDArray[np.float32]) -> Balance:
    """content: of the samples that pass everything else."""
    if len(content) < MIN_SAMPLES:
        raise SamplingError(
            f"only {len(content)} calibrated samples pass the filter, and balance needs at least "
            f"{MIN_SAMPLES}; loosen where or keep_fraction, or calibrate on more samples"
        )
    if proto.balance_classes:
        return balance_of_classes(bundle.manifest, content)
    shares = {target.condition: target.share for target in proto.balance}
    if len(shares) < len(proto.balance):
        raise SamplingError("filter.balance has a condition twice; give each once")
    return balance_of_shares(shares, bundle.manifest, content)


def _check_alternatives(selection: Selection) -> None:
    found, most = len(selection.region), selection.extents[0]
    if selection.balance is not None:
        found *= math.prod(map(len, selection.balance.always))
    if found > most:
        raise SamplingError(
            f"where, keep_by and balance have {found} alternatives together, once each or is "
            f"multiplied out; this bundle compares {most}: use simpler conditions"
        )
    if not found:
        raise SamplingError("no sample can pass where and keep_by together; loosen them")


def _predicate(proto: pb.Filter, bundle: Bundle) -> ContentPredicate | None:
    """What `where` says of this bundle's samples; None if it is empty."""
    if not proto.where:
        return None
    try:
        return predicate_of_bundle(proto.where, bundle.manifest)
    except PredicateError as error:
        raise SamplingError(f"filter.{error}") from error


def proposal_from_filter(
    proto: pb.Filter, bundle: Bundle, options: LatentOptions
) -> Proposal | None:
    """The proposal that chooses which samples are generated; None without one.

    Raises:
        SamplingError: the bundle has none of this name, or not with MT19937 latents.
        BundleLacks: the bundle has no proposals, or this one is of other sampling options.
    """
    if not proto.proposal:
        return None
    proposal = proposal_of_bundle(proto.proposal, bundle)
    if options.latent_source != "philox":
        raise SamplingError(
            f"filter.proposal is {proposal.name} and latent_source {options.latent_source}; with a "
            "proposal it must be philox"
        )
    key = key_from_options(options)
    if not is_fitted_for(proposal.facts.options, key):
        raise BundleLacks(
            f"filter.proposal is {proposal.name}, fitted for psi "
            f"{proposal.facts.options.truncation_psi:g}, cutoff "
            f"{proposal.facts.options.truncation_cutoff} and class "
            f"{class_words(proposal.facts.options)}; this request has psi "
            f"{key.truncation_psi:g}, cutoff {key.truncation_cutoff} and class "
            f"{class_words(key)}: ask for those, or run: "
            + directions_command(Path(bundle.path.name), proposal.name, proposal.facts.where, key)
        )
    return proposal


def is_fitted_for(fitted: SamplingKey, key: SamplingKey) -> bool:
    """Whether the figures of a proposal or direction are of this truncation and class. Weights
    would be exact without; views change neither."""
    return (fitted.truncation_psi, fitted.truncation_cutoff, fitted.class_index) == (
        key.truncation_psi, key.truncation_cutoff, key.class_index,
    )  # fmt: skip


def class_words(key: SamplingKey) -> str:
    """The class of the generator, for messages."""
    return "drawn" if key.class_index is None else str(key.class_index)


def proposal_of_bundle(name: str, bundle: Bundle) -> Proposal:
    """The bundle's proposal of this name. Raises SamplingError, BundleLacks."""
    if not bundle.proposals:
        raise BundleLacks(
            f"proposal is {name!r:.100}; this bundle has none, leave it out or make one with "
            "python -m training directions"
        )
    if name not in bundle.proposals:
        raise SamplingError(
            f"proposal is {name!r:.100}; this bundle has no such one, "
            f"{near_hint(name, bundle.proposals)}"
        )
    return bundle.proposals[name]


def threshold_from_fraction(
    keep_fraction: float, prefix: str, bundle: Bundle, options: LatentOptions
) -> np.float32:
    """The calibrated uncertainty that this share of samples does not exceed.

    `prefix` of the field's name is for messages, as "filter.". Raises as
    max_uncertainty_from_filter.
    """
    if not 0 < keep_fraction <= 1:
        raise SamplingError(f"{prefix}keep_fraction is {keep_fraction:g}; it must be in (0, 1]")
    check_has_score(bundle)
    key = key_from_options(options)
    # Messages name the bundle's folder without its place on the server.
    calibration = calibration_for(bundle.manifest, key, Path(bundle.path.name))
    return np.float32(threshold_for(calibration, keep_fraction))


def check_has_score(bundle: Bundle) -> None:
    """Raises BundleLacks when no head of the bundle gives an uncertainty score."""
    heads = bundle.manifest.heads
    if heads is None or heads.score_source is None:
        raise BundleLacks(
            "this bundle has no score_source, so nothing can be filtered by uncertainty; leave "
            "keep_fraction and max_uncertainty out"
        )
