"""A bundle that is calibrated anew: streams that depend on its calibration do not go on with the
new one unnoticed, and all others go on."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from bundle.open import Bundle
from engines.fake import fake_bundle, with_content
from labelmint import Client
from labelmint.batch import KeptSamples
from labelmint.cli.commands import labelmint as command
from labelmint.errors import NotReady
from labelmint.model import Model
from labelmint.torch import LabelStream
from labelmint.v1 import label_service_pb2 as pb
from labelmint.wire.answers import Message
from labelmint.wire.merge import ShardReader, batches_from_readers
from tests.client.test_proposal import target_of
from tests.service.harness import FakeModel, served

BUNDLE = with_content(fake_bundle(16, proposals=True, directions=True))
END = 200
LARGE = "share('part 1') >= 0.7"
LIMITED: Any = {"keep_fraction": 0.5}
STRATA: Any = {"keep_fraction": 0.5, "keep_by": [LARGE]}
BALANCED: Any = {"balance": {LARGE: 0.4}}
DEPENDENT = [LIMITED, STRATA, BALANCED, {"balance": "classes"}, {**BALANCED, "proposal": "all"}]
FREE: list[Any] = [
    {},
    {"max_uncertainty": 0.5},
    {"keep_fraction": 1.0},
    {"keep_fraction": 1.0, "keep_by": [LARGE]},
    {"where": LARGE},
    {"proposal": "all"},
    {"edits": {"more": 1.0}},
]


def recalibrated(thresholds: bool = True, content: bool = True) -> Bundle:
    """BUNDLE with other thresholds, or with the content of other samples."""
    bundle = with_content(BUNDLE, 1024) if content else BUNDLE
    if not thresholds:
        return bundle
    calibrations = [
        msgspec.structs.replace(each, quantiles=[q / 2 for q in each.quantiles])
        for each in bundle.manifest.calibrations
    ]
    return replace(
        bundle, manifest=msgspec.structs.replace(bundle.manifest, calibrations=calibrations)
    )


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with served([FakeModel(bundle=BUNDLE)]) as server:
        yield target_of(server)


@pytest.fixture(scope="module")
def anew() -> Iterator[str]:
    with served([FakeModel(bundle=recalibrated())]) as server:
        yield target_of(server)


def loop_at(target: str, options: Any) -> LabelStream:
    return LabelStream(target, batch_size=4, end_index=END, outputs=["uncertainty"], **options)


def refused(run: Any) -> str:
    with pytest.raises(NotReady) as caught:
        run()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("options", DEPENDENT)
def test_no_reader_goes_on_with_a_calibration_that_was_replaced(
    target: str, anew: str, options: Any
) -> None:
    before = loop_at(target, options)
    next(iter(before))
    after = loop_at(anew, options)
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    for word in ("the calibration of this bundle", "calibrated anew", "start a new stream"):
        assert word in refused(lambda: next(iter(after)))
    with Client(target) as client, Client(anew) as other:
        if options is not LIMITED:  # its threshold is pinned itself
            pinned = client.pin(**options)
            assert next(client.stream(2, **pinned)).learned_id == pinned["learned_id"]
            for run in (lambda: next(other.stream(2, **pinned)), lambda: other.pin(**pinned)):
                assert "calibrated anew" in refused(run)
        batch = next(client.stream(2, **options))
        again: Any = {**options, "learned_id": batch.learned_id, "start_index": batch.next_index}
        assert "calibrated anew" in refused(lambda: next(other.stream(2, **again)))


@pytest.mark.parametrize("options", FREE)
def test_what_no_calibration_decides_goes_on(target: str, anew: str, options: Any) -> None:
    assert goes_on(loop_at(target, options), loop_at(anew, options))


@pytest.mark.parametrize(
    ("options", "change"),
    [
        (LIMITED, {"thresholds": False}),
        (BALANCED, {"content": False}),
    ],
)
def test_the_other_half_of_a_calibration_changes_nothing(
    target: str, options: Any, change: Any
) -> None:
    """As one that an older version made without content, and that is given it."""
    with served([FakeModel(bundle=recalibrated(**change))]) as server:
        assert goes_on(loop_at(target, options), loop_at(target_of(server), options))


def goes_on(before: LabelStream, after: LabelStream) -> bool:
    whole: list[int] = [index for batch in before for index in batch.indices.tolist()]
    got: list[int] = next(iter(before)).indices.tolist()
    after.load_state_dict(before.state_dict())
    return got + [index for batch in after for index in batch.indices.tolist()] == whole


def test_pinned_thresholds_go_on(target: str, anew: str) -> None:
    with Client(target) as client, Client(anew) as other:
        pinned = client.pin(**LIMITED, end_index=END)
        ours, theirs = (
            [i for batch in each.stream(8, **pinned) for i in batch.indices.tolist()]
            for each in (client, other)
        )
    assert "learned_id" not in pinned and ours == theirs


def test_a_threshold_is_pinned_only_where_the_stream_that_it_goes_on_from_had_it(
    target: str, anew: str
) -> None:
    with Client(target) as client, Client(anew) as other:
        for free in ({}, {"proposal": "all"}):
            options: Any = {**LIMITED, **free}
            begun: Any = {**options, "learned_id": next(client.stream(2, **options)).learned_id}
            assert client.pin(**begun) == client.pin(**options)
            assert "calibrated anew" in refused(lambda begun=begun: other.pin(**begun))


def test_a_learned_id_is_refused_where_the_bundle_has_no_calibration(target: str) -> None:
    """Nothing is pinned that no server has confirmed."""
    with Client(target) as client:
        begun: Any = {**BALANCED, "learned_id": client.pin(**BALANCED)["learned_id"]}
        assert client.pin(**begun) == client.pin(**BALANCED)
        for learned_id in (begun["learned_id"], "of another bundle"):
            elsewhere: Any = {**begun, "truncation_psi": 0.3, "learned_id": learned_id}
            said = refused(lambda elsewhere=elsewhere: client.pin(**elsewhere))
            assert "lacks the calibration for these options" in said and learned_id in said


class Listed:
    """A stream of one message."""

    def __init__(self, *messages: Message) -> None:
        self._messages = [*messages]

    def get(self) -> Message | None:
        return self._messages.pop() if self._messages else None

    def close(self) -> None:
        pass


@pytest.mark.parametrize("ids", [("", "a"), ("a", ""), ("a", "a"), ("", "")])
def test_a_replica_that_tells_no_learned_id_is_not_mixed_with_one_that_does(
    ids: tuple[str, str],
) -> None:
    kept = [KeptSamples(np.array([index], np.uint64), {}) for index in range(2)]
    readers = [ShardReader(Listed(Message(kept[i], 2, "b", ids[i])), i) for i in range(2)]
    batches = batches_from_readers(readers, 2, pb.SampleQuery(count=2, num_shards=1))
    if ids[0] == ids[1]:
        assert next(batches).indices.tolist() == [0, 1]
    else:
        assert "of different versions" in refused(lambda: [*batches])


def test_a_running_stream_does_not_change_over_to_another_calibration() -> None:
    """Its server ends, and the next replica has the bundle as it was calibrated since."""
    with (
        served([FakeModel(bundle=BUNDLE)]) as first,
        served([FakeModel(bundle=recalibrated())]) as second,
        Client([target_of(first), target_of(second)], prefetch_bytes=0) as client,
    ):
        stream = client.stream(4, first_target=0, **BALANCED)
        next(stream)
        first.end()
        assert "calibrated anew" in refused(lambda: [next(stream) for _ in range(10_000)])


def test_parts_of_a_stream_are_not_of_two_calibrations(target: str, anew: str) -> None:
    with Client([target, anew], streams=2) as client:
        message = refused(lambda: [*client.stream(4, end_index=END, first_target=0, **BALANCED)])
    assert "calibrations of one bundle" in message


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (["--balance", f"{LARGE}=0.4"], "calibrated anew"),
        (["--keep-fraction", "0.5", "--keep-by", LARGE], "calibrated anew"),
        (["--keep-fraction", "0.5"], None),  # the folder keeps its threshold
    ],
)
def test_an_interrupted_download_does_not_go_on_with_another_calibration(
    target: str, anew: str, tmp_path: Path, words: list[str], word: str | None
) -> None:
    def download(out: str, place: str) -> Any:
        line = ["download", "--format", "png", "--out", str(tmp_path / out), "--target", place]
        return CliRunner().invoke(command, [*line, "--end-index", "40", *words])

    ran = download("whole", target)
    assert ran.exit_code == 0, ran.output
    card = json.loads((tmp_path / "whole" / "card.json").read_text())
    state = {
        "model": "fake", "bundle_id": card["bundle_id"], "threshold": card["max_uncertainty"],
        "next_index": 0, "learned_id": card.get("learned_id", ""),
    }  # fmt: skip
    scratch = tmp_path / "half" / ".labelmint"
    scratch.mkdir(parents=True)
    (scratch / "state.json").write_text(json.dumps({"request": card["request"], "state": state}))
    ran = download("half", anew)
    if word:
        assert ran.exit_code != 0 and word in str(ran.exception)
    else:
        assert json.loads((tmp_path / "half" / "card.json").read_text()) == card


def test_a_server_that_tells_no_digests_pins_nothing() -> None:
    """One of an older version, which ignores a learned_id as well."""
    from labelmint.model import learned_id_from_model, model_from_proto
    from tests.client.scripted_service import MODEL

    model: Model = model_from_proto(MODEL)
    for options in (LIMITED, STRATA, BALANCED):
        assert learned_id_from_model(model, options) == ""
        again: Any = {**options, "learned_id": "12"}
        said = refused(lambda again=again: learned_id_from_model(model, again))
        assert "learned_id is 12; there is nothing to compare it with" in said
