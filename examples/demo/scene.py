"""The demo's scene: a head made of ellipsoids in front of a wall, seen by a pinhole camera.

Latents enter, the exact camera and content leave; `examples.demo.render` renders them.
Object frame: x to the subject's left, y up, z out of the face; the head is about 2 units tall.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nets.ops import normalize_second_moment

CLASS_NAMES = ("background", "skin", "hair", "eye", "pupil", "nose", "mouth", "glasses")
BACKGROUND, SKIN, HAIR, EYE, PUPIL, NOSE, MOUTH, GLASSES = range(8)
# 0xRRGGBB colors of the label overlay, not of the scene.
PALETTE = (0x20242C, 0xF2B48C, 0x7A4A22, 0xFFFFFF, 0x1F6FE0, 0xF0653C, 0xC2185B, 0x2BB673)
# Left and right are the subject's, as in COCO.
KEYPOINT_NAMES = (
    "left_pupil", "right_pupil", "nose_tip", "mouth_left", "mouth_right", "chin", "left_ear",
    "right_ear",
)  # fmt: skip
SKELETON = ((6, 0), (0, 2), (2, 1), (1, 7), (3, 4), (4, 5), (5, 3))

Z_DIM = 32
VIEW_COORDINATES = 2  # the first coordinates of z are for the camera, the next 23 for the content
MAX_AZIMUTH = math.radians(60)
MAX_ELEVATION = math.radians(20)
CAMERA_DISTANCE = 6.0  # from the camera to the origin, which is the center of the head
FOCAL = 2.4  # focal length over image extent: 1 unit at the origin covers 0.4 of the image
WALL_DEPTH = 8.0  # z-depth of the background, parallel to the image plane
BEARD_SHARE = 0.14
GLASSES_SHARE = 0.12

_HAIR_TONES = (
    (0.07, 0.06, 0.08), (0.26, 0.13, 0.06), (0.62, 0.25, 0.07), (0.93, 0.76, 0.25),
    (0.80, 0.80, 0.84),
)  # fmt: skip
_SKIN_TONES = ((0.45, 0.27, 0.18), (0.76, 0.52, 0.36), (0.98, 0.80, 0.68))
_IRIS_TONES = ((0.05, 0.20, 0.62), (0.02, 0.36, 0.22), (0.20, 0.08, 0.03))
_LIP_TONES = ((0.45, 0.03, 0.10), (0.85, 0.12, 0.22))
_LENS_TONES = ((0.03, 0.03, 0.05), (0.10, 0.22, 0.45))


@dataclass(frozen=True)
class Scene:
    """A batch of N scenes; lengths in object units, angles in radians, colors RGB in [0, 1]."""

    azimuth: Tensor  # [N], positive: the camera moves towards the subject's left
    elevation: Tensor  # [N], positive: the camera looks down
    head_width: Tensor  # [N], semi-axis of the head along x
    eye_spacing: Tensor  # [N], x of the left eye's center
    eye_opening: Tensor  # [N], vertical semi-axis of the eyes
    gaze: Tensor  # [N, 2], shift of the pupils along x and y
    nose_size: Tensor  # [N], scale of the nose
    mouth_size: Tensor  # [N, 2], semi-axes of the mouth along x and y
    smile: Tensor  # [N], curvature of the mouth, positive: corners up
    hairline: Tensor  # [N], offset of the plane that cuts the hair; higher shows more face
    hair_volume: Tensor  # [N], scale of the hair's ellipsoid
    hair_length: Tensor  # [N], how far the hair reaches down
    parting: Tensor  # [N], sideways tilt of the plane that cuts the hair
    beard: Tensor  # [N], height of the beard's upper edge in its range [0, 1], 0: no beard
    glasses: Tensor  # bool [N]
    colors: Tensor  # [N, 9, 3] by class id; the last row is the beard's

    def __len__(self) -> int:
        return len(self.azimuth)


def tone_from_unit(tones: tuple[tuple[float, float, float], ...], unit: Tensor) -> Tensor:
    """unit [N] in [0, 1] -> RGB [N, 3], linear between the listed tones."""
    table = torch.tensor(tones, device=unit.device)
    position = unit * (len(tones) - 1)
    low = position.floor().clamp(0, len(tones) - 2)
    blend = (position - low)[:, None]
    index = low.long()
    return table[index] * (1 - blend) + table[index + 1] * blend


def _wall_color(hue: Tensor, brightness: Tensor) -> Tensor:
    """Pastel to saturated tones around the color circle, [N] and [N] -> RGB [N, 3]."""
    phases = torch.tensor([0.0, -2 / 3, -4 / 3], device=hue.device) * math.pi
    wave = 0.5 + 0.5 * torch.cos(2 * math.pi * hue[:, None] + phases)
    color: Tensor = (0.35 + 0.45 * wave) * (0.55 + 0.65 * brightness[:, None])
    return color


def scene_from_latents(view_z: Tensor, content_z: Tensor) -> Scene:
    """Camera from `view_z`, all else from `content_z`, both float32 [N, Z_DIM].

    Latents are normalized as in the mapping network and passed through the normal CDF, so every
    parameter is (nearly) uniform over its range.
    """
    if view_z.shape != content_z.shape or view_z.ndim != 2 or view_z.shape[1] != Z_DIM:
        raise ValueError(
            f"latents have shapes {tuple(view_z.shape)} and {tuple(content_z.shape)}; "
            f"both must be [N, {Z_DIM}]"
        )
    view = torch.special.ndtr(normalize_second_moment(view_z))[:, :VIEW_COORDINATES]
    units = torch.special.ndtr(normalize_second_moment(content_z))[:, VIEW_COORDINATES:]
    azimuth = view[:, 0] * 2 - 1
    u = iter(units.unbind(dim=1))

    def between(low: float, high: float) -> Tensor:
        value: Tensor = low + (high - low) * next(u)
        return value

    hair = tone_from_unit(_HAIR_TONES, next(u))
    skin = tone_from_unit(_SKIN_TONES, next(u))
    wall = _wall_color(next(u), next(u))
    iris = tone_from_unit(_IRIS_TONES, next(u))
    lips = tone_from_unit(_LIP_TONES, next(u))
    lens = tone_from_unit(_LENS_TONES, next(u))
    white = torch.full_like(skin, 0.97)
    nose = skin * skin.new_tensor([0.95, 0.66, 0.60]) + skin.new_tensor([0.05, 0.0, 0.0])
    beard = hair * 0.8
    return Scene(
        # Most views are near the front; the cube keeps the extremes rare.
        azimuth=MAX_AZIMUTH * (0.65 * azimuth + 0.35 * azimuth**3),
        elevation=MAX_ELEVATION * (view[:, 1] * 2 - 1),
        head_width=between(0.76, 0.92),
        eye_spacing=between(0.35, 0.44),
        eye_opening=between(0.17, 0.26),
        gaze=torch.stack([between(-0.10, 0.10), between(-0.05, 0.05)], dim=1),
        nose_size=between(0.8, 1.25),
        mouth_size=torch.stack([between(0.22, 0.38), between(0.08, 0.17)], dim=1),
        smile=between(-0.5, 1.0),
        hairline=between(0.22, 0.62),
        hair_volume=between(1.06, 1.28),
        hair_length=between(0.0, 0.7),
        parting=between(-0.45, 0.45),
        beard=((next(u) - (1 - BEARD_SHARE)) / BEARD_SHARE).clamp(min=0),
        glasses=next(u) > 1 - GLASSES_SHARE,
        colors=torch.stack([wall, skin, hair, white, iris, nose, lips, lens, beard], dim=1),
    )
