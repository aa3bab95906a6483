"""What reviewed samples prove about the labels that a threshold keeps: reviews -> a certificate.

Losses are shares of wrong pixels, from 0 to 1, of samples in the order of their stream. The four
thresholds are fixed by samples that nobody reviews, before the first loss is known. What they prove
is in `bundle.certificate`: whoever opens a bundle computes it again.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from bundle.calibration import find_calibration, float32_from_float, threshold_for
from bundle.certificate import (
    CONFIDENCE,
    KEEP,
    Losses,
    certified_thresholds,
    most_capital,
    problem_of_certificate,
)
from bundle.files import read_regular_file
from bundle.manifest import (
    Certificate,
    Manifest,
    ScoreMeasure,
    WeightsFacts,
)
from bundle.records import one_line, problem_from_json
from engines.sampling import default_options, key_from_options
from export.errors import ExportError

MOST_REVIEWS = 1 << 13  # that are ever asked for
PILOT = 32  # first samples of the stream, which may fix the thresholds and are not reviewed
SEED_DIGITS = 12  # of the weights' hash
MAX_FILE_BYTES = 4 << 20
STATEMENT = (
    "With a probability of 95 percent over the reviewed samples, all upper bounds hold at once. "
    "Each is about the mean share of wrong pixels, as the reviewer would judge, among all samples "
    "of this generator that the threshold keeps, with the ensemble's labels as PyTorch computes "
    "them. "
    "expected_risk is the bound of conformal risk control: it holds on average, for a number of "
    "reviews that is fixed beforehand, and a discarded sample counts as one without an error."
)


def seed_from_hash(interpreter_sha256: str) -> int:
    """Seed of the stream that weights are reviewed on, so that nobody can choose the samples."""
    return int(interpreter_sha256[:SEED_DIGITS], 16)


def thresholds_from_pilot(uncertainties: NDArray[np.floating]) -> list[float | None]:
    """The uncertainty that a sample of each share of KEEP has at most; None keeps every sample.

    `uncertainties` are those of samples outside the review, which makes the thresholds independent
    of it. They have four digits, so that one can type them.
    """
    return [
        None if share == 1 else float(f"{np.quantile(uncertainties, share):.4g}") for share in KEEP
    ]


def thresholds_of_bundle(manifest: Manifest) -> list[float | None] | None:
    """Those of keep_fraction for each share of KEEP, as requests get them; None for a bundle
    that is not calibrated for its default sampling options."""
    found = find_calibration(manifest, key_from_options(default_options(manifest.generator)))
    if found is None:
        return None
    # A request's keep_fraction is a float32: 0.9 gives another threshold there than as a double.
    shares = [float32_from_float(share) for share in KEEP]
    return [None if share == 1 else threshold_for(found, share) for share in shares]


def is_kept(uncertainty: float, threshold: float | None) -> bool:
    """Whether a threshold keeps a sample."""
    return threshold is None or uncertainty <= threshold


def certificate_from_reviews(
    losses: Losses, uncertainties: Losses, thresholds: Sequence[float | None],
    weights: WeightsFacts, psi: float, cutoff: int, measure: ScoreMeasure = "jensen_shannon",
) -> Certificate:  # fmt: skip
    """The certificate of reviews [n] of the first samples of the weights' stream after PILOT."""
    assert weights.interpreter_sha256 is not None  # reviewed weights are one file
    return Certificate(
        format=1,
        statement=STATEMENT,
        confidence=CONFIDENCE,
        generator_sha256=weights.generator_sha256,
        interpreter_sha256=weights.interpreter_sha256,
        seed=seed_from_hash(weights.interpreter_sha256),
        truncation_psi=psi,
        truncation_cutoff=cutoff,
        first_index=PILOT,
        thresholds=certified_thresholds(losses, uncertainties, thresholds, KEEP),
        uncertainties=uncertainties.tolist(),
        losses=losses.tolist(),
        score_measure=measure,
    )


def certificate_from_file(path: Path) -> Certificate:
    """Reads a certificate, and computes again what its reviews prove. Raises ExportError, OSError.

    That the reviews were made, and by whom, is not in the file to be checked.
    """
    data = read_regular_file(path, MAX_FILE_BYTES)
    if len(data) > MAX_FILE_BYTES:
        raise ExportError(f"{path} has over {MAX_FILE_BYTES} bytes; it is no certificate")
    try:
        certificate = msgspec.json.decode(data, type=Certificate)
    except msgspec.ValidationError as error:
        raise ExportError(f"{path}: {problem_from_json(error, data, Certificate)}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ExportError(f"{path} is not JSON: {one_line(error)}") from error
    problem = problem_of_certificate(certificate) or _problem_of_fixed(certificate)
    if problem:
        raise ExportError(f"{path}: {problem}")
    return certificate


def _problem_of_fixed(certificate: Certificate) -> str | None:
    fixed = {
        "statement": STATEMENT,
        "seed": seed_from_hash(certificate.interpreter_sha256),
        "first_index": PILOT,
    }
    for field, expected in fixed.items():
        if getattr(certificate, field) != expected:
            value = str(getattr(certificate, field))[:80]
            return f"{field} is {value!r}; of these weights it is {str(expected)[:80]!r}"
    return None


def refuse_misfit(manifest: Manifest, certificate: Certificate, bundle: Path, path: Path) -> None:
    """Raises ExportError unless the certificate speaks of the weights of this bundle."""
    weights = manifest.weights
    if weights is None or weights.interpreter_sha256 is None:
        raise ExportError(
            f"{bundle} does not name one file of label weights, so that no certificate can belong "
            "to it; export it again from a .safetensors"
        )
    if manifest.refiner is not None:
        raise ExportError(
            f"{bundle} refines its images, and {path} is about labels on images that are not; "
            "export it without --refiner"
        )
    for name in ("interpreter_sha256", "generator_sha256"):
        given, expected = getattr(certificate, name), getattr(weights, name)
        if given != expected:
            raise ExportError(
                f"{path} is of weights with {name} {given[:16]}..., {bundle} has "
                f"{expected[:16]}...; review samples of these weights"
            )
    measure = manifest.heads.score_measure if manifest.heads else "jensen_shannon"
    if certificate.score_measure != measure:
        raise ExportError(
            f"{path} is of uncertainties by {certificate.score_measure}, {bundle} scores by "
            f"{measure}; export it with --score-measure {certificate.score_measure}"
        )


def more_reviews(kept: Losses, drawn: int, error: float, delta: float) -> int | None:
    """How many more samples of the stream bring the bound to `error`, if their losses are like the
    kept ones so far, or all right if there are none; None: over MOST_REVIEWS, or no number does.

    An estimate, which proves nothing. `drawn` samples have been reviewed, kept or not.
    """
    share = max(len(kept), 1) / max(drawn, 1)
    again = kept if len(kept) else np.zeros(1)
    most = MOST_REVIEWS - len(kept)

    def enough(extra: int) -> bool:
        losses = np.concatenate([kept, np.resize(again, extra)])
        return len(losses) > 0 and most_capital(losses, error) >= 1 / delta

    if enough(0):
        return 0
    if most < 1 or not enough(most):
        return None
    low, high = 0, most
    while high - low > max(1, high // 50):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return int(np.ceil(high / share))
