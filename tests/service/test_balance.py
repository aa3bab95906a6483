"""A balanced stream has the shares it was asked for, and is repeatable like every other."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest

from engines.fake import fake_bundle, with_content
from labelmint.codec import array_from_tensor
from labelmint.v1 import label_service_pb2 as pb
from service.rpc.label_service import LabelService
from tests.service.harness import FakeModel, RunningServer, refusal, served
from tests.service.inference_calls import indices, infer_request
from tests.service.test_content import Samples, samples_of
from tests.service.test_inference import infer
from tests.service.test_metrics import DISCARDED, scraped, value

C = grpc.StatusCode
END = 400
PIXELS = 16 * 16  # of the fake model
LARGE = "share('part 1') >= 0.7"  # of one sample in ten
OUTPUTS = [pb.OUTPUT_MASK, pb.OUTPUT_KEYPOINTS, pb.OUTPUT_UNCERTAINTY, pb.OUTPUT_WEIGHT]
BALANCED = pb.Filter(
    balance=[
        pb.BalanceTarget(condition=LARGE, share=0.4),
        pb.BalanceTarget(condition="visible('left')", share=0.5),
    ]
)
BUNDLE = with_content(fake_bundle(16))


@pytest.fixture(scope="module")
def fake() -> Iterator[RunningServer]:
    models = [
        FakeModel(bundle=BUNDLE),
        FakeModel("other sizes", BUNDLE, batch_sizes=(1, 3, 32), engines=2),
        FakeModel("plain", fake_bundle(16)),
    ]
    with served(models) as server:
        yield server


def stream_of(server: RunningServer, given: pb.Filter = BALANCED, **query: Any) -> Samples:
    query = {"model": "fake", "end_index": END, "outputs": OUTPUTS, **query}
    return samples_of(server.stream(filter=given, **query))


def is_large(sample: dict[str, bytes]) -> bool:
    return bool((np.frombuffer(sample["mask"], np.uint8) == 1).sum() / PIXELS >= 0.7)


def weight(sample: dict[str, bytes]) -> float:
    return float(np.frombuffer(sample["weight"], np.float32)[0])


@pytest.fixture(scope="module")
def balanced(fake: RunningServer) -> Samples:
    return stream_of(fake)


def test_the_share_and_its_correction_are_within_chance(
    fake: RunningServer, balanced: Samples
) -> None:
    """Of 400 examined samples; the seed is fixed, so this cannot fail by chance."""
    everything = stream_of(fake, pb.Filter())
    natural = np.mean([is_large(sample) for sample in everything.values()])
    share = np.mean([is_large(sample) for sample in balanced.values()])
    weights = np.array([weight(sample) for sample in balanced.values()])
    large = np.array([is_large(sample) for sample in balanced.values()])
    errors = [3 * float(variance / len(large)) ** 0.5 for variance in (0.24, natural)]
    assert natural < 0.2 and share == pytest.approx(0.4, abs=errors[0])
    corrected = weights[large].sum() / weights.sum()
    assert corrected == pytest.approx(natural, abs=errors[1])
    for index, sample in balanced.items():
        assert {**sample, "weight": everything[index]["weight"]} == everything[index]
    assert {weight(sample) for sample in everything.values()} == {1.0}


def test_any_shard_resume_engine_and_call_gives_the_same_samples_and_weights(
    fake: RunningServer, balanced: Samples
) -> None:
    assert stream_of(fake, model="other sizes") == balanced
    shards = [stream_of(fake, shard_index=shard, num_shards=3) for shard in range(3)]
    assert shards[0] | shards[1] | shards[2] == balanced
    assert stream_of(fake, start_index=101) == {i: s for i, s in balanced.items() if i >= 101}
    asked = sorted({*list(balanced)[::3], 0, 1, 2, END - 1})
    listed = stream_of(fake, end_index=0, indices=asked)
    assert listed == {i: balanced[i] for i in asked if i in balanced}
    counted = stream_of(fake, end_index=0, count=9)
    assert counted == {i: balanced[i] for i in sorted(balanced)[:9]}
    answer = fake.generate(model="fake", end_index=60, outputs=OUTPUTS, filter=BALANCED)
    assert samples_of([answer]) == {i: s for i, s in balanced.items() if i < 60}
    assert answer.applied == 2 and answer.discarded == 60 - len(answer.batch.indices)
    other = pb.SamplingOptions(seed=1)
    assert stream_of(fake, sampling=other).keys() != balanced.keys()


@pytest.mark.long
def test_streams_of_other_balances_share_batches_unmixed(
    fake: RunningServer, balanced: Samples
) -> None:
    one = pb.Filter(balance=BALANCED.balance[:1])
    filters = [BALANCED, pb.Filter(), pb.Filter(where=LARGE), one, BALANCED]
    alone = [stream_of(fake, given) for given in filters]
    with ThreadPoolExecutor(len(filters)) as pool:
        together = list(pool.map(lambda given: stream_of(fake, given), filters))
    assert together == alone and alone[0] == balanced


def test_views_are_balanced_one_by_one(fake: RunningServer) -> None:
    views = pb.SamplingOptions(views_per_object=4)
    found = stream_of(fake, sampling=views)
    share = np.mean([is_large(sample) for sample in found.values()])
    assert share == pytest.approx(0.4, abs=3 * (0.24 / len(found)) ** 0.5)
    sets = pb.Filter(filter_sets=True, balance=BALANCED.balance)
    refused = refusal(lambda: stream_of(fake, sets, sampling=views))
    assert refused.code == C.INVALID_ARGUMENT
    assert "a coin is tossed for a sample, not for all views" in refused.message


def test_weights_come_by_default_only_with_a_balance(fake: RunningServer) -> None:
    def outputs(given: pb.Filter) -> list[int]:
        answer = fake.generate(model="fake", end_index=40, filter=given)
        return [tensor.output for tensor in answer.batch.tensors]

    assert outputs(BALANCED)[-1] == pb.OUTPUT_WEIGHT
    assert pb.OUTPUT_WEIGHT not in outputs(pb.Filter(where=LARGE))


def test_strata_keep_their_fraction_and_discards_have_their_reason() -> None:
    strata = pb.Filter(
        mode=pb.FILTER_MODE_KEEP_FRACTION, keep_fraction=0.6, keep_by=[LARGE],
        where="share('part 2') < 0.27", balance=BALANCED.balance[1:],
    )  # fmt: skip
    with served([FakeModel(bundle=BUNDLE)]) as server:
        everything = samples_of(server.stream(end_index=END, outputs=OUTPUTS))
        one = pb.Filter(mode=strata.mode, keep_fraction=0.6, keep_by=[LARGE])
        certain = samples_of(server.stream(end_index=END, outputs=OUTPUTS, filter=one))
        before = scraped(server)
        found = samples_of(server.stream(end_index=END, outputs=OUTPUTS, filter=strata))
        time.sleep(0.1)  # a message is counted after it is sent
        after = scraped(server)
    for large in (True, False):
        of = [i for i, sample in everything.items() if is_large(sample) == large]
        error = 4 * (0.24 / len(of)) ** 0.5
        assert np.mean([i in certain for i in of]) == pytest.approx(0.6, abs=error)
    reasons = {"uncertainty": 0, "predicate": 0, "balance": 0, "views": 0}
    for index, sample in everything.items():
        mask = np.frombuffer(sample["mask"], np.uint8)
        if index not in certain:
            reasons["uncertainty"] += 1
        elif (mask == 2).sum() / PIXELS >= 0.27:
            reasons["predicate"] += 1
        elif index not in found:
            reasons["balance"] += 1
    assert all(reasons[name] for name in ("uncertainty", "predicate", "balance"))
    for reason, number in reasons.items():
        counted = [value(values, DISCARDED, reason=reason) for values in (before, after)]
        assert counted[1] - counted[0] == number, reason


def test_latents_older_bundles_and_the_inference_protocol_are_refused(
    fake: RunningServer,
) -> None:
    rows = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[1, 16], codec=pb.CODEC_RAW, data=bytes(64))
    latents = pb.ExplicitLatents(space=pb.LATENT_SPACE_Z, rows=rows)
    refused = refusal(lambda: stream_of(fake, end_index=0, latents=latents))
    assert refused.code == C.INVALID_ARGUMENT and "holds for drawn latents only" in refused.message
    refused = refusal(lambda: stream_of(fake, model="plain"))
    assert refused.code == C.FAILED_PRECONDITION
    assert "python -m export calibrate fake --samples 4096" in refused.message
    assert refused.message.endswith(" --replace")
    models = {m.name: m.balances for m in fake.stub.ListModels(pb.ListModelsRequest()).models}
    assert models == {"fake": True, "other sizes": True, "plain": False}
    request = infer_request(indices(1))
    request.parameters["balance"].string_param = "classes"
    refused = refusal(lambda: infer(fake, request))
    assert "nothing is filtered here: use StreamSamples" in refused.message


def test_every_response_says_what_was_applied(fake: RunningServer) -> None:
    applied = [
        (pb.Filter(where=LARGE), 1),
        (pb.Filter(balance_classes=True), 2),
        (pb.Filter(keep_by=[LARGE], mode=pb.FILTER_MODE_KEEP_FRACTION, keep_fraction=0.9), 4),
        (pb.Filter(where="visible('left')", balance=BALANCED.balance[:1]), 3),
    ]
    for given, bits in applied:
        for message in fake.stream(model="fake", end_index=40, filter=given):
            assert message.applied == bits
            for tensor in message.batch.tensors:
                assert len(array_from_tensor(tensor)) == len(message.batch.indices)


def test_shares_are_fitted_one_request_after_the_other() -> None:
    """Threads that compute hold up the event loop, all the more the more there are."""
    running, most = 0, 0

    def resolve(*_: object) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.01)
        running -= 1

    service = LabelService(SimpleNamespace(limits=None), None, False)  # type: ignore[arg-type]
    query: Any = pb.SampleQuery(filter=BALANCED)
    model: Any = None

    async def ask() -> None:
        await asyncio.gather(*(service._resolved(resolve, query, model) for _ in range(20)))

    asyncio.run(ask())
    assert most == 1
