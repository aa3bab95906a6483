"""An evaluation -> a table for the terminal, numbers for programs, a picture for people."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from checkpoints import write_text
from training.evaluate.evaluation import FRACTION_KEPT, Evaluation
from training.evaluate.metrics import PCK_ALPHA, Scores
from training.evaluate.sparsification import Calibration, PixelCalibration

INK, BLUE, ORANGE, GREY = "#20242c", "#1f6fe0", "#e07a1f", "#9aa0a8"
ERRORS = {
    "segmentation": "share of wrong pixels",
    "keypoints": "mean keypoint distance, px",
    "depth": "depth RMSE",
}


def lines_from_evaluation(evaluation: Evaluation) -> list[str]:
    """The table: a row for each measure, all images and those the filter keeps."""
    columns = [evaluation.all] + ([evaluation.kept] if evaluation.kept is not None else [])
    titles = ["all", f"kept {FRACTION_KEPT:.0%}"][: len(columns)]
    lines = [f"{'':<24}" + "".join(f"{title:>10}" for title in titles)]
    lines.append(f"{'images':<24}" + "".join(f"{scores.images:>10}" for scores in columns))
    lines += [
        f"{name:<24}" + "".join(f"{values[name]:>10.3f}" for values in map(_measures, columns))
        for name in _measures(evaluation.all)
        if not np.isnan(_measures(evaluation.all)[name])
    ]
    for i, name in enumerate(evaluation.class_names):
        lines.append(f"  IoU {name:<18}" + "".join(f"{s.iou[i]:>10.3f}" for s in columns))
    if evaluation.calibration is not None:
        lines += ["", *_calibration_lines(evaluation, evaluation.calibration)]
    return lines


def write_report(folder: Path, evaluation: Evaluation) -> None:
    """Writes evaluation.json and evaluation.png."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(numbers_from_evaluation(evaluation), indent=1)
    write_text(folder / "evaluation.json", text + "\n")
    figure: Any = figure_from_evaluation(evaluation)  # its savefig has no types
    figure.savefig(folder / "evaluation.png", dpi=110)


def numbers_from_evaluation(evaluation: Evaluation) -> dict[str, object]:
    """Every number of the report; null where there was nothing to measure."""
    numbers: dict[str, object] = {"all": _numbers(evaluation, evaluation.all)}
    if evaluation.kept is not None:
        numbers["kept"] = _numbers(evaluation, evaluation.kept)
    if evaluation.calibration is not None:
        numbers["calibration"] = {
            "score_source": evaluation.card.score_source,
            "spearman": _or_none(evaluation.calibration.correlation),
            "error": _or_none(evaluation.calibration.error),
            "error_without_tenth": _or_none(evaluation.calibration.error_without_tenth),
            "oracle_without_tenth": _or_none(evaluation.calibration.oracle_without_tenth),
        }
    return numbers


def figure_from_evaluation(evaluation: Evaluation) -> Figure:
    """Up to three plots side by side: classes, images by uncertainty, pixels by uncertainty."""
    plots: list[Callable[[Axes], None]] = []
    if evaluation.class_names:
        plots.append(lambda axes: _plot_classes(axes, evaluation))
    if (calibration := evaluation.calibration) is not None and len(calibration.kept) > 1:
        plots.append(lambda axes: _plot_images(axes, evaluation, calibration))
    if (pixels := evaluation.pixels) is not None:
        plots.append(lambda axes: _plot_pixels(axes, pixels))
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


def _calibration_lines(evaluation: Evaluation, calibration: Calibration) -> list[str]:
    source = evaluation.card.score_source
    assert source is not None  # else there is no calibration
    before, after = calibration.error, calibration.error_without_tenth
    oracle = calibration.oracle_without_tenth
    gain = 0.0 if before == 0 else 1 - after / before
    return [
        f"uncertainty of {source} against {ERRORS[source]}:",
        f"  rank correlation {calibration.correlation:.2f}",
        f"  without the most uncertain tenth {before:.4g} becomes {after:.4g} ({gain:.0%} less); "
        f"without the worst tenth {oracle:.4g}",
    ]


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
    axes.set_xlabel(f"IoU of all images (orange: of the {FRACTION_KEPT:.0%} kept)")
    axes.set_title(f"mIoU {evaluation.all.miou:.3f}")


def _plot_images(axes: Axes, evaluation: Evaluation, calibration: Calibration) -> None:
    dropped: NDArray[np.float64] = 1 - calibration.kept
    axes.plot(dropped, calibration.by_score, color=BLUE, label="most uncertain first")
    axes.plot(dropped, calibration.by_error, color=GREY, label="worst first (oracle)")
    axes.axhline(calibration.error, color=INK, linewidth=0.8, linestyle=":", label="at random")
    axes.axvline(1 - FRACTION_KEPT, color=ORANGE, linewidth=0.8)
    axes.set_xlim(0, 0.9)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("share of images left out")
    source = evaluation.card.score_source
    axes.set_ylabel("" if source is None else ERRORS[source])
    axes.set_title(f"images: rank correlation {calibration.correlation:.2f}")
    axes.legend(frameon=False)


def _plot_pixels(axes: Axes, pixels: PixelCalibration) -> None:
    places = np.arange(1, len(pixels.wrong) + 1)
    axes.bar(places, pixels.wrong, color=BLUE)
    axes.set_xticks(places)
    axes.set_xlabel("pixels by uncertainty, in tenths")
    axes.set_ylabel("share of wrong labels")
    axes.set_title("pixels: where the errors are")


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
