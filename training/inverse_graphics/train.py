"""Multi-view sets -> a trained inverse-graphics network, step by step (GANverse3D, ICLR 2021).

A step draws two views of each of some objects. The shape that the network makes of one image is
rendered from the camera of the other view and compared with the image there: a shape that only
fits its own image is easily found, and wrong. With a single view it is compared with itself.
"""

import math
from dataclasses import asdict

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nets.inverse_graphics import InverseGraphics
from nets.mesh import flatness, laplacian
from nets.textured import Cameras, Seen, seen_from
from training.errors import TrainingError
from training.inverse_graphics.config import InverseGraphicsTrainConfig, Template, template
from training.inverse_graphics.object_sets import ObjectSets
from training.resume import adam_with_moments

BETAS = (0.9, 0.99)  # Adam's
LOWEST_RATE = 0.01  # last learning rate, as a share of the first
STATISTICS_OBJECTS = 256  # objects whose images normalize the network's features, before training


class InverseGraphicsTraining:
    """Runs one step at a time. Random draws depend on the seed and the step alone."""

    def __init__(
        self,
        config: InverseGraphicsTrainConfig,
        sets: ObjectSets,
        bank: Cameras,  # by code
        device: torch.device,
    ) -> None:
        self.config, self.sets, self.device = config, sets, device
        self.bank = Cameras(*(angle.to(device) for angle in vars(bank).values()))
        self.template = template(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.network = InverseGraphics(config.network).to(device)
        self.network.look_at(self.network_input(sets.images[:STATISTICS_OBJECTS, 0]))
        # Corrections of the bank's azimuths and elevations; "turns" is their key in state files.
        self.corrections = torch.zeros(
            len(bank), 2, device=device, requires_grad=config.refine_cameras
        )
        corrections = {"turns": self.corrections} if config.refine_cameras else {}
        self.learnt = dict(self.network.named_parameters()) | corrections
        self.adam = adam_with_moments(self.learnt.values(), config.learning_rate, BETAS)
        self.step = 0  # completed steps

    def advance(self) -> dict[str, float]:
        """Runs one step and returns its losses, unweighted, by the names of LossWeights.

        Raises TrainingError when one is not finite, before the step changes any weight.
        """
        rows, views = self._drawn_views()
        losses = self._losses(rows, views)
        weights = asdict(self.config.weights)
        total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
        reported = {name: float(loss.detach()) for name, loss in losses.items()}
        if not torch.isfinite(total):
            raise TrainingError(
                f"at step {self.step} a loss is not finite: {reported}; lower --learning-rate"
            )
        for group in self.adam.param_groups:
            group["lr"] = self.config.learning_rate * self._rate_factor()
        self.adam.zero_grad(set_to_none=True)
        total.backward()
        self.adam.step()
        self.step += 1
        return reported

    def cameras(self, codes: Tensor) -> Cameras:
        """The bank's cameras of codes int64 [N], with the corrections learnt so far."""
        bank = self.bank[codes]
        corrections = self.corrections[codes]
        return Cameras(
            bank.azimuth + corrections[:, 0],
            bank.elevation + corrections[:, 1],
            bank.distance,
            bank.focal,
        )

    def _losses(self, rows: Tensor, views: Tensor) -> dict[str, Tensor]:
        """Losses of P views of each of B objects; rows int64 [B], views int64 [B, P]."""
        config, count = self.config, views.shape[1]
        picked = (rows[:, None], views)
        images = self.scaled(self.sets.images[picked].flatten(0, 1))
        silhouettes = self.scaled(self.sets.silhouettes[picked].flatten(0, 1)[:, None])[:, 0]
        codes = self.sets.codes[picked].flatten().to(self.device)
        cameras = self.cameras(codes)
        found = self.network(self.network_input(self.sets.images[picked].flatten(0, 1)))
        # Images are in order of object, then view. other[i] is an object's next view:
        # 2 views of each object give 1, 0, 3, 2, ...
        other = torch.arange(len(codes), device=self.device).view(-1, count).roll(1, 1).flatten()
        seen = seen_from(
            found.points, self.template.faces, self.template.uv, found.texture, cameras[other],
            config.resolution, found.light[other], config.sharpness,
        )  # fmt: skip
        radii = found.points / config.network.radius
        losses = {
            "silhouette": silhouette_loss(seen.coverage, silhouettes[other]),
            "colour": color_loss(seen, images[other], silhouettes[other]),
            **shape_losses(radii, self.template),
        }
        if count > 1:
            losses["consistency"] = consistency_loss(radii.unflatten(0, (-1, count)))
        if found.directions is not None:
            losses["camera"] = camera_loss(found.directions, directions_of(cameras))
        return losses

    def network_input(self, images: Tensor) -> Tensor:
        """uint8 [N, 3, E, E] -> [N, 3, E, E] in [0, 1], on the network's device."""
        return images.to(self.device, torch.float32) / 255

    def scaled(self, images: Tensor) -> Tensor:
        """uint8 [N, C, E, E] -> [N, C, R, R] in [0, 1], at the resolution of the losses."""
        x = self.network_input(images)
        size = (self.config.resolution, self.config.resolution)
        if x.shape[2:] == size:
            return x
        return F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)

    def _drawn_views(self) -> tuple[Tensor, Tensor]:
        """Objects [B], and two different views of each, [B, 2]; [B, 1] if there is one view."""
        rng = np.random.Generator(np.random.Philox(key=[self.config.seed, self.step]))
        objects, views = self.sets.codes.shape
        rows = rng.integers(objects, size=self.config.batch)
        chosen = [rng.permutation(views)[:2] for _ in rows]
        return torch.from_numpy(rows), torch.from_numpy(np.stack(chosen))

    def _rate_factor(self) -> float:
        """Half a cosine from 1 to LOWEST_RATE.

        A function of the step alone, unlike torch.optim.lr_scheduler, so that the state file needs
        no scheduler and a resumed training ends with the same bits.
        """
        done = min(1.0, self.step / max(1, self.config.steps))
        return LOWEST_RATE + (1 - LOWEST_RATE) * 0.5 * (1 + math.cos(math.pi * done))


def silhouette_loss(coverage: Tensor, silhouette: Tensor) -> Tensor:
    """Mean of 1 - intersection over union of two coverages [N, R, R] in [0, 1]."""
    both = (coverage * silhouette).sum(dim=(1, 2))
    either = (coverage + silhouette - coverage * silhouette).sum(dim=(1, 2))
    return (1 - both / either.clamp(min=1e-6)).mean()


def color_loss(seen: Seen, images: Tensor, silhouette: Tensor) -> Tensor:
    """Mean absolute difference from images [N, 3, R, R] in [0, 1], over the pixels of both the
    silhouette [N, R, R] and the rendered mesh."""
    overlap = silhouette * (seen.face >= 0)
    difference = (seen.color - images).abs().mean(dim=1)
    total = (difference * overlap).sum(dim=(1, 2))
    return (total / overlap.sum(dim=(1, 2)).clamp(min=1)).mean()


def shape_losses(points: Tensor, template: Template) -> dict[str, Tensor]:
    """Deviation of vertices [N, V, 3], in radii, from a smooth sphere; names as in LossWeights."""
    offsets = points - template.sphere
    return {
        "laplacian": laplacian(offsets, template.edges).square().sum(dim=2).mean(),
        "smoothness": flatness(points, template.faces, template.pairs).mean(),
        "offset": offsets.square().sum(dim=2).mean(),
    }


def consistency_loss(points: Tensor) -> Tensor:
    """Variance of vertices [objects, views, V, 3], in radii, over the views of an object."""
    return points.var(dim=1, correction=0).sum(dim=2).mean()


def camera_loss(directions: Tensor, truth: Tensor) -> Tensor:
    """Mean of 1 - cosine between unit vectors, [N, 3] each."""
    return (1 - (directions * truth).sum(dim=1)).mean()


def directions_of(cameras: Cameras) -> Tensor:
    """Unit vectors from the object to the cameras, [N, 3]."""
    across = cameras.elevation.cos()
    return torch.stack(
        [cameras.azimuth.sin() * across, cameras.elevation.sin(), cameras.azimuth.cos() * across],
        dim=1,
    )
