"""Inverse graphics learns shapes it can be checked against, and goes on to the last bit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from checkpoints import inverse_graphics_from_file, tensors_from_file, write_tensors
from labelmint import Model
from nets.inverse_graphics import InverseGraphicsConfig
from nets.textured import Cameras
from tests.training.ellipsoid_sets import BANK, EXTENT, ellipsoids, sets_of_ellipsoids
from training.errors import TrainingError
from training.inverse_graphics.config import InverseGraphicsTrainConfig, LossWeights
from training.inverse_graphics.object_sets import ObjectSets
from training.inverse_graphics.run import (
    InverseGraphicsRunOptions,
    mean_silhouette_iou,
    run_inverse_graphics,
)
from training.inverse_graphics.train import InverseGraphicsTraining, directions_of, silhouette_loss
from training.resume import state_path

CPU = torch.device("cpu")
TINY = InverseGraphicsConfig(extent=EXTENT, hidden=32, texture=8)
FAST = InverseGraphicsTrainConfig(TINY, steps=4, batch=2, resolution=24)
MODEL = Model(
    name="demo", bundle_id="sha256:demo", family="fake", outputs=(), image_size=(32, 32),
    label_size=(32, 32), z_dim=8, w_dim=8, num_ws=4, num_classes=0, view_layers=2,
    truncation_psi=1.0, truncation_cutoff=4, classes=(), keypoints=("nose",), skeleton=(),
    score_source="", max_batch_size=8, engine="fake", licences=("CC0-1.0",), calibrated=False,
)  # fmt: skip


def run_at(out: Path) -> InverseGraphicsRunOptions:
    return InverseGraphicsRunOptions(out, 2, ("background",), ["CC0-1.0"])


def training(
    config: InverseGraphicsTrainConfig = FAST, sets: ObjectSets | None = None
) -> InverseGraphicsTraining:
    return InverseGraphicsTraining(config, sets or sets_of_ellipsoids(4), BANK, CPU)


LEARNS = replace(
    FAST, network=replace(TINY, camera=True), steps=100, batch=4, resolution=32,
)  # fmt: skip


@pytest.fixture(scope="module")
def trained() -> InverseGraphicsTraining:
    """On four ellipsoids, long enough to tell them apart."""
    learns = training(LEARNS)
    assert mean_silhouette_iou(learns) < 0.75
    while learns.step < LEARNS.steps:
        learns.advance()
    return learns


@pytest.mark.long
def test_shapes_come_to_fit_silhouettes_and_geometry(trained: InverseGraphicsTraining) -> None:
    met = mean_silhouette_iou(trained)
    assert met > 0.88, met  # one shape for all of them comes to 0.85
    with torch.no_grad():
        found = trained.network(trained.network_input(trained.sets.images[:, 1])).points
    sizes = [points.amax(dim=1) - points.amin(dim=1) for points in (found, ellipsoids(4))]
    # Width and height, of 1.7 on average.
    assert (sizes[0] - sizes[1])[:, :2].abs().mean() < 0.2


@pytest.mark.long
def test_a_network_that_tells_cameras_learns_them(trained: InverseGraphicsTraining) -> None:
    with torch.no_grad():
        found = trained.network(trained.network_input(trained.sets.images.flatten(0, 1)))
    codes = trained.sets.codes.flatten()
    assert (found.angles[:, 0] - BANK.azimuth[codes]).abs().mean() < 0.3
    assert (found.angles[:, 1] - BANK.elevation[codes]).abs().mean() < 0.1
    assert found.directions is not None
    torch.testing.assert_close(found.directions.norm(dim=1), torch.ones(16))


@pytest.mark.long
def test_textures_are_as_bright_as_the_images(trained: InverseGraphicsTraining) -> None:
    """Whatever part of the brightness the light has taken."""
    images = trained.network_input(trained.sets.images[:, 1])
    with torch.no_grad():
        found = trained.network(images)
        twice = replace(found, texture=found.texture / 2, light=found.light * 2)
    torch.testing.assert_close(found.lit_texture, twice.lit_texture)
    there = trained.sets.silhouettes[:, 1] > 0
    shown = torch.stack([image[:, t].mean() for image, t in zip(images, there, strict=True)])
    front = found.lit_texture[:, :, 2:6, 6:10].mean(dim=(1, 2, 3))
    assert (shown - front).abs().max() < 0.15


@pytest.mark.long
def test_coarse_cameras_are_turned_towards_the_true_ones(trained: InverseGraphicsTraining) -> None:
    """The bank says one view is 29 degrees further round than it is; the shapes are known."""
    wrong = Cameras(BANK.azimuth + torch.tensor([0, 0, 0.5, 0]), *list(vars(BANK).values())[1:])
    config = replace(LEARNS, steps=25, learning_rate=1e-2, refine_cameras=True)
    learns = InverseGraphicsTraining(config, trained.sets, wrong, CPU)
    learns.network.load_state_dict(trained.network.state_dict())
    learns.network.requires_grad_(False)
    while learns.step < config.steps:
        learns.advance()
    turned = learns.corrections[:, 0].detach()
    assert turned[2] < -0.07 and turned[[0, 1, 3]].abs().max() < 0.05


@pytest.mark.parametrize(
    ("views", "cameras"), [(1, False), pytest.param(4, True, marks=pytest.mark.long)]
)
def test_a_training_that_was_cut_ends_with_the_same_bytes(
    views: int, cameras: bool, tmp_path: Path
) -> None:
    config = replace(FAST, network=replace(TINY, camera=cameras), refine_cameras=cameras)
    sets = sets_of_ellipsoids(4, views)
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    met = run_inverse_graphics(training(config, sets), MODEL, run_at(whole), resume=False)
    with pytest.raises(KeyboardInterrupt):
        run_inverse_graphics(CutShort(config, sets, BANK, CPU), MODEL, run_at(cut), resume=False)
    assert run_inverse_graphics(training(config, sets), MODEL, run_at(cut), resume=True) == met
    for name in ("", ".state"):
        paths = [p.with_suffix(f"{name}.safetensors") if name else p for p in (whole, cut)]
        assert paths[0].read_bytes() == paths[1].read_bytes()
    card = inverse_graphics_from_file(whole)[1]
    assert (card.bundle_id, card.keypoints, card.camera) == ("sha256:demo", ["nose"], cameras)
    assert card.silhouette == pytest.approx(met, abs=1e-4)
    assert (tmp_path / "whole-000002.png").exists()


class CutShort(InverseGraphicsTraining):
    """As Ctrl-C does it, between a state that was written and the next."""

    def advance(self) -> dict[str, float]:
        if self.step == 3:
            raise KeyboardInterrupt
        return super().advance()


@pytest.mark.long
def test_another_recipe_or_other_sets_are_not_gone_on_with(tmp_path: Path) -> None:
    out = tmp_path / "n.safetensors"
    run_inverse_graphics(training(), MODEL, run_at(out), resume=False)
    for name, other in {
        "batch": training(replace(FAST, batch=3)),
        "weights": training(replace(FAST, weights=LossWeights(colour=1.0))),
        "other images of objects .--source": training(FAST, sets_of_ellipsoids(3)),
    }.items():
        with pytest.raises(TrainingError, match=f"made with {name}.*leave --resume out"):
            run_inverse_graphics(other, MODEL, run_at(out), resume=True)
    broken = tensors_from_file(state_path(out))
    broken.pop("bends.bias")
    write_tensors(state_path(out), broken)
    with pytest.raises(TrainingError, match="no state of this training"):
        run_inverse_graphics(training(), MODEL, run_at(out), resume=True)


def test_a_loss_that_is_not_finite_changes_nothing() -> None:
    learns = training(replace(FAST, weights=LossWeights(colour=float("inf"))))
    before = {name: value.clone() for name, value in learns.network.state_dict().items()}
    with pytest.raises(TrainingError, match="not finite"):
        learns.advance()
    assert learns.step == 0
    for name, value in learns.network.state_dict().items():
        assert torch.equal(value, before[name])


def test_layers_behind_what_is_known_see_differences_from_the_start() -> None:
    sets = sets_of_ellipsoids(4)
    learns = training(sets=sets)
    images = learns.network_input(sets.images[:, 0])
    with torch.no_grad():
        known = (
            learns.network._image_vectors(images) - learns.network.centre
        ) / learns.network.spread
    assert known.mean(dim=0).abs().max() < 1e-4
    assert known.std(dim=0).median().item() == pytest.approx(1, abs=1e-3)


def test_directions_are_those_of_the_angles() -> None:
    assert directions_of(BANK).norm(dim=1).sub(1).abs().max() < 1e-6
    assert directions_of(BANK)[3, 0] > 0.7 and directions_of(BANK)[0, 0] < -0.7


def test_the_silhouette_loss_is_one_less_intersection_over_union() -> None:
    a, b = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
    a[0, :2], b[0, 1:3] = 1, 1
    assert silhouette_loss(a, b).item() == pytest.approx(1 - 4 / 12)
    assert silhouette_loss(a, a).item() == 0
    assert silhouette_loss(torch.zeros_like(a), torch.zeros_like(a)).isfinite()
