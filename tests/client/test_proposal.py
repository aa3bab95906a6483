"""The option `proposal` of a client: what comes, with which weights, and from which servers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.fake import FakeMapping, fake_bundle, with_content
from engines.proposal import screened
from engines.sampling import default_options
from labelmint import Client
from labelmint.errors import MalformedMessage
from labelmint.torch import LabelStream
from labelmint.v1 import label_service_pb2 as pb
from labelmint.wire.answers import Answers
from tests.service.harness import FakeModel, RunningServer, served

BUNDLE = with_content(fake_bundle(16, proposals=True))
END = 600


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with served([FakeModel(bundle=BUNDLE)]) as server:
        yield target_of(server)


def target_of(server: RunningServer) -> str:
    return f"127.0.0.1:{server.server.port}"


def expected() -> tuple[Any, Any]:
    """Indices that the proposal chooses, and their weights."""
    generator, indices = BUNDLE.manifest.generator, np.arange(END, dtype=np.uint64)
    options = default_options(generator, 3)
    result = screened(FakeMapping(generator), generator, options, BUNDLE.proposals["rare"], indices)
    return indices[result.chosen], result.weights[result.chosen]


@pytest.mark.parametrize("streams", [1, 3])
def test_chosen_samples_come_with_their_weights(target: str, streams: int) -> None:
    indices, weights = expected()
    with Client(target, streams=streams) as client:
        batches = list(client.stream(8, seed=3, proposal="rare", end_index=END))
    assert np.array_equal(np.concatenate([batch.indices for batch in batches]), indices)
    assert np.array_equal(np.concatenate([batch.weights for batch in batches]), weights)
    assert np.unique(weights).size > 10


def test_weights_of_a_proposal_and_a_balance_multiply(target: str) -> None:
    """Both are exact probabilities of coins of their own."""
    options: Any = {"seed": 3, "end_index": END, "outputs": ["weight"]}
    with Client(target) as client:
        both = next(iter(client.stream(END, proposal="rare", balance={"part 1": 0.5}, **options)))
        alone = next(iter(client.stream(END, balance={"part 1": 0.5}, **options)))
    chances = dict(zip(*expected(), strict=True))
    assert alone.weights is not None and both.weights is not None
    balanced = dict(zip(alone.indices.tolist(), alone.weights, strict=True))
    for index, weight in zip(both.indices.tolist(), both.weights, strict=True):
        assert weight == pytest.approx(chances[index] * balanced[index], rel=1e-6)


def test_a_loop_resumes_from_its_state(target: str) -> None:
    options: Any = {"batch_size": 4, "seed": 3, "proposal": "rare", "end_index": END}
    batches = list(LabelStream(target, **options))
    stream = LabelStream(target, **options)
    loop = iter(stream)
    first = next(loop)
    assert first.weights is not None
    state = json.loads(json.dumps(stream.state_dict()))
    resumed = LabelStream(target, **options)
    resumed.load_state_dict(state)
    rest = list(resumed)
    got = [i for batch in [first, *rest] for i in batch.indices.tolist()]
    assert got == [i for batch in batches for i in batch.indices.tolist()]
    with pytest.raises(ValueError, match="proposal"):
        LabelStream(target, **{**options, "proposal": "all"}).load_state_dict(state)


def test_a_server_that_does_not_know_proposals_is_noticed() -> None:
    query = pb.SampleQuery(filter=pb.Filter(proposal="rare", where="uncertainty <= 1"))
    older = pb.StreamSamplesResponse(next_index=256, discarded=256, bundle_id="b", applied=1)
    with pytest.raises(MalformedMessage, match="ignored proposal, because it is of an older"):
        Answers(query).checked(older)
    older.applied = 9
    assert Answers(query).checked(older).next_index == 256


def test_a_model_tells_its_proposals(target: str) -> None:
    with Client(target) as client:
        names = [proposal.name for proposal in client.model().proposals]
        rare = client.model().proposals[1]
    assert names == ["all", "rare"]
    assert rare.where == "share('part 0') >= 0.25" and rare.gain.high == 1.1
    assert rare.class_index is None


def test_a_download_has_the_chosen_samples_and_their_weights(target: str, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from labelmint.cli.commands import labelmint as command

    indices, weights = expected()
    line = ["download", "--target", target, "--out", str(tmp_path / "set"), "--format", "png"]
    options = ["--seed", "3", "--end-index", str(END), "--proposal", "rare"]
    ran = CliRunner().invoke(command, [*line, *options])
    assert ran.exit_code == 0, ran.output
    card = json.loads((tmp_path / "set" / "card.json").read_text())
    assert card["samples"]["kept"] == len(indices)
    table = "".join(file.read_text() for file in (tmp_path / "set").glob("*.jsonl"))
    assert table.count('"weight"') == len(indices) and f"{weights[0]:.4g}"[:4] in table


def test_a_report_says_what_its_weights_correct_for(target: str, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from labelmint.cli.commands import labelmint as command

    out = tmp_path / "report.html"
    line = ["preview", "--target", target, "--out", str(out), "--count", str(END)]
    ran = CliRunner().invoke(command, [*line, "--seed", "3", "--proposal", "rare"])
    assert ran.exit_code == 0, ran.output
    assert "by its weight, which corrects for the proposal;" in out.read_text()


@pytest.mark.parametrize("value", [5, ["rare"], b"rare"])
def test_a_proposal_is_named_by_text(target: str, value: Any) -> None:
    with Client(target) as client, pytest.raises(TypeError, match="the name of a proposal"):
        client.stream(8, proposal=value)
