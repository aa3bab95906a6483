"""The demo's labels are as good as promised, and its filter drops the worse ones.

Over gRPC, from the committed generator, against the renderer's exact truth.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from examples.demo.render import render
from examples.demo.report import StreamedSamples, samples_from_stream
from examples.demo.scene import CLASS_NAMES, Z_DIM, scene_from_latents
from examples.demo.score import LabelScore, score_labels
from examples.demo.serving import server
from labelmint import Client
from labelmint.latents import Purpose, latents

pytestmark = pytest.mark.timeout(900)
SEED = 99
SAMPLES = 2000


@pytest.fixture(scope="module")
def streamed(demo_bundle: Path) -> tuple[StreamedSamples, float]:
    """2,000 fresh samples and the threshold of keep_fraction 0.9."""
    # A thread, and not one per core: other tests have the others.
    with server(demo_bundle, "--threads", "1") as address, Client(address) as client:
        threshold = client.model(keep_fraction=0.9).max_uncertainty
        batches = client.stream(batch_size=50, seed=SEED, count=SAMPLES)
        samples = samples_from_stream(batches, SAMPLES)
    assert threshold is not None
    return samples, threshold


def score(samples: StreamedSamples, rows: np.ndarray) -> LabelScore:
    z = torch.from_numpy(latents(SEED, Purpose.OBJECT, samples.indices[rows], Z_DIM))
    # One ray a pixel: masks and keypoints are asked for, no images.
    truth = render(scene_from_latents(z, z), samples.masks.shape[1], supersampling=1)
    return score_labels(
        samples.masks[rows],
        samples.keypoints[rows],
        truth.mask.numpy(),
        truth.keypoints.numpy(),
        len(CLASS_NAMES),
    )


def test_keep_fraction_keeps_that_share_and_the_better_labels(
    streamed: tuple[StreamedSamples, float],
) -> None:
    samples, threshold = streamed
    kept = samples.uncertainty <= np.float32(threshold)
    assert 0.875 <= kept.mean() <= 0.925
    better, worse = score(samples, kept), score(samples, ~kept)
    assert better.pixel_error.mean() < worse.pixel_error.mean()


def test_labels_of_16_examples_reach_the_promised_quality(
    streamed: tuple[StreamedSamples, float],
) -> None:
    samples, _ = streamed
    rows = np.arange(SAMPLES) < 500
    result = score(samples, rows)
    assert result.miou >= 0.75
    assert result.iou.min() >= 0.5, dict(zip(CLASS_NAMES, result.iou, strict=True))
    correlation = np.corrcoef(samples.uncertainty[rows], result.pixel_error)[0, 1]
    assert correlation > 0.3
