"""Exact renderer of the demo's scene: intersects each pixel's ray with each solid in closed form.

A Scene enters; image, part mask, keypoints and depth leave. Depth is z-depth, the distance
along the optical axis, in object units.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from examples.demo.scene import (
    BACKGROUND,
    EYE,
    FOCAL,
    GLASSES,
    HAIR,
    MOUTH,
    PUPIL,
    WALL_DEPTH,
    Scene,
)
from examples.demo.solids import (
    EYE_HEIGHT,
    EYE_WIDTH,
    HAIR_PLANE,
    HAIR_SOLID,
    HEAD_SOLID,
    MOUTH_HEIGHT,
    PUPIL_RADIUS,
    SceneCamera,
    Solids,
    camera_of,
    landmarks_of,
    solids_of,
)

BEARD = 8  # a color of its own; its class is hair
# Light from over the viewer's left shoulder, along the camera's right, up and forward axes.
LIGHT = (-0.38, 0.50, -0.78)
AMBIENT = 0.60


@dataclass(frozen=True)
class SceneTruth:
    """Images and labels of a batch of N scenes, at R x R pixels."""

    image: Tensor  # float32 [N, 3, R, R] in [-1, 1], anti-aliased
    mask: Tensor  # uint8 [N, R, R], class under the center of each pixel
    keypoints: Tensor  # float32 [N, K, 3]: x, y in pixels (centers at +0.5), visibility 0 or 1
    depth: Tensor  # float32 [N, R, R], z-depth at the center of each pixel


@dataclass(frozen=True)
class Hits:
    """First intersection of each ray: all [N, H, W], color [N, 3, H, W] in [0, 1]."""

    part: Tensor  # uint8 class id
    depth: Tensor
    color: Tensor


def trace(scene: Scene, x: Tensor, y: Tensor) -> Hits:
    """Casts rays through image-plane points, in image extents from the center, x right, y down.

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
    color = torch.gather(
        scene.colors.transpose(1, 2), 2, shown.flatten(1)[:, None].expand(-1, 3, -1)
    ).unflatten(2, shape[1:])
    shade = torch.where(winner < 0, 1.0, _shade(camera, solids, winner.clamp(min=0), point))
    part = torch.where(shown == BEARD, HAIR, shown).to(torch.uint8)
    return Hits(part, nearest, (color * shade[:, None]).clamp(0, 1))


def _per_scene(values: Tensor) -> Tensor:  # [N] -> [N, 1, 1]
    return values[:, None, None]


def _entry(
    camera: SceneCamera,
    solids: Solids,
    s: int,
    x: Tensor,
    y: Tensor,
    rows: Tensor | slice = slice(None),  # scenes to intersect, int64 [M] or all
) -> tuple[Tensor, Tensor]:
    """z-depths [M, H, W] where rays enter and leave solid s; +inf and -inf where they miss it."""
    radii = solids.radii[rows, s]
    o = (camera.position[rows] - solids.center[rows, s]) / radii
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


def _hair_depth(scene: Scene, camera: SceneCamera, solids: Solids, x: Tensor, y: Tensor) -> Tensor:
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
    """Adds the parts painted on the face; each is an outline in x and y, projected along z."""
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


def _shade(camera: SceneCamera, solids: Solids, winner: Tensor, point: list[Tensor]) -> Tensor:
    """Ambient and diffuse light on the ellipsoids (the hair's cut is shaded as its ellipsoid)."""
    light = LIGHT[0] * camera.right + LIGHT[1] * camera.up + LIGHT[2] * camera.forward
    light = light / light.norm(dim=1, keepdim=True)
    index = winner.flatten(1)
    squared, lit = torch.zeros_like(point[0]), torch.zeros_like(point[0])
    for i in range(3):
        inverse = solids.radii[:, :, i].reciprocal().square()
        scale = inverse.gather(1, index).view_as(winner)
        offset = (solids.center[:, :, i] * inverse).gather(1, index).view_as(winner)
        normal = point[i] * scale - offset
        squared += normal.square()
        lit += normal * _per_scene(light[:, i])
    return AMBIENT + (1 - AMBIENT) * (lit * squared.rsqrt()).clamp(min=0)


def pixel_centers(extent: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Image-plane coordinates of a pixel grid for `trace`: [1, 1, W] and [1, H, 1]."""
    centers = (torch.arange(extent, device=device) + 0.5) / extent - 0.5
    return centers[None, None, :], centers[None, :, None]


def keypoints_of(scene: Scene, resolution: int) -> Tensor:
    """float32 [N, K, 3]: x, y in pixels and 1 where nothing occludes the landmark."""
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
    """Image from supersampling^2 rays per pixel; mask and depth from the pixel's center."""
    fine = trace(scene, *pixel_centers(resolution * supersampling, scene.azimuth.device))
    center = trace(scene, *pixel_centers(resolution, scene.azimuth.device))
    image = F.avg_pool2d(fine.color, supersampling) * 2 - 1
    return SceneTruth(image, center.part, keypoints_of(scene, resolution), center.depth)
