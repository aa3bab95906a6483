"""The demo's measurements: errors of the streamed labels, and the effect of the filter."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from examples.demo.render import render
from examples.demo.scene import CLASS_NAMES, Z_DIM, scene_from_latents
from examples.demo.score import DepthScore, LabelScore, score_depth, score_labels
from labelmint import Batch
from labelmint.latents import Purpose, latents


@dataclass(frozen=True)
class StreamedSamples:
    """All samples of a finished stream."""

    indices: NDArray[np.uint64]  # [n]
    images: NDArray[np.uint8]  # [n, H, W, 3]
    masks: NDArray[np.uint8]  # [n, H, W]
    keypoints: NDArray[np.float32]  # [n, K, 3]
    depth: NDArray[np.float16]  # [n, H, W]
    uncertainty: NDArray[np.float32]  # [n]


def samples_from_stream(batches: Iterable[Batch], expected: int) -> StreamedSamples:
    """Reads a stream of about `expected` samples to its end, with a progress bar."""
    parts = []
    with tqdm(total=expected, desc="stream", unit="sample") as bar:
        for batch in batches:
            parts.append(batch)
            bar.update(len(batch.indices))
    return StreamedSamples(
        np.concatenate([p.indices for p in parts]),
        np.concatenate([p.images for p in parts]),
        np.concatenate([p.masks for p in parts]),
        np.concatenate([p.keypoints for p in parts]),
        np.concatenate([p.depth for p in parts]),
        np.concatenate([p.uncertainty for p in parts]),
    )


def compare_streams(
    unfiltered: StreamedSamples, filtered: StreamedSamples, max_uncertainty: float, end_index: int
) -> None:
    """Exits with a message unless the filtered stream, of the indices below `end_index`, equals
    the unfiltered samples of these indices that are below the threshold."""
    examined = unfiltered.indices < end_index
    kept = examined & (unfiltered.uncertainty <= np.float32(max_uncertainty))
    same = np.array_equal(unfiltered.indices[kept], filtered.indices) and all(
        np.array_equal(getattr(unfiltered, name)[kept], getattr(filtered, name))
        for name in ("images", "masks", "keypoints", "depth", "uncertainty")
    )
    if not same:
        raise SystemExit("the filtered stream is not the kept part of the unfiltered one")
    print(
        f"the filtered stream delivered exactly the {kept.sum()} kept of {examined.sum()} samples"
    )


def print_report(
    samples: StreamedSamples, max_uncertainty: float, seed: int, seconds: float
) -> None:
    """Prints the errors of all, kept and discarded samples."""
    z = torch.from_numpy(latents(seed, Purpose.OBJECT, samples.indices, Z_DIM))
    # One ray per pixel: only labels are compared, not images.
    truth = render(scene_from_latents(z, z), samples.masks.shape[1], supersampling=1)
    true_masks, true_keypoints = truth.mask.numpy(), truth.keypoints.numpy()
    true_depth = truth.depth.numpy()
    kept = samples.uncertainty <= np.float32(max_uncertainty)

    def score(rows: NDArray[np.bool_]) -> LabelScore:
        return score_labels(
            samples.masks[rows], samples.keypoints[rows],
            true_masks[rows], true_keypoints[rows], len(CLASS_NAMES),
        )  # fmt: skip

    def depth_score(rows: NDArray[np.bool_]) -> DepthScore:
        return score_depth(samples.depth[rows], true_depth[rows], true_masks[rows])

    groups = {"all": np.ones_like(kept), "kept": kept, "discarded": ~kept}
    scores = {name: score(rows) for name, rows in groups.items()}
    depths = [depth_score(rows) for rows in groups.values()]
    correlation = np.corrcoef(samples.uncertainty, scores["all"].pixel_error)[0, 1]
    print(f"\n{len(kept) / seconds:.1f} samples/s over gRPC, first request included")
    print(f"kept {kept.sum()}, discarded {(~kept).sum()} at uncertainty {max_uncertainty:.4f}")
    print(f"correlation of uncertainty with the share of wrong pixels: {correlation:.2f}\n")
    print(f"{'':12}" + "".join(f"{name:>12}" for name in scores))
    rows = {
        "samples": [f"{s.samples}" for s in scores.values()],
        "mIoU": [f"{s.miou:.3f}" for s in scores.values()],
        "wrong pixels": [f"{s.pixel_error.mean():.2%}" for s in scores.values()],
        "keypoints px": [f"{s.keypoint_error_px:.2f}" for s in scores.values()],
        "depth RMSE": [f"{d.rmse:.3f}" for d in depths],
        "depth AbsRel": [f"{d.abs_rel:.2%}" for d in depths],
    }
    for class_id, name in enumerate(CLASS_NAMES):
        rows[name] = [f"{s.iou[class_id]:.3f}" for s in scores.values()]
    for name, cells in rows.items():
        print(f"{name:12}" + "".join(f"{cell:>12}" for cell in cells))
