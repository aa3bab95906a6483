"""Multi-view sets -> a trained inverse-graphics network, step by step.

A step takes two views of each of some objects: each image's shape is drawn as the other one's
camera sees it and compared with that image. With one view it is compared with itself. Every loss
is a mean over N images.
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


def silhouette_loss(coverage: Tensor, silhouette: Tensor) -> Tensor:
    """1 - intersection over union of coverages in [0, 1], [N, R, R] each."""
    both = (coverage * silhouette).sum(dim=(1, 2))
    either = (coverage + silhouette - coverage * silhouette).sum(dim=(1, 2))
    return (1 - both / either.clamp(min=1e-6)).mean()


def color_loss(seen: Seen, images: Tensor, silhouette: Tensor) -> Tensor:
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


LOWEST_RATE = 0.01  # of the learning rate, at the end
LOOKED_AT = 256  # objects, before training
BETAS = (0.9, 0.99)  # Adam's


class InverseGraphicsTraining:
    """Takes one step after the other. Random draws are functions of the step."""

    def __init__(
        self,
        config: InverseGraphicsTrainConfig,
        sets: ObjectSets,
        bank: Cameras,
        device: torch.device,
    ) -> None:
        self.config, self.sets, self.device = config, sets, device
        self.bank = Cameras(*(angle.to(device) for angle in vars(bank).values()))
        self.template = template(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.network = InverseGraphics(config.network).to(device)
        self.network.look_at(self.network_input(sets.images[:LOOKED_AT, 0]))
        self.turns = torch.zeros(len(bank), 2, device=device, requires_grad=config.refine_cameras)
        turns = {"turns": self.turns} if config.refine_cameras else {}
        self.learnt = dict(self.network.named_parameters()) | turns
        self.adam = adam_with_moments(self.learnt.values(), config.learning_rate, BETAS)
        self.step = 0

    def advance(self) -> dict[str, float]:
        """One step, and its losses by name, unweighted. Raises TrainingError when one is not
        finite, before it has changed anything."""
        rows, views = self._drawn()
        losses = self._losses(rows, views)
        weights = asdict(self.config.weights)
        total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
        told = {name: float(loss.detach()) for name, loss in losses.items()}
        if not torch.isfinite(total):
            raise TrainingError(
                f"at step {self.step} a loss is not finite: {told}; lower --learning-rate"
            )
        for group in self.adam.param_groups:
            group["lr"] = self.config.learning_rate * self._rate()
        self.adam.zero_grad(set_to_none=True)
        total.backward()
        self.adam.step()
        self.step += 1
        return told

    def cameras(self, codes: Tensor) -> Cameras:
        """Of codes int64 [N], as far as they are learnt by now."""
        bank = self.bank[codes]
        turns = self.turns[codes]
        return Cameras(
            bank.azimuth + turns[:, 0], bank.elevation + turns[:, 1], bank.distance, bank.focal
        )

    def _losses(self, rows: Tensor, views: Tensor) -> dict[str, Tensor]:
        """rows int64 [B], views int64 [B, P]."""
        config, count = self.config, views.shape[1]
        picked = (rows[:, None], views)
        images = self.scaled(self.sets.images[picked].flatten(0, 1))
        silhouettes = self.scaled(self.sets.silhouettes[picked].flatten(0, 1)[:, None])[:, 0]
        codes = self.sets.codes[picked].flatten().to(self.device)
        cameras = self.cameras(codes)
        found = self.network(self.network_input(self.sets.images[picked].flatten(0, 1)))
        # What image a shows is drawn as image b sees it: a shape that only fits its own image is
        # easily found, and wrong.
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
        """uint8 [N, 3, E, E] -> [N, 3, E, E] in [0, 1], where the network is."""
        return images.to(self.device, torch.float32) / 255

    def scaled(self, images: Tensor) -> Tensor:
        """uint8 [N, C, E, E] -> [N, C, R, R] in [0, 1]."""
        x = self.network_input(images)
        size = (self.config.resolution, self.config.resolution)
        if x.shape[2:] == size:
            return x
        return F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)

    def _drawn(self) -> tuple[Tensor, Tensor]:
        """Objects [B] and their views [B, 2 or 1], different ones."""
        random = np.random.Generator(np.random.Philox(key=[self.config.seed, self.step]))
        objects, views = self.sets.codes.shape
        rows = random.integers(objects, size=self.config.batch)
        chosen = [random.permutation(views)[:2] for _ in rows]
        return torch.from_numpy(rows), torch.from_numpy(np.stack(chosen))

    def _rate(self) -> float:
        done = min(1.0, self.step / max(1, self.config.steps))
        return LOWEST_RATE + (1 - LOWEST_RATE) * 0.5 * (1 + math.cos(math.pi * done))


def directions_of(cameras: Cameras) -> Tensor:
    """Unit vectors from the object towards the cameras, [N, 3]."""
    ce = cameras.elevation.cos()
    return torch.stack(
        [cameras.azimuth.sin() * ce, cameras.elevation.sin(), cameras.azimuth.cos() * ce], dim=1
    )
