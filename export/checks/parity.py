"""Outputs of an exported graph and of the reference -> their differences, checked against limits.

The reference (export.checks.reference) evaluates the papers' formulas in eager torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.manifest import LABELLER, Parity
from engines.content import CONTENT, content_excess
from export.errors import ParityError
from labelmint.predicate import Statistic

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Tolerance:
    """Limits on the differences of one graph; bundle.manifest.Parity has the units."""

    image_max_steps: int
    image_share_within_1: float  # lower limit
    near_tie_margin: float  # logits: pixels whose best class leads by less are not compared
    mask_mismatch_share: float
    uncertainty_max_excess: float
    near_peak_margin: float  # keypoints whose heatmap maximum leads by less are not compared
    keypoints_max_px: float
    depth_max_relative: float
    content_excess: float = 1.0


W_MAX_DIFFERENCE = 1e-5  # largest difference of the mapping's output, relative to the largest |w|
# Depth is stored in float16, where one step is 1e-3 of the value.
TOLERANCES = {
    "float32": Tolerance(
        image_max_steps=1,
        image_share_within_1=1.0,
        near_tie_margin=1e-4,
        mask_mismatch_share=0.0,
        uncertainty_max_excess=1.0,
        near_peak_margin=1e-4,
        keypoints_max_px=0.01,
        depth_max_relative=2e-3,
    ),
    "float16": Tolerance(
        image_max_steps=16,
        image_share_within_1=0.9,
        near_tie_margin=0.01,  # a rounding of logits of about 10: half precision has 11 bits
        mask_mismatch_share=5e-3,  # random weights at published sizes: up to 3.3e-3 of all pixels
        uncertainty_max_excess=1e4,  # 0.01 nats + 10 %
        near_peak_margin=0.01,
        keypoints_max_px=0.5,
        depth_max_relative=0.02,
    ),
}


def parity_of_labeller(
    graph: str,
    runtime: str,
    reference: Arrays,
    served: Arrays,
    tolerance: Tolerance,
    columns: Sequence[Statistic],
) -> Parity:
    """Compares outputs of n samples, arrays [n, ...] by name; the served content with the other
    served outputs.

    reference: outputs of `reference_outputs`, which include the margins of masks and keypoints.
    served: outputs of the graph; heads that the bundle lacks are absent.
    columns: what its content is.
    """
    steps = np.abs(reference["image"].astype(np.int16) - served["image"].astype(np.int16))
    difference = mismatch = near_ties = None
    if "mask" in served:
        near = reference["mask_margin"] < tolerance.near_tie_margin
        near_ties = float(near.mean())
        other = reference["mask"] != served["mask"]
        difference, mismatch = float(other.mean()), float((other & ~near).mean())
    return Parity(
        graph=graph,
        runtime=runtime,
        samples=len(steps),
        w_max_difference=None,
        image_max_steps=int(steps.max()),
        image_share_within_1=float((steps <= 1).mean()),
        mask_mismatch_share=mismatch,
        near_tie_share=near_ties,
        uncertainty_max_excess=_uncertainty_excess(reference, served),
        keypoints_max_px=_keypoint_distance(reference, served, tolerance),
        depth_max_relative=_depth_difference(reference, served),
        content_excess=content_excess(served[CONTENT], served, columns) if columns else None,
        mask_difference_share=difference,
    )


def parity_of_mapping(
    graph: str, runtime: str, reference: NDArray[np.float32], served: NDArray[np.float32]
) -> Parity:
    """Compares rows of w, float32 [n, w_dim] each."""
    return Parity(
        graph=graph,
        runtime=runtime,
        samples=len(served),
        w_max_difference=float(np.abs(reference - served).max() / np.abs(reference).max()),
        image_max_steps=None,
        image_share_within_1=None,
        mask_mismatch_share=None,
        near_tie_share=None,
        uncertainty_max_excess=None,
        keypoints_max_px=None,
        depth_max_relative=None,
    )


def refuse_excess(parity: Parity, tolerance: Tolerance) -> None:
    """Raises ParityError, which names the graph, the value and the limit, for the first excess."""
    limits: dict[str, tuple[float | None, float]] = {
        "w_max_difference": (parity.w_max_difference, W_MAX_DIFFERENCE),
        "image_max_steps": (parity.image_max_steps, tolerance.image_max_steps),
        "mask_mismatch_share": (parity.mask_mismatch_share, tolerance.mask_mismatch_share),
        "uncertainty_max_excess": (parity.uncertainty_max_excess, tolerance.uncertainty_max_excess),
        "keypoints_max_px": (parity.keypoints_max_px, tolerance.keypoints_max_px),
        "depth_max_relative": (parity.depth_max_relative, tolerance.depth_max_relative),
        "content_excess": (parity.content_excess, tolerance.content_excess),
    }
    for name, (value, limit) in limits.items():
        if value is not None and not value <= limit:  # true for NaN, so that NaN is refused
            raise ParityError(
                f"{parity.graph} differs from the reference: {name} is {value:.4g}, at most "
                f"{limit:.4g} is accepted; {_advice(parity)}"
            )
    share, minimum = parity.image_share_within_1, tolerance.image_share_within_1
    if share is not None and not share >= minimum:
        raise ParityError(
            f"{parity.graph} differs from the reference: image_share_within_1 is {share:.4g}, at "
            f"least {minimum:.4g} is needed; {_advice(parity)}"
        )


def _advice(parity: Parity) -> str:
    """The end of the message: what happened to the export and what the user can do."""
    if parity.graph == LABELLER["float16"]:
        return "the bundle is not written; --no-half leaves this graph out"
    return "the bundle is not written"


def _uncertainty_excess(reference: Arrays, served: Arrays) -> float | None:
    if "uncertainty" not in served:
        return None
    expected = reference["uncertainty"].astype(np.float64)
    difference = np.abs(served["uncertainty"].astype(np.float64) - expected)
    return float((difference / (1e-6 + 1e-5 * np.abs(expected))).max())


def _keypoint_distance(reference: Arrays, served: Arrays, tolerance: Tolerance) -> float | None:
    if "keypoints" not in served:
        return None
    distance = np.abs(reference["keypoints"] - served["keypoints"])[..., :2].max(axis=-1)
    clear = reference["keypoints_margin"] >= tolerance.near_peak_margin  # [n, K]
    return float(distance.max(where=clear, initial=0.0))


def _depth_difference(reference: Arrays, served: Arrays) -> float | None:
    if "depth" not in served:
        return None
    expected = reference["depth"].astype(np.float64)
    scale = np.abs(expected).max(axis=(1, 2), keepdims=True)
    return float((np.abs(served["depth"].astype(np.float64) - expected) / scale).max())
