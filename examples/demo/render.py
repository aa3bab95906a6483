"""Draws the demo's scene exactly: every pixel's ray against every solid, in closed form.

A Scene enters; image, part mask, keypoints and depth leave. Depth is z-depth, the distance
along the optical axis, in object units.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from examples.demo.scene import (
    BACKGROUND,
    CAMERA_DISTANCE,
    EYE,
    FOCAL,
    GLASSES,
    HAIR,
    MOUTH,
    NOSE,
    PUPIL,
    SKIN,
    WALL_DEPTH,
    Scene,
)

BEARD = 8  # its own colour; its class is hair
HEAD_SOLID, HAIR_SOLID = 0, 1
HEAD_HEIGHT, HEAD_DEPTH = 1.0, 0.9  # semi-axes of the head along y and z
EYE_HEIGHT, MOUTH_HEIGHT = 0.12, -0.55
EYE_WIDTH, PUPIL_RADIUS = 0.27, 0.145
HAIR_PLANE = (0.70, -0.72)  # y and z of the normal of the plane that cuts the hair
EAR_Z = -0.08
# Light from over the viewer's left shoulder, along the camera's right, up and forward axes.
LIGHT = (-0.38, 0.50, -0.78)
AMBIENT = 0.60


@dataclass(frozen=True)
class SceneTruth:
    """What a batch of scenes looks like and what is in it, at R x R pixels."""

    image: Tensor  # float32 [N, 3, R, R] in [-1, 1], anti-aliased
    mask: Tensor  # uint8 [N, R, R], class under the centre of each pixel
    keypoints: Tensor  # float32 [N, K, 3]: x, y in pixels (centres at +0.5), visibility 0 or 1
    depth: Tensor  # float32 [N, R, R], z-depth at the centre of each pixel


@dataclass(frozen=True)
class Camera:
    """Pinhole cameras: position and orthonormal axes, each [N, 3]."""

    position: Tensor
    right: Tensor
    up: Tensor
    forward: Tensor


@dataclass(frozen=True)
class Solids:
    """S axis-aligned ellipsoids a scene; the head is the first, the hair the second."""

    centre: Tensor  # [N, S, 3]
    radii: Tensor  # [N, S, 3]
    material: tuple[int, ...]  # S class ids


@dataclass(frozen=True)
class Hits:
    """Where rays end: all [N, H, W], colour [N, 3, H, W] in [0, 1]."""

    part: Tensor  # uint8 class id
    depth: Tensor
    colour: Tensor


def camera_of(scene: Scene) -> Camera:
    """The camera that looks at the origin, y upright in the image."""
    ca, sa = scene.azimuth.cos(), scene.azimuth.sin()
    ce, se = scene.elevation.cos(), scene.elevation.sin()
    outward = torch.stack([sa * ce, se, ca * ce], dim=1)
    right = torch.stack([ca, torch.zeros_like(ca), -sa], dim=1)
    up = torch.stack([-sa * se, ce, -ca * se], dim=1)
    return Camera(outward * CAMERA_DISTANCE, right, up, -outward)


def solids_of(scene: Scene) -> Solids:
    """Head, hair, nose, ears, neck, then the lenses, bridge and temples of the glasses, which
    only the scenes with glasses have."""
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
        centre=torch.stack([c for c, _, _ in rows], dim=1),
        radii=torch.stack([r for _, r, _ in rows], dim=1),
        material=tuple(m for _, _, m in rows),
    )


def trace(scene: Scene, x: Tensor, y: Tensor) -> Hits:
    """Rays through image-plane points, in image extents from the centre, x right, y down.

    x and y broadcast to [N or 1, H, W]; a grid is cheapest as [1, 1, W] and [1, H, 1].
    """
    camera, solids = camera_of(scene), solids_of(scene)
    x, y = x / FOCAL, -y / FOCAL
    # Rays are position + t * (forward + x * right + y * up), so t is z-depth.
    shape = torch.broadcast_shapes((len(scene), 1, 1), x.shape, y.shape)
    nearest = torch.full(shape, WALL_DEPTH, device=x.device)
    winner = torch.full(shape, -1, dtype=torch.int64, device=x.device)
    wearers = scene.glasses.nonzero()[:, 0]
    for s, material in enumerate(solids.material):
        rows = wearers if material == GLASSES else slice(None)
        if s == HAIR_SOLID:
            t = _hair_depth(scene, camera, solids, x, y)
        else:
            t = _entry(camera, solids, s, x, y, rows)[0]
        nearer = t < nearest[rows]
        nearest[rows] = torch.where(nearer, t, nearest[rows])
        winner[rows] = torch.where(nearer, s, winner[rows])
    point = [
        _per_scene(camera.position[:, i])
        + nearest
        * (
            _per_scene(camera.forward[:, i])
            + x * _per_scene(camera.right[:, i])
            + y * _per_scene(camera.up[:, i])
        )
        for i in range(3)
    ]
    materials = torch.tensor((*solids.material, BACKGROUND), device=x.device)
    shown = _painted(scene, materials[winner], winner == HEAD_SOLID, point)
    colour = torch.gather(
        scene.colours.transpose(1, 2), 2, shown.flatten(1)[:, None].expand(-1, 3, -1)
    ).unflatten(2, shape[1:])
    shade = torch.where(winner < 0, 1.0, _shade(camera, solids, winner.clamp(min=0), point))
    part = torch.where(shown == BEARD, HAIR, shown).to(torch.uint8)
    return Hits(part, nearest, (colour * shade[:, None]).clamp(0, 1))


def _per_scene(values: Tensor) -> Tensor:  # [N] -> [N, 1, 1]
    return values[:, None, None]


def _entry(
    camera: Camera,
    solids: Solids,
    s: int,
    x: Tensor,
    y: Tensor,
    rows: Tensor | slice = slice(None),  # the scenes asked for, int64 [M] or all
) -> tuple[Tensor, Tensor]:
    """z-depths [M, H, W] where rays enter and leave solid s; +inf and -inf where they miss it."""
    radii = solids.radii[rows, s]
    o = (camera.position[rows] - solids.centre[rows, s]) / radii
    f, r, u = camera.forward[rows] / radii, camera.right[rows] / radii, camera.up[rows] / radii
    x, y = (v if len(v) == 1 else v[rows] for v in (x, y))

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return _per_scene((a * b).sum(dim=1))

    # a t^2 + 2 b t + c = 0 with a quadratic and b linear in the pixel: the outline is a conic.
    a = (
        (dot(f, f) + 2 * x * dot(f, r) + x * x * dot(r, r))
        + (2 * y * dot(f, u) + y * y * dot(u, u))
        + (2 * dot(r, u) * x) * y
    )
    b = (dot(o, f) + x * dot(o, r)) + y * dot(o, u)
    c = dot(o, o) - 1
    discriminant = b * b - a * c
    root = discriminant.clamp(min=0).sqrt()
    hit = discriminant > 0
    return torch.where(hit, (-b - root) / a, torch.inf), torch.where(
        hit, (root - b) / a, -torch.inf
    )


def _hair_depth(scene: Scene, camera: Camera, solids: Solids, x: Tensor, y: Tensor) -> Tensor:
    """Entry depth of the hair: its ellipsoid on the upper, rear side of a tilted plane."""
    enter, leave = _entry(camera, solids, HAIR_SOLID, x, y)
    normal = torch.stack(
        [scene.parting, *(torch.full_like(scene.parting, v) for v in HAIR_PLANE)], dim=1
    )
    at_camera = _per_scene((normal * camera.position).sum(dim=1) - scene.hairline)
    slope = (
        _per_scene((normal * camera.forward).sum(dim=1))
        + x * _per_scene((normal * camera.right).sum(dim=1))
        + y * _per_scene((normal * camera.up).sum(dim=1))
    )
    crossing = -at_camera / slope
    # A convex solid cut by a half-space: the ray is inside where both allow it.
    enter = torch.where(slope > 0, torch.maximum(enter, crossing), enter)
    leave = torch.where(slope > 0, leave, torch.minimum(leave, crossing))
    return torch.where(enter < leave, enter, torch.inf)


def _painted(scene: Scene, material: Tensor, on_head: Tensor, point: list[Tensor]) -> Tensor:
    """Adds the parts painted on the face, each an outline in x and y projected along z."""
    px, py, pz = point
    face = on_head & (pz > 0)
    eye_x = px.abs() - _per_scene(scene.eye_spacing)
    eye_y = py - EYE_HEIGHT
    eye = (eye_x / EYE_WIDTH).square() + (eye_y / _per_scene(scene.eye_opening)).square() < 1
    # Both eyes look the same way, so the mirrored coordinate takes the mirrored gaze.
    gaze_x = torch.where(px > 0, 1.0, -1.0) * _per_scene(scene.gaze[:, 0])
    gaze_y = _per_scene(scene.gaze[:, 1])
    pupil = eye & ((eye_x - gaze_x).square() + (eye_y - gaze_y).square() < PUPIL_RADIUS**2)
    half_width, half_height = _per_scene(scene.mouth_size[:, 0]), _per_scene(scene.mouth_size[:, 1])
    mouth_y = py - MOUTH_HEIGHT - _per_scene(scene.smile) * px.square()
    mouth = (px / half_width).square() + (mouth_y / half_height).square() < 1
    # The beard's edge rises towards the ears and, with its size, up from the chin.
    edge = -0.62 + 0.42 * _per_scene(scene.beard) + 0.35 * px.square()
    beard = on_head & (pz > -0.25) & (py < edge) & (_per_scene(scene.beard) > 0)
    material = torch.where(beard, BEARD, material)
    material = torch.where(face & eye, EYE, material)
    material = torch.where(face & pupil, PUPIL, material)
    return torch.where(face & mouth, MOUTH, material)


def _shade(camera: Camera, solids: Solids, winner: Tensor, point: list[Tensor]) -> Tensor:
    """Ambient and diffuse light on the ellipsoids (the hair's cut is shaded as its ellipsoid)."""
    light = LIGHT[0] * camera.right + LIGHT[1] * camera.up + LIGHT[2] * camera.forward
    light = light / light.norm(dim=1, keepdim=True)
    index = winner.flatten(1)
    squared, lit = torch.zeros_like(point[0]), torch.zeros_like(point[0])
    for i in range(3):
        inverse = solids.radii[:, :, i].reciprocal().square()
        scale = inverse.gather(1, index).view_as(winner)
        offset = (solids.centre[:, :, i] * inverse).gather(1, index).view_as(winner)
        normal = point[i] * scale - offset
        squared += normal.square()
        lit += normal * _per_scene(light[:, i])
    return AMBIENT + (1 - AMBIENT) * (lit * squared.rsqrt()).clamp(min=0)


def pixel_centres(extent: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Image-plane coordinates of a pixel grid for `trace`: [1, 1, W] and [1, H, 1]."""
    centres = (torch.arange(extent, device=device) + 0.5) / extent - 0.5
    return centres[None, None, :], centres[None, :, None]


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


def keypoints_of(scene: Scene, resolution: int) -> Tensor:
    """float32 [N, K, 3]: x, y in pixels and 1 where nothing stands before the landmark."""
    camera, points = camera_of(scene), landmarks_of(scene)
    offset = points - camera.position[:, None]
    depth = torch.einsum("nkc,nc->nk", offset, camera.forward)
    x = FOCAL * torch.einsum("nkc,nc->nk", offset, camera.right) / depth
    y = -FOCAL * torch.einsum("nkc,nc->nk", offset, camera.up) / depth
    seen = depth <= trace(scene, x[:, None], y[:, None]).depth[:, 0] + 2e-3
    framed = (x.abs() < 0.5) & (y.abs() < 0.5)
    return torch.stack(
        [(x + 0.5) * resolution, (y + 0.5) * resolution, (seen & framed).float()], dim=2
    )


def render(scene: Scene, resolution: int, supersampling: int = 4) -> SceneTruth:
    """Image as the mean of supersampling^2 rays a pixel; mask and depth from its centre."""
    fine = trace(scene, *pixel_centres(resolution * supersampling, scene.azimuth.device))
    centre = trace(scene, *pixel_centres(resolution, scene.azimuth.device))
    image = F.avg_pool2d(fine.colour, supersampling) * 2 - 1
    return SceneTruth(image, centre.part, keypoints_of(scene, resolution), centre.depth)
