"""Streams of a model with a view bank: which rows are used, what is told, what refused."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from engines.fake import fake_bundle
from labelmint.codec import array_from_tensor, name_from_output
from labelmint.latents import views
from labelmint.v1 import label_service_pb2 as pb
from tests.hangs import HANG_S
from tests.service.harness import FakeModel, RunningServer, refusal, served
from tests.service.inference_calls import call, infer_request

CODES, ROWS = 5, 4
BUNDLE = fake_bundle(resolution=16, view_codes=CODES, view_layers=ROWS)
UNMET, INVALID = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT
BANK, FIXED, RANDOM = pb.VIEW_MODE_BANK, pb.VIEW_MODE_FIXED, pb.VIEW_MODE_RANDOM
EVERYTHING = [pb.OUTPUT_UNCERTAINTY, pb.OUTPUT_W, pb.OUTPUT_VIEW, pb.OUTPUT_CAMERA]
Sample = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """A model with a bank of 5 views, and one without, in batches that cut objects."""
    models = [FakeModel(bundle=BUNDLE), FakeModel("plain", fake_bundle(resolution=16))]
    with served(models) as running:
        yield running


def samples(server: RunningServer, **query: Any) -> dict[int, Sample]:
    """Every output of each sample, by index."""
    found: dict[int, Sample] = {}
    for message in server.stream(**{"model": "fake", **query}):
        batch = message.batch
        arrays = {name_from_output(t.output): array_from_tensor(t) for t in batch.tensors}
        for row, index in enumerate(batch.indices):
            found[index] = {name: array[row] for name, array in arrays.items()}
    return found


def sampling(**fields: Any) -> dict[str, Any]:
    return {"sampling": pb.SamplingOptions(seed=7, **fields), "outputs": EVERYTHING}


def code_of(sample: Sample) -> int:
    """Which code of the fake bank a sample's rows are, by their values."""
    rows = sample["w"][:ROWS]
    assert (rows == rows[:, :1]).all() and (np.diff(rows[:, 0]) == 1 / 16).all()
    return int(rows[0, 0]) - 1


@pytest.mark.parametrize("mode", [BANK, pb.VIEW_MODE_UNSPECIFIED])
def test_view_v_of_every_object_is_code_v(server: RunningServer, mode: pb.ViewMode) -> None:
    found = samples(server, **sampling(views_per_object=3, view_mode=mode), end_index=18)
    own = samples(server, **sampling(), end_index=6)
    for i, sample in found.items():
        assert code_of(sample) == sample["view"] == i % 3
        assert (sample["w"][ROWS:] == own[i // 3]["w"][ROWS:]).all()


def test_a_fixed_view_is_the_same_for_all_objects(server: RunningServer) -> None:
    found = samples(server, **sampling(view_mode=FIXED, view=2), end_index=20)
    own = samples(server, **sampling(), end_index=20)
    assert {code_of(s) for s in found.values()} == {2} == {int(s["view"]) for s in found.values()}
    assert all((found[i]["w"][ROWS:] == own[i]["w"][ROWS:]).all() for i in range(20))


def test_view_0_can_be_fixed(server: RunningServer) -> None:
    found = samples(server, **sampling(view_mode=FIXED), end_index=3)
    assert {code_of(sample) for sample in found.values()} == {0}


def test_a_random_view_is_a_function_of_seed_and_index_alone(server: RunningServer) -> None:
    random = sampling(view_mode=RANDOM)
    expected = views(7, range(40), CODES).tolist()
    whole = samples(server, **random, end_index=40)
    assert [code_of(whole[i]) for i in range(40)] == expected
    assert [int(whole[i]["view"]) for i in range(40)] == expected
    with ThreadPoolExecutor(3) as pool:  # shards share engine batches, in any order
        shards = pool.map(
            lambda s: samples(server, **random, end_index=40, shard_index=s, num_shards=3), range(3)
        )
    listed = samples(server, **random, indices=[3, 17, 39])
    for part in (*shards, listed):
        for i, sample in part.items():
            assert sample["w"].tobytes() == whole[i]["w"].tobytes()
            assert sample["view"] == whole[i]["view"]


def test_cameras_are_those_of_the_codes(server: RunningServer) -> None:
    found = samples(server, **sampling(views_per_object=CODES), end_index=10)
    for i, sample in found.items():
        known = [10.0 * (i % CODES), -5, 6, np.nan]
        expected = [np.nan] * 4 if i % CODES == CODES - 1 else known
        np.testing.assert_array_equal(sample["camera"], np.array(expected, np.float32))


def test_views_that_are_not_the_banks_have_no_camera(server: RunningServer) -> None:
    own = samples(server, **sampling(), end_index=4)
    drawn = sampling(views_per_object=2, view_mode=pb.VIEW_MODE_DRAWN)
    several = samples(server, **drawn, end_index=4)
    assert [int(own[i]["view"]) for i in range(4)] == [-1] * 4
    assert [int(several[i]["view"]) for i in range(4)] == [0, 1, 0, 1]
    assert all(np.isnan(s["camera"]).all() for s in (*own.values(), *several.values()))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"view_mode": FIXED}, True),
        ({"view_mode": RANDOM}, True),
        ({"views_per_object": 2}, True),
        ({"views_per_object": 2, "view_mode": pb.VIEW_MODE_DRAWN}, False),
        ({}, False),
    ],
)
def test_views_are_told_unasked_where_the_bank_is_used(
    server: RunningServer, options: dict[str, Any], told: bool
) -> None:
    (first, _) = samples(server, sampling=pb.SamplingOptions(**options), end_index=2).values()
    assert ({"view", "camera"} <= first.keys()) is told
    assert {"view", "camera"}.isdisjoint(first.keys()) is not told
    assert "mask" in first and "w" not in first


def test_sets_stay_whole_over_filter_shards_and_resume(server: RunningServer) -> None:
    strict = pb.Filter(mode=pb.FILTER_MODE_MAX_UNCERTAINTY, max_uncertainty=0.8, filter_sets=True)
    query = sampling(views_per_object=3) | {"filter": strict, "end_index": 300}
    scores = samples(server, **(query | {"filter": pb.Filter()}))
    kept = {o for o in range(100) if all(scores[3 * o + v]["uncertainty"] <= 0.8 for v in range(3))}
    assert 20 < len(kept) < 80
    found = samples(server, **query)
    assert sorted(found) == [3 * o + v for o in sorted(kept) for v in range(3)]
    shards = [samples(server, **query, shard_index=s, num_shards=2) for s in range(2)]
    assert sorted(i for shard in shards for i in shard) == sorted(found)
    assert all({i // 3 % 2 for i in shard} == {s} for s, shard in enumerate(shards))
    messages = list(server.stream(model="fake", max_message_samples=4, **query))
    for message in messages[::5]:
        rest = samples(server, **query, start_index=message.next_index)
        assert sorted(rest) == [i for i in sorted(found) if i >= message.next_index]


def test_the_model_names_its_cameras(server: RunningServer) -> None:
    request = pb.GetModelRequest(model="fake")
    bank = server.stub.GetModel(request, timeout=HANG_S).model.view_bank
    assert len(bank) == CODES and bank[3].azimuth_deg == 30
    assert not bank[3].HasField("focal") and not bank[4].HasField("azimuth_deg")
    plain = server.stub.GetModel(pb.GetModelRequest(model="plain"), timeout=HANG_S).model
    assert not plain.view_bank and pb.OUTPUT_VIEW not in plain.outputs


def test_the_inference_protocol_fixes_views_too(server: RunningServer) -> None:
    index = np.array([4, 1], np.uint64)
    request = infer_request({"index": index}, ("ws", "view", "camera"))
    request.parameters["view"].int64_param = 3
    response = call(server.channel, "ModelInfer", request)
    view = np.frombuffer(response.raw_output_contents[1], "<i4")
    ws = np.frombuffer(response.raw_output_contents[0], "<f4").reshape(2, -1, 16)
    assert view.tolist() == [3, 3] and response.outputs[1].datatype == "INT32"
    assert (ws[:, 0] == 4).all() and list(response.outputs[2].shape) == [2, 4]


def given(space: pb.LatentSpace, *shape: int) -> pb.ExplicitLatents:
    rows = np.random.default_rng(2).normal(size=shape).astype("<f4")
    return pb.ExplicitLatents(
        space=space,
        rows=pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=shape, data=rows.tobytes()),
    )


@pytest.mark.parametrize("mode", [FIXED, RANDOM])
@pytest.mark.parametrize(
    "latents",
    [
        given(pb.LATENT_SPACE_Z, 12, 16),
        given(pb.LATENT_SPACE_W, 12, 16),
        given(pb.LATENT_SPACE_W_PLUS, 12, 6, 16),
    ],
    ids=["z", "w", "w+"],
)
def test_latents_of_the_caller_are_seen_from_the_bank(
    server: RunningServer, mode: pb.ViewMode, latents: pb.ExplicitLatents
) -> None:
    own = samples(server, **sampling(), latents=latents)
    found = samples(server, **sampling(view_mode=mode), latents=latents)
    codes = views(7, range(12), CODES).tolist() if mode == RANDOM else [0] * 12
    assert [code_of(found[i]) for i in range(12)] == codes
    for i, sample in found.items():
        assert sample["view"] == codes[i] and own[i]["view"] == -1
        assert np.isnan(own[i]["camera"]).all()
        assert np.isnan(sample["camera"]).all() == (codes[i] == CODES - 1)
        assert (sample["w"][ROWS:] == own[i]["w"][ROWS:]).all()
    query = sampling(view_mode=mode) | {"latents": latents, "start_index": 5}
    resumed = samples(server, **query)
    assert sorted(resumed) == list(range(5, 12))
    assert all(sample["w"].tobytes() == found[i]["w"].tobytes() for i, sample in resumed.items())


def test_the_inference_protocol_turns_latents_too(server: RunningServer) -> None:
    rows = np.random.default_rng(4).normal(size=(2, 16)).astype(np.float32)
    request = infer_request({"w": rows}, ("ws", "view"))
    request.parameters["view"].int64_param = 3
    response = call(server.channel, "ModelInfer", request)
    ws = np.frombuffer(response.raw_output_contents[0], "<f4").reshape(2, -1, 16)
    assert np.frombuffer(response.raw_output_contents[1], "<i4").tolist() == [3, 3]
    assert (ws[:, 0] == 4).all() and (ws[:, ROWS:] == rows[:, None]).all()


KEEP = pb.Filter(mode=pb.FILTER_MODE_KEEP_FRACTION, keep_fraction=0.5)
LATENTS = pb.ExplicitLatents(
    space=pb.LATENT_SPACE_W,
    rows=pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[1, 16], data=bytes(64)),
)


@pytest.mark.parametrize(
    ("options", "query", "code", "words"),
    [
        ({"view_mode": FIXED, "view": 5}, {}, INVALID, ["view is 5", "has 5"]),
        ({"view": 2}, {}, INVALID, ["view is 2", "view_mode to fixed"]),
        ({"view": 2, "view_mode": RANDOM}, {}, INVALID, ["view is 2", "view_mode to fixed"]),
        ({"view_mode": 9}, {}, INVALID, ["view_mode is 9", "ViewMode"]),
        ({"view_mode": BANK}, {}, INVALID, ["views_per_object is 1", "[2, 5]"]),
        ({"views_per_object": 6}, {}, INVALID, ["views_per_object is 6", "[2, 5]", "drawn"]),
        (
            {"view_mode": RANDOM, "views_per_object": 2},
            {},
            INVALID,
            ["with view random"],
        ),
        (
            {"views_per_object": 2},
            {"latents": LATENTS},
            INVALID,
            ["latents", "one view of the"],
        ),
        (
            {"view_mode": FIXED, "view": 3},
            {"model": "plain", "latents": LATENTS},
            UNMET,
            ["view is 3, but", "no view bank"],
        ),
        ({"view_mode": RANDOM}, {"model": "plain"}, UNMET, ["view is random, but", "no view bank"]),
        ({}, {"model": "plain", "outputs": [pb.OUTPUT_VIEW]}, UNMET, ["view", "lacks"]),
        (
            {"view_mode": FIXED, "view": 3},
            {"filter": KEEP},
            UNMET,
            ["view 3 of the bank"],
        ),
        ({"view_mode": RANDOM}, {"filter": KEEP}, UNMET, ["random views", "--view random"]),
        ({"views_per_object": 4}, {"filter": KEEP}, UNMET, ["--views 4 --view bank"]),
    ],
)
def test_views_that_cannot_be_served_are_refused(
    server: RunningServer,
    options: dict[str, Any],
    query: dict[str, Any],
    code: grpc.StatusCode,
    words: list[str],
) -> None:
    asked = {"model": "fake", "sampling": pb.SamplingOptions(**options), **query}
    refused = refusal(lambda: list(server.stream(**asked)))
    assert refused.code is code, refused
    assert all(word in refused.message for word in words), refused
    assert "\n" not in refused.message
    modes = re.findall(r"\b(?:DRAWN|BANK|FIXED|RANDOM)\b", refused.message)
    assert not modes, "callers type them in small letters"


def test_drawn_views_of_a_model_with_a_bank_keep_their_calibration(server: RunningServer) -> None:
    drawn = pb.SamplingOptions(views_per_object=4, view_mode=pb.VIEW_MODE_DRAWN)
    assert samples(server, sampling=drawn, filter=KEEP, end_index=40)
