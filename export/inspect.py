"""A bundle in words, for people."""

import msgspec

from bundle.fused import FUSED, fused_from_folder
from bundle.manifest import LABELLER, Calibration, Heads, Parity, Refiner, Views
from bundle.open import Bundle
from export.parity import TOLERANCES, W_MAX_DIFFERENCE


def lines_from_bundle(bundle: Bundle) -> list[str]:
    """What the bundle makes, how well it agrees with the reference, what it is calibrated for."""
    manifest = bundle.manifest
    generator, labels = manifest.generator, manifest.labels
    size = sum(entry.size for entry in manifest.files.values()) / 1e6
    lines = [
        f"{bundle.path}: {manifest.bundle_id}",
        f"  generator    {generator.family}, {generator.resolution} px, "
        f"w+ [{generator.num_ws}, {generator.w_dim}], view rows {generator.view_layers}, "
        f"psi {generator.truncation_psi}, cutoff {generator.truncation_cutoff}",
        f"  files        {', '.join(sorted(manifest.files))} ({size:.1f} MB)",
        f"  licences     {', '.join(manifest.licences) or 'none stated'}",
    ]
    if labels is not None and manifest.heads is not None:
        lines.append(f"  labels       {labels.height} x {labels.width} px")
        lines += _head_lines(manifest.heads)
    if manifest.refiner is not None:
        lines.append(f"  refiner      {_refiner_words(manifest.refiner)}")
    if manifest.views is not None:
        lines.append(f"  views        {_views_words(manifest.views)}")
    if FUSED in manifest.files:
        fused = fused_from_folder(bundle.path)
        gpus = ", ".join(fused.programs)
        lines.append(f"  fused        kernels for compute capability {gpus} ({fused.compiler})")
    lines += [f"  parity       {_parity_words(parity)}" for parity in manifest.parity]
    lines += [f"  calibration  {_calibration_words(c)}" for c in manifest.calibrations]
    return lines


def _head_lines(heads: Heads) -> list[str]:
    lines = []
    if heads.segmentation is not None:
        names = ", ".join(c.name for c in heads.segmentation.classes)
        lines.append(f"  segmentation {heads.segmentation.members} members: {names}")
    if heads.keypoints is not None:
        names = ", ".join(heads.keypoints.names)
        lines.append(f"  keypoints    {heads.keypoints.members} members: {names}")
    if heads.depth is not None:
        lines.append(f"  depth        {heads.depth.members} members, in {heads.depth.unit}")
    score = heads.score_source or "none, so filtering is refused"
    return [*lines, f"  score        {score}"]


def _refiner_words(refiner: Refiner) -> str:
    return (
        f"{refiner.blocks} blocks of width {refiner.width}, grain {refiner.grain}, held by "
        f"{refiner.regulariser}; moved images by {refiner.shift_px:.2f} px in training"
    )


def _views_words(views: Views) -> str:
    words = f"{views.codes} in the bank"
    for name, field in (("azimuth", "azimuth_deg"), ("elevation", "elevation_deg")):
        known = [getattr(camera, field) for camera in views.cameras or ()]
        known = [value for value in known if value is not None]
        if known:
            words += f", {name} {min(known):.0f} to {max(known):.0f} degrees"
    return words if views.cameras else f"{words}, cameras not known"


def _parity_words(parity: Parity) -> str:
    precisions = {file: precision for precision, file in LABELLER.items()}
    tolerance = TOLERANCES.get(precisions.get(parity.graph, ""))
    figures = []
    for name, value in msgspec.structs.asdict(parity).items():
        if not isinstance(value, float | int) or name == "samples":
            continue
        limit = W_MAX_DIFFERENCE if name == "w_max_difference" else getattr(tolerance, name, None)
        figures.append(f"{name} {value:.3g}" + ("" if limit is None else f" (limit {limit:g})"))
    return f"{parity.graph} ({parity.runtime}, {parity.samples} samples): {', '.join(figures)}"


def _calibration_words(calibration: Calibration) -> str:
    options = calibration.options
    q = calibration.quantiles
    views = {
        "drawn": f"{options.views_per_object} view(s)",
        "bank": f"{options.views_per_object} views of the bank",
        "fixed": f"view {options.view} of the bank",
        "random": "random views of the bank",
    }
    chosen = "drawn" if options.class_index is None else str(options.class_index)
    return (
        f"{options.latent_source}, psi {options.truncation_psi}, cutoff "
        f"{options.truncation_cutoff}, class {chosen}, {views[options.view_mode]}: "
        f"{calibration.samples} samples, median {q[len(q) // 2]:.4g}"
    )
