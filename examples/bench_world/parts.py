"""The bench world's geometry: ellipsoids and flat cards, placed by a scene.

A Scene enters; Parts and the landmarks on their surfaces leave, in the world frame.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from examples.bench_world.scene import (
    ARM,
    BACKGROUND,
    BALLOON,
    BRIM,
    BUTTON,
    COLLAR,
    EAR,
    EARRING,
    EYEPATCH,
    FACE,
    GLASSES,
    HAIR,
    HAND,
    HAT,
    NECK,
    NECKLACE,
    NOSE,
    PICTURE,
    SHIRT,
    SIDES,
    SLEEVE,
    STRING,
    WALL_Z,
    Floats,
    Hand,
    Scene,
)

HEAD_HEIGHT, HEAD_DEPTH = 1.0, 0.88
EYE_HEIGHT, MOUTH_HEIGHT = 0.10, -0.50
FINGERS = 4


@dataclass(frozen=True)
class Part:
    """An ellipsoid, or a card: a flat ellipse or rectangle, whose third radius is 0."""

    class_id: int
    instance: int  # from 1 within the class
    center: Floats  # [3]
    axes: Floats  # [3, 3], rows: orthonormal axes of the part in the world
    radii: Floats  # [3]
    cut: tuple[Floats, float] | None = None  # keeps points with normal . p > offset
    hole: float = 0.0  # share of a card's radii that is open
    square: bool = False  # of a card

    @property
    def is_card(self) -> bool:
        return bool(self.radii[2] == 0)

    def on_surface(self, direction: ArrayLike) -> Floats:
        """World point where a direction of the part's scaled frame leaves its surface."""
        unit = np.asarray(direction, np.float64)
        return self.center + (unit / np.linalg.norm(unit) * self.radii) @ self.axes


class Figure:
    """Collects parts, and counts the instances of each class."""

    def __init__(self) -> None:
        self.parts: list[Part] = []

    def add(
        self,
        class_id: int,
        center: ArrayLike,
        radii: ArrayLike,
        axes: ArrayLike | None = None,
        cut: tuple[Floats, float] | None = None,
        hole: float = 0.0,
        instance: int | None = None,
    ) -> Part:
        """Adds an ellipsoid or a card; without `instance` it is the next one of its class."""
        if instance is None:
            instance = 1 + max(
                (p.instance for p in self.parts if p.class_id == class_id), default=0
            )
        part = Part(
            class_id,
            instance,
            np.asarray(center, np.float64),
            np.eye(3) if axes is None else np.asarray(axes, np.float64),
            np.asarray(radii, np.float64),
            cut,
            hole,
            square=class_id in (PICTURE, BACKGROUND),
        )
        self.parts.append(part)
        return part

    def rod(
        self,
        class_id: int,
        start: ArrayLike,
        end: ArrayLike,
        radius: float,
        instance: int | None = None,
    ) -> Part:
        """A long ellipsoid between two points."""
        a, b = np.asarray(start, np.float64), np.asarray(end, np.float64)
        length = float(np.linalg.norm(b - a))
        along = (b - a) / length
        aside = np.cross(along, (0.0, 0.0, 1.0) if abs(along[2]) < 0.9 else (1.0, 0.0, 0.0))
        aside /= np.linalg.norm(aside)
        axes = np.stack([along, aside, np.cross(along, aside)])
        return self.add(
            class_id, (a + b) / 2, (length / 2, radius, radius), axes, None, 0, instance
        )


def head_rotation(scene: Scene) -> Floats:
    """[3, 3]: columns are the head's axes in the world, so world = rotation @ head."""
    cy, sy, ct, st = (f(a) for a in (scene.yaw, -scene.tilt) for f in (math.cos, math.sin))
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    tilt = np.array([[ct, -st, 0], [st, ct, 0], [0, 0, 1]])
    return np.asarray(yaw @ tilt, np.float64)


def face_depth(scene: Scene, x: float, y: float) -> float:
    """z of the front of the face at (x, y), all in the head's frame."""
    depths = [
        center[2] + radii[2] * math.sqrt(inside)
        for center, radii in _face_ellipsoids(scene)
        if (inside := 1 - ((x - center[0]) / radii[0]) ** 2 - ((y - center[1]) / radii[1]) ** 2) > 0
    ]
    return max(depths)


def _face_ellipsoids(
    scene: Scene,
) -> list[tuple[tuple[float, float, float], tuple[float, float, float]]]:
    width = scene.head_width
    return [
        ((0, 0, 0), (width, HEAD_HEIGHT, HEAD_DEPTH)),
        ((0, -0.45, 0.10), (0.80 * width, 0.60, 0.72)),
    ]


def parts_and_landmarks(scene: Scene) -> tuple[list[Part], list[Floats | None]]:
    """Parts, of which the first is the wall, and the places of KEYPOINT_NAMES; None: absent."""
    figure = Figure()
    _add_room(figure, scene)
    sleeves = _add_torso(figure, scene)
    head = _head_landmarks(scene)
    ears = _add_head(figure, scene)
    _add_hair_and_hat(figure, scene)
    _add_worn(figure, scene)
    tips: dict[int, tuple[Floats, Floats]] = {
        hand.side: _add_hand(figure, hand) for hand in scene.hands
    }
    shoulders = [
        part.on_surface((0.2 * s, 0.9, 0.45)) for part, s in zip(sleeves, SIDES, strict=True)
    ]
    places: list[Floats | None] = [*head, *ears, *shoulders]
    for which in (0, 1):
        places += [tips[s][which] if s in tips else None for s in SIDES]
    return figure.parts, places


def _add_room(figure: Figure, scene: Scene) -> None:
    figure.add(BACKGROUND, (0, 0, WALL_Z), (100, 100, 0))
    if scene.picture:
        figure.add(PICTURE, (*scene.picture, WALL_Z + 0.06), (0.55, 0.42, 0))
    for balloon in scene.balloons:
        x, y, z = balloon.center
        radius = balloon.radius
        figure.add(BALLOON, balloon.center, (radius, 1.2 * radius, radius))
        knot = np.array([x, y - 1.2 * radius, z])
        figure.rod(STRING, knot, knot + np.array([balloon.slant, -2.2, 0]), 0.024)


def _add_torso(figure: Figure, scene: Scene) -> list[Part]:
    """Neck, shirt and what is on it; returns the sleeves, left first."""
    figure.add(NECK, (0, -1.15, -0.10), (0.36, 0.75, 0.36))
    wide = scene.shoulder
    torso = figure.add(SHIRT, (0, -2.75, -0.15), (wide, 1.40, 0.62))
    lean = np.array(
        [[1, 0, 0], [0, math.cos(0.35), math.sin(0.35)], [0, -math.sin(0.35), math.cos(0.35)]]
    )
    figure.add(COLLAR, (0, -1.45, -0.02), (0.58, 0.15, 0.52), lean)
    sleeves = []
    for s in SIDES:
        c, n = math.cos(0.3), math.sin(0.3) * s
        axes = np.array([[c, n, 0], [-n, c, 0], [0, 0, 1]])
        sleeves.append(figure.add(SLEEVE, (s * wide, -2.15, -0.15), (0.40, 0.72, 0.42), axes))

    def front(x: float, y: float) -> Floats:
        inside = 1 - (x / torso.radii[0]) ** 2 - ((y - torso.center[1]) / torso.radii[1]) ** 2
        return np.array([x, y, torso.center[2] + torso.radii[2] * math.sqrt(inside)])

    for k in range(scene.buttons):
        figure.add(BUTTON, front(0, -1.78 - 0.24 * k), (0.065, 0.065, 0.04))
    if scene.necklace:
        for k in range(9):
            turn = (k - 4) * 0.28
            figure.add(
                NECKLACE, front(0.54 * math.sin(turn), -1.42 - 0.55 * math.cos(turn)), (0.06,) * 3
            )
    return sleeves


def _add_head(figure: Figure, scene: Scene) -> list[Floats]:
    """Face, nose and ears; returns the ears' landmarks, left first."""
    turn = head_rotation(scene)
    for center, radii in _face_ellipsoids(scene):
        figure.add(FACE, turn @ center, radii, turn.T, instance=1)
    size = scene.nose_size
    tip = np.array([0, -0.17, 0.88])
    figure.add(NOSE, turn @ tip, (0.14 * size, 0.12 * size, 0.17 * size), turn.T, instance=1)
    figure.rod(NOSE, turn @ (0, 0.20, 0.84), turn @ (0, -0.22, 0.92), 0.075 * size, instance=1)
    ears = []
    for s in SIDES:
        root = np.array([s * scene.head_width, 0.0, -0.05])
        ear = figure.add(EAR, turn @ root, (0.11, 0.23, 0.16), turn.T)
        ears.append(ear.on_surface((0.75 * s, 0.1, 0.65)))
        if scene.earrings:
            lobe = root + np.array([s * 0.06, -0.30, 0.04])
            number = 1 if s > 0 else 2
            figure.add(EARRING, turn @ lobe, (0.07, 0.07, 0.07), turn.T, instance=number)
            drop = lobe - np.array([0, 0.15, 0])
            figure.add(EARRING, turn @ drop, (0.045, 0.13, 0.045), turn.T, instance=number)
    return ears


def _add_hair_and_hat(figure: Figure, scene: Scene) -> None:
    turn = head_rotation(scene)
    volume, width = scene.hair_volume, scene.head_width
    normal = np.array([scene.parting, 0.70, -0.72])
    figure.add(
        HAIR, turn @ (0, 0.08, -0.06), (width * volume + 0.03, volume, 0.96 * volume), turn.T,
        cut=(turn @ normal, scene.hairline), instance=1,
    )  # fmt: skip
    if scene.hair_length:
        low = scene.hair_length
        center = turn @ (0, 0.05 - 0.75 * low, -0.38)
        figure.add(HAIR, center, (1.12 * width, 0.9 + 0.45 * low, 0.55), turn.T, instance=1)
        for s in SIDES:
            top, end = (s * 0.98 * width, 0.25, 0.05), (s * 1.05 * width, -0.5 - 1.2 * low, 0.12)
            figure.rod(HAIR, turn @ top, turn @ end, 0.17, instance=1)
    for x in scene.strands:
        low = 0.62 - scene.strand_length * (0.6 + 0.4 * math.cos(9 * x))
        end = (1.08 * x, low, face_depth(scene, x, low) + 0.05)
        figure.rod(HAIR, turn @ (0.72 * x, 0.82, 0.62), turn @ end, 0.04, instance=1)
    if scene.hat:
        up = np.array([0.0, math.cos(0.15), -math.sin(0.15)])
        axes = np.stack([(1, 0, 0), up, np.cross((1.0, 0, 0), up)]) @ turn.T
        base = 0.48
        crown = (1.16 * width * volume, scene.hat * 1.45, 1.10 * volume)
        figure.add(HAT, turn @ (up * base), crown, axes, cut=(turn @ up, base), instance=1)
        brim = (1.55 * width * volume, 0.05, 1.5 * volume)
        figure.add(BRIM, turn @ (up * base), brim, axes, instance=1)


def _add_worn(figure: Figure, scene: Scene) -> None:
    """Glasses and eyepatch."""
    turn, spacing = head_rotation(scene), scene.eye_spacing
    if scene.glasses:
        rim = scene.glasses
        for s in SIDES:
            center = turn @ (s * spacing, EYE_HEIGHT, 1.0)
            hole = 1 - 0.045 / rim
            figure.add(GLASSES, center, (rim, 0.85 * rim, 0), turn.T, hole=hole, instance=1)
            hinge = (s * (spacing + rim), EYE_HEIGHT + 0.05, 0.98)
            ear = (s * (scene.head_width + 0.06), 0.12, -0.1)
            figure.rod(GLASSES, turn @ hinge, turn @ ear, 0.035, instance=1)
        inner = spacing - rim + 0.02
        left, right = (s * max(inner, 0.05) for s in SIDES)
        height = EYE_HEIGHT + 0.05
        figure.rod(
            GLASSES, turn @ (left, height, 1.02), turn @ (right, height, 1.02), 0.03, instance=1
        )
    if s := scene.eyepatch:
        place = turn @ (s * spacing, EYE_HEIGHT, face_depth(scene, spacing, EYE_HEIGHT))
        figure.add(EYEPATCH, place, (0.25, 0.21, 0.09), turn.T, instance=1)


def _add_hand(figure: Figure, hand: Hand) -> tuple[Floats, Floats]:
    """Arm, sleeve, palm and fingers; returns the fingertip's and the wrist's landmark."""
    s, number = hand.side, 1 if hand.side > 0 else 2
    inward = math.cos(hand.angle), math.sin(hand.angle)
    along = np.array([-s * inward[1], inward[0], 0.0])
    aside = np.array([s * inward[0], inward[1], 0.0])
    outward = np.array([0.0, 0.0, 1.0])
    wrist = np.array([s * hand.x, hand.y, 1.22 - 0.45 * max(0.0, hand.x - 0.5)])
    elbow = np.array([s * (1.25 + 0.2 * hand.x), -2.6, 0.7])
    middle = 0.5 * (wrist + elbow)
    arm = figure.rod(ARM, elbow, wrist + 0.10 * along, 0.165, instance=number)
    figure.rod(SLEEVE, 2 * elbow - middle, middle, 0.27, instance=number)
    axes = np.stack([along, aside, outward])
    figure.add(HAND, wrist + 0.27 * along, (0.31, 0.225, 0.10), axes, instance=number)
    tip = wrist
    for k in range(FINGERS):
        offset = (k - 1.5) * 0.115
        bend = (k - 1.5) * hand.spread
        way = along * math.cos(bend) + aside * math.sin(bend)
        base = wrist + 0.40 * along + offset * aside
        length = (0.45, 0.52, 0.50, 0.40)[k]
        finger = figure.rod(HAND, base, base + length * way, 0.062, instance=number)
        if k == 1:
            tip = finger.on_surface(0.8 * np.eye(3)[0] + 0.6 * finger.axes @ outward)
    thumb = wrist + 0.12 * along - 0.15 * aside
    figure.rod(HAND, thumb, thumb + 0.30 * along - 0.22 * aside, 0.07, instance=number)
    return tip, arm.on_surface(0.75 * np.eye(3)[0] + 0.65 * arm.axes @ outward)


def _head_landmarks(scene: Scene) -> list[Floats]:
    """Eyes, tip of the nose, corners of the mouth and chin."""
    turn = head_rotation(scene)
    corner = 0.9 * scene.mouth_width
    corner_y = MOUTH_HEIGHT + scene.smile * corner**2
    flat = [(s * scene.eye_spacing, EYE_HEIGHT) for s in SIDES]
    mouth = [(s * corner, corner_y) for s in SIDES]
    points = [(x, y, face_depth(scene, x, y)) for x, y in (*flat, *mouth, (0.0, -0.93))]
    points.insert(2, (0.0, -0.17, 0.88 + 0.17 * scene.nose_size))
    return [turn @ point for point in points]
