"""Weights cards: TOML files that say about weights everything that their tensors do not.

The one definition of the files: `training` writes them, `export` reads them. Ranges of single
values stand here, as `msgspec.Meta`; rules between fields are in the module of each kind.
"""

from typing import Annotated, Literal

from msgspec import Meta

from bundle.manifest import (
    MAX_LENGTH,
    Azimuth,
    Count,
    Distance,
    Elevation,
    Focal,
    Psi,
    ScoreMeasure,
    Share,
    Start,
    ViewCodes,
)
from bundle.records import Strict
from nets.config import Architecture, Family, TapRecipe
from nets.encoder import LAST
from nets.features import Resize
from nets.inverse_graphics import TEXTURE_START

MAX_EXTENT = 4096  # pixels
MAX_TAPS = 1024  # of a filter
MAX_LAYERS = 128  # of a StyleGAN3
MAX_WIDTH = 1 << 20  # channels of a layer; a bound for arithmetic, the tensors decide

Width = Annotated[int, Meta(ge=1, le=MAX_WIDTH)]
Extent = Annotated[int, Meta(ge=1, le=MAX_EXTENT)]  # pixels
Frequency = Annotated[float, Meta(gt=0, le=MAX_EXTENT)]  # cycles per image
Length = Annotated[float, Meta(ge=1e-9, le=MAX_LENGTH)]  # object units, or in a ratio to them
RefinerWidth = Annotated[int, Meta(ge=1, le=1 << 16)]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]
Provenance = str | dict[str, str | int | float | bool]  # in words, or as a table


class WeightsCard(Strict, frozen=True, kw_only=True, rename={"provenance": "made"}):
    """Base of the cards: `provenance`, how the weights were made, is the key `made` in TOML."""


class BandCard(Strict, frozen=True):
    """nets.config.Band, field by field."""

    extent: Annotated[int, Meta(ge=1, le=2 * MAX_EXTENT)]
    rate: Extent
    cutoff: Frequency
    half_width: Frequency


class LayerFiltersCard(Strict, frozen=True):
    """nets.config.LayerFilters, field by field."""

    kernel: Annotated[int, Meta(ge=1, le=MAX_TAPS)]
    inner_rate: Annotated[int, Meta(ge=1, le=16 * MAX_EXTENT)]
    up_taps: Annotated[int, Meta(ge=1, le=MAX_TAPS)]
    down_taps: Annotated[int, Meta(ge=1, le=MAX_TAPS)]
    radial: bool


class AliasFreeCard(Strict, frozen=True):
    """nets.config.AliasFree, field by field."""

    bands: Annotated[list[BandCard], Meta(min_length=2, max_length=MAX_LAYERS)]
    filters: Annotated[list[LayerFiltersCard], Meta(min_length=1, max_length=MAX_LAYERS)]
    output_scale: float


class ConfigCard(Strict, frozen=True):
    """nets.config.GeneratorConfig, field by field, without the family."""

    resolution: Annotated[int, Meta(ge=8, le=MAX_EXTENT)]
    # At 4, 8, ..., resolution; of a StyleGAN3, of each layer.
    channels: Annotated[list[Width], Meta(min_length=1)]
    z_dim: Width = 512
    w_dim: Width = 512
    c_dim: Annotated[int, Meta(ge=0, le=MAX_WIDTH)] = 0
    mapping_layers: Annotated[int, Meta(ge=1, le=64)] = 8
    img_channels: Annotated[int, Meta(ge=3, le=3)] = 3
    conv_clamp: Annotated[float, Meta(gt=0)] | None = None
    architecture: Architecture = "skip"
    alias_free: AliasFreeCard | None = None  # of a StyleGAN3
    start: Start | None = None  # rows and columns of the learned constant; absent: 4 x 4


class GeneratorCard(WeightsCard, frozen=True, kw_only=True):
    """Card of a generator."""

    format: Literal[1]
    kind: Literal["generator"]
    family: Family
    config: ConfigCard
    view_layers: Count  # first rows of w+ that carry the viewpoint; 0: unknown
    truncation_psi: Psi  # default of requests
    truncation_cutoff: Count  # default of requests, in rows of w+
    noise_seed: int | None = None  # seed of the noise maps, for files without noise maps
    licences: list[str]
    provenance: Provenance


class HeadCard(Strict, frozen=True):
    """Shape of one head's ensemble."""

    kind: Literal["segmentation", "keypoints", "depth"]
    hidden: tuple[Width, Width]
    outputs: Width  # classes, keypoints, or 1 for depth
    members: Annotated[int, Meta(ge=1, le=1024)]


class ClassCard(Strict, frozen=True):
    """A segmentation class; its id is its position in the list."""

    name: str
    color: Annotated[int, Meta(ge=0, le=0xFFFFFF)]  # 0xRRGGBB


class SegmentationCard(Strict, frozen=True):
    """Classes of the segmentation head."""

    classes: list[ClassCard]
    ignore_id: int | None = None  # mask value of pixels without a label


class KeypointsCard(Strict, frozen=True):
    """Keypoints of the keypoint head, and how they are read from heatmaps."""

    names: list[str]
    skeleton: list[tuple[int, int]]  # positions in names
    sigma_px: float  # standard deviation of the Gaussian targets, in label pixels
    window_px: int  # radius of the centroid window, in label pixels


class DepthCard(Strict, frozen=True):
    """Unit of the depth head."""

    unit: str


class TrainedOnCard(Strict, frozen=True):
    """The images of a training, by the first 16 hex digits of SHA-256 hashes."""

    pixels: list[Digest]  # of the RGB bytes
    latents: list[Digest]  # of the float32 rows of w+


class InterpreterCard(WeightsCard, frozen=True, kw_only=True):
    """Card of an interpreter (label ensemble)."""

    format: Literal[1]
    kind: Literal["interpreter"]
    generator_sha256: str  # SHA-256 of the weights file of the generator it was trained on
    tap_recipe: TapRecipe
    features: Width  # length of the hypercolumn
    # Nominal extent that feature maps are resized to, pixels: grid * start / 4 rows and columns.
    grid: int
    crop_top: Count  # first row of the grid that is kept
    height: Annotated[int, Meta(ge=1)]  # label rows after the crop
    width: Annotated[int, Meta(ge=1)]
    resize: Resize
    score_source: Literal["segmentation", "keypoints", "depth"] | None = None
    score_fraction: Share = 0.1  # share of the most uncertain pixels that the score averages
    licences: list[str]
    provenance: Provenance
    heads: list[HeadCard]
    segmentation: SegmentationCard | None = None
    keypoints: KeypointsCard | None = None
    depth: DepthCard | None = None
    trained_on: TrainedOnCard | None = None  # absent: not recorded
    start: Start | None = None  # the generator's; absent: 4 x 4
    # Of a pixel's class, with score_source segmentation; absent: an older version trained it.
    score_measure: ScoreMeasure = "jensen_shannon"


class RefinerConfigCard(Strict, frozen=True):
    """nets.refiner.RefinerConfig, field by field."""

    channels: Annotated[int, Meta(ge=3, le=3)]
    width: RefinerWidth
    blocks: Annotated[int, Meta(ge=0, le=1 << 10)]
    grain: Annotated[int, Meta(ge=0, le=64)]


class RegulariserCard(Strict, frozen=True):
    """The loss that keeps refined images close to their originals.

    The strength has a meaning only together with the reduction and the feature.
    """

    strength: float
    reduction: Literal["mean", "image-sum", "batch-sum"]
    feature: Literal["identity", "colour-mean", "gradients"]


class RefinerCard(WeightsCard, frozen=True, kw_only=True):
    """Card of a refiner."""

    format: Literal[1]
    kind: Literal["refiner"]
    generator_sha256: str | None = None  # SHA-256 of its generator's weights; absent: unknown
    height: RefinerWidth  # of the training images, pixels
    width: RefinerWidth
    grain_seed: Annotated[int, Meta(ge=0, le=2**63 - 1)]  # seed of the patterns of served grain
    config: RefinerConfigCard
    regulariser: RegulariserCard
    shift_px: float  # mean shift between tiles of originals and refined images, pixels
    structure: float  # mean correlation of these tiles; 1: equal up to contrast
    agreement: float | None = None  # mIoU between segmentations of both; absent: no masks
    licences: list[str]
    provenance: Provenance


class EncoderCard(WeightsCard, frozen=True, kw_only=True):
    """Card of an encoder: cropped images of one generator to w+."""

    format: Literal[1]
    kind: Literal["encoder"]
    generator_sha256: str  # SHA-256 of the weights file of the generator it was trained on
    grid: Annotated[int, Meta(ge=4, le=MAX_EXTENT)]  # nominal extent of whole images, pixels
    crop_top: Count  # first row of the grid that it reads
    rows: Annotated[int, Meta(ge=1)]  # number of rows that it reads
    height: Extent  # of its input, to which these rows are reduced
    width: Extent
    num_ws: Width  # rows of w+ that it gives
    w_dim: Width
    channels: Annotated[list[Width], Meta(min_length=2, max_length=16)]
    hidden: Width
    iterations: Annotated[int, Meta(ge=1, le=64)]  # residual steps
    licences: list[str]
    provenance: Provenance
    start: Start | None = None  # the generator's; absent: 4 x 4


class InverseGraphicsCard(WeightsCard, frozen=True, kw_only=True):
    """Card of an inverse-graphics network: square images of one bundle's objects to meshes."""

    format: Literal[1]
    kind: Literal["inverse-graphics"]
    bundle_id: str  # of the bundle whose samples it was trained on
    extent: Annotated[int, Meta(ge=LAST, le=MAX_EXTENT)]  # rows and columns of its input, pixels
    hidden: Annotated[int, Meta(ge=1, le=4096)]  # at 4096 the network takes 300 MiB
    texture: Annotated[int, Meta(ge=TEXTURE_START, le=MAX_EXTENT)]  # rows of the texture, pixels
    radius: Length  # of the sphere before it is deformed, object units
    camera: bool  # whether it predicts the camera of an image
    distance: Length  # from the training cameras to the object, object units
    focal: Length  # focal length of the training cameras over image size
    background: list[str]  # classes of the bundle that are not part of the object
    keypoints: list[str]  # of the bundle, in output order
    silhouette: Annotated[float, Meta(ge=0, le=1)]  # final mean IoU with training silhouettes
    licences: list[str]
    provenance: Provenance


class CameraCard(Strict, frozen=True, kw_only=True):
    """The camera of a view code; absent fields are unknown."""

    azimuth_deg: Azimuth | None = None
    elevation_deg: Elevation | None = None
    distance: Distance | None = None
    focal: Focal | None = None


class ViewsCard(WeightsCard, frozen=True, kw_only=True):
    """Card of a view bank."""

    format: Literal[1]
    kind: Literal["views"]
    generator_sha256: str  # SHA-256 of the weights file of the generator of the codes
    codes: ViewCodes  # views in the bank
    view_layers: Annotated[int, Meta(ge=1, le=1 << 10)]  # rows of a code, the first rows of w+
    w_dim: Width
    licences: list[str]
    provenance: Provenance
    cameras: list[CameraCard] | None = None  # one for each code; absent: all unknown
