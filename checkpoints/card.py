"""The weights card: everything about weights that the tensors do not say, as TOML beside them.

The one place that defines the file: training writes it, export reads it.
"""

from typing import Literal

import msgspec

from nets.config import Architecture, Family, TapRecipe
from nets.features import Resize


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Immutable record that refuses fields it does not know."""


class ConfigCard(Strict, frozen=True):
    """nets.config.GeneratorConfig, field by field but for the family."""

    resolution: int
    channels: list[int]
    z_dim: int = 512
    w_dim: int = 512
    c_dim: int = 0
    mapping_layers: int = 8
    img_channels: int = 3
    conv_clamp: float | None = None
    architecture: Architecture = "skip"


class GeneratorCard(Strict, frozen=True, kw_only=True):
    """Card of a generator."""

    format: Literal[1]
    kind: Literal["generator"]
    family: Family
    config: ConfigCard
    view_layers: int  # first rows of w+ that carry the viewpoint, 0: unknown
    truncation_psi: float  # default of requests
    truncation_cutoff: int  # default, in rows of w+
    noise_seed: int | None = None  # what the noise maps were drawn from, where files have none
    licences: list[str]
    made: str | dict[str, str | int | float | bool]  # how, in words or as a table


class HeadCard(Strict, frozen=True):
    """Shape of one head's ensemble."""

    kind: Literal["segmentation", "keypoints", "depth"]
    hidden: tuple[int, int]
    outputs: int  # classes, keypoints, or 1 for depth
    members: int


class ClassCard(Strict, frozen=True):
    """A segmentation class; its id is its position."""

    name: str
    color: int  # 0xRRGGBB


class SegmentationCard(Strict, frozen=True):
    """Meaning of the segmentation head's outputs."""

    classes: list[ClassCard]
    ignore_id: int | None = None


class KeypointsCard(Strict, frozen=True):
    """Meaning of the keypoint head's outputs."""

    names: list[str]
    skeleton: list[tuple[int, int]]  # positions in names
    sigma_px: float  # of the Gaussian targets, in label pixels
    window_px: int  # radius of the centroid window, in label pixels


class DepthCard(Strict, frozen=True):
    """Meaning of the depth head's output."""

    unit: str


class InterpreterCard(Strict, frozen=True, kw_only=True):
    """Card of an interpreter."""

    format: Literal[1]
    kind: Literal["interpreter"]
    generator_sha256: str  # of the generator's weights file it was trained on
    tap_recipe: TapRecipe
    features: int  # D, length of the hypercolumn
    grid: int  # square extent every tap is resized to, pixels
    crop_top: int  # first row of the grid that is kept
    height: int  # label rows after the crop
    width: int
    resize: Resize
    score_source: Literal["segmentation", "keypoints", "depth"] | None = None
    score_fraction: float = 0.1
    licences: list[str]
    made: str | dict[str, str | int | float | bool]
    heads: list[HeadCard]
    segmentation: SegmentationCard | None = None
    keypoints: KeypointsCard | None = None
    depth: DepthCard | None = None


class RefinerConfigCard(Strict, frozen=True):
    """nets.refiner.RefinerConfig, field by field."""

    channels: int
    width: int
    blocks: int
    grain: int


class RegulariserCard(Strict, frozen=True):
    """What held refined images to their originals: the strength means nothing without the rest."""

    strength: float
    reduction: Literal["mean", "image-sum", "batch-sum"]
    feature: Literal["identity", "colour-mean", "gradients"]


class RefinerCard(Strict, frozen=True, kw_only=True):
    """Card of a refiner."""

    format: Literal[1]
    kind: Literal["refiner"]
    generator_sha256: str | None = None  # of the weights whose images it refines; absent: not known
    height: int  # of the images it was trained on, pixels
    width: int
    grain_seed: int  # of the patterns that the served grain is mixed from
    config: RefinerConfigCard
    regulariser: RegulariserCard
    shift_px: float  # measured between images and their refined ones, mean over tiles
    structure: float  # measured correlation of tiles, 1: the same up to contrast
    agreement: float | None = None  # mIoU between a segmenter's views of both; absent: no masks
    licences: list[str]
    made: str | dict[str, str | int | float | bool]


class EncoderCard(Strict, frozen=True, kw_only=True):
    """Card of an encoder: framed images of one generator to its w+."""

    format: Literal[1]
    kind: Literal["encoder"]
    generator_sha256: str  # of the generator's weights file it was trained on
    grid: int  # square extent of the images whose rows it reads, pixels
    crop_top: int  # first row of the grid that it reads
    rows: int  # how many
    height: int  # of its input, to which the rows are reduced
    width: int
    num_ws: int  # rows of w+ that it gives
    w_dim: int
    channels: list[int]
    hidden: int
    iterations: int  # residual steps
    licences: list[str]
    made: str | dict[str, str | int | float | bool]


class InverseGraphicsCard(Strict, frozen=True, kw_only=True):
    """Card of an inverse-graphics network: square images of one bundle's objects to meshes."""

    format: Literal[1]
    kind: Literal["inverse-graphics"]
    bundle_id: str  # of the served bundle it learnt from
    extent: int  # of the images it reads, pixels
    hidden: int
    texture: int  # rows of the texture, pixels
    radius: float  # of the sphere before it is bent, object units
    camera: bool  # whether it tells an image's camera
    distance: float  # of the cameras it was drawn with, object units
    focal: float  # theirs, over the image's extent
    background: list[str]  # classes of the bundle that are no object
    keypoints: list[str]  # of the bundle, in output order
    silhouette: float  # mean IoU with the silhouettes of its own sets, at the end
    licences: list[str]
    made: str | dict[str, str | int | float | bool]


class CameraCard(Strict, frozen=True, kw_only=True):
    """The camera behind a view code; what is absent is not known."""

    azimuth_deg: float | None = None  # positive: towards the object's left
    elevation_deg: float | None = None  # in [-90, 90], positive: from above
    distance: float | None = None  # to the object, in its units
    focal: float | None = None  # focal length over image extent


class ViewsCard(Strict, frozen=True, kw_only=True):
    """Card of a view bank."""

    format: Literal[1]
    kind: Literal["views"]
    generator_sha256: str  # of the weights file whose rows of w+ the codes are
    codes: int  # views in the bank
    view_layers: int  # rows of a code, the first ones of w+
    w_dim: int
    licences: list[str]
    made: str | dict[str, str | int | float | bool]
    cameras: list[CameraCard] | None = None  # one for each code; absent: none is known
