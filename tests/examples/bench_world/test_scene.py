"""Scenes of the bench world have exactly the declared chances, and neighbors that share colors."""

import numpy as np
import pytest
import scipy
import torch
from numpy.typing import NDArray

from examples.bench_world.render import render_sample
from examples.bench_world.scene import (
    CLASS_NAMES,
    EARRING,
    EYEPATCH,
    KEYPOINT_NAMES,
    PALETTE,
    PLASTER,
    RARE_SHARES,
    SHARED_COLORS,
    SKELETON,
    Z_DIM,
    scene_from_latents,
    scene_of_sample,
    uniforms_from_latent,
)
from examples.demo.labels import truth_of_indices
from labelmint.latents import Purpose, latents


def test_every_coordinate_is_uniform() -> None:
    rows = latents(5, Purpose.OBJECT, np.arange(800), Z_DIM)
    uniforms = np.array([uniforms_from_latent(z) for z in rows])
    least = min(scipy.stats.kstest(column, "uniform").pvalue for column in uniforms.T)
    assert least > 1e-3 / Z_DIM


def assert_within_binomial_bounds(found: int, count: int, share: float) -> None:
    law = scipy.stats.binom(count, share)
    assert min(law.cdf(found), law.sf(found - 1)) > 1e-4, (found, count, share)


def test_rare_parts_have_their_shares() -> None:
    scenes = [scene_of_sample(1, i) for i in range(1500)]
    assert_within_binomial_bounds(sum(s.earrings for s in scenes), 1500, RARE_SHARES[EARRING])
    assert_within_binomial_bounds(sum(s.eyepatch != 0 for s in scenes), 1500, RARE_SHARES[EYEPATCH])
    assert_within_binomial_bounds(sum(s.plaster != 0 for s in scenes), 1500, RARE_SHARES[PLASTER])


@pytest.mark.slow
def test_the_rarest_part_has_its_share() -> None:
    count = 20_000
    found = sum(scene_of_sample(2, i).plaster != 0 for i in range(count))
    assert_within_binomial_bounds(found, count, RARE_SHARES[PLASTER])
    assert found > 0


def test_the_camera_comes_from_the_view_latent_alone() -> None:
    a, b = latents(0, Purpose.OBJECT, [0, 1], Z_DIM)
    own, mixed, other = (scene_from_latents(v, c) for v, c in ((a, a), (a, b), (b, b)))
    assert (own.azimuth, own.elevation) == (mixed.azimuth, mixed.elevation)
    assert mixed.azimuth != other.azimuth
    assert (mixed.yaw, mixed.light, mixed.hands) == (other.yaw, other.light, other.hands)
    with pytest.raises(ValueError, match=r"\(5,\).*must be \(96,\)"):
        scene_from_latents(np.zeros(5), np.zeros(5))


def recall_by_color(
    images: list[NDArray[np.uint8]], masks: list[NDArray[np.uint8]], classes: int
) -> NDArray[np.float64]:
    """Mean recall of each class seen: nearest mean in chromaticity, with an image's own means."""
    hits, images_with = np.zeros(classes), np.zeros(classes)
    for image, mask in zip(images, masks, strict=True):
        color = image.reshape(-1, 3).astype(float)
        color /= np.maximum(np.linalg.norm(color, axis=1, keepdims=True), 1)
        truth = mask.ravel()
        present = [k for k in range(classes) if (truth == k).sum() >= 8]
        means = np.array([color[truth == k].mean(axis=0) for k in present])
        found = np.array(present)[((color[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)]
        for k in present:
            hits[k] += (found[truth == k] == k).mean()
            images_with[k] += 1
    recall: NDArray[np.float64] = hits[images_with > 0] / images_with[images_with > 0]
    return recall


def test_color_alone_tells_the_demos_parts_apart_but_not_these() -> None:
    count = 8
    bench = [render_sample(3, i) for i in range(count)]
    shared = [k for group in SHARED_COLORS for k in group]
    masks = [np.where(np.isin(t.mask, shared), t.mask, 255).astype(np.uint8) for t in bench]
    recall = recall_by_color([t.image for t in bench], masks, len(CLASS_NAMES))
    heads = truth_of_indices(3, np.arange(count), 128)
    pictures = ((heads.image.permute(0, 2, 3, 1) + 1) * 127.5).to(torch.uint8).numpy()
    easy = recall_by_color(list(pictures), list(heads.mask.numpy()), 8)
    assert easy.mean() > 0.9
    assert recall.mean() < 0.55


def test_neighbors_have_one_color_and_others_their_own() -> None:
    assert sum(len(group) for group in SHARED_COLORS) >= len(CLASS_NAMES) / 2
    colors = scene_of_sample(0, 0).colors
    for group in SHARED_COLORS:
        assert (colors[list(group)] == colors[group[0]]).all()
    firsts = colors[[group[0] for group in SHARED_COLORS]]
    assert len(np.unique(firsts, axis=0)) == len(SHARED_COLORS)


def test_names_palette_and_skeleton_belong_together() -> None:
    assert len(CLASS_NAMES) >= 20
    assert len(PALETTE) == len(CLASS_NAMES) == len(set(PALETTE))
    assert all(0 <= i < len(KEYPOINT_NAMES) for bone in SKELETON for i in bone)
