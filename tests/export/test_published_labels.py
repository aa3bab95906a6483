"""Votes and uncertainty of the served graph are those of the published ensembles' code."""

import pytest
import torch

from export.ensemble_outputs import Consensus
from export.filter_graph import top_mean
from tests.checkpoints import test_published_interpreter

NEAR_TIE = 1e-4


@pytest.mark.parametrize("name", ["datasetgan", "handsoff"])
def test_votes_and_score_are_the_releases(name: str) -> None:
    ensemble, _, expected = test_published_interpreter.loaded(name)
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
