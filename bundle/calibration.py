"""Which uncertainty keeps which share of samples, from the quantiles in the manifest."""

import math
import shlex
import struct
from pathlib import Path

from bundle.errors import NotCalibrated
from bundle.manifest import Calibration, Manifest, SamplingKey


def shortest_float32(value: float) -> float:
    """The shortest decimal that is `value` as a float32: one form for keys and files."""
    target = float32_from_float(value)
    for digits in range(1, 9):  # nine always suffice
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


def find_calibration(manifest: Manifest, key: SamplingKey) -> Calibration | None:
    """The calibration for exactly this key."""
    return next((c for c in manifest.calibrations if c.options == key), None)


def calibration_for(manifest: Manifest, key: SamplingKey, path: Path) -> Calibration:
    """The calibration for this key; raises NotCalibrated with the command that makes it."""
    found = find_calibration(manifest, key)
    if found is None:
        raise NotCalibrated(
            f"{path} is not calibrated for {_words(key)}; run: "
            + calibrate_command(path, key, bank=manifest.views is not None)
        )
    return found


def calibrate_command(path: Path, key: SamplingKey, samples: int = 4096, bank: bool = False) -> str:
    """The exact command line that calibrates the bundle at `path`, with a view bank or without
    one, for this key."""
    words = [f"python -m export calibrate {shlex.quote(str(path))} --samples {samples}"]
    words += [f"--psi {key.truncation_psi}", f"--cutoff {key.truncation_cutoff}"]
    if key.class_index is not None:
        words.append(f"--class {key.class_index}")
    if key.views_per_object != 1:
        words.append(f"--views {key.views_per_object}")
    if key.view_mode == "fixed":
        words.append(f"--view {key.view}")
    elif key.view_mode == "random" or (bank and key.views_per_object != 1):
        words.append(f"--view {key.view_mode}")
    if key.latent_source != "philox":
        words.append(f"--latents {key.latent_source}")
    return " ".join(words)


def threshold_for(calibration: Calibration, keep_fraction: float) -> float:
    """The largest uncertainty that is kept so that about `keep_fraction` of samples are.

    A float32 value, interpolated between quantiles; 1 keeps everything and gives inf.
    Raises ValueError outside (0, 1].
    """
    if not 0 < keep_fraction <= 1:
        raise ValueError(f"keep_fraction is {keep_fraction}; it must be in (0, 1]")
    if keep_fraction == 1:
        return math.inf
    position = keep_fraction * (len(calibration.quantiles) - 1)
    below = int(position)
    low, high = calibration.quantiles[below : below + 2]
    return float32_from_float(low + (high - low) * (position - below))


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
