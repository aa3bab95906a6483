"""The option `edits` of a client: pairs, positions, data sets, and servers that do not know it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from labelmint import Client
from labelmint.cli.commands import labelmint as command
from labelmint.errors import Invalid, MalformedMessage, NotReady
from labelmint.options import StreamOptions, edits_from_option, query_from_options
from labelmint.torch import LabelStream
from labelmint.v1 import label_service_pb2 as pb
from labelmint.wire.answers import Answers
from tests.client.test_proposal import target_of
from tests.service.harness import FakeModel, served
from tests.service.test_edits import BUNDLE, EDITS, replaced

END = 60
OPTIONS: Any = {"seed": 3, "end_index": END}


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with served([FakeModel(bundle=BUNDLE)]) as server:
        yield target_of(server)


@pytest.fixture(scope="module")
def anew() -> Iterator[str]:
    """A server of the same bundle, whose proposal and direction were learned anew."""
    with served([FakeModel(bundle=replaced(BUNDLE))]) as server:
        yield target_of(server)


@pytest.mark.parametrize("streams", [1, 3])
def test_two_streams_are_pairs_of_one_seed(target: str, streams: int) -> None:
    with Client(target, streams=streams) as client:
        plain = list(client.stream(8, **OPTIONS, outputs=["mask", "w"]))
        moved = list(client.stream(8, **OPTIONS, outputs=["mask", "w"], edits=EDITS))
    for before, after in zip(plain, moved, strict=True):
        assert np.array_equal(before.indices, after.indices)
        assert before.edits is None and after.edits == EDITS
        assert before.w is not None and after.w is not None
        shift = after.w.astype(np.float64) - before.w
        assert np.allclose(shift, shift[:1], atol=1e-5) and np.abs(shift).max() > 0.1


def test_the_plain_half_of_a_filtered_pair_is_asked_for_by_index(target: str) -> None:
    with Client(target) as client:
        where = "share('part 1') >= 0.25"
        moved = next(client.stream(8, **OPTIONS, edits=EDITS, where=where))
        plain = client.generate(seed=3, indices=moved.indices)
    assert np.array_equal(plain.indices, moved.indices)
    assert plain.masks is not None and moved.masks is not None
    assert not np.array_equal(plain.masks, moved.masks)


def test_a_loop_resumes_from_its_state_with_the_same_directions_alone(
    target: str, anew: str
) -> None:
    options: Any = {"batch_size": 4, **OPTIONS, "edits": EDITS}
    batches = list(LabelStream(target, **options))
    assert all(batch.edits == EDITS for batch in batches)
    stream = LabelStream(target, **options)
    first = next(iter(stream))
    state = json.loads(json.dumps(stream.state_dict()))
    resumed = LabelStream(target, **options)
    resumed.load_state_dict(state)
    got = [i for batch in [first, *resumed] for i in batch.indices.tolist()]
    assert got == [i for batch in batches for i in batch.indices.tolist()]
    other = LabelStream(anew, **options)
    other.load_state_dict(state)
    with pytest.raises(NotReady, match="learned anew"):
        next(iter(other))
    for edits in (None, {"more": 1.0}):
        with pytest.raises(ValueError, match="edits"):
            LabelStream(target, **{**options, "edits": edits}).load_state_dict(state)


def test_a_state_with_a_proposal_that_was_replaced_is_refused(target: str, anew: str) -> None:
    options: Any = {"batch_size": 2, **OPTIONS, "proposal": "rare"}
    stream = LabelStream(target, **options)
    next(iter(stream))
    state = stream.state_dict()
    merged = LabelStream.merge_states([state])
    other = LabelStream(anew, **options)
    other.load_state_dict(merged)
    with pytest.raises(NotReady, match="proposal rare"):
        next(iter(other))


def test_states_of_two_learned_directions_are_not_merged(target: str, anew: str) -> None:
    states = []
    for rank, place in enumerate((target, anew)):
        stream = LabelStream(
            place, batch_size=2, rank=rank, world_size=2, **OPTIONS, edits={"more": 1}
        )
        next(iter(stream))
        states.append(stream.state_dict())
    with pytest.raises(ValueError, match="different learned_ids"):
        LabelStream.merge_states(states)


def test_pinned_options_are_refused_by_what_was_learned_anew(target: str, anew: str) -> None:
    with Client(target) as client, Client(anew) as other:
        pinned = client.pin(**OPTIONS, edits={"more": 1.0}, proposal="rare")
        batch = next(client.stream(2, **pinned))
        assert batch.learned_id == pinned["learned_id"]
        with pytest.raises(NotReady, match="learned anew"):
            next(other.stream(2, **pinned))
        with pytest.raises(NotReady, match="learned anew"):
            other.pin(**pinned)
        with pytest.raises(Invalid, match=r"'moer'.*it has late, more"):
            client.pin(edits={"moer": 1.0})
        assert "learned_id" not in client.pin(**OPTIONS)


def test_a_server_that_does_not_know_edits_is_noticed() -> None:
    query = query_from_options({"edits": {"more": 1.0}})
    older = pb.StreamSamplesResponse(next_index=0, bundle_id="b", applied=0)
    with pytest.raises(MalformedMessage, match="ignored edits, because it is of an older"):
        Answers(query).checked(older)
    older.applied = 16
    assert Answers(query).checked(older).next_index == 0


def test_a_stream_whose_directions_change_under_way_ends() -> None:
    answers = Answers(query_from_options({"edits": {"more": 1.0}}))
    message = pb.StreamSamplesResponse(next_index=0, bundle_id="b", applied=16, learned_id="a")
    answers.checked(message)
    rest = answers.remaining()
    assert rest is not None and rest.learned_id == "a"
    message.learned_id = "c"
    with pytest.raises(MalformedMessage, match="learned anew"):
        answers.checked(message)


def test_a_download_and_its_card_have_the_edited_samples(target: str, tmp_path: Path) -> None:
    line = ["download", "--target", target, "--format", "png", "--seed", "3", "--end-index", "9"]
    words = ["--edit", "more=1.5", "--edit", "late=-0.5"]
    for name, more in (("plain", []), ("edited", words)):
        ran = CliRunner().invoke(command, [*line, "--out", str(tmp_path / name), *more])
        assert ran.exit_code == 0, ran.output
    plain, moved = (sorted((tmp_path / name / "masks").iterdir()) for name in ("plain", "edited"))
    assert [file.name for file in plain] == [file.name for file in moved]
    assert any(a.read_bytes() != b.read_bytes() for a, b in zip(plain, moved, strict=True))
    card = json.loads((tmp_path / "edited" / "card.json").read_text())
    assert card["request"]["edits"] == {"late": -0.5, "more": 1.5}
    assert len(card["learned_id"]) == 64
    assert (
        "late -0.5, more +1.5 standard deviations"
        in (tmp_path / "edited" / "README.md").read_text()
    )
    again = CliRunner().invoke(command, [*line, "--out", str(tmp_path / "edited")])
    assert again.exit_code != 0 and "--edit" in str(again.exception)


def test_an_interrupted_download_does_not_go_on_with_another_direction(
    target: str, anew: str, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    line = ["download", "--format", "png", "--out", str(out), "--edit", "more=1"]
    ran = CliRunner().invoke(command, [*line, "--target", target, "--end-index", "4"])
    assert ran.exit_code == 0, ran.output
    card = json.loads((out / "card.json").read_text())
    state = {
        "request": card["request"],
        "state": {
            "model": "fake", "bundle_id": card["bundle_id"], "threshold": None, "next_index": 0,
            "learned_id": card["learned_id"],
        },
    }  # fmt: skip
    half = tmp_path / "half"
    (half / ".labelmint").mkdir(parents=True)
    (half / ".labelmint" / "state.json").write_text(json.dumps(state))
    line[4] = str(half)
    ran = CliRunner().invoke(command, [*line, "--target", anew, "--end-index", "4"])
    assert ran.exit_code != 0 and "learned anew" in str(ran.exception)


def test_a_report_and_a_sheet_are_of_the_edited_samples(target: str, tmp_path: Path) -> None:
    for name in ("sheet.png", "report.html"):
        out = tmp_path / name
        line = ["preview", "--target", target, "--out", str(out), "--count", "4"]
        ran = CliRunner().invoke(command, [*line, "--edit", "more=1.5"])
        assert ran.exit_code == 0, ran.output
    assert "--edit more=1.5" in (tmp_path / "report.html").read_text()


def test_a_model_lists_its_directions(target: str) -> None:
    ran = CliRunner().invoke(command, ["models", "--target", target])
    assert "more (part 1 on 25% of the pixels at -2, 25% at 2)" in ran.output


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=20), st.floats() | st.integers() | st.text() | st.none(),
        max_size=10,
    )
)  # fmt: skip
def test_edits_are_sent_as_given_or_refused(edits: dict[str, Any]) -> None:
    """One line says why; what is sent is in order of names, so that equal requests are equal."""
    good = 1 <= len(edits) <= 8 and all(
        isinstance(value, (int, float)) and abs(value) < 1e308 for value in edits.values()
    )
    try:
        found = edits_from_option(edits)
    except (TypeError, ValueError) as error:
        assert not good or any(abs(value) >= 1e308 for value in edits.values())
        assert "edits" in str(error) and "\n" not in str(error)
        return
    assert found == {name: float(value) for name, value in edits.items()}
    assert list(found) == sorted(found)
    try:
        sent = query_from_options({"edits": edits}).sampling.edits
    except (TypeError, ValueError) as error:  # surrogates are no text of a message
        assert str(error)
        return
    assert [(edit.direction, edit.strength) for edit in sent] == list(found.items())


@pytest.mark.parametrize("value", [5, ["more"], "more=1", b"x"])
def test_edits_of_another_type_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="a dict of directions"):
        query_from_options({"edits": value})


@pytest.mark.parametrize(
    "more", [{"keep_fraction": 0.9}, {"balance": "classes"}, {"balance": {"a": 0.5}}]
)
def test_what_is_calibrated_on_plain_samples_is_refused_before_it_is_sent(more: Any) -> None:
    with pytest.raises(ValueError, match=r"edits and .* exclude each other"):
        query_from_options(cast(StreamOptions, {"edits": {"more": 1.0}, **more}))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=4))
def test_any_text_of_the_option_edit_is_taken_or_refused_in_words(words: list[str]) -> None:
    from labelmint.cli.sampling import _edits

    try:
        found = _edits(tuple(words))
    except Exception as error:
        assert type(error).__name__ == "BadParameter" and str(error)
        return
    assert found is not None and all(word.rpartition("=")[0] in found for word in words)
