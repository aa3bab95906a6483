"""A predicate of a request decides which samples come, and changes nothing else."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from engines.fake import fake_bundle
from labelmint.v1 import label_service_pb2 as pb
from service.rpc import query as query_module
from tests.hangs import eventually
from tests.service.harness import FakeModel, RunningServer, refusal, served
from tests.service.inference_calls import indices, infer_request
from tests.service.test_content import Samples, samples_of
from tests.service.test_inference import infer
from tests.service.test_metrics import DISCARDED, scraped, value
from tests.service.test_real_engine import serving

C = grpc.StatusCode
END = 120
PIXELS = 16 * 16  # of the fake model
WHERE = "share('part 1') >= 0.25 and visible('left') or uncertainty <= 0.1"
OUTPUTS = [pb.OUTPUT_MASK, pb.OUTPUT_KEYPOINTS, pb.OUTPUT_UNCERTAINTY]
LIMIT = pb.Filter(mode=pb.FILTER_MODE_MAX_UNCERTAINTY, max_uncertainty=0.5)


@pytest.fixture(scope="module")
def fake() -> Iterator[RunningServer]:
    older = FakeModel("older", fake_bundle(16, boxes=0))
    with served([FakeModel(), older]) as server:
        yield server


def stream_of(server: RunningServer, where: str = WHERE, **query: Any) -> Samples:
    query = {"model": "fake", "end_index": END, "outputs": OUTPUTS, **query}
    return samples_of(server.stream(filter=pb.Filter(where=where), **query))


def is_met(sample: dict[str, bytes]) -> bool:
    """Whether a sample of the fake model meets WHERE."""
    share = (np.frombuffer(sample["mask"], np.uint8) == 1).sum() / PIXELS
    confidence = np.frombuffer(sample["keypoints"], np.float32)[2]
    score = np.frombuffer(sample["uncertainty"], np.float32)[0]
    return bool((share >= 0.25 and confidence >= np.float32(0.2)) or score <= np.float32(0.1))


@pytest.fixture(scope="module")
def met(fake: RunningServer) -> Samples:
    """The samples that should come."""
    everything = stream_of(fake, "")
    assert len(everything) == END
    found = {index: sample for index, sample in everything.items() if is_met(sample)}
    assert 10 < len(found) < END - 10
    return found


def test_exactly_the_samples_that_meet_it_come(fake: RunningServer, met: Samples) -> None:
    assert stream_of(fake) == met


def test_any_resumed_and_sharded_stream_gives_the_same(fake: RunningServer, met: Samples) -> None:
    for start in (1, 17, 50):
        resumed = stream_of(fake, start_index=start)
        assert resumed == {index: sample for index, sample in met.items() if index >= start}
    shards = [stream_of(fake, shard_index=shard, num_shards=3) for shard in range(3)]
    assert shards[0] | shards[1] | shards[2] == met
    asked = [*sorted(met)[::2], END - 1]
    by_index = stream_of(fake, end_index=0, indices=sorted(set(asked)))
    assert by_index.keys() == {i for i in asked if i in met}
    first = stream_of(fake, end_index=0, count=9)
    assert first == {index: met[index] for index in sorted(met)[:9]}


def test_streams_of_other_predicates_share_batches_unmixed(
    fake: RunningServer, met: Samples
) -> None:
    wheres = [WHERE, "", "share('part 2') > 0.25", "not visible('top')", WHERE]
    alone = [stream_of(fake, where) for where in wheres]
    with ThreadPoolExecutor(len(wheres)) as pool:
        together = list(pool.map(lambda where: stream_of(fake, where), wheres))
    assert together == alone
    assert alone[0] == alone[4] == met


def test_a_limit_and_a_predicate_both_hold(fake: RunningServer, met: Samples) -> None:
    both = pb.Filter(where=WHERE, mode=LIMIT.mode, max_uncertainty=0.5)
    found = samples_of(fake.stream(model="fake", end_index=END, outputs=OUTPUTS, filter=both))
    scores = {i: np.frombuffer(s["uncertainty"], np.float32)[0] for i, s in met.items()}
    assert found == {index: met[index] for index, score in scores.items() if score <= 0.5}
    answer = fake.generate(model="fake", end_index=40, outputs=OUTPUTS, filter=both)
    assert list(answer.batch.indices) == [index for index in sorted(found) if index < 40]
    assert answer.discarded == 40 - len(answer.batch.indices)


def test_objects_are_kept_whole_with_filter_sets(fake: RunningServer) -> None:
    views = pb.SamplingOptions(views_per_object=3)
    each = stream_of(fake, "share('part 1') <= 0.3", sampling=views)
    sets = pb.Filter(where="share('part 1') <= 0.3", filter_sets=True)
    query: Any = {"model": "fake", "end_index": END, "outputs": OUTPUTS, "sampling": views}
    whole = samples_of(fake.stream(filter=sets, **query))
    objects = {i // 3 for i in each if {i // 3 * 3, i // 3 * 3 + 1, i // 3 * 3 + 2} <= each.keys()}
    assert whole == {i: sample for i, sample in each.items() if i // 3 in objects}
    assert 0 < len(whole) < len(each)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("share('part 9') > 0.1", ("'part 9'", "write one of", "'part 3'")),
        ("visible('eye')", ("keypoint 'eye'", "'left'")),
        ("share('part 1') > 1", ("no sample can meet", "0 to 1")),
        ("__import__('os')", ("filter.where is wrong at \"__import__('os')\"", "is unknown")),
        ("(" * 900, ("over 20 parentheses",)),
        ("x" * 5000, ("5000 characters", "1000")),
    ],
)
def test_what_cannot_be_met_is_refused_before_anything_runs(
    fake: RunningServer, where: str, words: tuple[str, ...]
) -> None:
    refused = refusal(lambda: stream_of(fake, where))
    assert refused.code == C.INVALID_ARGUMENT
    for word in words:
        assert word in refused.message


def test_an_older_bundle_refuses_predicates_alone(fake: RunningServer) -> None:
    refused = refusal(lambda: stream_of(fake, model="older"))
    assert refused.code == C.FAILED_PRECONDITION
    assert "export it again with python -m export bundle" in refused.message
    assert stream_of(fake, "", model="older") == stream_of(fake, "")
    kept = fake.generate(model="older", end_index=30, filter=LIMIT)
    assert 0 < len(kept.batch.indices) < 30
    models = {m.name: m.predicates for m in fake.stub.ListModels(pb.ListModelsRequest()).models}
    assert models == {"fake": True, "older": False}


def test_the_inference_protocol_refuses_filters_with_the_way_out(fake: RunningServer) -> None:
    request = infer_request(indices(1))
    request.parameters["where"].string_param = WHERE
    refused = refusal(lambda: infer(fake, request))
    assert refused.code == C.INVALID_ARGUMENT
    assert "nothing is filtered here: use StreamSamples" in refused.message


RARE = "confidence('left') > 0.99 and share('part 1') > 0.4"  # no sample of the fake model


def test_a_predicate_that_nothing_meets_ends_with_what_there_was() -> None:
    limit = query_module.UNMET_LIMIT
    query: Any = {"model": "fake", "filter": pb.Filter(where=RARE), "outputs": OUTPUTS}
    with served([FakeModel(batch_sizes=(128,))]) as server:
        refused = refusal(lambda: list(server.stream(**query)))
        bounds: list[Any] = [{"end_index": limit + 500}, {"indices": range(limit + 500)}]
        bounds.append({"end_index": limit + 500, "max_examined": limit + 1000})
        ended = [list(server.stream(**bound, **query)) for bound in bounds]
        cut = refusal(lambda: list(server.stream(max_examined=limit + 500, **query)))
    assert refused.code == cut.code == C.OUT_OF_RANGE
    for messages in ended:
        assert sum(message.discarded for message in messages) == limit + 500
    assert f"{limit + 500} indices were examined" in cut.message
    assert "samples met where: confidence('left') was 0 to 0.9961, " in refused.message
    examined = int(refused.message.split()[2])
    assert limit <= examined < limit + 256
    assert "share('part 1') was 0 to 0.75; loosen it" in refused.message
    assert "or set end_index or max_examined" in refused.message


def test_discards_are_counted_by_their_reason() -> None:
    views = pb.SamplingOptions(views_per_object=2)
    both = pb.Filter(
        mode=LIMIT.mode, max_uncertainty=0.8, where="share('part 1') >= 0.24", filter_sets=True
    )
    with served([FakeModel()]) as server:
        plain = samples_of(server.stream(end_index=END, outputs=OUTPUTS, sampling=views))
        found = samples_of(
            server.stream(end_index=END, outputs=OUTPUTS, sampling=views, filter=both)
        )
        # The last message is counted after it is sent.
        sent = len(plain) + len(found)
        assert eventually(lambda: value(scraped(server), "labelmint_kept_samples_total") == sent)
        values = scraped(server)
    reasons = {"uncertainty": 0, "predicate": 0, "views": 0}
    for index, sample in plain.items():
        if np.frombuffer(sample["uncertainty"], np.float32)[0] > np.float32(0.8):
            reasons["uncertainty"] += 1
        elif (np.frombuffer(sample["mask"], np.uint8) == 1).sum() / PIXELS < 0.24:
            reasons["predicate"] += 1
        elif index not in found:
            reasons["views"] += 1
    assert all(reasons.values()) and sum(reasons.values()) == END - len(found)
    for reason, number in reasons.items():
        assert value(values, DISCARDED, reason=reason) == number, reason


def test_a_real_graph_keeps_what_its_own_labels_say(tiny_bundle: Path) -> None:
    with serving(tiny_bundle, batch_sizes=(4,)) as server:
        query = {"model": "real", "end_index": 16}
        everything = stream_of(server, "", **query)
        peaks = {i: np.frombuffer(s["keypoints"], np.float32)[2] for i, s in everything.items()}
        middle = float(np.sort(list(peaks.values()))[8])
        where = f"confidence('a') >= {middle!r} and share('class 0') > 0.5"
        found = stream_of(server, where, **query)
    masks = {i: np.frombuffer(sample["mask"], np.uint8) for i, sample in everything.items()}
    kept = [i for i, mask in masks.items() if peaks[i] >= middle and (mask == 0).mean() > 0.5]
    assert found == {index: everything[index] for index in kept}
    assert 0 < len(found) < 16
