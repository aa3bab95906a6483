"""Description of a served model: `Model`, decoded from its protobuf message."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from labelmint.batch import INDEX
from labelmint.codec import OUTPUTS, output_from_name, raw_bytes_per_sample, sent_by_default
from labelmint.errors import Invalid, MalformedMessage, NotReady
from labelmint.learned import (
    NO_CALIBRATION,
    CalibrationDigests,
    dependencies_of_query,
    learned_id_from_digests,
)
from labelmint.options import StreamOptions, is_weighted, query_from_options, takes_bank
from labelmint.v1 import label_service_pb2 as pb

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass(frozen=True)
class LabelClass:
    """A class of the segmentation head."""

    id: int  # value in masks
    name: str
    color: tuple[int, int, int]  # RGB, 0 to 255


class Camera(NamedTuple):
    """Camera of a view in the view bank; NaN: unknown."""

    azimuth_deg: float  # positive: towards the object's left
    elevation_deg: float  # positive: from above
    distance: float  # from the object's center, in units of the object
    focal: float  # focal length divided by the extent of the image


class Estimate(NamedTuple):
    """A measured number, and the ends of its interval of 95 percent."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Proposal:
    """What the option `proposal` may name: which samples are worth generating for a predicate."""

    name: str
    where: str  # the predicate that it was fitted for
    truncation_psi: float  # streams need the same truncation and class
    truncation_cutoff: int
    class_index: int | None
    share: Estimate  # of all samples that meet the predicate, 0 to 1
    generated_share: Estimate  # of the samples that it generates which do, 0 to 1
    gain: Estimate  # so many times fewer samples are generated for each delivered one
    effective: Estimate  # effective sample size of weighted delivered samples, over their number
    examined: Estimate  # raw indices for each generated sample
    digest: str = ""  # another one after it was replaced; empty: of an older server


class MeasuredEdit(NamedTuple):
    """What one strength of a direction changes; all values are shares from 0 to 1.

    "Outside" are the pixels that show the direction's class neither before nor after.
    """

    strength: float  # in standard deviations of the drawn w along the direction
    share: Estimate  # mean share of a mask's pixels that are of the class
    shown: Estimate  # of the images that show it on 0.1 percent of their pixels
    unchanged: Estimate  # of the pixels outside that keep their class
    miou: Estimate  # mean IoU of the other classes outside, before and after


@dataclass(frozen=True)
class Direction:
    """What the option `edits` may name: a move of w+ for more or less of one class."""

    name: str
    changes: str  # name of the class
    truncation_psi: float  # streams need the same truncation and class
    truncation_cutoff: int
    class_index: int | None
    first_row: int  # of w+ that it moves
    end_row: int  # exclusive
    measured: int  # number of samples that each strength was measured on
    strengths: tuple[MeasuredEdit, ...]  # ascending; edits may be from the first to the last
    digest: str  # another one after it was replaced


class CertifiedThreshold(NamedTuple):
    """What reviews prove of the samples that a threshold keeps."""

    max_uncertainty: float | None  # largest uncertainty that is kept; None: every sample is
    upper_bound: float  # of the mean share of wrong pixels of all samples that it keeps, 0 to 1
    reviewed: int  # reviewed samples that it keeps


@dataclass(frozen=True)
class Certificate:
    """What a person's reviews prove of a model's masks, for streams with this truncation, drawn
    classes and one view per object. All bounds hold at once with the probability `confidence`."""

    confidence: float
    reviewed: int  # samples, kept or not
    truncation_psi: float
    truncation_cutoff: int  # rows of w+
    thresholds: tuple[CertifiedThreshold, ...]

    def at(self, max_uncertainty: float | None) -> CertifiedThreshold | None:
        """What is proved for this threshold; None: nothing.

        Args:
            max_uncertainty: threshold of a stream, compared as float32; None: no filter.
        """
        limit = _float32(max_uncertainty)
        same = (row for row in self.thresholds if _float32(row.max_uncertainty) == limit)
        return next(same, None)


def _float32(value: float | None) -> float | None:
    return None if value is None else float(np.float32(value))


class Column(NamedTuple):
    """What a column of a stream's batches has for each sample."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]  # of one sample


@dataclass(frozen=True)
class Model:
    """A served bundle: outputs, sizes, classes and origin. Sizes are (height, width) in pixels."""

    name: str
    bundle_id: str  # hash of the bundle's content
    family: str  # of the generator
    outputs: tuple[str, ...]  # available ones, keys of codec.OUTPUTS
    image_size: tuple[int, int]
    label_size: tuple[int, int]  # of masks, depth and uncertainty maps; (0, 0): no heads
    z_dim: int
    w_dim: int
    num_ws: int  # number of rows of w+
    num_classes: int  # of a class-conditional generator; 0: unconditional
    view_layers: int  # number of first rows of w+ that set the viewpoint; 0: no views
    truncation_psi: float  # default of streams
    truncation_cutoff: int  # default of streams: number of rows of w+
    classes: tuple[LabelClass, ...]  # in order of id; empty: no mask
    keypoints: tuple[str, ...]  # names, in the order of the output; empty: no keypoints
    skeleton: tuple[tuple[int, int], ...]  # bones, as pairs of positions in `keypoints`
    score_source: str  # head that gives the uncertainty score; empty: filters are refused
    max_batch_size: int  # of the engine
    engine: str  # such as "onnxruntime-cpu"
    licences: tuple[str, ...]  # license tags of the weights
    calibrated: bool  # whether keep_fraction works with the default sampling options
    refined: bool = False  # whether a refiner network edits the images (never the labels)
    view_bank: tuple[Camera, ...] = ()  # cameras by code; empty: no view bank
    predicates: bool = False  # whether `where` is served; not by bundles of older versions
    certificate: Certificate | None = None  # None: nobody's reviews are part of the bundle
    balances: bool = False  # whether `balance` and `keep_by` are, with default sampling options
    proposals: tuple[Proposal, ...] = ()  # in ascending order of their names
    directions: tuple[Direction, ...] = ()  # in ascending order of their names
    max_uncertainty: float | None = None  # threshold of the keep_fraction of Client.model
    # Of the calibration for the options of Client.model; another one once that was replaced.
    calibration: CalibrationDigests = NO_CALIBRATION
    # What uncertainty measures: "jensen_shannon", "entropy" or "least_confidence" of classes,
    # "variance" of other heads; empty without a score. `score_words` has units and ranges.
    score_measure: str = ""

    @property
    def score_unit(self) -> str:
        """Unit of uncertainties: "nats", or empty for shares and for squared units of a head."""
        return "nats" if self.score_measure in ("jensen_shannon", "entropy") else ""

    def score_words(self) -> str:
        """What the uncertainty is, in words, with its unit and range; empty without a score."""
        if not self.score_source:
            return ""
        count = max(1, len(self.classes))
        nats = f"0 to {math.log(count):.3g} nats"
        known = {
            "jensen_shannon": f"Jensen-Shannon divergence of the members, {nats}",
            "entropy": f"entropy of the members' mean probabilities, {nats}",
            "least_confidence": f"1 minus the largest mean probability, 0 to {1 - 1 / count:.3g}",
            "variance": "variance over the members, in squared units of the head",
        }
        return f"{self.score_source}: {known.get(self.score_measure, self.score_measure)}"

    def palette(self) -> npt.NDArray[np.uint8]:
        """RGB colors by class id: uint8 [256, 3], black for ids without a class."""
        palette = np.zeros((256, 3), np.uint8)
        for label in self.classes:
            palette[label.id] = label.color
        return palette

    def usual_outputs(self, of_bank: bool, weighted: bool = False) -> list[str]:
        """Outputs of a stream without the option `outputs`.

        Args:
            of_bank: whether views come from the view bank, see `options.takes_bank`.
            weighted: whether samples have weights other than 1, see `options.is_weighted`.
        """
        return [name for name in self.outputs if sent_by_default(name, of_bank, weighted)]

    def schema(self, **options: Unpack[StreamOptions]) -> dict[str, Column]:
        """The columns of `Batch.columns` for a stream with these options, in their order.

        Args:
            options: those of the stream. Outputs and, without those, views decide; None and no
                outputs are the image and every head.

        Raises:
            ValueError: an output is unknown, or the model does not have it.
        """
        named = options.get("outputs") or self.usual_outputs(
            takes_bank(options), is_weighted(options)
        )
        for name in named:
            output_from_name(name)
            if name not in self.outputs:
                raise ValueError(
                    f"output {name} is none of model {self.name}; choose from "
                    f"{', '.join(self.outputs)}"
                )
        columns = {name: self._column(name) for name in OUTPUTS if name in named}
        return {INDEX: Column(np.dtype(np.uint64), ()), **columns}

    def sample_bytes(self, outputs: Sequence[str]) -> int:
        """Bytes of one uncompressed sample; raises ValueError for an unknown output."""
        return sum(
            raw_bytes_per_sample(output_from_name(name), self._column(name).shape)
            for name in outputs
        )

    def _column(self, output: str) -> Column:
        shapes: dict[str, tuple[int, ...]] = {
            "image": (*self.image_size, 3),
            "keypoints": (len(self.keypoints), 3),
            "uncertainty": (),
            "w": (self.num_ws, self.w_dim),
            "view": (),
            "camera": (len(Camera._fields),),
            "weight": (),
        }
        output_from_name(output)
        return Column(OUTPUTS[output].dtype, shapes.get(output, self.label_size))


def model_from_proto(
    message: pb.Model,
    max_uncertainty: float | None = None,
    calibration: CalibrationDigests = NO_CALIBRATION,
) -> Model:
    """The Model of a message; outputs that this release does not know are left out.

    Raises MalformedMessage for a skeleton that connects keypoints which the model does not have,
    and for a certificate out of range.
    """
    bones = [(edge.from_keypoint, edge.to_keypoint) for edge in message.skeleton]
    if max((end for bone in bones for end in bone), default=-1) >= len(message.keypoints):
        raise MalformedMessage(
            f"the server's skeleton connects keypoint {max(map(max, bones))}; the model has "
            f"{len(message.keypoints)} keypoints"
        )
    names = {spec.output: spec.name for spec in OUTPUTS.values()}
    return Model(
        name=message.name,
        bundle_id=message.bundle_id,
        family=message.family,
        outputs=tuple(names[output] for output in message.outputs if output in names),
        image_size=(message.image_height, message.image_width),
        label_size=(message.label_height, message.label_width),
        z_dim=message.z_dim,
        w_dim=message.w_dim,
        num_ws=message.num_ws,
        num_classes=message.num_classes,
        view_layers=message.view_layers,
        truncation_psi=message.truncation_psi,
        truncation_cutoff=message.truncation_cutoff,
        classes=tuple(
            LabelClass(label.id, label.name, rgb_from_hex(label.color))
            for label in message.classes
            if label.id < 256  # masks are uint8
        ),
        keypoints=tuple(keypoint.name for keypoint in message.keypoints),
        skeleton=tuple(bones),
        score_source=message.score_source,
        max_batch_size=message.max_batch_size,
        engine=message.engine,
        licences=tuple(message.licences),
        calibrated=message.calibrated,
        refined=message.refined,
        view_bank=tuple(_camera_from_proto(camera) for camera in message.view_bank),
        predicates=message.predicates,
        certificate=(
            _certificate_from_proto(message.certificate)
            if message.HasField("certificate")
            else None
        ),
        balances=message.balances,
        proposals=tuple(_proposal_from_proto(proposal) for proposal in message.proposals),
        directions=tuple(_direction_from_proto(direction) for direction in message.directions),
        max_uncertainty=max_uncertainty,
        calibration=calibration,
        score_measure=_measure_from_proto(message),
    )


def _measure_from_proto(message: pb.Model) -> str:
    """The measure of the score; of older servers, which do not name it, the only one they have."""
    if message.score_measure or not message.score_source:
        return message.score_measure
    return "jensen_shannon" if message.score_source == "segmentation" else "variance"


def learned_id_from_model(model: Model, options: StreamOptions) -> str:
    """The learned_id of a stream of this model; empty if its server tells no digests.

    Args:
        model: from `Client.model` with the sampling options of the stream, so that it has the
            digests of their calibration.
        options: those of the stream.

    Raises:
        TypeError, ValueError: options cannot be sent.
        Invalid: the model has no proposal or direction of a name.
        NotReady: the options have another learned_id, or one that there is nothing to compare with.
    """
    query = query_from_options(options)
    needed, calibration = dependencies_of_query(query), model.calibration
    proposals = {each.name: each.digest for each in model.proposals}
    directions = {each.name: each.digest for each in model.directions}
    wanted = [needed.proposal] if needed.proposal else []
    told = [calibration.thresholds or not needed.thresholds]
    told += [calibration.content or not needed.content]
    for option, known, names in (
        ("proposal", proposals, wanted),
        ("edits", directions, needed.directions),
    ):
        for name in names:
            if name not in known:
                raise Invalid(
                    f"{option} has {name!r:.100}, which {model.name} lacks; it has "
                    f"{', '.join(known) or 'none'}",
                    "INVALID_ARGUMENT",
                )
            told.append(known[name])
    if not all(told):
        if not query.learned_id:
            return ""
        raise NotReady(
            f"learned_id is {query.learned_id[:80]}; there is nothing to compare it with, because "
            f"{model.name} lacks the calibration for these options, or its server is of an older "
            "version: leave learned_id out, or ask a server that has the bundle as it was",
            "FAILED_PRECONDITION",
        )
    found = learned_id_from_digests(needed, proposals, directions, calibration)
    if query.learned_id not in ("", found):
        raise NotReady(
            f"learned_id is {query.learned_id[:80]}; that of {needed} of {model.name} is "
            f"{found or 'empty'}: {needed.replaced}; leave learned_id out, or ask a server that "
            "has the bundle as it was",
            "FAILED_PRECONDITION",
        )
    return found


def _certificate_from_proto(message: pb.Certificate) -> Certificate:
    shares = [message.confidence, *(row.upper_bound for row in message.thresholds)]
    for share in shares:
        if not 0 <= share <= 1:
            raise MalformedMessage(
                f"the server's certificate has {share} where a share from 0 to 1 belongs"
            )
    return Certificate(
        confidence=message.confidence,
        reviewed=message.reviewed,
        truncation_psi=message.truncation_psi,
        truncation_cutoff=message.truncation_cutoff,
        thresholds=tuple(
            CertifiedThreshold(
                row.max_uncertainty if row.HasField("max_uncertainty") else None,
                row.upper_bound,
                row.reviewed,
            )
            for row in message.thresholds
        ),
    )


def _camera_from_proto(message: pb.Camera) -> Camera:
    known = (
        getattr(message, name) if message.HasField(name) else math.nan for name in Camera._fields
    )
    return Camera(*known)


def _proposal_from_proto(message: pb.Proposal) -> Proposal:
    figures = {
        name: Estimate(*(getattr(getattr(message, name), end) for end in Estimate._fields))
        for name in ("share", "generated_share", "gain", "effective", "examined")
    }
    class_index = message.class_index if message.HasField("class_index") else None
    return Proposal(
        message.name, message.where, message.truncation_psi, message.truncation_cutoff,
        class_index, **figures, digest=message.digest,
    )  # fmt: skip


def _direction_from_proto(message: pb.Direction) -> Direction:
    strengths = tuple(
        MeasuredEdit(
            row.strength,
            *(
                Estimate(*(getattr(getattr(row, name), end) for end in Estimate._fields))
                for name in ("share", "shown", "unchanged", "miou")
            ),
        )
        for row in message.strengths
    )
    return Direction(
        message.name, message.changes, message.truncation_psi, message.truncation_cutoff,
        message.class_index if message.HasField("class_index") else None, message.first_row,
        message.end_row, message.measured, strengths, message.digest,
    )  # fmt: skip


def rgb_from_hex(color: int) -> tuple[int, int, int]:
    """(red, green, blue) of the number 0xRRGGBB."""
    return (color >> 16) & 255, (color >> 8) & 255, color & 255


def percent_from_bound(bound: float) -> str:
    """An upper bound from 0 to 1 in percent, never rounded down."""
    return f"{math.ceil(1000 * bound) / 10:.1f}%"


def same_truncation(one: tuple[float, int], other: tuple[float, int]) -> bool:
    """Whether two pairs of truncation psi and cutoff give the same samples; psi 1 and cutoff 0 both
    mean no truncation."""
    (psi, cutoff), (other_psi, other_cutoff) = one, other
    if psi == 1 or cutoff == 0:
        return other_psi == 1 or other_cutoff == 0
    return np.float32(psi) == np.float32(other_psi) and cutoff == other_cutoff
