"""What a fit leaves behind besides weights: the interpreter's card."""

from dataclasses import asdict

from checkpoints import (
    DepthCard,
    InterpreterCard,
    KeypointsCard,
    SegmentationCard,
    head_cards,
)
from nets.config import TapRecipe
from nets.interpreter import Interpreter
from training.interpreter.config import FitConfig
from training.labels.labelled_set import LabelledSet

# Of the centroid at inference, in sigmas of the targets: wide enough for the peak, too
# narrow for a neighbour.
WINDOW_SIGMAS = 2


def card_from_fit(
    interpreter: Interpreter,
    labels: LabelledSet,
    config: FitConfig,
    generator_sha256: str,
    tap_recipe: TapRecipe,
    licences: list[str],
) -> InterpreterCard:
    """The card of a fitted ensemble; its score is the first head's."""
    segmentation = keypoints = depth = None
    if labels.classes is not None and labels.masks is not None:
        segmentation = SegmentationCard(
            classes=labels.classes.cards, ignore_id=labels.classes.ignore_id
        )
    if labels.keypoints is not None:
        sigma_px = config.sigma(labels.crop.grid)
        keypoints = KeypointsCard(
            names=list(labels.keypoint_names),
            skeleton=list(labels.skeleton),
            sigma_px=sigma_px,
            window_px=max(1, round(WINDOW_SIGMAS * sigma_px)),
        )
    if labels.depth is not None:
        depth = DepthCard(unit=labels.depth_unit)
    heads = head_cards(interpreter)
    return InterpreterCard(
        format=1,
        kind="interpreter",
        generator_sha256=generator_sha256,
        tap_recipe=tap_recipe,
        features=interpreter.head(heads[0].kind).config.features,
        grid=labels.crop.grid,
        crop_top=labels.crop.top,
        height=labels.crop.height,
        width=labels.crop.width,
        resize=config.resize,
        score_source=heads[0].kind,
        licences=licences,
        provenance={
            "by": "python -m training interpreter",
            "images": len(labels),
            **{k: v for k, v in asdict(config).items() if isinstance(v, str | int | float)},
        },
        heads=heads,
        segmentation=segmentation,
        keypoints=keypoints,
        depth=depth,
    )
