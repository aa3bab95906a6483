"""A trained interpreter and its settings -> the card written beside its weights."""

from dataclasses import asdict

from checkpoints import (
    DepthCard,
    InterpreterCard,
    KeypointsCard,
    SegmentationCard,
    TrainedOnCard,
    head_cards,
)
from nets.config import TapRecipe, stated_start
from nets.interpreter import Interpreter
from nets.labels import Measure
from training.images.image_set import sha256_of_array
from training.interpreter.config import USUAL_MEASURE, InterpreterTrainConfig
from training.labels.labelled_set import LabelledSet

# Radius of the centroid window in heatmap sigmas: holds one keypoint's peak and no neighboring one.
WINDOW_SIGMAS = 2
DIGITS = 16  # of a hash in a card: 64 bits tell all images apart
MAX_RECORDED = 10_000  # images; they take 420 kB of a card, which may have 1 MiB


def card_from_fit(
    interpreter: Interpreter,
    labels: LabelledSet,
    config: InterpreterTrainConfig,
    generator_sha256: str,
    tap_recipe: TapRecipe,
    licences: list[str],
    score_measure: Measure = USUAL_MEASURE,
) -> InterpreterCard:
    """Card of a trained ensemble; its uncertainty score is that of the first head, of classes by
    `score_measure`."""
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
        crop_top=labels.crop.crop_top,
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
        trained_on=trained_on_card(labels),
        start=stated_start(labels.crop.start),
        score_measure=score_measure if heads[0].kind == "segmentation" else "jensen_shannon",
    )


def trained_on_card(labels: LabelledSet) -> TrainedOnCard | None:
    """The images of a set; None for a set without hashes, and for one too large for a card."""
    if not labels.pixels_sha256 or len(labels) > MAX_RECORDED:
        return None
    return TrainedOnCard(
        pixels=[pixels[:DIGITS] for pixels in labels.pixels_sha256],
        latents=[sha256_of_array(row)[:DIGITS] for row in labels.ws],
    )


def images_trained_on(card: InterpreterCard, labels: LabelledSet) -> list[str] | None:
    """Stems of the images of `labels` that the interpreter was trained on, by their pixels or
    their latents; None if its card does not record them."""
    if card.trained_on is None:
        return None
    known = {*card.trained_on.pixels, *card.trained_on.latents}
    found = set()
    for stem, row in zip(labels.stems, labels.ws, strict=True):
        if sha256_of_array(row)[:DIGITS] in known:
            found.add(stem)
    for stem, pixels in zip(labels.stems, labels.pixels_sha256, strict=False):
        if pixels[:DIGITS] in known:
            found.add(stem)
    return sorted(found)
