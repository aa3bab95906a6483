"""half_by_float32 changes no exported graph, and leaves torch as it was."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from bundle.manifest import LABELLER
from export.bundle_from_weights import quiet_exporter
from export.graph.labeller import Labeller
from export.graph.to_onnx import half_by_float32, labeller_onnx
from export.weights import WeightFiles, weights_from_files


@pytest.mark.long
def test_the_graph_is_the_one_that_slow_tracing_gives(
    tiny_bundle: Path, tiny_weights: tuple[Path, Path], tmp_path: Path
) -> None:
    generator, interpreter = tiny_weights
    weights = weights_from_files(WeightFiles(generator, interpreter=interpreter))
    labeller = Labeller(weights.generator, weights.interpreter, weights.spec, "float16")
    with quiet_exporter():
        labeller_onnx(labeller, tmp_path / "slow.onnx")
    name = LABELLER["float16"]
    assert (tiny_bundle / name).read_bytes() == (tmp_path / "slow.onnx").read_bytes()


def products() -> list[torch.Tensor]:
    source = torch.Generator().manual_seed(3)
    x, w = (torch.randn(s, generator=source).half() for s in ((2, 5, 9, 9), (5, 5, 3, 3)))
    a, b = (torch.randn(s, generator=source).half() for s in ((7, 6), (6, 8)))
    return [
        F.conv2d(x, w, padding=1), F.conv_transpose2d(x, w, stride=2), a @ b,
        torch.addmm(a[:, :1], a, b), torch.bmm(a[None], b[None]),
        torch.baddbmm(a[None, :, :1], a[None], b[None]),
    ]  # fmt: skip


@torch.no_grad()
def test_values_are_half_and_rounded_from_float32() -> None:
    before = products()
    with half_by_float32():
        within = products()
        single = torch.randn(3, 4) @ torch.randn(4, 5)
    after = products()
    assert single.dtype == torch.float32
    for slow, fast, again in zip(before, within, after, strict=True):
        assert fast.dtype == torch.float16 and torch.equal(slow, again)
        torch.testing.assert_close(fast.float(), slow.float(), rtol=1e-2, atol=2e-2)


def test_an_error_inside_leaves_torch_as_it_was() -> None:
    before = products()
    with pytest.raises(ValueError), half_by_float32():
        raise ValueError
    for slow, again in zip(before, products(), strict=True):
        assert torch.equal(slow, again)
