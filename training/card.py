"""What a fit leaves behind besides weights: the interpreter's card."""

from dataclasses import asdict

from checkpoints import (
    ClassCard,
    InterpreterCard,
    KeypointsCard,
    SegmentationCard,
    head_cards,
)
from nets.config import TapRecipe
from nets.interpreter import Interpreter
from training.fit_interpreter import FitConfig
from training.labelled_set import LabelledSet

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
    """The card of a fitted ensemble; its score is the segmentation head's."""
    size = labels.masks.shape[1]
    names = labels.names
    keypoints = None
    if labels.keypoints is not None:
        keypoints = KeypointsCard(
            names=list(names.keypoints),
            skeleton=list(names.skeleton),
            sigma_px=config.sigma_px,
            window_px=round(WINDOW_SIGMAS * config.sigma_px),
        )
    return InterpreterCard(
        format=1,
        kind="interpreter",
        generator_sha256=generator_sha256,
        tap_recipe=tap_recipe,
        features=interpreter.head("segmentation").config.features,
        grid=size,
        crop_top=0,
        height=size,
        width=size,
        resize="bilinear",
        score_source="segmentation",
        licences=licences,
        made={"by": "python -m training interpreter", "images": len(labels), **asdict(config)},
        heads=head_cards(interpreter),
        segmentation=SegmentationCard(
            classes=[ClassCard(name=name, color=color) for name, color in names.classes]
        ),
        keypoints=keypoints,
    )
