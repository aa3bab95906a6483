"""Weights cards -> the sections of the manifest, and the labeller's specification."""

from torch import Tensor

from bundle.calibration import shortest_float32
from bundle.manifest import (
    CameraFacts,
    DepthHead,
    GeneratorFacts,
    Heads,
    KeypointHead,
    Labels,
    RefinerFacts,
    SegmentationClass,
    SegmentationHead,
    ViewBankFacts,
)
from checkpoints import GeneratorCard, InterpreterCard, RefinerCard, ViewsCard
from export.graph.content import DEPTH_QUANTILES
from export.graph.labeller import BOXES
from export.graph.spec import LabelSpec
from nets.config import SQUARE, rows_of_ws, size_at

UNUSED_WINDOW_PX = 3  # fills LabelSpec without a keypoint head, where no graph uses it


def spec_from_cards(generator: GeneratorCard, interpreter: InterpreterCard | None) -> LabelSpec:
    """Geometry and rules of the labeller. Without an interpreter: uncropped images, no labels."""
    if interpreter is None:
        grid, start = generator.config.resolution, generator.config.start or SQUARE
        height, width = size_at(grid, start)
        return LabelSpec(grid=grid, crop_top=0, height=height, width=width, start=start)
    keypoints = interpreter.keypoints
    return LabelSpec(
        grid=interpreter.grid,
        crop_top=interpreter.crop_top,
        height=interpreter.height,
        width=interpreter.width,
        score_source=interpreter.score_source,
        score_fraction=interpreter.score_fraction,
        keypoint_window_px=UNUSED_WINDOW_PX if keypoints is None else keypoints.window_px,
        tap_recipe=interpreter.tap_recipe,
        resize=interpreter.resize,
        start=interpreter.start or SQUARE,
        score_measure=interpreter.score_measure,
    )


def generator_from_card(card: GeneratorCard, w_avg: Tensor) -> GeneratorFacts:
    """The manifest's generator section; w_avg is float32 [w_dim]."""
    config = card.config
    return GeneratorFacts(
        family=card.family,
        resolution=config.resolution,
        channels=config.channels,
        mapping_layers=config.mapping_layers,
        z_dim=config.z_dim,
        w_dim=config.w_dim,
        num_ws=rows_of_ws(card.family, len(config.channels)),
        num_classes=config.c_dim,
        view_layers=card.view_layers,
        w_avg=[shortest_float32(value) for value in w_avg.tolist()],
        truncation_psi=card.truncation_psi,
        truncation_cutoff=card.truncation_cutoff,
        noise=_noise_from_card(card),
        conv_clamp=config.conv_clamp,
        start=config.start,
    )


def _noise_from_card(card: GeneratorCard) -> str:
    if card.family == "stylegan3":
        return "none"
    return "const" if card.noise_seed is None else f"seed:{card.noise_seed}"


def labels_from_card(card: InterpreterCard) -> Labels:
    """The manifest's labels section."""
    return Labels(
        tap_recipe=card.tap_recipe,
        feature_dim=card.features,
        grid=card.grid,
        crop_top=card.crop_top,
        height=card.height,
        width=card.width,
        resize=card.resize,
    )


def heads_from_card(card: InterpreterCard) -> Heads:
    """The manifest's heads section.

    The card's [[heads]] and its tables of names agree: loading the card has checked that.
    """
    shapes = {head.kind: head for head in card.heads}
    segmentation = keypoints = depth = None
    if card.segmentation is not None:
        segmentation = SegmentationHead(
            members=shapes["segmentation"].members,
            hidden=list(shapes["segmentation"].hidden),
            classes=[
                SegmentationClass(name=c.name, color=c.color) for c in card.segmentation.classes
            ],
            ignore_id=card.segmentation.ignore_id,
        )
    if card.keypoints is not None:
        keypoints = KeypointHead(
            members=shapes["keypoints"].members,
            hidden=list(shapes["keypoints"].hidden),
            names=card.keypoints.names,
            skeleton=card.keypoints.skeleton,
            sigma_px=card.keypoints.sigma_px,
            window_px=card.keypoints.window_px,
        )
    if card.depth is not None:
        depth = DepthHead(
            members=shapes["depth"].members,
            hidden=list(shapes["depth"].hidden),
            unit=card.depth.unit,
        )
    return Heads(
        segmentation=segmentation,
        keypoints=keypoints,
        depth=depth,
        score_source=card.score_source,
        score_fraction=card.score_fraction,
        score_measure=card.score_measure,
        boxes=BOXES,
        depth_quantiles=list(DEPTH_QUANTILES) if depth else [],
    )


def refiner_from_card(card: RefinerCard, weights_sha256: str) -> RefinerFacts:
    """The manifest's refiner section."""
    regulariser = card.regulariser
    return RefinerFacts(
        weights_sha256=weights_sha256,
        generator_sha256=card.generator_sha256,
        width=card.config.width,
        blocks=card.config.blocks,
        grain=card.config.grain,
        grain_seed=card.grain_seed,
        regulariser=f"{regulariser.strength:g} x {regulariser.reduction} of {regulariser.feature}",
        shift_px=card.shift_px,
        structure=card.structure,
        agreement=card.agreement,
    )


def views_from_card(card: ViewsCard) -> ViewBankFacts:
    """The manifest's views section."""
    cameras = None
    if card.cameras is not None:
        cameras = [
            CameraFacts(
                azimuth_deg=camera.azimuth_deg,
                elevation_deg=camera.elevation_deg,
                distance=camera.distance,
                focal=camera.focal,
            )
            for camera in card.cameras
        ]
    return ViewBankFacts(codes=card.codes, cameras=cameras)
