"""First hits of a pinhole camera's rays: each pixel's ray against each part in closed form.

A camera and Parts enter; the depth and the number of the nearest part leave. Rays are
position + t * (forward + x * right + y * up), so t is z-depth: the distance along the optical axis.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from examples.bench_world.parts import Part
from examples.bench_world.scene import CAMERA_DISTANCE, FOCAL, LOOK_AT, Floats, Scene

Float32s = NDArray[np.float32]


@dataclass(frozen=True)
class Camera:
    """Position and orthonormal axes, each [3], in the world."""

    position: Floats
    right: Floats
    up: Floats
    forward: Floats


@dataclass(frozen=True)
class View:
    """S parts as a camera sees them. A part's own frame has its axes, scaled by its radii."""

    camera: Camera
    parts: tuple[Part, ...]
    origin: Floats  # [S, 3], the camera in the part's frame
    basis: Floats  # [S, 3, 3], the rays' right, up and forward in the part's frame, as columns
    bounds: Floats  # [S, 4]: x from, x to, y from, y to of rays that may hit the part


@dataclass(frozen=True)
class Hits:
    """Nearest part along each ray of a grid [h, w]."""

    depth: Float32s  # inf where nothing is
    part: NDArray[np.int16]  # position in the list of parts


def camera_of(scene: Scene) -> Camera:
    """The camera, which looks at LOOK_AT with y upright in the image."""
    ca, sa = math.cos(scene.azimuth), math.sin(scene.azimuth)
    ce, se = math.cos(scene.elevation), math.sin(scene.elevation)
    outward = np.array([sa * ce, se, ca * ce])
    return Camera(
        np.array(LOOK_AT) + outward * CAMERA_DISTANCE,
        np.array([ca, 0.0, -sa]),
        np.array([-sa * se, ce, -ca * se]),
        -outward,
    )


def pixel_centers(extent: int) -> tuple[Floats, Floats]:
    """Rays through the centers of extent x extent pixels: x ascends, y descends, each [extent]."""
    across = ((np.arange(extent) + 0.5) / extent - 0.5) / FOCAL
    return across, -across


def projected(camera: Camera, points: Floats, extent: int) -> Floats:
    """World points [n, 3] -> [n, 3]: x, y in pixels (centers at +0.5) and z-depth."""
    offset = points - camera.position
    depth = offset @ camera.forward
    x, y = FOCAL * (offset @ camera.right) / depth, -FOCAL * (offset @ camera.up) / depth
    return np.stack([(x + 0.5) * extent, (y + 0.5) * extent, depth], axis=1)


def view_of_parts(camera: Camera, parts: Sequence[Part]) -> View:
    """Prepares parts for rays of a camera."""
    scale = np.array([(p.radii[0], p.radii[1], 1.0) if p.is_card else p.radii for p in parts])
    center = np.array([p.center for p in parts])
    matrix = np.array([p.axes for p in parts]) / scale[:, :, None]
    rays = np.stack([camera.right, camera.up, camera.forward], axis=1)
    origin = np.einsum("sij,sj->si", matrix, camera.position - center)
    return View(camera, tuple(parts), origin, matrix @ rays, _bounds(camera, parts, rays))


def _bounds(camera: Camera, parts: Sequence[Part], rays: Floats) -> Floats:
    """Least x, greatest x, least y, greatest y of each part's outline, [parts, 4]."""
    # A card is within the sphere around it.
    scale = np.array([[math.hypot(*p.radii[:2])] * 3 if p.is_card else p.radii for p in parts])
    matrix = np.array([p.axes for p in parts]) / scale[:, :, None]
    offset = camera.position - np.array([p.center for p in parts])
    o, basis = np.einsum("sij,sj->si", matrix, offset), matrix @ rays
    beyond = (o * o).sum(axis=1) - 1
    seen_from_inside = beyond <= 1e-3  # as the wall
    beyond[seen_from_inside] = 1.0
    # The outline is the conic v^T q v = 0 of v = (x, y, 1); its tangents x = const and y = const
    # are quadratic in const by way of the inverse of q.
    form = o[:, :, None] * o[:, None, :] - beyond[:, None, None] * np.eye(3)
    dual = np.linalg.inv(basis.transpose(0, 2, 1) @ form @ basis)
    bounds = np.empty((len(parts), 4))
    for k in (0, 1):
        middle = dual[:, k, 2] / dual[:, 2, 2]
        half = np.sqrt(np.maximum(middle**2 - dual[:, k, k] / dual[:, 2, 2], 0)) + 1e-6
        bounds[:, 2 * k], bounds[:, 2 * k + 1] = middle - half, middle + half
    bounds[seen_from_inside] = (-np.inf, np.inf, -np.inf, np.inf)
    return bounds


def first_hits(view: View, x: Floats, y: Floats) -> Hits:
    """Casts the rays of a grid; x [w] ascends, y [h] descends, as `pixel_centers` gives them."""
    depth = np.full((len(y), len(x)), np.inf, np.float32)
    winner = np.zeros((len(y), len(x)), np.int16)
    left, right = np.searchsorted(x, view.bounds[:, :2].T)
    top, bottom = np.searchsorted(-y, -view.bounds[:, :1:-1].T)
    for number in np.flatnonzero((left < right) & (top < bottom)).tolist():
        part = view.parts[number]
        columns = slice(left[number], right[number])
        rows = slice(top[number], bottom[number])
        cast = _card_depth if part.is_card else _ellipsoid_depth
        t = cast(view, number, x[columns], y[rows])
        nearer = t < depth[rows, columns]
        np.copyto(depth[rows, columns], t, where=nearer)
        np.copyto(winner[rows, columns], np.int16(number), where=nearer)
    return Hits(depth, winner)


def _ellipsoid_depth(view: View, number: int, x: Floats, y: Floats) -> Float32s:
    """z-depths [h, w] where rays enter; inf where they miss.

    With rays from the depth t0 of the center, a t^2 + 2 b t + c = 0 has small coefficients, and
    with x and y from the middle of the window float32 suffices.
    """
    camera, part = view.camera, view.parts[number]
    o, basis = view.origin[number], view.basis[number]
    t0 = float((part.center - camera.position) @ camera.forward)
    x0, y0 = 0.5 * float(x[0] + x[-1]), 0.5 * float(y[0] + y[-1])
    ray = basis.copy()
    ray[:, 2] += x0 * basis[:, 0] + y0 * basis[:, 1]
    start = t0 * ray
    start[:, 2] += o
    # D^T D, sym(o^T D) and D^T (o o^T) D - D^T D o^T o as quadratic forms of (x, y, 1).
    a_form = ray.T @ ray
    b_form = 0.5 * (start.T @ ray + ray.T @ start)
    # The discriminant does not depend on where the ray starts, so take the camera.
    disc_form = ray.T @ (np.outer(o, o) - (o @ o - 1) * np.eye(3)) @ ray
    dx, dy = (x - x0).astype(np.float32)[None, :], (y - y0).astype(np.float32)[:, None]
    product = dx * dy
    a, b, disc = (_quadratic(form, dx, dy, product) for form in (a_form, b_form, disc_form))
    hit = disc > 0
    root = np.sqrt(np.maximum(disc, 0))
    enter = (-b - root) / a
    if part.cut is not None:
        normal, offset = part.cut
        leave = (root - b) / a
        slope = (
            np.float32(normal @ camera.forward)
            + np.float32(normal @ camera.right) * x.astype(np.float32)[None, :]
            + np.float32(normal @ camera.up) * y.astype(np.float32)[:, None]
        )
        crossing = np.float32(offset - normal @ camera.position) / slope - np.float32(t0)
        # A convex part cut by a half-space: the ray is inside where both allow it.
        enter = np.where(slope > 0, np.maximum(enter, crossing), enter)
        hit &= enter < np.where(slope > 0, leave, np.minimum(leave, crossing))
    return np.where(hit, enter + np.float32(t0), np.float32(np.inf))


def _quadratic(form: Floats, dx: Float32s, dy: Float32s, product: Float32s) -> Float32s:
    """v^T form v of v = (dx, dy, 1), float32 [h, w]."""
    f = form.astype(np.float32)
    across = f[0, 0] * dx * dx + 2 * f[0, 2] * dx + f[2, 2]
    down = f[1, 1] * dy * dy + 2 * f[1, 2] * dy
    value: Float32s = across + down + 2 * f[0, 1] * product
    return value


def _card_depth(view: View, number: int, x: Floats, y: Floats) -> Float32s:
    """z-depths [h, w] where rays pass a card; inf where they miss it or pass its hole."""
    part, o, basis = view.parts[number], view.origin[number], view.basis[number]
    column, row = x[None, :], y[:, None]
    d0, d1, d2 = (basis[i, 0] * column + basis[i, 1] * row + basis[i, 2] for i in range(3))
    t = -o[2] / d2
    u, v = o[0] + t * d0, o[1] + t * d1
    if part.square:
        inside = (np.abs(u) < 1) & (np.abs(v) < 1)
    else:
        distance = u * u + v * v
        inside = (distance < 1) & (distance > part.hole**2)
    return np.where(inside & (t > 0), t, np.inf).astype(np.float32)
