"""The papers' protocol: sides change places in mirrors, filters keep the certain, figures are
those of the seeds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy
import torch
from click import ClickException

from benchmarks.domains import REGIONS, regions
from benchmarks.protocol import differences, interval, ious, results_of, table
from benchmarks.protocol_arms import Pool, painter, rendered, without_keypoints
from examples.demo.labels import truth_of_indices
from examples.train_segmentation.augment import Variation, moved_by, swapped_sides
from examples.train_segmentation.fit import UNetTrainConfig
from examples.train_segmentation.samples import shuffled_batches
from examples.train_segmentation.unet import UNet, UNetConfig

SETTINGS = {"config": {"steps": 10}, "pool": 10}
MIRROR = torch.tensor([[-1.0, 0, 0], [0, 1, 0]])


def test_a_mirrored_head_has_the_other_side_s_regions() -> None:
    """The subject's left is on the image's right, before and after."""
    indices = np.arange(64)
    truth = truth_of_indices(5, indices, 32)
    masks = torch.from_numpy(regions(truth, 5, indices))
    samples = without_keypoints((truth.image * 127.5 + 128).clamp(0, 255).byte(), masks)
    variation = Variation(keypoint_partners=(), class_partners=swapped_sides(tuple(REGIONS)))
    moved = moved_by(samples, MIRROR.expand(len(samples), 2, 3), variation).masks
    names = list(REGIONS)
    left, right = names.index("left upper skin"), names.index("right upper skin")
    x = torch.arange(32.0)

    def mean_x(masks: torch.Tensor, class_id: int) -> float:
        shown = (masks == class_id).float()
        return float(shown.sum(dim=(0, 1)) @ x / shown.sum())

    assert mean_x(masks, right) + 4 < mean_x(masks, left)
    assert mean_x(moved, right) + 4 < mean_x(moved, left)
    assert torch.equal((moved == left).flip(2), masks == right)
    unmoved = torch.eye(2, 3).expand(len(samples), 2, 3)
    assert torch.equal(moved_by(samples, unmoved, variation).masks, masks)


def test_a_filter_keeps_the_most_certain_share() -> None:
    numbers = torch.arange(10, dtype=torch.uint8)
    images = numbers[:, None, None, None].expand(10, 3, 8, 8)
    certain = np.array([5, 1, 9, 0, 3, 7, 2, 8, 4, 6], np.float32)
    pool = Pool(without_keypoints(images, images[:, 0]), certain)
    kept = pool.kept(0.5).images[:, 0, 0, 0].tolist()
    assert sorted(kept) == [1, 3, 4, 6, 8]
    assert len(pool.kept(0.9)) == 9


def test_iou_is_over_all_pixels_and_absent_classes_are_none() -> None:
    class Says(UNet):
        def forward(self, images: torch.Tensor) -> Any:
            said = super().forward(images)
            classes = torch.zeros_like(said.classes)
            classes[:, 1, :4] = 1.0  # class 1 above, class 0 below
            return type(said)(classes, said.heatmaps)

    masks = torch.zeros(3, 8, 8, dtype=torch.uint8)
    masks[0, :2], masks[1, :6] = 1, 1
    network = Says(UNetConfig(classes=3, keypoints=0))
    found = ious(network, without_keypoints(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), masks))
    # Class 1: said 3 x 32 pixels, true 16 + 48, both 16 + 32.
    assert found[1] == pytest.approx(48 / (96 + 64 - 48))
    assert found[0] == pytest.approx((96 - 16) / (96 + 128 - 80))
    assert np.isnan(found[2]) and network.training


def test_layers_that_learned_to_restore_are_what_the_transfer_starts_from() -> None:
    config = UNetTrainConfig(steps=2, batch_size=4)
    samples = rendered("heads", 5, 8, 32)
    batches = shuffled_batches(samples, 4, torch.Generator().manual_seed(0))
    network = UNetConfig(classes=5, keypoints=0, widths=(4, 8))
    torch.manual_seed(3)
    untrained = UNet(UNetConfig(classes=3, keypoints=0, widths=(4, 8))).state_dict()
    start = painter(batches, config, 3, network).state_dict()
    assert start["heads.weight"].shape[0] == 5
    same = [n for n, t in untrained.items() if n.endswith("weight") and torch.equal(t, start[n])]
    assert not [name for name in same if not name.startswith("heads.")]


def written(folder: Path, arm: str, seed: int, miou: float, pool: int = 10) -> None:
    values = {
        **SETTINGS, "pool": pool, "clean": [miou, miou], "camera": [miou - 0.2] * 2
    }  # fmt: skip
    (folder / f"regions-16-{arm}-{seed}.json").write_text(json.dumps(values))


@pytest.fixture(autouse=True)
def nothing_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.protocol.RECORDED", tmp_path / "protocol.json")


def test_differences_are_of_the_same_seed_and_have_student_s_interval(tmp_path: Path) -> None:
    for seed, (stream, alone, best) in enumerate(
        [(0.6, 0.5, 0.7), (0.8, 0.6, 0.9), (0.7, 0.6, 0.8)]
    ):
        written(tmp_path, "stream", seed, stream)
        written(tmp_path, "labeled", seed, alone)
        written(tmp_path, "supervised", seed, best)
    written(tmp_path, "labeled", 3, 0.1)  # a seed that the stream lacks
    results = results_of("regions", tmp_path, SETTINGS)[16]
    bounds = scipy.stats.ttest_1samp([10, 20, 10], 0).confidence_interval(0.95)
    assert f"| stream - labeled | +13.3 ({bounds.low:+.1f} to {bounds.high:+.1f}) |" in differences(
        results
    )
    assert "| stream | stream | 3 | 70.0 ± 10.0 | 50.0 ± 10.0 |" in table(results)
    assert interval([1.5]) == "+1.5"


def test_results_of_other_settings_are_not_mixed_in(tmp_path: Path) -> None:
    written(tmp_path, "stream", 0, 0.5)
    written(tmp_path, "labeled", 0, 0.5, pool=20)
    with pytest.raises(ClickException, match="another --out"):
        results_of("regions", tmp_path, SETTINGS)
