"""Lambda means what the reduction says, and each feature is blind to what it should be blind to."""

import math

import pytest
import torch

from training.refiner.config import Feature, Reduction, Regulariser
from training.refiner.train import adversarial_loss, self_regularisation


def images(seed: int) -> torch.Tensor:
    return torch.rand(4, 3, 8, 10, generator=torch.Generator().manual_seed(seed))


def test_reductions_differ_by_the_number_of_values() -> None:
    found = {
        reduction: float(self_regularisation(images(0), images(1), Regulariser(2.0, reduction)))
        for reduction in ("mean", "image-sum", "batch-sum")
    }
    expected = 2 * float((images(0) - images(1)).abs().mean())
    values = 3 * 8 * 10
    assert found["mean"] == pytest.approx(expected, rel=1e-5)
    assert found["image-sum"] == pytest.approx(expected * values, rel=1e-5)
    assert found["batch-sum"] == pytest.approx(expected * values * 4, rel=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "image-sum", "batch-sum"])
@pytest.mark.parametrize("feature", ["identity", "colour-mean", "gradients"])
def test_equal_images_cost_nothing(feature: Feature, reduction: Reduction) -> None:
    config = Regulariser(1.0, reduction, feature)
    assert float(self_regularisation(images(0), images(0), config)) == 0
    assert float(self_regularisation(images(0), images(1), config)) > 0


def test_the_colour_mean_does_not_see_hue_and_gradients_do_not_see_brightness() -> None:
    hue = torch.tensor([0.2, -0.1, -0.1])[:, None, None]
    mean, slope = Regulariser(feature="colour-mean"), Regulariser(feature="gradients")
    assert float(self_regularisation(images(0) + hue, images(0), mean)) < 1e-6
    assert float(self_regularisation(images(0) + 0.3, images(0), mean)) > 0.1
    assert float(self_regularisation(images(0) + 0.3, images(0), slope)) < 1e-6
    assert float(self_regularisation(images(0) * 0.5, images(0), slope)) > 0.01


def test_a_patch_that_is_not_sure_costs_the_logarithm_of_two() -> None:
    logits = torch.zeros(2, 1, 3, 3)
    assert float(adversarial_loss(logits, real=True)) == pytest.approx(math.log(2))
    assert float(adversarial_loss(logits + 9, real=True)) < 0.001
    assert float(adversarial_loss(logits + 9, real=False)) > 8
