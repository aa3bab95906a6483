"""manifest.json of a bundle: every fact about it, as strict immutable structs.

The one place that defines the file: export writes it, engines and service read it.
"""

from typing import Literal

import msgspec

MANIFEST = "manifest.json"
MAPPING = "mapping.onnx"
VIEWS = "views.f32"  # view codes, little-endian float32 [codes, view_layers, w_dim]
LABELLER = {"float32": "labeller.onnx", "float16": "labeller.fp16.onnx"}  # by precision


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Immutable record that refuses fields it does not know."""


class FileEntry(Strict, frozen=True):
    """One file of the bundle."""

    sha256: str  # lower-case hexadecimal
    size: int  # bytes


class Generator(Strict, frozen=True):
    """The network behind `ws -> image`."""

    family: str  # "stylegan1", "stylegan2"
    resolution: int  # pixels
    channels: list[int]  # feature channels at 4, 8, ..., resolution
    mapping_layers: int
    z_dim: int
    w_dim: int
    num_ws: int
    num_classes: int  # 0: unconditional
    view_layers: int  # first rows of w+ that carry the viewpoint, 0: unknown
    w_avg: list[float]  # [w_dim], mean of w, float32 values
    truncation_psi: float  # default of requests
    truncation_cutoff: int  # default, in rows
    noise: str  # "none", "const" (the checkpoint's buffers), "seed:<n>"
    conv_clamp: float | None


class Labels(Strict, frozen=True):
    """How the label branch reads the generator."""

    tap_recipe: str  # "styledconv+const", "dg-pair"
    feature_dim: int  # D
    grid: int  # square extent every tap is resized to, pixels
    crop_top: int  # first row of the grid that is kept
    height: int  # label rows after the crop
    width: int
    resize: str  # "bilinear", "nearest": of taps coarser than the grid


class LabelClass(Strict, frozen=True):
    """A segmentation class; its id is its position."""

    name: str
    color: int  # 0xRRGGBB


class Segmentation(Strict, frozen=True):
    """Segmentation head: majority vote over the members, ties to the smallest id."""

    members: int
    hidden: list[int]
    classes: list[LabelClass]
    ignore_id: int | None


class Keypoints(Strict, frozen=True):
    """Keypoint head: mean heatmap, first maximum, centroid within the window."""

    members: int
    hidden: list[int]
    names: list[str]
    skeleton: list[tuple[int, int]]  # positions in names
    sigma_px: float  # of the Gaussian targets, in label pixels
    window_px: int  # radius of the centroid window, in label pixels


class Depth(Strict, frozen=True):
    """Depth head: mean over the members."""

    members: int
    hidden: list[int]
    unit: str


class Heads(Strict, frozen=True):
    """The heads the ensemble was trained with."""

    segmentation: Segmentation | None
    keypoints: Keypoints | None
    depth: Depth | None
    score_source: Literal["segmentation", "keypoints", "depth"] | None
    score_fraction: float  # share of the most uncertain pixels that the score averages


class Refiner(Strict, frozen=True):
    """The network that images went through behind synthesis; labels did not."""

    weights_sha256: str  # of its weights file
    generator_sha256: str | None  # of the weights it was trained for; null: not known
    width: int  # of its hidden layers
    blocks: int
    grain: int  # channels of noise it reads, 0: none
    grain_seed: int  # of the patterns that noise is mixed from
    regulariser: str  # what held it to the originals: strength, reduction, feature
    shift_px: float  # how far it moved tiles in training, mean
    structure: float  # their correlation with the originals, mean
    agreement: float | None  # mIoU between a segmenter's views of both; null: not measured


class Camera(Strict, frozen=True):
    """The camera behind a view code; null: not known."""

    azimuth_deg: float | None  # positive: towards the object's left
    elevation_deg: float | None  # positive: from above
    distance: float | None  # to the object, in its units
    focal: float | None  # focal length over image extent


class Views(Strict, frozen=True):
    """The view bank: what the first view_layers rows of w+ may be, in a file of its own."""

    codes: int
    cameras: list[Camera] | None  # one for each code; null: none is known


class SamplingKey(Strict, frozen=True, kw_only=True, omit_defaults=True):
    """The sampling options a calibration holds for. Fields with a default are left out there."""

    latent_source: Literal["philox", "mt19937"]
    truncation_psi: float
    truncation_cutoff: int
    class_index: int | None
    views_per_object: int
    view_mode: Literal["drawn", "bank", "fixed", "random"] = "drawn"
    view: int | None = None  # of the mode fixed


class Calibration(Strict, frozen=True):
    """Quantiles of the uncertainty over `samples` indices from 0 at `seed`."""

    options: SamplingKey
    seed: int
    samples: int
    quantiles: list[float]  # at levels i / (len - 1), ascending


class Parity(Strict, frozen=True):
    """Measured differences of one served graph from eager torch; null: the graph has no such."""

    graph: str  # file name
    runtime: str  # "onnxruntime-cpu 1.31.1", ...
    samples: int
    w_max_difference: float | None  # of the mapping, in units of the largest |w|
    image_max_steps: int | None  # uint8 steps
    image_share_within_1: float | None
    mask_mismatch_share: float | None  # of all pixels, outside near-ties
    near_tie_share: float | None
    uncertainty_max_excess: float | None  # max of |difference| / (1e-6 + 1e-5 |reference|)
    keypoints_max_px: float | None  # outside near-ties
    depth_max_relative: float | None  # in units of the sample's largest |depth|


class Manifest(Strict, frozen=True, kw_only=True, omit_defaults=True):
    """The whole file. Fields with a default are left out where they have it."""

    format: Literal[1]
    bundle_id: str  # "sha256:<hex>" of the content fields and the ONNX files
    generator: Generator
    labels: Labels | None  # null: images only
    heads: Heads | None
    refiner: Refiner | None = None
    views: Views | None = None  # the view bank; absent: there is none
    licences: list[str]
    files: dict[str, FileEntry]
    parity: list[Parity]
    calibrations: list[Calibration]
    tools: dict[str, str]  # versions that made it
