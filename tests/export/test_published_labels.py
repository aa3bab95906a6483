"""From z to labels, the exported graph matches the published projects' own code."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from checkpoints.published_interpreter import interpreter_from_published
from export.graph.ensemble import Consensus
from export.graph.filter import top_mean
from export.graph.labeller import Labeller
from export.graph.spec import LabelSpec
from export.graph.to_onnx import labeller_onnx
from nets.generator import Generator
from tests.checkpoints import test_rosinality, test_stylegan1
from tests.checkpoints.golden import FIXTURES, tensors_and_notes
from tests.checkpoints.test_published_interpreter import (
    golden_labels,
    loaded,
    state_of,
    tiny_recipe,
)
from tests.export.test_labeller import open_session

NEAR_TIE = 1e-4


@pytest.mark.parametrize("name", ["datasetgan", "handsoff"])
def test_votes_and_score_are_the_releases(name: str) -> None:
    ensemble, _, expected = loaded(name)
    logits = ensemble(expected["x"].float())["segmentation"]  # [m, P, C]
    mask, divergence = Consensus(logits.shape[-1])([member[None] for member in logits], True)
    best = expected["logits"].topk(2, dim=-1).values
    clear = (best[..., 0] - best[..., 1]).amin(dim=0) > NEAR_TIE
    assert clear.float().mean() > 0.99
    assert torch.equal(mask[0][clear], expected["votes"][clear].to(mask.dtype))
    assert divergence is not None
    torch.testing.assert_close(divergence[0], expected["js"], rtol=1e-5, atol=1e-6)
    score = top_mean(divergence, len(expected["js"]) // 10)
    torch.testing.assert_close(score, expected["score"], rtol=1e-5, atol=1e-6)


def generation(name: str) -> tuple[Generator, dict[str, Tensor], dict[str, Any]]:
    """The generator, what the project's code made of z with it, and how."""
    path = FIXTURES / "published_interpreter" / f"golden_{name}.safetensors"
    expected, about = tensors_and_notes(path)
    module = test_stylegan1 if about["generator"].startswith("stylegan1") else test_rosinality
    return module.loaded("32")[0], expected, about


def truncated_rows(generator: Generator, z: Tensor, cutoff: int) -> Tensor:
    w = generator.mapping(z)[:, None].expand(-1, generator.config.num_ws, -1)
    rows = torch.arange(generator.config.num_ws)[:, None]
    return torch.where(rows < cutoff, generator.mapping.truncated(w, 0.7), w)


@pytest.mark.parametrize(
    "name", [pytest.param("dg_bilinear", marks=pytest.mark.long), "dg_nearest", "ho_bilinear"]
)
def test_generated_images_and_labels_are_the_projects(name: str, tmp_path: Path) -> None:
    generator, expected, about = generation(name)
    members, _ = golden_labels("dg_bilinear" if name.startswith("dg") else name)
    top, bottom = about["rows"]
    classes = state_of(members[0][1])["module.layers.6.bias"]
    recipe = tiny_recipe(
        "datasetgan" if name.startswith("dg") else "handsoff",
        len(classes),
        features=generator.config.features,
        grid=16,
        crop_top=top,
        height=bottom - top,
        width=16,
        resize=about["resize"],
    )
    ensemble, card = interpreter_from_published(members, recipe, generator.config, "0" * 64)
    spec = LabelSpec(
        16, top, bottom - top, 16, "segmentation", 0.1, 3, card.tap_recipe, card.resize
    )
    labeller_onnx(Labeller(generator, ensemble, spec, boxes=0), tmp_path / "labeller.onnx")
    session = open_session(tmp_path / "labeller.onnx")
    ws = truncated_rows(generator, expected["z"], about["cutoff"])
    feed = {"ws": ws.numpy(), "max_uncertainty": np.full(len(ws), np.inf, np.float32)}
    names = [output.name for output in session.get_outputs()]
    out = dict(zip(names, session.run(names, feed), strict=True))

    steps = np.abs(out["image"].astype(int) - expected["image"].numpy())
    assert steps.max() <= 1
    clear = (expected["margin"] > NEAR_TIE).numpy()
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(out["mask"][clear], expected["mask"].numpy()[clear])
    np.testing.assert_allclose(out["uncertainty"], expected["score"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out["uncertainty_map"], expected["js"], rtol=1e-3, atol=1e-6)
