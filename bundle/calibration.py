"""Uncertainty thresholds from the calibrations in a manifest, and the commands that measure."""

import hashlib
import math
import shlex
import struct
from pathlib import Path

from bundle.errors import NotCalibrated
from bundle.manifest import ContentTable, Manifest, SamplingKey, ScoreCalibration


def shortest_float32(value: float) -> float:
    """The number with the fewest decimal digits that rounds to the same float32 as `value`.

    Keys and files hold this form, so that 0.7 as float32 reads 0.7.
    """
    target = float32_from_float(value)
    for digits in range(1, 9):  # nine digits are always enough
        candidate = float(f"{value:.{digits}g}")
        if float32_from_float(candidate) == target:
            return candidate
    return float(f"{value:.9g}")


def float32_from_float(value: float) -> float:
    """Rounds to the nearest float32, infinite beyond its range."""
    try:
        rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)
    return rounded


def find_calibration(manifest: Manifest, key: SamplingKey) -> ScoreCalibration | None:
    """The calibration whose options equal `key`; None without one."""
    return next((c for c in manifest.calibrations if c.options == key), None)


def calibration_for(manifest: Manifest, key: SamplingKey, path: Path) -> ScoreCalibration:
    """The calibration whose options equal `key`. Raises NotCalibrated, with the command to run."""
    found = find_calibration(manifest, key)
    if found is None:
        raise NotCalibrated(
            f"{path} is not calibrated for {_words(key)}; run: "
            + calibrate_command(path, key, bank=manifest.views is not None)
        )
    return found


def content_table_for(manifest: Manifest, key: SamplingKey, path: Path) -> ContentTable:
    """The content table for options that equal `key`. Raises NotCalibrated, with the command to
    run."""
    found = calibration_for(manifest, key, path)
    if found.content is None:
        raise NotCalibrated(
            f"the calibration of {path} for {_words(key)} has no content, because an older version "
            "made it; run: "
            + calibrate_command(path, key, found.samples, bank=manifest.views is not None)
            + " --replace"
        )
    return found.content


def calibrate_command(path: Path, key: SamplingKey, samples: int = 4096, bank: bool = False) -> str:
    """Command line that calibrates the bundle at `path` for `key`.

    `bank` says whether the bundle has a view bank.
    """
    words = [f"python -m export calibrate {shlex.quote(str(path))} --samples {samples}"]
    words += _truncation_words(key)
    if key.views_per_object != 1:
        words.append(f"--views {key.views_per_object}")
    if key.view_mode == "fixed":
        words.append(f"--view {key.view}")
    elif key.view_mode == "random" or (bank and key.views_per_object != 1):
        words.append(f"--view {key.view_mode}")
    if key.latent_source != "philox":
        words.append(f"--latents {key.latent_source}")
    return " ".join(words)


def directions_command(path: Path, name: str, where: str, key: SamplingKey) -> str:
    """Command line that fits a proposal anew for `where`, with truncation and class of `key`."""
    words = [f"python -m training directions --bundle {shlex.quote(str(path))}"]
    words += [f"--name {name} --replace --for {shlex.quote(where)}"]
    return " ".join([*words, *_truncation_words(key)])


def edit_command(path: Path, name: str, changes: str, key: SamplingKey) -> str:
    """Command line that learns a direction anew for a class, with truncation and class of `key`."""
    words = [f"python -m training directions --bundle {shlex.quote(str(path))}"]
    words += [f"--name {name} --replace --edit {shlex.quote(changes)}"]
    return " ".join([*words, *_truncation_words(key)])


def _truncation_words(key: SamplingKey) -> list[str]:
    words = [f"--psi {key.truncation_psi}", f"--cutoff {key.truncation_cutoff}"]
    return words if key.class_index is None else [*words, f"--class {key.class_index}"]


def threshold_for(calibration: ScoreCalibration, keep_fraction: float) -> float:
    """The uncertainty threshold that keeps about `keep_fraction` of the samples.

    Samples at or below the threshold are kept. It is a float32 value, interpolated linearly
    between quantiles: quantiles [1, 2, 4] and keep_fraction 0.75 give 3. A keep_fraction of 1
    gives inf. Raises ValueError outside (0, 1].
    """
    if not 0 < keep_fraction <= 1:
        raise ValueError(f"keep_fraction is {keep_fraction}; it must be in (0, 1]")
    if keep_fraction == 1:
        return math.inf
    position = keep_fraction * (len(calibration.quantiles) - 1)
    below = int(position)
    low, high = calibration.quantiles[below : below + 2]
    return float32_from_float(low + (high - low) * (position - below))


def digest_of_thresholds(calibration: ScoreCalibration) -> str:
    """SHA-256, in hexadecimal: another one if any `threshold_for` may be another one."""
    values = calibration.quantiles
    return hashlib.sha256(struct.pack(f"<{len(values)}d", *values)).hexdigest()


def _words(key: SamplingKey) -> str:
    return (
        f"{key.latent_source} latents, psi {key.truncation_psi}, "
        f"cutoff {key.truncation_cutoff}, "
        f"{'drawn classes' if key.class_index is None else f'class {key.class_index}'}, "
        f"{key.views_per_object} view(s) per object{_view_words(key)}"
    )


def _view_words(key: SamplingKey) -> str:
    if key.view_mode == "fixed":
        return f", view {key.view} of the bank"
    return "" if key.view_mode == "drawn" else f", {key.view_mode} views"
