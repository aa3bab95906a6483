"""Colors of the bench world: what is painted on the parts, textures, light and cast shadows.

First hits enter; class, instance, albedo and light of each ray leave.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from examples.bench_world.parts import EYE_HEIGHT, MOUTH_HEIGHT, Part, head_rotation
from examples.bench_world.scene import (
    BACKGROUND,
    BALLOON,
    BEARD,
    CLASS_NAMES,
    COLLAR,
    EYE,
    EYEBROW,
    EYEPATCH,
    FACE,
    HAIR,
    HAT,
    IRIS,
    LOWER_LIP,
    NOSE,
    PICTURE,
    PLASTER,
    SHIRT,
    SLEEVE,
    STRAP,
    TEETH,
    UPPER_LIP,
    Floats,
    Scene,
)
from examples.bench_world.trace import Camera, Float32s, Hits, View

EYE_WIDTH, IRIS_RADIUS = 0.185, 0.085
CASTER_RADIUS = 0.05  # thinner parts cast no shadow
SMOOTH = (EYE, IRIS, TEETH, BALLOON)  # classes with a highlight


@dataclass(frozen=True)
class Surface:
    """What each of n rays shows."""

    point: Float32s  # [3, n], world
    class_id: NDArray[np.uint8]  # [n]
    instance: NDArray[np.uint8]  # [n], from 1 within the class
    albedo: Float32s  # [n, 3] in [0, 1]


def surface_of_hits(scene: Scene, view: View, hits: Hits, x: Floats, y: Floats) -> Surface:
    """What the rays x [w] and y [h] show, row by row."""
    point = _points(view.camera, hits, x.astype(np.float32), y.astype(np.float32))
    class_id, instance = _painted(scene, view.parts, hits.part.ravel(), point)
    return Surface(point, class_id, instance, _albedo(scene, class_id, point))


def _points(camera: Camera, hits: Hits, x: Float32s, y: Float32s) -> Float32s:
    """World points [3, n]."""
    planes = [
        np.float32(camera.position[i])
        + hits.depth
        * (
            (np.float32(camera.right[i]) * x)[None, :]
            + (np.float32(camera.up[i]) * y + np.float32(camera.forward[i]))[:, None]
        )
        for i in range(3)
    ]
    return np.stack([plane.ravel() for plane in planes])


def _painted(
    scene: Scene, parts: Sequence[Part], part: NDArray[np.int16], point: Float32s
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Class and instance of each ray, with what is painted on the face and on the shirt."""
    class_id = np.array([p.class_id for p in parts], np.uint8)[part]
    instance = np.array([p.instance for p in parts], np.uint8)[part]

    on_head = np.flatnonzero((class_id == FACE) | (class_id == NOSE) | (class_id == HAIR))
    turn = head_rotation(scene).astype(np.float32)
    head = turn.T @ point[:, on_head]
    painted = class_id[on_head]
    if s := scene.eyepatch:
        x, y, _ = head
        band = np.abs(y - EYE_HEIGHT + 0.5 * s * (x - s * scene.eye_spacing) - 0.05) < 0.032
        painted[band & (painted != NOSE)] = EYEPATCH
    class_id[on_head] = painted
    face = on_head[class_id[on_head] == FACE]
    x, y, z = turn.T @ point[:, face]
    shown, number = _face_paint(scene, x, y, z)
    class_id[face] = shown
    instance[face] = number
    if scene.strap:
        shirt = np.flatnonzero(class_id == SHIRT)
        x, y, _ = point[:, shirt]
        class_id[shirt[np.abs(x + 0.62 * (y + 2.1)) < 0.10]] = STRAP
    return class_id, instance


def _face_paint(
    scene: Scene, x: Float32s, y: Float32s, z: Float32s
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Class and instance at points of the face in the head's frame, projected along z."""
    shown = np.full(len(x), FACE, np.uint8)
    number = np.ones(len(x), np.uint8)
    side = np.where(x > 0, np.float32(1), np.float32(-1))
    aside = np.abs(x)
    front = z > 0
    two = np.where(x > 0, np.uint8(1), np.uint8(2))

    def paint(where: NDArray[np.bool_], class_id: int, pair: bool = False) -> None:
        where = where & front
        shown[where] = class_id
        number[where] = two[where] if pair else 1

    middle = MOUTH_HEIGHT + scene.smile * x * x
    taper = 1 - (x / scene.mouth_width) ** 2
    if scene.beard:
        edge = -0.62 + 0.38 * scene.beard + 0.35 * x * x
        beard = (y < edge) & (z > -0.15)
        beard &= ~((aside < 0.9 * scene.mouth_width) & (np.abs(y - middle) < 0.13))
        moustache = (np.abs(y - middle - 0.17) < 0.05) & (aside < 1.1 * scene.mouth_width)
        shown[beard | (moustache & front)] = BEARD
    if s := scene.plaster:
        u, v = s * x - 0.40, y + 0.20
        paint((np.abs(u + 0.4 * v) < 0.19) & (np.abs(v - 0.4 * u) < 0.085), PLASTER)
    from_eye = aside - scene.eye_spacing
    arch = EYE_HEIGHT + scene.brow_height + 0.12 * from_eye - 0.9 * from_eye**2
    paint((np.abs(y - arch) < 0.045) & (np.abs(from_eye) < 0.21), EYEBROW, pair=True)
    rise = y - EYE_HEIGHT
    eye = (from_eye / EYE_WIDTH) ** 2 + (rise / scene.eye_opening) ** 2 < 1
    paint(eye, EYE, pair=True)
    iris = (from_eye - side * scene.gaze[0]) ** 2 + (rise - scene.gaze[1]) ** 2 < IRIS_RADIUS**2
    paint(eye & iris, IRIS, pair=True)
    gap = 0.5 * scene.mouth_open * taper
    above = y - middle
    inside = taper > 0
    paint(inside & (above >= gap) & (above < gap + 0.085 * np.sqrt(np.abs(taper))), UPPER_LIP)
    paint(inside & (above < -gap) & (above > -gap - 0.105 * np.sqrt(np.abs(taper))), LOWER_LIP)
    if scene.mouth_open:
        paint(inside & (np.abs(above) < gap), TEETH)
    return shown, number


def _rays_of(class_id: NDArray[np.uint8], group: tuple[int, ...]) -> NDArray[np.int64]:
    """Positions of the rays that show a class of the group."""
    member = np.zeros(len(CLASS_NAMES), np.bool_)
    member[list(group)] = True
    return np.flatnonzero(member[class_id])


def _albedo(scene: Scene, class_id: NDArray[np.uint8], point: Float32s) -> Float32s:
    """Color of each ray's surface, float32 [n, 3]: its class's color under its texture."""
    texture = np.ones(len(class_id), np.float32)
    cloth, wall, hair, skin = (
        _rays_of(class_id, group)
        for group in (
            (SHIRT, SLEEVE, COLLAR, HAT),
            (BACKGROUND, PICTURE),
            (HAIR, EYEBROW, BEARD),
            (FACE, NOSE),
        )
    )
    x, y, z = point
    scale, phase = scene.pattern_scale, scene.phase

    def pattern(kind: int, u: Float32s, v: Float32s, frequency: float) -> Float32s:
        a, b = np.sin(frequency * u + phase), np.sin(frequency * v - phase)
        waves: tuple[Float32s, ...] = (a, np.sign(a * b), np.sin(2 * a + frequency * v))
        return waves[kind]

    texture[cloth] += 0.16 * pattern(
        scene.shirt_pattern, x[cloth] + 0.3 * z[cloth], y[cloth] - 0.3 * z[cloth], 14 * scale
    )
    texture[wall] += 0.13 * pattern(scene.wall_pattern, x[wall], y[wall], 5 * scale)
    picture = wall[class_id[wall] == PICTURE]
    if scene.picture and len(picture):
        across, up = x[picture] - scene.picture[0], y[picture] - scene.picture[1]
        texture[picture] += 0.16 * np.sin(11 * (across + up) + phase)
        edge = (np.abs(across) > 0.48) | (np.abs(up) > 0.35)
        texture[picture[edge]] = 0.62
    streak = np.arctan2(x[hair], z[hair] + 1.5) * 46 + 3 * np.sin(3 * y[hair] + phase)
    texture[hair] += 0.20 * np.sin(streak) * np.sin(1.7 * streak + 2 * y[hair])
    texture[skin] += 0.04 * np.sin(17 * x[skin] + phase) * np.sin(19 * y[skin] - phase)
    pupil = np.flatnonzero(class_id == IRIS)
    if len(pupil):
        turn = head_rotation(scene).astype(np.float32)
        hx, hy, _ = turn.T @ point[:, pupil]
        aside = np.abs(hx) - scene.eye_spacing - np.sign(hx) * scene.gaze[0]
        texture[pupil[aside**2 + (hy - EYE_HEIGHT - scene.gaze[1]) ** 2 < 0.04**2]] = 0.15
    albedo: Float32s = scene.colors.astype(np.float32)[class_id] * texture[:, None]
    np.minimum(albedo, 1, out=albedo)
    return albedo


def light_on_surface(scene: Scene, view: View, hits: Hits, surface: Surface) -> Float32s:
    """Ambient and diffuse light with cast shadows, and highlights, float32 [n, 1]."""
    point, class_id = surface.point, surface.class_id
    lamp = np.array(scene.light, np.float32)
    normal = _normals(view.camera, view.parts, hits.part.ravel(), point)
    facing = lamp @ normal
    lit = np.maximum(facing, 0)
    bright = np.flatnonzero(facing > 0)
    lit[bright[_shadowed(scene, view.parts, point[:, bright])]] = 0
    light = scene.ambient + (1.08 - scene.ambient) * lit
    smooth = _rays_of(class_id, SMOOTH)
    smooth = smooth[lit[smooth] > 0]
    half = lamp - view.camera.forward.astype(np.float32)
    half /= math.sqrt(float(half @ half))
    light[smooth] += 0.5 * np.maximum(half @ normal[:, smooth], 0) ** 40
    return np.asarray(light[:, None], np.float32)


def _normals(
    camera: Camera, parts: Sequence[Part], part: NDArray[np.int16], point: Float32s
) -> Float32s:
    """Unit normals [3, n]; a cut is shaded as its ellipsoid."""
    table = np.zeros((len(parts), 12), np.float32)
    for number, p in enumerate(parts):
        if p.is_card:
            towards = -math.copysign(1.0, float(p.axes[2] @ (p.center - camera.position)))
            table[number, 9:] = towards * p.axes[2]
        else:
            matrix = p.axes.T @ (p.axes / (p.radii**2)[:, None])
            table[number, :9] = matrix.ravel()
            table[number, 9:] = -matrix @ p.center
    rows = np.take(table, part, axis=0).T
    x, y, z = point
    normal = np.stack(
        [
            rows[3 * i] * x + rows[3 * i + 1] * y + rows[3 * i + 2] * z + rows[9 + i]
            for i in range(3)
        ]
    )
    normal /= np.sqrt((normal * normal).sum(axis=0))
    return normal


def _shadowed(scene: Scene, parts: Sequence[Part], point: Float32s) -> NDArray[np.bool_]:
    """Whether a part stands between points [3, n] and the lamp, bool [n]."""
    lamp = np.array(scene.light)
    aside = np.cross(lamp, (0.0, 1.0, 0.0))
    aside /= np.linalg.norm(aside)
    frame = np.stack([aside, np.cross(lamp, aside), lamp]).astype(np.float32)
    u, v, w = frame @ point
    dark = np.zeros(point.shape[1], np.bool_)
    for part in parts:
        if part.is_card or part.radii.min() < CASTER_RADIUS:
            continue
        matrix = part.axes / part.radii[:, None]
        way = matrix @ lamp
        # Only points within a cylinder around the part and its shadow.
        cu, cv, cw = frame @ part.center.astype(np.float32)
        radius = float(part.radii.max())
        near = np.flatnonzero((u - cu) ** 2 + (v - cv) ** 2 < radius**2)
        near = near[w[near] < cw + radius]
        if not len(near):
            continue
        o = matrix.astype(np.float32) @ point[:, near] - (matrix @ part.center)[:, None].astype(
            np.float32
        )
        a, b, c = np.float32(way @ way), way.astype(np.float32) @ o, (o * o).sum(axis=0) - 1
        disc = b * b - a * c
        if part.cut is None:
            hidden = (disc > 0) & ((b < 0) | (c < -1e-3))
        else:
            cut_normal, offset = part.cut
            root = np.sqrt(np.maximum(disc, 0))
            slope = np.float32(cut_normal @ lamp)
            crossing = (np.float32(offset) - cut_normal.astype(np.float32) @ point[:, near]) / slope
            enter, leave = (-b - root) / a, (root - b) / a
            if slope > 0:
                enter = np.maximum(enter, crossing)
            else:
                leave = np.minimum(leave, crossing)
            hidden = (disc > 0) & (np.maximum(enter, 0) + 0.01 < leave)
        dark[near[hidden]] = True
    return dark
