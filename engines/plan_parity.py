"""How far an engine may be from ONNX Runtime on the CPU in float32, and how far one is."""

from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from bundle.manifest import GeneratorFacts
from engines.errors import PlanDiffers
from engines.protocol import Engine, Mapping
from engines.sampling import default_options, ws_from_indices

Precision = Literal["float32", "float16"]
Arrays = dict[str, NDArray[Any]]
SEED = 2**63  # far from what users draw


class PlanParity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Measured differences; null: the bundle has no such output. Units as in the manifest."""

    reference: str  # "onnxruntime-cpu", float32
    batch_size: int  # each has kernels of its own
    samples: int
    image_max_steps: int  # uint8 steps
    image_share_within_1: float
    mask_mismatch_share: float | None  # of all pixels; members nearly at a tie are not left out
    uncertainty_max_excess: float | None  # max of |difference| / (1e-6 + 1e-5 |reference|)
    keypoints_p95_px: float | None  # the highest twentieth left out: peaks nearly at a tie
    depth_max_relative: float | None  # in units of the sample's largest |depth|


@dataclass(frozen=True)
class PlanTolerance:
    """The most an engine may differ, except for the share, which is the least."""

    image_max_steps: int
    image_share_within_1: float
    mask_mismatch_share: float
    uncertainty_max_excess: float
    keypoints_p95_px: float
    depth_max_relative: float


TOLERANCES: dict[Precision, PlanTolerance] = {
    # Room for sums in another order, which near-ties of the members magnify.
    "float32": PlanTolerance(1, 1.0, 1e-3, 100.0, 0.01, 2e-3),
    # As export accepts of the half graph, with the near-ties that it leaves out.
    "float16": PlanTolerance(16, 0.9, 0.02, 1e4, 0.5, 0.02),
}


def parity_rows(mapping: Mapping, generator: GeneratorFacts, samples: int) -> NDArray[np.float32]:
    """The rows of w+ that engines are compared on."""
    drawn = default_options(generator, SEED)
    return ws_from_indices(mapping, generator, drawn, np.arange(samples, dtype=np.uint64))


def parity_of_arrays(
    reference: str, expected: Arrays, found: Arrays, batch_size: int
) -> PlanParity:
    """Compares all outputs of the same rows, each [n, ...]."""
    steps = np.abs(expected["image"].astype(np.int16) - found["image"].astype(np.int16))
    return PlanParity(
        reference=reference,
        batch_size=batch_size,
        samples=len(steps),
        image_max_steps=int(steps.max()),
        image_share_within_1=float((steps <= 1).mean()),
        mask_mismatch_share=_of("mask", expected, found, _mismatch),
        uncertainty_max_excess=_of("uncertainty", expected, found, _excess),
        keypoints_p95_px=_of("keypoints", expected, found, _distance),
        depth_max_relative=_of("depth", expected, found, _relative),
    )


def refuse_difference(parity: PlanParity, precision: Precision) -> None:
    """Raises PlanDiffers naming the figure, its value and the limit."""
    limits = TOLERANCES[precision]
    for name in PlanTolerance.__dataclass_fields__:
        value, limit = getattr(parity, name), getattr(limits, name)
        share = name == "image_share_within_1"
        if value is None or (value >= limit if share else value <= limit):  # a NaN is neither
            continue
        words = "at least {:.4g} is needed" if share else "at most {:.4g} is accepted"
        raise PlanDiffers(
            f"the {precision} engine differs from {parity.reference} in batches of "
            f"{parity.batch_size}: {name} is {value:.4g}, {words.format(limit)}; it is not kept"
        )


def unfiltered_arrays(engine: Engine, ws: NDArray[np.float32]) -> Arrays:
    """All outputs of all rows of ws, in as many runs as it takes."""
    batch = engine.batch_sizes[-1]
    parts = []
    for start in range(0, len(ws), batch):
        rows = ws[start : start + batch]
        everything = np.full(len(rows), np.inf, np.float32)
        parts.append(engine.run(rows, everything, engine.outputs).arrays)
    return {name: np.concatenate([part[name] for part in parts]) for name in engine.outputs}


def _of(name: str, expected: Arrays, found: Arrays, figure: Any) -> float | None:
    return float(figure(expected[name], found[name])) if name in expected else None


def _mismatch(expected: NDArray[Any], found: NDArray[Any]) -> Any:
    return (expected != found).mean()


def _excess(expected: NDArray[Any], found: NDArray[Any]) -> Any:
    difference = np.abs(found.astype(np.float64) - expected)
    return (difference / (1e-6 + 1e-5 * np.abs(expected.astype(np.float64)))).max()


def _distance(expected: NDArray[Any], found: NDArray[Any]) -> Any:
    return np.quantile(np.abs(expected - found)[..., :2].max(axis=-1), 0.95)


def _relative(expected: NDArray[Any], found: NDArray[Any]) -> Any:
    wide = expected.astype(np.float64)
    scale = np.maximum(np.abs(wide).max(axis=(1, 2), keepdims=True), np.finfo(np.float16).tiny)
    return (np.abs(found.astype(np.float64) - wide) / scale).max()
