"""How well each image was inverted, and which are doubtful: report.json and a table."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from checkpoints import write_text
from training.inversion.optimise import Fit, Inversion

FEWEST = 5  # images, for a median to say what is usual
PSNR_FLOOR_DB = 1.0  # an image this close to the median is as good as it
PERCEPTUAL_FLOOR = 0.1  # the same, as a share of the median
SCALE_OF_MAD = 1.4826  # to the standard deviation, for normal values

Keep = Literal["best", "last"]
OnBad = Literal["drop", "flag"]


@dataclass(frozen=True)
class Judgement:
    """What makes an inversion doubtful, and what then."""

    keep: Keep = "best"
    on_bad: OnBad = "flag"
    min_psnr_db: float | None = None
    max_mads: float = 3.0  # worse than the median by more of these deviations


class Figures(msgspec.Struct, frozen=True):
    """Of one image at one point of its way; absent where not finite."""

    psnr_db: float | None
    perceptual: float | None
    loss: float | None
    step: int  # updates before it


class ImageReport(msgspec.Struct, frozen=True, kw_only=True):
    """One image."""

    image: str  # file name of the picture
    start: Figures
    best: Figures
    last: Figures
    verdict: Literal["kept", "flagged", "dropped", "failed"]
    reason: str | None = None  # of any verdict but kept


class Report(msgspec.Struct, frozen=True):
    """report.json."""

    format: Literal[1]
    made: dict[str, str | int | float | bool | None]  # how, as in index.json
    images: list[ImageReport]


def report_of_inversion(
    inversion: Inversion,
    names: list[str],
    judgement: Judgement,
    made: dict[str, str | int | float | bool | None],
) -> Report:
    """Figures and verdict of every image."""
    kept = kept_fit(inversion, judgement.keep)
    reasons = reasons_to_doubt(kept, inversion.failed, judgement)
    bad: Literal["flagged", "dropped"] = "flagged" if judgement.on_bad == "flag" else "dropped"
    return Report(
        1,
        made,
        [
            ImageReport(
                image=name,
                start=_figures(inversion.start, i),
                best=_figures(inversion.best, i),
                last=_figures(inversion.last, i),
                verdict="failed" if inversion.failed[i] else bad if reasons[i] else "kept",
                reason=reasons[i],
            )
            for i, name in enumerate(names)
        ],
    )


def kept_fit(inversion: Inversion, keep: Keep) -> Fit:
    """The latents that are kept."""
    return inversion.best if keep == "best" else inversion.last


def reasons_to_doubt(fit: Fit, failed: Tensor, judgement: Judgement) -> list[str | None]:
    """Why each image is doubtful, in words; None: it is not."""
    psnr, perceptual = fit.psnr_db.double().numpy(), fit.perceptual.double().numpy()
    fine = ~failed.numpy()
    too_low = _outliers(-psnr, fine, judgement.max_mads, PSNR_FLOOR_DB)
    usual = float(np.median(perceptual[fine])) if fine.any() else 0.0
    too_far = _outliers(perceptual, fine, judgement.max_mads, PERCEPTUAL_FLOOR * usual)
    reasons: list[str | None] = []
    for i in range(len(psnr)):
        words = []
        if not fine[i]:
            words = ["its loss was not finite"]
        elif judgement.min_psnr_db is not None and psnr[i] < judgement.min_psnr_db:
            words = [f"PSNR {psnr[i]:.1f} dB, under {judgement.min_psnr_db:g}"]
        elif too_low[i]:
            words = [f"PSNR {psnr[i]:.1f} dB, the median is {np.median(psnr[fine]):.1f}"]
        if fine[i] and too_far[i]:
            words += [f"perceptual {perceptual[i]:.3f}, the median is {usual:.3f}"]
        reasons.append("; ".join(words) or None)
    return reasons


def _outliers(
    badness: NDArray[np.float64],  # [n], higher is worse
    fine: NDArray[np.bool_],  # [n], which of them count
    max_mads: float,
    floor: float,  # differences under it are none
) -> NDArray[np.bool_]:
    counted = badness[fine]
    if len(counted) < FEWEST:
        return np.zeros(len(badness), bool)
    above = badness - np.median(counted)
    spread = SCALE_OF_MAD * float(np.median(np.abs(counted - np.median(counted))))
    return np.asarray(above > max(max_mads * spread, floor))


def _figures(fit: Fit, row: int) -> Figures:
    def finite(values: Tensor) -> float | None:
        return round(float(values[row]), 5) if values[row].isfinite() else None

    return Figures(
        finite(fit.psnr_db), finite(fit.perceptual), finite(fit.loss), int(fit.step[row])
    )


def table_of_report(report: Report, start_name: str) -> str:
    """Aligned text, a line for each image."""
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


def write_report(folder: Path, report: Report) -> None:
    """report.json."""
    text = msgspec.json.format(msgspec.json.encode(report), indent=1).decode()
    write_text(folder / "report.json", text + "\n")
