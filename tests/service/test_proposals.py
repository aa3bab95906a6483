"""A request's proposal decides which samples are generated, and changes nothing else."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import grpc
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from bundle.open import Bundle
from engines.errors import EngineRunError
from engines.fake import FakeMapping, fake_bundle
from engines.proposal import screened
from engines.sampling import default_options
from labelmint.v1 import label_service_pb2 as pb
from service.config import Config
from service.models import ServedModel
from tests.hangs import eventually
from tests.service.harness import FakeModel, RunningServer, refusal, served, served_by
from tests.service.test_content import Samples, samples_of
from tests.service.test_metrics import DISCARDED, scraped, value

C = grpc.StatusCode
END = 600
OUTPUTS = [pb.OUTPUT_MASK, pb.OUTPUT_W]
WHERE = "share('part 1') >= 0.25"
BUNDLE = fake_bundle(16, proposals=True)


def with_floor(bundle: Bundle, name: str, floor: float) -> Bundle:
    """The bundle, whose proposal of this name has another floor, and no other choice."""
    old = bundle.proposals[name]
    bounds = [[msgspec.structs.replace(old.facts.bounds[0][0], low=1e4)]]  # p is 0
    facts = msgspec.structs.replace(old.facts, floor=floor, bounds=bounds)
    proposals = bundle.proposals | {name: replace(old, facts=facts)}
    return replace(bundle, proposals=proposals)


@pytest.fixture(scope="module")
def fake() -> Iterator[RunningServer]:
    models = [
        FakeModel(bundle=BUNDLE),
        FakeModel("older"),
        FakeModel("never", with_floor(BUNDLE, "rare", 1e-300)),
    ]
    with served(models) as server:
        yield server


def stream_of(server: RunningServer, proposal: str = "rare", **query: Any) -> Samples:
    where = query.pop("where", "")
    chosen = pb.Filter(proposal=proposal, where=where, **query.pop("filter", {}))
    query = {"model": "fake", "end_index": END, "outputs": OUTPUTS, **query}
    return samples_of(server.stream(filter=chosen, **query))


def chosen_of(indices: NDArray[np.uint64], seed: int = 0, views: int = 1) -> list[int]:
    """Which of these indices the proposal chooses."""
    generator = BUNDLE.manifest.generator
    options = replace(default_options(generator, seed), views_per_object=views)
    result = screened(FakeMapping(generator), generator, options, BUNDLE.proposals["rare"], indices)
    chosen: list[int] = indices[result.chosen].tolist()
    return chosen


@pytest.fixture(scope="module")
def everything(fake: RunningServer) -> Samples:
    samples = stream_of(fake, "")
    assert len(samples) == END
    return samples


@pytest.fixture(scope="module")
def chosen(everything: Samples) -> Samples:
    """The samples that should come."""
    found = chosen_of(np.arange(END, dtype=np.uint64))
    assert END / 20 < len(found) < END / 5
    return {index: everything[index] for index in found}


def test_exactly_the_chosen_samples_come_unchanged(fake: RunningServer, chosen: Samples) -> None:
    assert stream_of(fake) == chosen


def test_a_proposal_of_probability_one_is_none(fake: RunningServer, everything: Samples) -> None:
    assert stream_of(fake, "all") == everything


def test_any_resumed_and_sharded_stream_gives_the_same(
    fake: RunningServer, chosen: Samples
) -> None:
    for start in (1, 500, END - 1):
        resumed = stream_of(fake, start_index=start)
        assert resumed == {index: sample for index, sample in chosen.items() if index >= start}
    shards = [stream_of(fake, shard_index=shard, num_shards=3) for shard in range(3)]
    assert shards[0] | shards[1] | shards[2] == chosen
    asked = sorted({*sorted(chosen)[::3], 0, 7, END - 1})
    by_index = stream_of(fake, end_index=0, indices=asked)
    assert by_index == {index: chosen[index] for index in asked if index in chosen}


def test_a_stream_can_go_on_behind_each_of_its_messages(
    fake: RunningServer, chosen: Samples
) -> None:
    """Also behind those without samples; each index is in one message, kept or discarded."""
    query: Any = {"model": "fake", "outputs": OUTPUTS, "filter": pb.Filter(proposal="rare")}
    before: Samples = {}
    start = 0
    while start < END:
        stream = fake.stream(start_index=start, end_index=END, max_message_samples=5, **query)
        message = next(iter(stream))
        stream.cancel()
        assert len(message.batch.indices) + message.discarded == message.next_index - start
        before |= samples_of([message])
        start = message.next_index
    assert before == chosen


def test_every_index_is_reported_once_and_in_order(fake: RunningServer) -> None:
    position = 0
    query: Any = {"model": "fake", "end_index": END, "max_message_samples": 1}
    for message in fake.stream(filter=pb.Filter(proposal="rare"), **query):
        assert message.next_index > position
        assert len(message.batch.indices) + message.discarded == message.next_index - position
        position = message.next_index
    assert position == END


def test_a_count_ends_right_behind_its_last_sample(fake: RunningServer, chosen: Samples) -> None:
    wanted = sorted(chosen)[:9]
    query: Any = {"model": "fake", "count": 9, "outputs": OUTPUTS}
    answer = fake.generate(filter=pb.Filter(proposal="rare"), **query)
    assert list(answer.batch.indices) == wanted
    assert answer.next_index == wanted[-1] + 1
    messages = list(fake.stream(filter=pb.Filter(proposal="rare"), **query))
    assert [i for message in messages for i in message.batch.indices] == wanted
    assert messages[-1].next_index == wanted[-1] + 1


def test_a_predicate_decides_among_the_chosen(fake: RunningServer, chosen: Samples) -> None:
    met = stream_of(fake, "", where=WHERE)
    found = stream_of(fake, where=WHERE)
    assert found == {index: sample for index, sample in met.items() if index in chosen}
    assert 0 < len(found) < len(chosen)


def test_views_of_an_object_are_chosen_together(fake: RunningServer) -> None:
    sampling = pb.SamplingOptions(views_per_object=3)
    indices = chosen_of(np.arange(END, dtype=np.uint64), views=3)
    plain = stream_of(fake, "", sampling=sampling, where="share('part 1') <= 0.3")
    each = stream_of(fake, sampling=sampling, where="share('part 1') <= 0.3", start_index=1)
    assert each == {i: plain[i] for i in indices if i in plain and i >= 1}
    sets = {"filter_sets": True}
    whole = stream_of(
        fake, sampling=sampling, where="share('part 1') <= 0.3", filter=sets, start_index=1
    )
    objects = {i // 3 for i in each if {i // 3 * 3, i // 3 * 3 + 1, i // 3 * 3 + 2} <= plain.keys()}
    assert whole == {i: sample for i, sample in each.items() if i // 3 in objects}
    assert 0 < len(whole) < len(each)


def test_streams_with_and_without_share_batches_unmixed(
    fake: RunningServer, everything: Samples, chosen: Samples
) -> None:
    names = ["rare", "", "all", "rare", ""]
    with ThreadPoolExecutor(len(names)) as pool:
        together = list(pool.map(lambda name: stream_of(fake, name), names))
    assert together == [chosen, everything, everything, chosen, everything]


def test_max_examined_counts_raw_indices(fake: RunningServer, chosen: Samples) -> None:
    messages = []
    refused = refusal(
        lambda: messages.extend(
            fake.stream(model="fake", max_examined=400, filter=pb.Filter(proposal="rare"))
        )
    )
    assert refused.code == C.OUT_OF_RANGE and "400 indices were examined" in refused.message
    answer = fake.generate(model="fake", end_index=400, filter=pb.Filter(proposal="rare"))
    assert list(answer.batch.indices) == [i for i in sorted(chosen) if i < 400]
    assert answer.discarded == 400 - len(answer.batch.indices)


def test_a_stream_that_finds_nothing_says_how_far_it_is(fake: RunningServer) -> None:
    """And costs nothing once its caller has gone."""
    call = fake.stream(model="never", filter=pb.Filter(proposal="rare"))
    first, second = next(iter(call)), next(iter(call))
    assert not first.batch.indices and not second.batch.indices
    assert 256 <= first.next_index < second.next_index
    assert first.discarded == first.next_index
    assert second.discarded == second.next_index - first.next_index
    (model,) = (m for m in fake.server.repository.models.values() if m.name == "never")
    call.cancel()
    assert eventually(lambda: model.ahead.streams == 0)
    ended = list(fake.stream(model="never", end_index=1000, filter=pb.Filter(proposal="rare")))
    assert ended[-1].next_index == 1000 and sum(m.discarded for m in ended) == 1000


def test_what_a_proposal_leaves_out_is_counted_by_that_reason() -> None:
    with served([FakeModel(bundle=BUNDLE)]) as server:
        found = stream_of(server, where=WHERE)
        generated = len(chosen_of(np.arange(END, dtype=np.uint64)))
        wanted = {"proposal": END - generated, "predicate": generated - len(found), "views": 0}
        assert eventually(
            lambda: all(
                value(scraped(server), DISCARDED, reason=reason) == number
                for reason, number in wanted.items()
            )
        )


def test_a_mapping_that_fails_ends_the_stream_that_asked_for_it() -> None:
    class Failing(FakeMapping):
        """Fails for blocks of indices, which a proposal alone asks for."""

        def run(self, z: Any, c: Any) -> Any:
            if len(z) > 8:
                raise EngineRunError("the mapping fails")
            return super().run(z, c)

    def models(metrics: Any) -> list[ServedModel]:
        model = FakeModel(bundle=BUNDLE).opened(metrics)
        model.mapping = Failing(BUNDLE.manifest.generator)
        return [model]

    config = Config(bundles=(), listen="127.0.0.1:0", metrics_port=0)
    with served_by(config, models) as server:
        refused = refusal(lambda: stream_of(server))
        assert refused.code == C.INTERNAL
        assert len(stream_of(server, "", end_index=20)) == 20


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"proposal": "rear"}, C.INVALID_ARGUMENT, ("'rear'", "write one of 'rare'")),
        ({"proposal": "x" * 9000}, C.INVALID_ARGUMENT, ("xxx", "write one of")),
        ({"model": "older"}, C.FAILED_PRECONDITION, ("training directions", "leave it out")),
        (
            {"sampling": pb.SamplingOptions(truncation_psi=0.5)},
            C.FAILED_PRECONDITION,
            ("psi 1,", "psi 0.5,", "python -m training directions --bundle fake", "--psi 0.5"),
        ),
        (
            {"sampling": pb.SamplingOptions(latent_source=pb.LATENT_SOURCE_MT19937)},
            C.INVALID_ARGUMENT,
            ("mt19937", "philox"),
        ),
        (
            {
                "end_index": 0,
                "latents": pb.ExplicitLatents(
                    space=pb.LATENT_SPACE_Z,
                    rows=pb.Tensor(
                        dtype=pb.DATA_TYPE_FLOAT32, shape=[1, 16], codec=pb.CODEC_RAW,
                        data=bytes(64),
                    ),
                ),
            },
            C.INVALID_ARGUMENT,
            ("latents", "proposal", "leave one of them out"),
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(
    fake: RunningServer, changes: dict[str, Any], code: grpc.StatusCode, words: tuple[str, ...]
) -> None:
    refused = refusal(lambda: stream_of(fake, **changes))
    assert refused.code == code
    assert len(refused.message) < 600 and "\n" not in refused.message
    for word in words:
        assert word in refused.message


def test_a_model_names_its_proposals_with_their_figures(fake: RunningServer) -> None:
    models = {m.name: m for m in fake.stub.ListModels(pb.ListModelsRequest()).models}
    assert not models["older"].proposals
    rare = {p.name: p for p in models["fake"].proposals}["rare"]
    assert rare.where == "share('part 0') >= 0.25"
    assert (rare.gain.low, rare.gain.value, rare.gain.high) == (0.9, 1.0, 1.1)
    assert rare.truncation_psi == 1 and not rare.HasField("class_index")
