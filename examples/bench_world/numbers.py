"""A scene's parameters as a row of numbers, which a linear layer on w shall predict.

Latents enter; standardized numbers leave. They are what the scene is described by: neither images
nor labels go in. A part that may be absent has its own number for that, 1 or 0, and its other
parameters are 0 without it, so that a style can be linear in them.
"""

import math
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from examples.bench_world.cache import cached_latents
from examples.bench_world.scene import SHARED_COLORS, SIDES, Floats, Scene, scene_from_latents

Float32s = NDArray[np.float32]

STRANDS, BALLOONS, BUTTONS, PATTERNS = 8, 3, 3, 3  # most of each in a scene, and kinds of pattern
SINGLE = (
    "azimuth", "elevation", "yaw", "tilt", "ambient", "head_width", "eye_spacing", "eye_opening",
    "brow_height", "nose_size", "mouth_width", "mouth_open", "smile", "hairline", "hair_volume",
    "hair_length", "parting", "strand_length", "beard", "glasses", "hat", "earrings", "necklace",
    "strap", "shoulder", "pattern_scale", "phase",
)  # fmt: skip
OPTIONAL = ("mouth_open", "hair_length", "beard", "glasses", "hat")  # 0: absent
SIDED = ("eyepatch", "plaster")  # 0: absent
COPIES = {other for _, *others in SHARED_COLORS for other in others}  # classes of another's color


def numbers_of_scene(scene: Scene) -> Floats:
    """Float64 [P], in the scene's units; those of hands and balloons from their ranges' middles."""
    row = [float(getattr(scene, name)) for name in SINGLE]
    row += [float(getattr(scene, name) != 0) for name in OPTIONAL]
    row += [float(getattr(scene, name) == side) for name in SIDED for side in SIDES]
    row += [*scene.light, *scene.gaze]
    for k in range(STRANDS):
        row += [1.0, scene.strands[k]] if k < len(scene.strands) else [0.0, 0.0]
    hands = {hand.side: hand for hand in scene.hands}
    for side in SIDES:
        if (hand := hands.get(side)) is None:
            row += [0.0] * 5
        else:
            row += [1.0, hand.x - 0.8, hand.y + 0.95, hand.angle - 0.45, hand.spread - 0.11]
    for k in range(BALLOONS):
        if k < len(scene.balloons):
            balloon = scene.balloons[k]
            x, y, z = balloon.center
            row += [1.0, x, y - 0.7, z + 1.1, balloon.radius - 0.39, balloon.slant]
        else:
            row += [0.0] * 6
    row += [float(k < scene.buttons) for k in range(BUTTONS)]
    row += [1.0, *scene.picture] if scene.picture else [0.0] * 3
    wave = (math.cos(scene.phase), math.sin(scene.phase), scene.pattern_scale - 1.1)
    for chosen in (scene.wall_pattern, scene.shirt_pattern):
        for k in range(PATTERNS):
            row += [1.0, *wave] if chosen == k else [0.0] * 4
    colors = [color for k, color in enumerate(scene.colors) if k not in COPIES]
    return np.concatenate([row, np.ravel(colors)])


def table_of_numbers(seed: int, count: int) -> tuple[Float32s, Float32s]:
    """Latents [count, Z_DIM] as the cache draws them, and their numbers [count, P].

    Each number has mean 0 and standard deviation 1 over the table; one that never changes is 0.
    """
    z = cached_latents(seed, range(count))
    numbers = np.stack([numbers_of_scene(scene_from_latents(row, row)) for row in z])
    deviation = numbers.std(axis=0)
    deviation[deviation < 1e-9] = 1.0
    return z, ((numbers - numbers.mean(axis=0)) / deviation).astype(np.float32)


def kept_table(folder: Path, seed: int, count: int) -> tuple[Float32s, Float32s]:
    """`table_of_numbers`, written to a file of `folder` the first time and read from it later."""
    path = folder / f"numbers-{seed}-{count}.npz"
    if not path.exists():
        z, numbers = table_of_numbers(seed, count)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, z=z, numbers=numbers)
        os.replace(partial, path)
    with np.load(path) as table:
        return table["z"], table["numbers"]
