"""A stream with edits has the same samples, of moved w+, and nothing else is changed."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import grpc
import msgspec
import numpy as np
import pytest

from bundle.open import Bundle
from engines.edits import edited, shift_from_query
from engines.fake import FakeMapping, fake_bundle, with_content
from engines.sampling import default_options, ws_from_indices
from labelmint.codec import tensor_from_array
from labelmint.v1 import label_service_pb2 as pb
from tests.service.harness import FakeModel, RunningServer, refusal, served
from tests.service.test_content import Samples, samples_of

C = grpc.StatusCode
END = 120
OUTPUTS = [pb.OUTPUT_MASK, pb.OUTPUT_UNCERTAINTY, pb.OUTPUT_W]
BUNDLE = with_content(fake_bundle(16, view_codes=3, proposals=True, directions=True))
GENERATOR = BUNDLE.manifest.generator
EDITS = {"more": 1.5, "late": -0.5}
WHERE = "share('part 1') >= 0.25"


def replaced(bundle: Bundle) -> Bundle:
    """The bundle with a direction and a proposal learned anew, under the same names and id."""
    direction, proposal = bundle.directions["more"], bundle.proposals["rare"]
    moved = msgspec.structs.replace(direction.facts, seed=1)
    likely = msgspec.structs.replace(proposal.facts, seed=1)
    manifest = msgspec.structs.replace(
        bundle.manifest,
        directions=bundle.manifest.directions | {"more": moved},
        proposals=bundle.manifest.proposals | {"rare": likely},
    )
    return replace(
        bundle,
        manifest=manifest,
        directions=bundle.directions | {"more": replace(direction, facts=moved)},
        proposals=bundle.proposals | {"rare": replace(proposal, facts=likely)},
    )


@pytest.fixture(scope="module")
def fake() -> Iterator[RunningServer]:
    models = [
        FakeModel(bundle=BUNDLE),
        FakeModel("older", fake_bundle(16)),
        FakeModel("anew", replaced(BUNDLE)),
    ]
    with served(models) as server:
        yield server


def sampling(edits: dict[str, float] | None = None, **fields: Any) -> pb.SamplingOptions:
    given = EDITS if edits is None else edits
    return pb.SamplingOptions(
        edits=[pb.Edit(direction=name, strength=s) for name, s in given.items()], **fields
    )


def stream_of(
    server: RunningServer, edits: dict[str, float] | None = None, **query: Any
) -> Samples:
    fields = query.pop("sampling", {})
    query = {"model": "fake", "end_index": END, "outputs": OUTPUTS, **query}
    return samples_of(server.stream(sampling=sampling(edits, **fields), **query))


@pytest.fixture(scope="module")
def all_edited(fake: RunningServer) -> Samples:
    samples = stream_of(fake)
    assert len(samples) == END
    return samples


def expected_w(**changes: Any) -> Any:
    """w+ of the edited samples, [END, num_ws, w_dim]."""
    options = replace(default_options(GENERATOR), **changes)
    indices = np.arange(END, dtype=np.uint64)
    ws = ws_from_indices(FakeMapping(GENERATOR), GENERATOR, options, indices, None, BUNDLE.views)
    shift = shift_from_query(pb.SampleQuery(sampling=sampling()), BUNDLE, options)
    return edited(ws, shift)


def test_every_sample_is_that_of_its_moved_latents(
    fake: RunningServer, all_edited: Samples
) -> None:
    """What the same server makes of these w+ as explicit latents."""
    ws = expected_w()
    latents = pb.ExplicitLatents(space=pb.LATENT_SPACE_W_PLUS, rows=tensor_from_array(ws))
    by_hand = samples_of(fake.stream(model="fake", latents=latents, outputs=OUTPUTS))
    assert all_edited == by_hand
    plain = stream_of(fake, {})
    assert all(plain[i]["w"] != all_edited[i]["w"] for i in plain)


def test_an_edit_of_zero_is_the_plain_sample(fake: RunningServer) -> None:
    assert stream_of(fake, {"more": 0.0}) == stream_of(fake, {})


def test_any_resumed_and_sharded_stream_gives_the_same(
    fake: RunningServer, all_edited: Samples
) -> None:
    resumed = stream_of(fake, start_index=77)
    assert resumed == {i: sample for i, sample in all_edited.items() if i >= 77}
    shards = [stream_of(fake, shard_index=shard, num_shards=3) for shard in range(3)]
    assert shards[0] | shards[1] | shards[2] == all_edited
    some = stream_of(fake, end_index=0, indices=[3, 50, 119])
    assert some == {i: all_edited[i] for i in (3, 50, 119)}


def test_a_predicate_and_a_threshold_see_the_edited_sample(
    fake: RunningServer, all_edited: Samples
) -> None:
    part_1 = {i: np.frombuffer(s["mask"], np.uint8) == 1 for i, s in all_edited.items()}
    met = {i: all_edited[i] for i in all_edited if part_1[i].mean() >= 0.25}
    assert 0 < len(met) < END
    assert stream_of(fake, filter=pb.Filter(where=WHERE)) == met
    limit = pb.Filter(mode=pb.FILTER_MODE_MAX_UNCERTAINTY, max_uncertainty=0.5)
    sure = {
        i: s
        for i, s in all_edited.items()
        if np.frombuffer(s["uncertainty"], np.float32)[0] <= np.float32(0.5)
    }
    assert stream_of(fake, filter=limit) == sure


def test_a_proposal_chooses_by_the_plain_sample(fake: RunningServer, all_edited: Samples) -> None:
    """So a stream with and one without edits have the same indices, and pairs fit together."""
    chosen = pb.Filter(proposal="rare")
    plain, moved = stream_of(fake, {}, filter=chosen), stream_of(fake, filter=chosen)
    assert 0 < len(moved) < END
    assert moved == {i: all_edited[i] for i in plain}


def test_explicit_latents_are_edited_too(fake: RunningServer) -> None:
    w = np.random.default_rng(0).standard_normal((3, GENERATOR.w_dim)).astype(np.float32)
    latents = pb.ExplicitLatents(space=pb.LATENT_SPACE_W, rows=tensor_from_array(w))
    samples = stream_of(fake, end_index=0, latents=latents)
    shift = shift_from_query(
        pb.SampleQuery(sampling=sampling()), BUNDLE, default_options(GENERATOR)
    )
    wanted = edited(np.repeat(w[:, None], GENERATOR.num_ws, axis=1), shift)
    assert [samples[row]["w"] for row in range(3)] == [row.tobytes() for row in wanted]


def test_views_of_the_bank_are_edited_behind_their_codes(fake: RunningServer) -> None:
    views = {"views_per_object": 3, "view_mode": pb.VIEW_MODE_BANK}
    samples = stream_of(fake, sampling=views)
    wanted = expected_w(views_per_object=3, view_mode="bank")
    assert [samples[i]["w"] for i in range(END)] == [row.tobytes() for row in wanted]


def test_streams_with_other_edits_share_batches_unmixed(
    fake: RunningServer, all_edited: Samples
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    wanted = [EDITS, {}, {"late": 2.0}, EDITS, {}]
    alone = [stream_of(fake, edits) for edits in wanted]
    with ThreadPoolExecutor(len(wanted)) as pool:
        together = list(pool.map(lambda edits: stream_of(fake, edits), wanted))
    assert together == alone and together[0] == all_edited


def test_answers_say_that_edits_were_applied_and_by_which_directions(fake: RunningServer) -> None:
    moved = fake.generate(model="fake", count=2, sampling=sampling())
    plain = fake.generate(model="fake", count=2)
    assert moved.applied == 16 and len(moved.learned_id) == 64
    assert plain.applied == 0 and plain.learned_id == ""
    again = next(iter(fake.stream(model="fake", count=2, sampling=sampling())))
    assert again.learned_id == moved.learned_id
    pinned = fake.generate(model="fake", count=2, sampling=sampling(), learned_id=moved.learned_id)
    assert pinned.batch == moved.batch


@pytest.mark.parametrize("named", [{"sampling": sampling({"more": 1.0})},
                                   {"filter": pb.Filter(proposal="rare")}])  # fmt: skip
def test_what_was_learned_anew_is_refused_under_the_old_id(
    fake: RunningServer, named: dict[str, Any]
) -> None:
    before = fake.generate(model="fake", end_index=50, **named)
    after = fake.generate(model="anew", end_index=50, **named)
    assert before.bundle_id == after.bundle_id and before.learned_id != after.learned_id
    refused = refusal(
        lambda: list(fake.stream(model="anew", learned_id=before.learned_id, **named))
    )
    assert refused.code == C.FAILED_PRECONDITION
    for word in ("learned anew", before.learned_id, after.learned_id):
        assert word in refused.message
    assert "\n" not in refused.message


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"edits": {"moer": 1}}, C.INVALID_ARGUMENT, ("'moer'", "'more'")),
        ({"edits": {"more": 2.1}}, C.INVALID_ARGUMENT, ("from -2 to 2",)),
        ({"edits": {"more": float("nan")}}, C.INVALID_ARGUMENT, ("from -2 to 2",)),
        ({"model": "older"}, C.FAILED_PRECONDITION, ("training directions --edit",)),
        ({"filter": pb.Filter(balance_classes=True)}, C.INVALID_ARGUMENT, ("edits and balance",)),
        ({"filter": pb.Filter(mode=pb.FILTER_MODE_KEEP_FRACTION, keep_fraction=0.5)},
         C.INVALID_ARGUMENT, ("edits and keep_fraction", "max_uncertainty")),
        ({"sampling": {"truncation_psi": 0.5}}, C.FAILED_PRECONDITION, ("psi 0.5", "--edit")),
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


def test_a_threshold_is_not_looked_up_for_edited_samples(fake: RunningServer) -> None:
    request = pb.GetModelRequest(model="fake", keep_fraction=0.9, sampling=sampling())
    refused = refusal(lambda: fake.stub.GetModel(request))
    assert refused.code == C.FAILED_PRECONDITION and "without edits" in refused.message


def test_a_model_names_its_directions_with_what_was_measured(fake: RunningServer) -> None:
    models = {m.name: m for m in fake.stub.ListModels(pb.ListModelsRequest()).models}
    assert not models["older"].directions
    late, more = models["fake"].directions
    assert (late.name, late.first_row, late.end_row) == ("late", GENERATOR.num_ws - 2, 6)
    assert more.changes == "part 1" and more.measured == 16
    assert [row.strength for row in more.strengths] == [-2, 0, 2]
    assert more.strengths[2].miou.low == 0.8
    anew = {d.name: d.digest for d in models["anew"].directions}
    assert anew["late"] == late.digest and anew["more"] != more.digest
