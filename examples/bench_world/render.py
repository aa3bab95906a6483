"""Exact images and labels of the bench world, as a function of (seed, index) alone.

A scene enters; image, albedo, mask, instances, keypoints and depth leave. Images are rendered one
by one, so that no batch can change them.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

from examples.bench_world.parts import parts_and_landmarks
from examples.bench_world.scene import Floats, Scene, scene_of_sample
from examples.bench_world.shading import light_on_surface, surface_of_hits
from examples.bench_world.trace import (
    Float32s,
    View,
    camera_of,
    first_hits,
    pixel_centers,
    projected,
    view_of_parts,
)

RESOLUTION = 128
SUPERSAMPLING = 2
# A landmark lies on its surface but for rounding; the next surface is farther in front of it.
SEEN_WITHIN = 3e-3
CHUNK = 16  # images that a process renders before it hands them over


@dataclass(frozen=True)
class Truth:
    """One image of R x R pixels and its labels; all but the image are of the pixels' centers."""

    image: NDArray[np.uint8]  # [R, R, 3], anti-aliased
    albedo: NDArray[np.uint8]  # [R, R, 3], the surface's color without light
    mask: NDArray[np.uint8]  # [R, R], class ids
    instance: NDArray[np.uint8]  # [R, R], from 1 within the class
    keypoints: Float32s  # [K, 3]: x, y in pixels (centers at +0.5), visible 0 or 1; 0, 0, 0: absent
    depth: Float32s  # [R, R], z-depth in half-heights of the head


def render_sample(seed: int, index: int, resolution: int = RESOLUTION) -> Truth:
    """The image of a stream's sample; ValueError if seed or index is outside 0 to 2**64 - 1."""
    return render(scene_of_sample(seed, index), resolution)


def render(scene: Scene, resolution: int = RESOLUTION) -> Truth:
    """Renders one scene."""
    parts, landmarks = parts_and_landmarks(scene)
    view = view_of_parts(camera_of(scene), parts)
    center_rays, fine_rays = pixel_centers(resolution), pixel_centers(resolution * SUPERSAMPLING)
    hits = first_hits(view, *center_rays)
    center = surface_of_hits(scene, view, hits, *center_rays)
    fine_hits = first_hits(view, *fine_rays)
    fine = surface_of_hits(scene, view, fine_hits, *fine_rays)
    color = fine.albedo * light_on_surface(scene, view, fine_hits, fine)
    blocks = np.minimum(color, 1).reshape(resolution, SUPERSAMPLING, resolution, SUPERSAMPLING, 3)
    size = (resolution, resolution)
    return Truth(
        image=_bytes(blocks.mean(axis=(1, 3))),
        albedo=_bytes(center.albedo.reshape(*size, 3)),
        mask=center.class_id.reshape(size),
        instance=center.instance.reshape(size),
        keypoints=_keypoints(view, landmarks, resolution),
        depth=hits.depth,
    )


def _bytes(color: Float32s) -> NDArray[np.uint8]:
    return (color * 255 + np.float32(0.5)).astype(np.uint8)


def _keypoints(view: View, landmarks: Sequence[Floats | None], resolution: int) -> Float32s:
    """float32 [K, 3]; visible where no part is in front of the landmark."""
    camera = view.camera
    keypoints = np.zeros((len(landmarks), 3), np.float32)
    present = [k for k, place in enumerate(landmarks) if place is not None]
    places = np.array([place for place in landmarks if place is not None])
    for k, place, (x, y, depth) in zip(
        present, places, projected(camera, places, resolution), strict=True
    ):
        offset = place - camera.position
        ray_x = np.array([offset @ camera.right / depth])
        ray_y = np.array([offset @ camera.up / depth])
        nearest = float(first_hits(view, ray_x, ray_y).depth[0, 0])
        framed = 0 <= x < resolution and 0 <= y < resolution
        keypoints[k] = x, y, framed and depth <= nearest + SEEN_WITHIN
    return keypoints


def rendered(seed: int, indices: Sequence[int], workers: int = 1) -> Iterator[Truth]:
    """The images of these samples in order; the number of processes does not change them."""
    draw = partial(render_sample, seed)
    if workers == 1:
        yield from map(draw, indices)
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        for start in range(0, len(indices), CHUNK * workers * 8):
            yield from pool.map(draw, indices[start : start + CHUNK * workers * 8], chunksize=CHUNK)
