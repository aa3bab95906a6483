"""Inversion -> report.json and a text table: quality of each image, and which ones are doubtful.

An image is doubtful when its PSNR is below a limit, or when its PSNR or perceptual distance is
far worse than the median of all images.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from checkpoints import write_text
from training.inversion.optimise import Inversion, LatentEstimate

MIN_IMAGES = 5  # with fewer, a median says nothing and no image is an outlier
PSNR_FLOOR_DB = 1.0  # an image this close to the median PSNR is no outlier
PERCEPTUAL_FLOOR = 0.1  # the same for the perceptual distance, as a share of the median
SCALE_OF_MAD = 1.4826  # median absolute deviation -> standard deviation of normal values

Keep = Literal["best", "last"]
OnBad = Literal["drop", "flag"]
Provenance = dict[str, str | int | float | bool | None]  # written as `made`


@dataclass(frozen=True)
class AcceptanceConfig:
    """Which latents are kept, when they are doubtful, and what happens to doubtful ones."""

    keep: Keep = "best"
    on_bad: OnBad = "flag"
    min_psnr_db: float | None = None
    max_mads: float = 3.0  # standard deviations, estimated by the MAD, worse than the median


class EstimateScores(msgspec.Struct, frozen=True):
    """Scores of one image at one LatentEstimate; None where not finite."""

    psnr_db: float | None
    perceptual: float | None
    loss: float | None
    step: int  # updates before this estimate


class ImageReport(msgspec.Struct, frozen=True, kw_only=True):
    """Report of one image."""

    image: str  # file name
    start: EstimateScores
    best: EstimateScores
    last: EstimateScores
    verdict: Literal["kept", "flagged", "dropped", "failed"]
    reason: str | None = None  # for every verdict but "kept"


class InversionReport(msgspec.Struct, frozen=True):
    """Content of report.json."""

    format: Literal[1]
    made: Provenance  # as in index.json
    images: list[ImageReport]


def report_of_inversion(
    inversion: Inversion,
    names: list[str],
    acceptance: AcceptanceConfig,
    provenance: Provenance,
) -> InversionReport:
    """Scores and verdict of every image."""
    kept = kept_estimate(inversion, acceptance.keep)
    reasons = reasons_to_doubt(kept, inversion.failed, acceptance)
    bad: Literal["flagged", "dropped"] = "flagged" if acceptance.on_bad == "flag" else "dropped"
    return InversionReport(
        1,
        provenance,
        [
            ImageReport(
                image=name,
                start=_scores(inversion.start, i),
                best=_scores(inversion.best, i),
                last=_scores(inversion.last, i),
                verdict="failed" if inversion.failed[i] else bad if reasons[i] else "kept",
                reason=reasons[i],
            )
            for i, name in enumerate(names)
        ],
    )


def kept_estimate(inversion: Inversion, keep: Keep) -> LatentEstimate:
    """The estimate whose latents are written."""
    return inversion.best if keep == "best" else inversion.last


def reasons_to_doubt(
    estimate: LatentEstimate, failed: Tensor, acceptance: AcceptanceConfig
) -> list[str | None]:
    """For each image, why it is doubtful; None: it is not. `failed` is bool [n]."""
    psnr, perceptual = estimate.psnr_db.double().numpy(), estimate.perceptual.double().numpy()
    valid = ~failed.numpy()
    psnr_outlier = _outliers(-psnr, valid, acceptance.max_mads, PSNR_FLOOR_DB)
    median = float(np.median(perceptual[valid])) if valid.any() else 0.0
    perceptual_outlier = _outliers(
        perceptual, valid, acceptance.max_mads, PERCEPTUAL_FLOOR * median
    )
    reasons: list[str | None] = []
    for i in range(len(psnr)):
        words = []
        if not valid[i]:
            words = ["its loss was not finite"]
        elif acceptance.min_psnr_db is not None and psnr[i] < acceptance.min_psnr_db:
            words = [f"PSNR {psnr[i]:.1f} dB, under {acceptance.min_psnr_db:g}"]
        elif psnr_outlier[i]:
            words = [f"PSNR {psnr[i]:.1f} dB, the median is {np.median(psnr[valid]):.1f}"]
        if valid[i] and perceptual_outlier[i]:
            words += [f"perceptual {perceptual[i]:.3f}, the median is {median:.3f}"]
        reasons.append("; ".join(words) or None)
    return reasons


def _outliers(
    badness: NDArray[np.float64],  # [n], higher is worse
    valid: NDArray[np.bool_],  # [n], images that define the median
    max_mads: float,
    floor: float,  # smallest excess over the median that can make an outlier
) -> NDArray[np.bool_]:
    """Images that are worse than the median by more than `max_mads` scaled MADs, bool [n]."""
    counted = badness[valid]
    if len(counted) < MIN_IMAGES:
        return np.zeros(len(badness), bool)
    excess = badness - np.median(counted)
    deviation = SCALE_OF_MAD * float(np.median(np.abs(counted - np.median(counted))))
    return np.asarray(excess > max(max_mads * deviation, floor))


def _scores(estimate: LatentEstimate, row: int) -> EstimateScores:
    def finite(values: Tensor) -> float | None:
        return round(float(values[row]), 5) if values[row].isfinite() else None

    return EstimateScores(
        finite(estimate.psnr_db),
        finite(estimate.perceptual),
        finite(estimate.loss),
        int(estimate.step[row]),
    )


def table_of_report(report: InversionReport, start_name: str) -> str:
    """Aligned text, one line per image; PSNR in dB of start, best and last."""
    width = max(len("image"), *(len(entry.image) for entry in report.images))
    titles = " ".join(f"{title:>11}" for title in (start_name, "best", "last", "perceptual"))
    lines = [f"{'image':{width}} {titles} {'step':>5}"]
    for entry in report.images:
        psnrs = " ".join(_db(f.psnr_db) for f in (entry.start, entry.best, entry.last))
        perceptual = entry.best.perceptual
        shown = f"{perceptual:11.4f}" if perceptual is not None else f"{'-':>11}"
        note = "" if entry.reason is None else f"  {entry.verdict}: {entry.reason}"
        lines.append(f"{entry.image:{width}} {psnrs} {shown} {entry.best.step:5}{note}")
    return "\n".join(lines)


def _db(value: float | None) -> str:
    return f"{'-':>11}" if value is None else f"{value:8.1f} dB"


def write_report(folder: Path, report: InversionReport) -> None:
    """Writes report.json."""
    text = msgspec.json.format(msgspec.json.encode(report), indent=1).decode()
    write_text(folder / "report.json", text + "\n")
