"""Training is repeatable, sees every labelled region, and learns what the features tell."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nets.features import hypercolumn
from nets.stylegan2 import Generator, GeneratorConfig
from training.errors import LabelError
from training.fit_interpreter import FitConfig, PixelSampler, fit_interpreter
from training.labelled_set import LabelledSet, LabelNames

FAST = FitConfig(members=2, steps=250, pixels_per_image=64, learning_rate=1e-2)


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(1)
    return Generator(GeneratorConfig(16, (8, 8, 8), z_dim=8, w_dim=8, mapping_layers=2)).eval()


@pytest.fixture(scope="module")
def labels(generator: Generator) -> LabelledSet:
    """Masks that are a function of the image, and the brightest pixel as the keypoint."""
    torch.manual_seed(2)
    with torch.no_grad():
        ws = generator.mapping(torch.randn(4, 8))[:, None].expand(-1, 6, -1).contiguous()
        image = generator.synthesis(ws).image[:, 0]
    masks = (image > image.mean()).byte()
    masks[:, :2, :2] = 2  # a region of four pixels
    peak = image.flatten(1).argmax(dim=1)
    keypoints = torch.stack([peak % 16 + 0.5, peak // 16 + 0.5, torch.ones(4)], dim=1)[:, None]
    names = LabelNames((("low", 0), ("high", 1), ("corner", 2)), ("peak",))
    return LabelledSet(ws.numpy(), masks.numpy(), keypoints.numpy(), names)


def test_the_same_seed_gives_the_same_weights(generator: Generator, labels: LabelledSet) -> None:
    short = replace(FAST, steps=5)
    first, second = (fit_interpreter(generator, labels, short).state_dict() for _ in range(2))
    other = fit_interpreter(generator, labels, replace(short, seed=1)).state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not torch.equal(
        first["heads.segmentation.linear1.weight"], other["heads.segmentation.linear1.weight"]
    )


def test_a_trained_ensemble_labels_its_own_images(
    generator: Generator, labels: LabelledSet
) -> None:
    interpreter = fit_interpreter(generator, labels, FAST)
    with torch.no_grad():
        taps = generator.synthesis(torch.from_numpy(labels.ws)).taps
        features = hypercolumn(taps, 16).permute(0, 2, 3, 1).flatten(0, 2)
        predicted = interpreter(features)
    votes = predicted["segmentation"].argmax(dim=2).mode(dim=0).values
    assert (votes.numpy() == labels.masks.ravel()).mean() > 0.9
    heat = predicted["keypoints"].mean(dim=0).view(4, 256)
    assert labels.keypoints is not None
    found = torch.stack([heat.argmax(1) % 16, heat.argmax(1) // 16], dim=1).numpy() + 0.5
    assert np.abs(found - labels.keypoints[:, 0, :2]).max() <= 1.5


def test_every_class_of_every_image_is_drawn(labels: LabelledSet) -> None:
    rows, columns = PixelSampler(labels, FAST).draw()
    for i, mask in enumerate(labels.masks):
        drawn = np.bincount(mask[rows[i], columns[i]], minlength=3)
        assert (drawn[np.unique(mask)] >= 4).all()


def test_latents_of_another_generator_are_refused(
    generator: Generator, labels: LabelledSet
) -> None:
    with pytest.raises(LabelError, match=r"\[5, 8\] per image; this generator reads \[6, 8\]"):
        fit_interpreter(generator, replace(labels, ws=labels.ws[:, :5]), FAST)
