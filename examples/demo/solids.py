"""The demo's scene as geometry: cameras, ellipsoids and landmarks, in the object frame."""

from dataclasses import dataclass

import torch
from torch import Tensor

from examples.demo.scene import CAMERA_DISTANCE, GLASSES, HAIR, NOSE, SKIN, Scene

HEAD_SOLID, HAIR_SOLID = 0, 1  # positions in Solids
HEAD_HEIGHT, HEAD_DEPTH = 1.0, 0.9  # semi-axes of the head along y and z
EYE_HEIGHT, MOUTH_HEIGHT = 0.12, -0.55
EYE_WIDTH, PUPIL_RADIUS = 0.27, 0.145
HAIR_PLANE = (0.70, -0.72)  # y and z of the normal of the plane that cuts the hair
EAR_Z = -0.08


@dataclass(frozen=True)
class SceneCamera:
    """Pinhole cameras: position and orthonormal axes, each [N, 3]."""

    position: Tensor
    right: Tensor
    up: Tensor
    forward: Tensor


@dataclass(frozen=True)
class Solids:
    """S axis-aligned ellipsoids for each scene; the first is the head, the second the hair."""

    center: Tensor  # [N, S, 3]
    radii: Tensor  # [N, S, 3]
    material: tuple[int, ...]  # S class ids


def camera_of(scene: Scene) -> SceneCamera:
    """The camera, which looks at the origin with y upright in the image."""
    ca, sa = scene.azimuth.cos(), scene.azimuth.sin()
    ce, se = scene.elevation.cos(), scene.elevation.sin()
    outward = torch.stack([sa * ce, se, ca * ce], dim=1)
    right = torch.stack([ca, torch.zeros_like(ca), -sa], dim=1)
    up = torch.stack([-sa * se, ce, -ca * se], dim=1)
    return SceneCamera(outward * CAMERA_DISTANCE, right, up, -outward)


def solids_of(scene: Scene) -> Solids:
    """Head, hair, nose, ears, neck, then lenses, bridge and temples of the glasses, which apply
    only to scenes with glasses."""
    one = torch.ones_like(scene.azimuth)

    def triple(x: Tensor | float, y: Tensor | float, z: Tensor | float) -> Tensor:
        return torch.stack([one * x, one * y, one * z], dim=1)

    volume, length, nose = scene.hair_volume, scene.hair_length, scene.nose_size
    width, eye = scene.head_width, scene.eye_spacing
    tall = volume + length * 0.5
    rows: list[tuple[Tensor, Tensor, int]] = [
        (triple(0, 0, 0), triple(width, HEAD_HEIGHT, HEAD_DEPTH), SKIN),
        (triple(0, 0.10 - length * 0.5, -0.08), triple(width * volume, tall, volume), HAIR),
        (triple(0, -0.18, 0.90), triple(0.14 * nose, 0.19 * nose, 0.24 * nose), NOSE),
        (triple(width, 0, EAR_Z), triple(0.13, 0.24, 0.17), SKIN),
        (triple(-width, 0, EAR_Z), triple(0.13, 0.24, 0.17), SKIN),
        (triple(0, -1.3, -0.15), triple(0.42, 0.8, 0.42), SKIN),
        (triple(eye, EYE_HEIGHT, 0.78), triple(0.33, 0.28, 0.17), GLASSES),
        (triple(-eye, EYE_HEIGHT, 0.78), triple(0.33, 0.28, 0.17), GLASSES),
        (triple(0, EYE_HEIGHT + 0.06, 0.90), triple(0.22, 0.06, 0.08), GLASSES),
        (triple(width, EYE_HEIGHT + 0.06, 0.28), triple(0.06, 0.07, 0.50), GLASSES),
        (triple(-width, EYE_HEIGHT + 0.06, 0.28), triple(0.06, 0.07, 0.50), GLASSES),
    ]
    return Solids(
        center=torch.stack([c for c, _, _ in rows], dim=1),
        radii=torch.stack([r for _, r, _ in rows], dim=1),
        material=tuple(m for _, _, m in rows),
    )


def landmarks_of(scene: Scene) -> Tensor:
    """Points of KEYPOINT_NAMES on the surfaces, object frame, float32 [N, K, 3]."""
    one = torch.ones_like(scene.azimuth)
    width, half_mouth = scene.head_width, 0.9 * scene.mouth_size[:, 0]

    def on_head(x: Tensor, y: Tensor) -> Tensor:
        inside = 1 - (x / width).square() - (y / HEAD_HEIGHT).square()
        return torch.stack([x, y, HEAD_DEPTH * inside.sqrt()], dim=1)

    gaze_x, gaze_y = scene.gaze.unbind(dim=1)
    corner_y = MOUTH_HEIGHT + scene.smile * half_mouth.square()
    ear = torch.stack([width + 0.13, 0 * one, EAR_Z * one], dim=1)
    return torch.stack(
        [
            on_head(scene.eye_spacing + gaze_x, EYE_HEIGHT + gaze_y),
            on_head(gaze_x - scene.eye_spacing, EYE_HEIGHT + gaze_y),
            torch.stack([0 * one, -0.18 * one, 0.90 + 0.24 * scene.nose_size], dim=1),
            on_head(half_mouth, corner_y),
            on_head(-half_mouth, corner_y),
            on_head(0 * one, -0.88 * one),
            ear,
            ear * torch.tensor([-1.0, 1.0, 1.0], device=ear.device),
        ],
        dim=1,
    )
