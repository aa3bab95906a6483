"""What an inverse-graphics network is trained by; every loss is a mean over N images."""

from torch import Tensor

from nets.mesh import flatness, laplacian
from nets.textured import Seen
from training.shapes.template import Template


def silhouette_loss(coverage: Tensor, silhouette: Tensor) -> Tensor:
    """1 - intersection over union of coverages in [0, 1], [N, R, R] each."""
    both = (coverage * silhouette).sum(dim=(1, 2))
    either = (coverage + silhouette - coverage * silhouette).sum(dim=(1, 2))
    return (1 - both / either.clamp(min=1e-6)).mean()


def colour_loss(seen: Seen, images: Tensor, silhouette: Tensor) -> Tensor:
    """Mean absolute difference where object and mesh are: images [N, 3, R, R] in [0, 1]."""
    there = silhouette * (seen.face >= 0)
    apart = (seen.colour - images).abs().mean(dim=1)
    return ((apart * there).sum(dim=(1, 2)) / there.sum(dim=(1, 2)).clamp(min=1)).mean()


def shape_losses(points: Tensor, template: Template) -> dict[str, Tensor]:
    """Of shapes in radii, [N, V, 3]: how far from a smooth sphere."""
    offsets = points - template.sphere
    return {
        "laplacian": laplacian(offsets, template.edges).square().sum(dim=2).mean(),
        "smoothness": flatness(points, template.faces, template.pairs).mean(),
        "offset": offsets.square().sum(dim=2).mean(),
    }


def consistency_loss(points: Tensor) -> Tensor:
    """Of the shapes that the views of one object give, in radii, [objects, views, V, 3]."""
    return points.var(dim=1, correction=0).sum(dim=2).mean()


def camera_loss(directions: Tensor, truth: Tensor) -> Tensor:
    """1 - cosine of unit vectors, [N, 3] each."""
    return (1 - (directions * truth).sum(dim=1)).mean()
