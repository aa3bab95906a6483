"""Doubtful inversions are found, and none disappears without a line."""

import msgspec
import numpy as np
import pytest
import torch

from training.inversion.optimise import Inversion, LatentEstimate
from training.inversion.report import (
    AcceptanceConfig,
    InversionReport,
    reasons_to_doubt,
    report_of_inversion,
    table_of_report,
)
from training.inversion.sheet import sheet_from_entries
from training.sheet import ALARM, GAP, LINE_PX

PSNR = [30.0, 30.4, 29.8, 30.1, 29.9, 20.0, 30.2]
NAMES = [f"{i}.png" for i in range(len(PSNR))]


def fit(psnr: list[float], perceptual: list[float] | None = None, step: int = 0) -> LatentEstimate:
    n = len(psnr)
    return LatentEstimate(
        torch.zeros(n, 2, 3),
        torch.ones(n),
        torch.full((n,), 0.1) if perceptual is None else torch.tensor(perceptual),
        torch.tensor(psnr),
        torch.full((n,), step),
    )


def inversion(best: LatentEstimate) -> Inversion:
    failed = torch.zeros(len(best.loss), dtype=torch.bool)
    return Inversion(fit([9.0] * len(failed)), best, fit([8.0] * len(failed)), failed)


def doubted(
    psnr: list[float], acceptance: AcceptanceConfig, perceptual: list[float] | None = None
) -> set[int]:
    made = fit(psnr, perceptual)
    reasons = reasons_to_doubt(made, torch.zeros(len(psnr), dtype=torch.bool), acceptance)
    return {i for i, reason in enumerate(reasons) if reason}


def test_an_image_far_below_the_median_is_doubted() -> None:
    assert doubted(PSNR, AcceptanceConfig()) == {5}
    assert doubted(PSNR, AcceptanceConfig(max_mads=100)) == set()
    assert doubted([30.0] * 7, AcceptanceConfig(), [0.1, 0.1, 0.11, 0.1, 0.1, 0.1, 0.3]) == {6}


def test_images_that_are_nearly_alike_are_not_doubted() -> None:
    assert doubted([30.0, 30, 30, 30, 30, 29.3], AcceptanceConfig()) == set()
    assert doubted([30.0] * 6, AcceptanceConfig(), [0.1, 0.1, 0.1, 0.1, 0.1, 0.105]) == set()


def test_few_images_have_no_usual() -> None:
    assert doubted([30.0, 30, 30, 10], AcceptanceConfig()) == set()


def test_a_least_psnr_is_held() -> None:
    assert doubted(PSNR, AcceptanceConfig(min_psnr_db=30.05, max_mads=100)) == {0, 2, 4, 5}


def test_a_failed_image_is_failed_and_does_not_count_as_usual() -> None:
    made = fit([*PSNR, float("nan")])
    failed = torch.tensor([False] * 7 + [True])
    found = Inversion(made, made, made, failed)
    report = report_of_inversion(found, [*NAMES, "bad.png"], AcceptanceConfig(on_bad="drop"), {})
    assert [e.verdict for e in report.images] == ["kept"] * 5 + ["dropped", "kept", "failed"]
    assert report.images[7].reason == "its loss was not finite"
    assert report.images[7].best.psnr_db is None


def test_the_report_is_json_that_can_be_read_again() -> None:
    found = inversion(fit([*PSNR[:6], float("inf")], step=7))
    report = report_of_inversion(found, NAMES, AcceptanceConfig(), {"by": "x"})
    again = msgspec.json.decode(msgspec.json.encode(report), type=InversionReport)
    assert again == report and again.images[5].verdict == "flagged"
    assert again.images[0].best.step == 7 and again.images[6].best.psnr_db is None


@pytest.mark.parametrize(("keep", "psnr"), [("best", 20.0), ("last", 8.0)])
def test_the_kept_latents_are_judged(keep: str, psnr: float) -> None:
    acceptance = AcceptanceConfig(keep="best" if keep == "best" else "last", min_psnr_db=25)
    report = report_of_inversion(inversion(fit(PSNR)), NAMES, acceptance, {})
    assert f"PSNR {psnr:.1f} dB, under 25" == report.images[5].reason


def test_the_table_has_a_line_for_every_image_and_says_why() -> None:
    report = report_of_inversion(inversion(fit(PSNR)), NAMES, AcceptanceConfig(), {})
    lines = table_of_report(report, "encoder").splitlines()
    assert len(lines) == 8 and "encoder" in lines[0]
    assert "flagged: PSNR 20.0 dB, the median is 30.0" in lines[6]


def test_the_sheet_marks_the_doubtful_row_alone() -> None:
    report = report_of_inversion(inversion(fit(PSNR)), NAMES, AcceptanceConfig(), {})
    grey = np.full((7, 12, 16, 3), 128, np.uint8)
    sheet = sheet_from_entries(report.images, "encoder", "best", (grey, grey, grey))
    pixels = np.array(sheet)
    rows = np.flatnonzero((pixels == ALARM).all(axis=2).any(axis=1))
    head = GAP + LINE_PX + GAP
    pitch = (pixels.shape[0] - head - GAP) / 7
    assert set(((rows - head) // pitch).astype(int)) == {5}
