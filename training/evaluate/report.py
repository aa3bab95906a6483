"""An evaluation -> a table for the terminal, evaluation.json and evaluation.png."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from checkpoints import write_text
from training.evaluate.evaluation import Evaluation
from training.evaluate.metrics import PCK_ALPHA, Scores
from training.evaluate.sparsification import PixelTenths, Sparsification

INK, BLUE, ORANGE, GRAY = "#20242c", "#1f6fe0", "#e07a1f", "#9aa0a8"
ERRORS = {
    "segmentation": "share of wrong pixels",
    "keypoints": "mean keypoint distance, px",
    "depth": "depth RMSE",
}


def lines_from_evaluation(evaluation: Evaluation) -> list[str]:
    """Lines of a table: one row per measure, one column for all images and one for those kept."""
    columns = [evaluation.all] + ([evaluation.kept] if evaluation.kept is not None else [])
    lines = [f"{'':<24}" + "".join(f"{title:>10}" for title in ["all", "kept"][: len(columns)])]
    lines.append(f"{'images':<24}" + "".join(f"{scores.images:>10}" for scores in columns))
    lines += [
        f"{name:<24}" + "".join(f"{values[name]:>10.3f}" for values in map(_measures, columns))
        for name in _measures(evaluation.all)
        if not np.isnan(_measures(evaluation.all)[name])
    ]
    for i, name in enumerate(evaluation.class_names):
        lines.append(f"  IoU {name:<18}" + "".join(f"{s.iou[i]:>10.3f}" for s in columns))
    if evaluation.kept is not None:
        left_out = evaluation.all.images - evaluation.kept.images
        lines += [
            "",
            f"kept: all but the most uncertain tenth, {left_out} of {_images(evaluation)}",
        ]
    if evaluation.sparsification is not None:
        lines += ["", *_sparsification_lines(evaluation, evaluation.sparsification)]
    return lines


def write_report(folder: Path, evaluation: Evaluation, trained_on: list[str] | None = None) -> None:
    """Writes evaluation.json and evaluation.png to the folder.

    `trained_on`: names of the images that the interpreter was trained on; None: unknown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {**numbers_from_evaluation(evaluation), "trained_on": trained_on}
    text = json.dumps(numbers, indent=1)
    write_text(folder / "evaluation.json", text + "\n")
    figure: Any = figure_from_evaluation(evaluation)  # matplotlib does not annotate savefig
    figure.savefig(folder / "evaluation.png", dpi=110)


def numbers_from_evaluation(evaluation: Evaluation) -> dict[str, object]:
    """Contents of evaluation.json; None where there is no true label."""
    numbers: dict[str, object] = {"all": _numbers(evaluation, evaluation.all)}
    if evaluation.kept is not None:
        numbers["kept"] = _numbers(evaluation, evaluation.kept)
    if evaluation.sparsification is not None:
        numbers["calibration"] = {
            "score_source": evaluation.card.score_source,
            "score_measure": _measure_of(evaluation),
            "spearman": _or_none(evaluation.sparsification.correlation),
            "error": _or_none(evaluation.sparsification.error),
            "error_without_tenth": _or_none(evaluation.sparsification.error_without_tenth),
            "oracle_without_tenth": _or_none(evaluation.sparsification.oracle_without_tenth),
        }
    return numbers


def figure_from_evaluation(evaluation: Evaluation) -> Figure:
    """Up to three plots side by side: IoU by class, images and pixels by uncertainty."""
    plots: list[Callable[[Axes], None]] = []
    if evaluation.class_names:
        plots.append(lambda axes: _plot_classes(axes, evaluation))
    if (sparsification := evaluation.sparsification) is not None and len(sparsification.kept) > 1:
        plots.append(lambda axes: _plot_images(axes, evaluation, sparsification))
    if (tenths := evaluation.pixel_tenths) is not None:
        plots.append(lambda axes: _plot_pixels(axes, tenths))
    figure = Figure(figsize=(5.2 * max(len(plots), 1), 4.2), layout="constrained")
    for i, plot in enumerate(plots):
        axes = figure.add_subplot(1, len(plots), i + 1)
        axes.spines[["top", "right"]].set_visible(False)
        plot(axes)
    return figure


def _measures(scores: Scores) -> dict[str, float]:
    return {
        "mIoU": scores.miou,
        f"PCK at {PCK_ALPHA}": scores.pck,
        "keypoint error, px": scores.keypoint_error_px,
        "depth RMSE": scores.depth_rmse,
        "depth AbsRel": scores.depth_abs_rel,
    }


def _numbers(evaluation: Evaluation, scores: Scores) -> dict[str, object]:
    return {
        "images": scores.images,
        "iou": dict(zip(evaluation.class_names, map(_or_none, scores.iou), strict=True)),
        "miou": _or_none(scores.miou),
        "pck": _or_none(scores.pck),
        "keypoint_error_px": _or_none(scores.keypoint_error_px),
        "depth_rmse": _or_none(scores.depth_rmse),
        "depth_abs_rel": _or_none(scores.depth_abs_rel),
    }


def _measure_of(evaluation: Evaluation) -> str:
    classes = evaluation.card.score_source == "segmentation"
    return evaluation.card.score_measure if classes else "variance"


def _sparsification_lines(evaluation: Evaluation, sparsification: Sparsification) -> list[str]:
    source = evaluation.card.score_source
    assert source is not None  # else there is no sparsification
    before, after = sparsification.error, sparsification.error_without_tenth
    left_out, images = sparsification.left_out, sparsification.images
    lines = [
        f"uncertainty of {source} ({_measure_of(evaluation)}) against {ERRORS[source]}, over "
        f"{images} images:",
        f"  rank correlation {sparsification.correlation:.2f}",
    ]
    if left_out == 0:
        return [*lines, f"  error {before:.4g}; a tenth of {images} images is none to leave out"]
    course = "stays at" if after == before else "falls to" if after < before else "rises to"
    change = 0.0 if before == 0 else abs(1 - after / before)
    less = "less" if after <= before else "more"
    return [
        *lines,
        f"  error {before:.4g} {course} {after:.4g} ({change:.0%} {less}) without the most "
        f"uncertain {left_out} of {images}",
        f"  error {sparsification.oracle_without_tenth:.4g} without the worst {left_out} of "
        f"{images}, the best that any uncertainty can do",
    ]


def _images(evaluation: Evaluation) -> str:
    count = evaluation.all.images
    return f"{count} image" if count == 1 else f"{count} images"


def _plot_classes(axes: Axes, evaluation: Evaluation) -> None:
    names, iou = evaluation.class_names, np.nan_to_num(evaluation.all.iou)
    places = np.arange(len(names))
    axes.barh(places, iou, color=BLUE)
    if evaluation.kept is not None:
        kept = np.nan_to_num(evaluation.kept.iou)
        axes.plot(kept, places, "|", color=ORANGE, markersize=14, markeredgewidth=2.5)
    if len(names) <= 40:
        axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    kept_images = (
        "" if evaluation.kept is None else f" (orange: of the {evaluation.kept.images} kept)"
    )
    axes.set_xlabel(f"IoU of {_images(evaluation)}{kept_images}")
    axes.set_title(f"mIoU {evaluation.all.miou:.3f}")


def _plot_images(axes: Axes, evaluation: Evaluation, sparsification: Sparsification) -> None:
    dropped: NDArray[np.float64] = 1 - sparsification.kept
    axes.plot(dropped, sparsification.by_score, color=BLUE, label="most uncertain first")
    axes.plot(dropped, sparsification.by_error, color=GRAY, label="worst first (oracle)")
    axes.axhline(sparsification.error, color=INK, linewidth=0.8, linestyle=":", label="at random")
    share = sparsification.left_out / sparsification.images
    left_out = f"{sparsification.left_out} of {sparsification.images} left out"
    axes.axvline(share, color=ORANGE, linewidth=0.8, label=left_out)
    axes.set_xlim(0, 0.9)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("share of images left out")
    source = evaluation.card.score_source
    axes.set_ylabel("" if source is None else ERRORS[source])
    axes.set_title(f"images: rank correlation {sparsification.correlation:.2f}")
    axes.legend(frameon=False)


def _plot_pixels(axes: Axes, tenths: PixelTenths) -> None:
    places = np.arange(1, len(tenths.wrong) + 1)
    axes.bar(places, tenths.wrong, color=BLUE)
    axes.set_xticks(places)
    axes.set_xlabel("pixels by uncertainty, in tenths")
    axes.set_ylabel("share of wrong labels")
    axes.set_title("pixels: where the errors are")


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
