"""manifest.json of a bundle: every fact about it, as strict immutable records.

The one definition of the file: `export` writes it, `engines` and `service` read it. Ranges of
single values stand here, as `msgspec.Meta`; rules between fields are in `bundle.check`.
"""

import hashlib
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, field

from bundle.records import Strict

MANIFEST = "manifest.json"
MAPPING = "mapping.onnx"
VIEWS = "views.f32"  # view codes, little-endian float32 [codes, view_layers, w_dim]
PROPOSAL = "proposal-{}.f32"  # by the proposal's name, see bundle.proposals
DIRECTION = "direction-{}.f32"  # by the direction's name, see bundle.directions
LABELLER = {"float32": "labeller.onnx", "float16": "labeller.fp16.onnx"}  # by precision
PORTABLE_PLAN = {"float32": "labeller.rtx.plan", "float16": "labeller.fp16.rtx.plan"}

MAX_CLASSES = 256  # masks are uint8
MAX_KEYPOINTS, MAX_EDGES = 4096, 1 << 16
MAX_CALIBRATIONS, MAX_QUANTILES = 4096, 1 << 16
MAX_ENTRIES = 256  # of lists that have a few, such as tools
MAX_REVIEWS, MAX_THRESHOLDS = 1 << 16, 64  # of a certificate
MAX_BOXES = 256  # alternatives of a predicate
MAX_TABLE_SAMPLES = 1 << 16  # of a calibration whose content is kept, the first ones
MAX_VIEW_CODES = 1 << 16  # views of one object in a stream, at most
MAX_LENGTH = 1e9  # camera lengths are served as float32
MAX_PROPOSALS, MAX_HIDDEN, MAX_HIDDEN_LAYERS, MAX_OUTPUTS = 64, 1024, 4, 64
MAX_DIRECTIONS, MAX_STRENGTHS, MAX_STRENGTH = 64, 33, 100.0

MAX_NUMBER = (1 << 31) - 1  # numbers of things are served as int32
MAX_FLOAT32 = 3.4028234663852886e38

# Lists and words have limits: whoever asks which models there are gets many of them.
Count = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
Size = Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
Float32 = Annotated[float, Meta(ge=-MAX_FLOAT32, le=MAX_FLOAT32)]
Name = Annotated[str, Meta(max_length=1024)]
Widths = Annotated[list[Size], Meta(max_length=64)]  # channels of each layer
StartSide = Annotated[int, Meta(ge=1, le=16)]
Start = tuple[StartSide, StartSide]  # rows and columns of a generator's learned constant
# The nets.labels.Measure of a pixel's class: Jensen-Shannon divergence of the members in nats,
# entropy of their mean probabilities in nats, or 1 less the largest of these.
ScoreMeasure = Literal["jensen_shannon", "entropy", "least_confidence"]
Share = Annotated[float, Meta(gt=0, le=1)]
Loss = Annotated[float, Meta(ge=0, le=1)]  # share of the pixels of a mask that are wrong
Color = Annotated[int, Meta(ge=0, le=0xFFFFFF)]  # 0xRRGGBB
Psi = Annotated[float, Meta(ge=0, le=2)]  # truncation psi; 1: no truncation
HiddenSize = Annotated[int, Meta(ge=1, le=MAX_HIDDEN)]
OutputCount = Annotated[int, Meta(ge=1, le=MAX_OUTPUTS)]
ViewCodes = Annotated[int, Meta(ge=1, le=MAX_VIEW_CODES)]
Azimuth = Annotated[float, Meta(ge=-360, le=360)]  # degrees, positive: towards the object's left
Elevation = Annotated[float, Meta(ge=-90, le=90)]  # degrees, positive: from above
Distance = Annotated[float, Meta(gt=0, le=MAX_LENGTH)]  # camera to object, in the object's units
Focal = Annotated[float, Meta(gt=0, le=MAX_LENGTH)]  # focal length over image size


class FileEntry(Strict, frozen=True):
    """One file of the bundle."""

    sha256: str  # 64 lower-case hexadecimal digits
    size: int  # bytes


class GeneratorFacts(Strict, frozen=True, omit_defaults=True):
    """The generator that was exported, and the defaults of its sampling options.

    The file omits fields at their default.
    """

    family: Name  # "stylegan1", "stylegan2", "stylegan3"
    resolution: Size  # nominal extent of the image: the side of a square one, pixels
    channels: Widths  # feature channels at 4, 8, ..., resolution; stylegan3: of each layer
    mapping_layers: Count
    z_dim: Size
    w_dim: Size
    num_ws: Size
    num_classes: Count  # 0: unconditional
    view_layers: Count  # first rows of w+ that carry the viewpoint; 0: unknown
    w_avg: list[Float32]  # [w_dim], mean of w, float32 values
    truncation_psi: Psi  # default of requests
    truncation_cutoff: Count  # default of requests, in rows of w+
    noise: Name  # "none" (a family without noise), "const" (the checkpoint's buffers), "seed:<n>"
    conv_clamp: float | None
    start: Start | None = None  # null: 4 x 4, square images

    def size_at(self, extent: int) -> tuple[int, int]:
        """Rows and columns of a feature map, label grid or image of this nominal extent, pixels."""
        rows, columns = self.start or (4, 4)
        return extent * rows // 4, extent * columns // 4


class Labels(Strict, frozen=True):
    """Geometry of the labels: how the label branch reads the generator's feature maps."""

    tap_recipe: Name  # "styledconv+const", "dg-pair", "stylegan3"
    feature_dim: Size  # length of the hypercolumn
    # Nominal extent that feature maps are resized to, pixels: grid * start / 4 rows and columns.
    grid: Size
    crop_top: Count  # first row of the grid that is kept
    height: Size  # label rows after the crop
    width: Size
    resize: str  # "bilinear" or "nearest", for feature maps coarser than the grid


class SegmentationClass(Strict, frozen=True):
    """A segmentation class; its id is its position in the list."""

    name: Name
    color: Color


class SegmentationHead(Strict, frozen=True):
    """Segmentation head: majority vote over the members, ties to the smallest id."""

    members: Size
    hidden: Widths
    classes: Annotated[list[SegmentationClass], Meta(min_length=1, max_length=MAX_CLASSES)]
    ignore_id: int | None


class KeypointHead(Strict, frozen=True):
    """Keypoint head: mean heatmap, first maximum, centroid within the window."""

    members: Size
    hidden: Widths
    names: Annotated[list[Name], Meta(min_length=1, max_length=MAX_KEYPOINTS)]
    skeleton: Annotated[list[tuple[Count, Count]], Meta(max_length=MAX_EDGES)]  # positions in names
    sigma_px: float  # standard deviation of the Gaussian targets, in label pixels
    window_px: Count  # radius of the centroid window, in label pixels


class DepthHead(Strict, frozen=True):
    """Depth head: mean over the members."""

    members: Size
    hidden: Widths
    unit: Name


class Heads(Strict, frozen=True, omit_defaults=True):
    """The heads of the label ensemble; null: not trained. The file omits defaults."""

    segmentation: SegmentationHead | None
    keypoints: KeypointHead | None
    depth: DepthHead | None
    score_source: Literal["segmentation", "keypoints", "depth"] | None
    score_fraction: Share  # share of the most uncertain pixels that the score averages
    # Alternatives of a predicate that the graph compares, see engines.content; 0: the graph neither
    # has predicates nor computes the content that they compare.
    boxes: Annotated[int, Meta(ge=0, le=MAX_BOXES)] = 0
    # Shares of the pixels, ascending, whose quantiles of depth are part of that content.
    depth_quantiles: Annotated[list[Share], Meta(max_length=MAX_ENTRIES)] = field(
        default_factory=list
    )
    # How uncertain a pixel is, with score_source segmentation; other heads have no choice.
    score_measure: ScoreMeasure = "jensen_shannon"


class RefinerFacts(Strict, frozen=True):
    """The refiner that images pass after synthesis. Labels do not pass it."""

    weights_sha256: str  # SHA-256 of its weights file
    generator_sha256: str | None  # SHA-256 of the generator it was trained for; null: unknown
    width: Size  # channels of its hidden layers
    blocks: Count
    grain: Count  # noise channels in its input; 0: none
    grain_seed: int  # seed of the patterns that the noise is mixed from
    regulariser: str  # strength, reduction and feature of the loss against drift
    shift_px: float  # mean shift of tiles in training, pixels
    structure: float  # mean correlation of tiles with the originals
    agreement: float | None  # mIoU between segmentations of original and refined; null: unknown


class CameraFacts(Strict, frozen=True):
    """The camera of a view code; null: unknown."""

    azimuth_deg: Azimuth | None
    elevation_deg: Elevation | None
    distance: Distance | None
    focal: Focal | None


class ViewBankFacts(Strict, frozen=True):
    """The view bank: values for the first view_layers rows of w+, in the file views.f32."""

    codes: ViewCodes
    cameras: list[CameraFacts] | None  # one for each code; null: all unknown


class SamplingKey(Strict, frozen=True, kw_only=True, omit_defaults=True):
    """The sampling options that a calibration holds for. The file omits fields at their default."""

    latent_source: Literal["philox", "mt19937"]
    truncation_psi: Psi
    truncation_cutoff: Count
    class_index: Count | None
    views_per_object: ViewCodes
    view_mode: Literal["drawn", "bank", "fixed", "random"] = "drawn"
    view: Count | None = None  # code of the bank, with view_mode "fixed"


class ContentTable(Strict, frozen=True):
    """The file with the content of a calibration's first samples, see bundle.content."""

    name: Name  # of the file
    file: FileEntry
    columns: Size  # statistics of a sample, see engines.content
    samples: Annotated[int, Meta(ge=1, le=MAX_TABLE_SAMPLES)]  # indices 0 to samples - 1


class ScoreCalibration(Strict, frozen=True, omit_defaults=True):
    """Quantiles of the uncertainty score, measured over `samples` indices from 0 with `seed`. The
    file omits `content` if it is null."""

    options: SamplingKey
    seed: Annotated[int, Meta(ge=0)]
    samples: Size
    # At levels i / (len - 1), ascending.
    quantiles: Annotated[list[Float32], Meta(min_length=2, max_length=MAX_QUANTILES)]
    content: ContentTable | None = (
        None  # null: the graph computes none, or an older version made it
    )


class Estimate(Strict, frozen=True):
    """A measured number, and the ends of its interval of 95 percent."""

    value: Float32
    low: Float32
    high: Float32


class Bound(Strict, frozen=True, kw_only=True):
    """Limits of one output of a score; null: none. See engines.proposal."""

    output: Count
    low: Float32 | None
    high: Float32 | None


class ProposalFacts(Strict, frozen=True, kw_only=True):
    """A proposal: for which samples it was fitted, how, and what was measured of others.

    See engines.proposal.
    """

    file: FileEntry
    where: Annotated[str, Meta(min_length=1, max_length=1000)]  # predicate that it was fitted for
    options: SamplingKey
    seed: Annotated[int, Meta(ge=0)]  # of the samples of the fit
    samples: Size  # generated ones of the fit
    # Units of the hidden layers of the score.
    hidden: Annotated[list[HiddenSize], Meta(max_length=MAX_HIDDEN_LAYERS)]
    outputs: OutputCount  # of the score
    # What of the outputs means the predicate: all bounds of one of these lists.
    bounds: Annotated[
        list[Annotated[list[Bound], Meta(max_length=MAX_OUTPUTS)]],
        Meta(min_length=1, max_length=MAX_BOXES),
    ]
    exponent: Annotated[float, Meta(gt=0, le=1)]  # keep probability: the estimated one to this
    floor: Share  # smallest keep probability
    share: Estimate  # share of all samples that meet the predicate
    generated_share: Estimate  # share of the samples of the proposal that do
    gain: Estimate  # generated_share / share: so many times fewer generated ones for each kept one
    effective: Estimate  # effective sample size of the weighted kept ones, over their number
    examined: Estimate  # raw indices examined for each sample that is generated


class MeasuredEdit(Strict, frozen=True, kw_only=True):
    """What one strength of a direction changes, over all measured samples.

    "Outside" are the pixels that show the direction's class neither before nor after.
    """

    strength: Annotated[float, Meta(ge=-MAX_STRENGTH, le=MAX_STRENGTH)]
    share: Estimate  # mean share of a mask's pixels that are of the class
    shown: Estimate  # share of the images in which the class has 0.1 percent of the pixels
    unchanged: Estimate  # share of the pixels outside that keep their class
    miou: Estimate  # mean IoU of the other classes outside, before and after


class DirectionFacts(Strict, frozen=True, kw_only=True):
    """A direction in w+: what it changes, for which samples it was learned, what was measured.

    See engines.edits.
    """

    file: FileEntry
    changes: Annotated[str, Meta(min_length=1, max_length=1000)]  # name of the class
    options: SamplingKey
    seed: Annotated[int, Meta(ge=0)]  # of the samples
    samples: Size  # generated ones that it was learned from
    measured: Size  # other ones, that each strength was measured on
    first_row: Count  # of w+ that it moves
    end_row: Size  # exclusive
    # Ascending; 0 is among them. Requests may have strengths from the first to the last.
    strengths: Annotated[list[MeasuredEdit], Meta(min_length=2, max_length=MAX_STRENGTHS)]


class WeightsFacts(Strict, frozen=True):
    """The weights files that the bundle was exported from, by SHA-256."""

    generator_sha256: str
    interpreter_sha256: str | None  # null: no label ensemble, or one of several files


class CertifiedThreshold(Strict, frozen=True):
    """What the reviews prove of the samples that one threshold keeps."""

    keep: Share  # of all samples, about: what the threshold was chosen for
    threshold: Float32 | None  # largest uncertainty that is kept; null: every sample is
    reviewed: Count  # reviewed samples that it keeps
    mean: Loss | None  # mean loss of these; null: there are none
    upper_bound: Loss  # of the mean loss of all samples that it keeps
    expected_risk: Annotated[float, Meta(ge=0)]  # conformal risk control's bound, on average


class Certificate(Strict, frozen=True, omit_defaults=True):
    """What a person's reviews prove of an ensemble's masks. The studio writes it as a file, too,
    which omits score_measure at its default.

    All upper bounds hold at once with the probability `confidence`. The reviewed samples are the
    first of a stream that the weights' hash chooses, after those that may fix the thresholds.
    """

    format: Literal[1]
    statement: Annotated[str, Meta(max_length=4096)]  # the same in words
    confidence: Annotated[float, Meta(gt=0, lt=1)]
    generator_sha256: str  # of the weights files
    interpreter_sha256: str
    seed: Annotated[int, Meta(ge=0)]  # of the stream
    truncation_psi: Psi
    truncation_cutoff: Count
    first_index: Count  # of the first reviewed sample
    thresholds: Annotated[list[CertifiedThreshold], Meta(min_length=1, max_length=MAX_THRESHOLDS)]
    uncertainties: Annotated[list[Float32], Meta(min_length=1, max_length=MAX_REVIEWS)]  # in order
    losses: Annotated[list[Loss], Meta(min_length=1, max_length=MAX_REVIEWS)]  # of the same samples
    score_measure: ScoreMeasure = "jensen_shannon"  # of the uncertainties and thresholds


class Parity(Strict, frozen=True, omit_defaults=True):
    """Measured differences of one served graph from eager torch; null: not an output of it. The
    file omits the last fields if they are null."""

    graph: str  # file name
    runtime: str  # "onnxruntime-cpu 1.31.1", ...
    samples: int
    w_max_difference: float | None  # of the mapping, in units of the largest |w|
    image_max_steps: int | None  # largest difference, in uint8 steps
    image_share_within_1: float | None  # share of values at most one uint8 step apart
    mask_mismatch_share: float | None  # share of all pixels, without near-ties
    near_tie_share: float | None
    uncertainty_max_excess: float | None  # max of |difference| / (1e-6 + 1e-5 |reference|)
    keypoints_max_px: float | None  # without near-ties
    depth_max_relative: float | None  # in units of the sample's largest |depth|
    # Of the content from the graph's own labels, as a multiple of the accepted difference.
    content_excess: float | None = None
    mask_difference_share: float | None = None  # share of all pixels, near-ties included


class PortablePlan(Strict, frozen=True):
    """A plan of TensorRT for RTX, built from one of the bundle's graphs. It contains code."""

    file: FileEntry
    graph: str  # name of the graph's file
    graph_sha256: str
    precision: Literal["float32", "float16"]
    batch_sizes: Annotated[list[Size], Meta(min_length=1, max_length=MAX_ENTRIES)]  # ascending
    # Compute capabilities, such as "8.9".
    capabilities: Annotated[list[Name], Meta(min_length=1, max_length=MAX_ENTRIES)]
    tensorrt_rtx: str  # version that built it; no other version runs it


class Manifest(Strict, frozen=True, kw_only=True, omit_defaults=True):
    """The whole file. It omits fields at their default."""

    format: Literal[1]
    bundle_id: str  # "sha256:<hex>", see bundle.read.bundle_id_from_content
    generator: GeneratorFacts
    labels: Labels | None  # null: images only
    heads: Heads | None
    refiner: RefinerFacts | None = None
    views: ViewBankFacts | None = None
    licences: Annotated[list[Annotated[str, Meta(max_length=1 << 16)]], Meta(max_length=64)]
    files: dict[str, FileEntry]  # by file name
    plans: dict[str, PortablePlan] = field(default_factory=dict)  # by file name
    proposals: dict[str, ProposalFacts] = field(default_factory=dict)  # by their names
    directions: dict[str, DirectionFacts] = field(default_factory=dict)  # by their names
    parity: Annotated[list[Parity], Meta(max_length=MAX_ENTRIES)]
    calibrations: Annotated[list[ScoreCalibration], Meta(max_length=MAX_CALIBRATIONS)]
    tools: dict[Name, Name]  # versions of the programs that made the bundle, by name
    weights: WeightsFacts | None = None  # null: exported before this was recorded
    certificate: Certificate | None = None  # null: nobody's reviews are part of the bundle


def digest_of_facts(facts: ProposalFacts | DirectionFacts) -> str:
    """SHA-256 of all facts, the hash of the file among them, as 64 hexadecimal digits.

    Proposals and directions are learned after the export, under names that may be used again.
    """
    return hashlib.sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()
