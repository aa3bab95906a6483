"""The bench world's scene: a person in front of a wall, described by numbers drawn from latents.

Latents enter; the camera, the attributes and the colors of one image leave. `parts` builds the
geometry from them. World frame: x to the subject's left, y up, z out of the face; the head is
about 2 units tall and its center is the origin.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

from labelmint.latents import Purpose, latents

Floats = NDArray[np.float64]

CLASS_NAMES = (
    "background", "picture", "balloon", "string", "face", "nose", "ear", "neck", "hand", "arm",
    "hair", "eyebrow", "beard", "eye", "iris", "upper_lip", "lower_lip", "teeth", "shirt",
    "collar", "sleeve", "button", "necklace", "strap", "glasses", "hat", "brim", "earring",
    "eyepatch", "plaster",
)  # fmt: skip
(
    BACKGROUND, PICTURE, BALLOON, STRING, FACE, NOSE, EAR, NECK, HAND, ARM,
    HAIR, EYEBROW, BEARD, EYE, IRIS, UPPER_LIP, LOWER_LIP, TEETH, SHIRT,
    COLLAR, SLEEVE, BUTTON, NECKLACE, STRAP, GLASSES, HAT, BRIM, EARRING,
    EYEPATCH, PLASTER,
) = range(30)  # fmt: skip
# Classes of one group have the same color in an image: only shape and place tell them apart.
SHARED_COLORS = (
    (BACKGROUND, PICTURE),
    (FACE, NOSE, EAR, NECK, HAND, ARM),
    (HAIR, EYEBROW, BEARD),
    (EYE, TEETH),
    (UPPER_LIP, LOWER_LIP),
    (SHIRT, COLLAR, SLEEVE),
    (HAT, BRIM),
)
# Shares of images whose attributes have the part; it may be hidden or out of the frame.
RARE_SHARES = {EARRING: 1 / 20, EYEPATCH: 1 / 100, PLASTER: 1 / 1000}
# 0xRRGGBB colors of the label overlay, not of the scene.
PALETTE = (
    0x20242C, 0x4E5A6B, 0xE6C229, 0xFFFFFF, 0xF2B48C, 0xF0653C, 0xB5462F, 0xA8765A, 0xFFD9C0,
    0xD19A6B, 0x7A4A22, 0x3B2412, 0xA0703C, 0xDDEEFF, 0x1F6FE0, 0xE0557F, 0x8E1B46, 0xBFC9D1,
    0x2BB673, 0x0E6B45, 0x8FDB9E, 0xF5F06B, 0xC77DFF, 0x5A2A82, 0x12B5CB, 0x9C27B0, 0xE1A7F0,
    0xFFC107, 0x000000, 0xFF1744,
)  # fmt: skip
# Left and right are the subject's, as in COCO.
KEYPOINT_NAMES = (
    "left_eye", "right_eye", "nose_tip", "mouth_left", "mouth_right", "chin", "left_ear",
    "right_ear", "left_shoulder", "right_shoulder", "left_fingertip", "right_fingertip",
    "left_wrist", "right_wrist",
)  # fmt: skip
SKELETON = (
    (6, 0), (0, 2), (2, 1), (1, 7), (3, 4), (4, 5), (5, 3), (8, 9), (10, 12), (11, 13),
)  # fmt: skip

Z_DIM = 96
VIEW_COORDINATES = 2  # the first coordinates of z are for the camera, the others for the content
MAX_AZIMUTH, MAX_ELEVATION = math.radians(40), math.radians(15)
CAMERA_DISTANCE = 7.0  # from the camera to LOOK_AT
LOOK_AT = (0.0, -0.4, 0.0)
FOCAL = 1.85  # focal length over image extent
WALL_Z = -1.9
SIDES = (1, -1)  # the subject's left, then right

_SKIN = ((0.30, 0.18, 0.12), (0.62, 0.40, 0.27), (0.82, 0.60, 0.46), (0.95, 0.77, 0.66))
_HAIR = (
    (0.06, 0.05, 0.05), (0.25, 0.14, 0.08), (0.55, 0.30, 0.12), (0.86, 0.68, 0.38),
    (0.62, 0.61, 0.60),
)  # fmt: skip
_IRIS = ((0.10, 0.28, 0.62), (0.10, 0.40, 0.25), (0.30, 0.17, 0.07))
_LIPS = ((0.50, 0.14, 0.16), (0.78, 0.30, 0.32), (0.80, 0.10, 0.20))


@dataclass(frozen=True)
class Hand:
    """A raised hand, on side +1 (left) or -1: place of the wrist, angle of the fingers."""

    side: int
    x: float  # of the wrist, before the side is applied
    y: float
    angle: float  # of the fingers from upright towards the middle, radians
    spread: float  # angle between fingers, radians


@dataclass(frozen=True)
class Balloon:
    """Center, radius and slant of the string."""

    center: tuple[float, float, float]
    radius: float
    slant: float


@dataclass(frozen=True)
class Scene:
    """One scene; lengths in half-heights of the head, angles in radians, colors RGB in [0, 1]."""

    azimuth: float  # positive: the camera moves towards the subject's left
    elevation: float  # positive: the camera looks down
    yaw: float  # of the head on its neck, positive towards the subject's left
    tilt: float  # of the head, positive towards the subject's left shoulder
    light: tuple[float, float, float]  # towards the lamp, world frame, unit length
    ambient: float
    head_width: float
    eye_spacing: float
    eye_opening: float
    gaze: tuple[float, float]
    brow_height: float
    nose_size: float
    mouth_width: float
    mouth_open: float  # height between the lips, 0: closed
    smile: float
    hairline: float
    hair_volume: float
    hair_length: float
    parting: float
    strands: tuple[float, ...]  # x of strands of hair that fall over the face
    strand_length: float
    beard: float  # height of its edge in (0, 1]; 0: none
    glasses: float  # radius of the rims; 0: none
    hat: float  # height; 0: none
    earrings: bool
    eyepatch: int  # side; 0: none
    plaster: int  # side; 0: none
    necklace: bool
    buttons: int
    strap: bool
    shoulder: float  # width
    hands: tuple[Hand, ...]
    balloons: tuple[Balloon, ...]
    picture: tuple[float, float] | None  # center on the wall
    wall_pattern: int  # 0 stripes, 1 checks, 2 waves
    shirt_pattern: int
    pattern_scale: float
    phase: float
    colors: Floats  # [classes, 3]


def scene_of_sample(seed: int, index: int) -> Scene:
    """Scene of a stream's sample: a function of (seed, index) alone.

    Raises ValueError if either is outside 0 to 2**64 - 1.
    """
    z = latents(seed, Purpose.OBJECT, [index], Z_DIM)[0]
    return scene_from_latents(z, z)


def uniforms_from_latent(z: NDArray[np.floating]) -> Floats:
    """Normals [Z_DIM] -> numbers [Z_DIM], each exactly uniform over [0, 1].

    Only the direction of z counts, as in the mapping network. A coordinate u of a random direction
    in n dimensions has (1 + u) / 2 ~ Beta((n - 1) / 2, (n - 1) / 2), whose distribution function
    makes it uniform; a threshold is therefore passed with exactly its probability.
    """
    if z.shape != (Z_DIM,):
        raise ValueError(f"a latent has shape {z.shape}; it must be ({Z_DIM},)")
    direction = z.astype(np.float64) / np.linalg.norm(z.astype(np.float64))
    half = (Z_DIM - 1) / 2
    uniforms: Floats = betainc(half, half, (1 + direction) / 2)
    return uniforms


def _tone(tones: tuple[tuple[float, float, float], ...], unit: float) -> Floats:
    """RGB, linear between the listed tones."""
    steps = np.linspace(0, 1, len(tones))
    return np.array([np.interp(unit, steps, channel) for channel in zip(*tones, strict=True)])


def _paint(hue: float, strength: float, value: float) -> Floats:
    """Color of cloth or wall paint."""
    wave = 0.5 + 0.5 * np.cos(2 * np.pi * (hue - np.array([0.0, 1 / 3, 2 / 3])))
    return np.asarray(value * (1 - strength * (1 - wave)), np.float64)


def _colors(between: Callable[[float, float], float]) -> Floats:
    """Color of each class, [classes, 3]; classes of a group have their first one's color."""
    colors = np.zeros((len(CLASS_NAMES), 3))

    def paint(value_low: float, value_high: float) -> Floats:
        return _paint(between(0, 1), between(0.1, 0.75), between(value_low, value_high))

    colors[BACKGROUND] = paint(0.55, 0.95)
    colors[BALLOON] = paint(0.5, 0.95)
    colors[FACE] = _tone(_SKIN, between(0, 1))
    colors[HAIR] = _tone(_HAIR, between(0, 1))
    colors[IRIS] = _tone(_IRIS, between(0, 1))
    colors[UPPER_LIP] = 0.45 * colors[FACE] + 0.55 * _tone(_LIPS, between(0, 1))
    colors[SHIRT] = paint(0.3, 0.95)
    colors[HAT] = paint(0.2, 0.8)
    colors[STRAP] = paint(0.15, 0.5)
    colors[GLASSES] = _tone(((0.05, 0.05, 0.06), (0.45, 0.20, 0.08)), between(0, 1))
    colors[EYE] = (0.93, 0.92, 0.90)
    colors[STRING] = (0.88, 0.88, 0.86)
    colors[BUTTON] = (0.85, 0.83, 0.78)
    colors[NECKLACE] = colors[EARRING] = (0.90, 0.74, 0.30)
    colors[EYEPATCH] = (0.06, 0.06, 0.08)
    colors[PLASTER] = 0.6 * colors[FACE] + 0.4 * np.array([0.95, 0.80, 0.65])
    for first, *others in SHARED_COLORS:
        colors[others] = colors[first]
    return colors


def scene_from_latents(view_z: NDArray[np.floating], content_z: NDArray[np.floating]) -> Scene:
    """Camera from `view_z`, all else from `content_z`, both [Z_DIM]; ValueError for others."""
    view = uniforms_from_latent(view_z)
    units = iter(uniforms_from_latent(content_z)[VIEW_COORDINATES:].tolist())

    def between(low: float, high: float) -> float:
        unit: float = next(units)
        return low + (high - low) * unit

    def chance(share: float) -> bool:
        unit: float = next(units)
        return unit < share

    def value_or_none(share: float, low: float, high: float) -> float:
        """0 with probability 1 - share, otherwise uniform over [low, high]."""
        unit: float = next(units)
        return low + (high - low) * unit / share if unit < share else 0.0

    def side(share: float) -> int:
        unit: float = next(units)
        return 0 if unit >= share else 1 if unit < share / 2 else -1

    # The rare parts come first, so that a later parameter never moves their coordinates.
    earrings = chance(RARE_SHARES[EARRING])
    eyepatch, plaster = side(RARE_SHARES[EYEPATCH]), side(RARE_SHARES[PLASTER])
    colors = _colors(between)
    lamp_azimuth, lamp_elevation = between(-1.0, 1.0), between(0.25, 0.95)
    raised = [chance(0.35) for _ in SIDES]
    hands = [
        Hand(s, between(0.25, 1.35), between(-1.35, -0.55), between(-0.2, 1.1), between(0.02, 0.2))
        for s in SIDES
    ]
    balloons = [
        Balloon(
            (between(-2.4, 2.4), between(-0.2, 1.6), between(-1.35, -0.9)),
            between(0.30, 0.48),
            between(-0.25, 0.25),
        )
        for _ in range(3)
    ]
    strands = [between(-0.6, 0.6) for _ in range(8)]
    picture = (between(-2.0, 2.0), between(-0.3, 1.3))
    hat = value_or_none(0.2, 0.5, 0.8)
    return Scene(
        azimuth=MAX_AZIMUTH * (2 * float(view[0]) - 1),
        elevation=MAX_ELEVATION * (2 * float(view[1]) - 1),
        yaw=between(-0.35, 0.35),
        tilt=between(-0.22, 0.22),
        light=(
            math.sin(lamp_azimuth) * math.cos(lamp_elevation),
            math.sin(lamp_elevation),
            math.cos(lamp_azimuth) * math.cos(lamp_elevation),
        ),
        ambient=between(0.38, 0.60),
        head_width=between(0.72, 0.84),
        eye_spacing=between(0.32, 0.40),
        eye_opening=between(0.09, 0.14),
        gaze=(between(-0.08, 0.08), between(-0.03, 0.03)),
        brow_height=between(0.20, 0.30),
        nose_size=between(0.85, 1.3),
        mouth_width=between(0.24, 0.36),
        mouth_open=value_or_none(0.45, 0.06, 0.16),
        smile=between(-0.4, 1.0),
        hairline=between(0.25, 0.60),
        hair_volume=between(1.08, 1.25),
        hair_length=value_or_none(0.6, 0.3, 1.0),
        parting=between(-0.4, 0.4),
        strands=tuple(strands[: int(between(0, 9))]),
        strand_length=between(0.25, 0.95),
        beard=value_or_none(0.3, 0.3, 1.0),
        glasses=value_or_none(0.3, 0.22, 0.30),
        hat=hat,
        earrings=earrings,
        eyepatch=eyepatch,
        plaster=plaster,
        necklace=chance(0.25),
        buttons=int(between(0, 4)),
        strap=chance(0.25),
        shoulder=between(0.92, 1.2),
        hands=tuple(hand for hand, up in zip(hands, raised, strict=True) if up),
        balloons=tuple(balloons[: int(between(0, 4))]),
        picture=picture if chance(0.6) else None,
        wall_pattern=int(between(0, 3)),
        shirt_pattern=int(between(0, 3)),
        pattern_scale=between(0.8, 1.4),
        phase=between(0, 2 * math.pi),
        colors=colors,
    )
