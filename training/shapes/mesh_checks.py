"""What of a mesh is degenerate: measures, and flags where one is past its limit."""

from dataclasses import dataclass

from torch import Tensor

from nets.mesh import turned_inside_out
from training.shapes.template import Template

ABSURD = 1e6  # radii; float32 overflows in squares of squares from 1e9 on


@dataclass(frozen=True)
class Limits:
    """Past which a mesh is flagged; lengths in radii of the sphere it was bent from."""

    inverted: float = 0.05  # share of faces that point inwards or have no area
    longest_edge: float = 20.0  # over the median edge
    flatness: float = 0.05  # shortest side of the bounding box over its longest
    smallest: float = 0.05  # longest side of the bounding box
    reach: float = 5.0  # furthest vertex from the origin


@dataclass(frozen=True)
class Checks:
    """Of one mesh; lengths in object units. Without finite vertices there are no measures."""

    finite: bool  # and within reason
    inverted: float | None  # share of faces
    longest_edge: float | None
    median_edge: float | None
    shortest_edge: float | None
    box: tuple[float, float, float] | None  # sides along x, y, z
    reach: float | None
    flags: tuple[str, ...]  # in words; empty: nothing is wrong


def checks_of_mesh(points: Tensor, template: Template, radius: float, limits: Limits) -> Checks:
    """Of points [V, 3] on the template's faces."""
    finite = ((points / radius).abs() <= ABSURD).all(dim=1)  # NaN is not
    if not finite.all():
        some = int((~finite).sum())
        flag = f"{some} of {len(points)} vertices are not finite, or over {ABSURD:g} radii away"
        return Checks(False, None, None, None, None, None, None, (flag,))
    radii = points.double() / radius  # the measures below have absolute limits
    inverted = float(turned_inside_out(radii[None], template.faces)[0])
    edges = (radii[template.edges[:, 0]] - radii[template.edges[:, 1]]).norm(dim=1)
    longest, median, shortest = (float(edge) for edge in (edges.max(), edges.median(), edges.min()))
    box = radii.amax(dim=0) - radii.amin(dim=0)
    thin, side = float(box.min()), float(box.max())
    reach = float(radii.norm(dim=1).max())
    flags = [
        (
            inverted > limits.inverted,
            f"{inverted:.1%} of its faces are inverted or collapsed, over {limits.inverted:.1%}",
        ),
        (
            longest > limits.longest_edge * median,
            f"its longest edge is {longest / max(median, 1e-30):.3g} times the median, over "
            f"{limits.longest_edge:g}",
        ),
        (
            thin < limits.flatness * side,
            f"it is flat: its bounding box is {' x '.join(f'{s:.3g}' for s in box)} radii",
        ),
        (side < limits.smallest, f"its longest side is {side:.3g} radii; it collapsed"),
        (reach > limits.reach, f"it reaches {reach:.3g} radii from the origin"),
    ]
    return Checks(
        finite=True,
        inverted=inverted,
        longest_edge=longest * radius,
        median_edge=median * radius,
        shortest_edge=shortest * radius,
        box=(float(box[0]) * radius, float(box[1]) * radius, float(box[2]) * radius),
        reach=reach * radius,
        flags=tuple(words for wrong, words in flags if wrong),
    )


def flags_of_texture(texture: Tensor) -> tuple[str, ...]:
    """texture [3, T, W]."""
    return () if texture.isfinite().all() else ("its texture has colours that are not finite",)
