"""Features of single pixels are those of the hypercolumn."""

import numpy as np
import pytest
import torch

from nets.features import Resize, hypercolumn
from tests.export.networks import random_stylegan3, random_ws
from tests.training.sets import tiny_generator, tiny_labels
from training.errors import TrainingError
from training.interpreter.features import features_from_ws
from training.label_crop import LabelCrop


@pytest.mark.parametrize("resize", ["bilinear", "nearest"])
@pytest.mark.parametrize(
    "crop",
    [
        LabelCrop(16, 0, 16), LabelCrop(8, 2, 5), LabelCrop(16, 3, 10, (4, 2)),
        LabelCrop(8, 1, 4, (3, 5)),
    ],
)  # fmt: skip
def test_gathered_features_are_the_hypercolumns_at_those_pixels(
    crop: LabelCrop, resize: Resize
) -> None:
    generator, ws = tiny_generator(crop.start), tiny_labels().ws
    features = features_from_ws(generator, ws, crop, resize, torch.float64)
    taps = [t.double() for t in generator.synthesis(torch.from_numpy(ws)).taps]
    whole = hypercolumn(taps, crop.size, resize)[:, :, crop.crop_top :][:, :, : crop.height]
    image, row, column = (
        a.flatten()
        for a in torch.meshgrid(
            torch.arange(4), torch.arange(crop.height), torch.arange(crop.width), indexing="ij"
        )
    )
    gathered = features.gather(image, row, column)
    expected = whole.permute(0, 2, 3, 1).flatten(0, 2)
    assert gathered.dtype == torch.float64 and features.features == expected.shape[1]
    torch.testing.assert_close(gathered, expected, rtol=0, atol=1e-5)  # taps are float32


@pytest.mark.parametrize("grid", [64, 32])
def test_features_of_a_stylegan3_are_its_maps_without_their_margins(grid: int) -> None:
    generator, crop = random_stylegan3(64), LabelCrop(grid, 0, grid)
    ws = random_ws(generator, 2)
    features = features_from_ws(generator, ws.numpy(), crop, "bilinear", torch.float32)
    whole = hypercolumn(generator.synthesis(ws).taps, (grid, grid))
    chosen = torch.tensor([0, 1, 1]), torch.tensor([0, 5, grid - 1]), torch.tensor([3, grid - 1, 0])
    expected = torch.stack([whole[i, :, y, x] for i, y, x in zip(*chosen, strict=True)])
    assert features.features == generator.config.features == 45
    torch.testing.assert_close(features.gather(*chosen), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("resize", ["bilinear", "nearest"])
@pytest.mark.parametrize("crop", [LabelCrop(8, 2, 5), LabelCrop(8, 1, 3, (2, 4))])
def test_pixels_that_are_needed_have_the_same_features_as_among_all(
    resize: Resize, crop: LabelCrop
) -> None:
    generator, ws = tiny_generator(crop.start), tiny_labels().ws
    mask = np.random.default_rng(0).random((4, crop.height, crop.width)) < 0.3
    whole = features_from_ws(generator, ws, crop, resize)
    few = features_from_ws(generator, ws, crop, resize, mask=mask)
    assert len(few.levels[-1].values) == mask.sum() < len(whole.levels[-1].values)
    chosen = tuple(torch.from_numpy(axis) for axis in mask.nonzero())
    assert torch.equal(few.gather(*chosen), whole.gather(*chosen))


def test_half_precision_is_only_the_storage() -> None:
    generator, ws = tiny_generator(), tiny_labels().ws
    chosen = torch.tensor([0, 3]), torch.tensor([5, 15]), torch.tensor([0, 9])
    half, whole = (
        features_from_ws(generator, ws, LabelCrop(16, 0, 16), "bilinear", storage).gather(*chosen)
        for storage in (torch.float16, torch.float32)
    )
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, whole, rtol=2e-3, atol=1e-3)


def test_features_past_half_precision_are_refused() -> None:
    generator = tiny_generator()
    generator.synthesis.get_parameter("b4.const").mul_(1e6)
    with pytest.raises(TrainingError, match=r"image 0 at 4 px has values that are not finite"):
        features_from_ws(generator, tiny_labels().ws, LabelCrop(16, 0, 16))
