"""A server that lies, over real gRPC: the client says so with a typed error, or asks again.

Each lie is what a server makes of its honest responses. A client cannot check whether the samples
are those of the bundle, nor which of them the filter should have rejected.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from labelmint import Client, Patience, codec
from labelmint.batch import kept_from_proto
from labelmint.datasets.download import complete_folder
from labelmint.datasets.request import checked_request
from labelmint.errors import LabelmintError, MalformedMessage, Unreachable
from labelmint.v1 import label_service_pb2 as pb
from labelmint.wire.answers import Message
from labelmint.wire.prefetch import MAX_ITEMS, Prefetch
from labelmint.wire.resuming_stream import AGED_S
from tests.client.scripted_calls import Server
from tests.client.scripted_service import (
    BUNDLE_ID,
    MODEL,
    Ended,
    Lie,
    Script,
    ScriptedService,
    aged,
)
from tests.hangs import eventually

Honest = Iterator[pb.StreamSamplesResponse]
Edit = Callable[[pb.StreamSamplesResponse], object]
QUICK = Patience(connect_s=0.0, reconnect_s=0.3, first_wait_s=0.001)


def edited(edit: Edit, number: int = 1) -> Lie:
    """A lie in one message."""

    def lie(query: pb.SampleQuery, honest: Honest) -> Honest:
        for position, response in enumerate(honest):
            if position == number:
                edit(response)
            yield response

    return lie


def cut(messages: int) -> Lie:
    """The stream ends with OK after this number of messages."""
    return lambda query, honest: itertools.islice(honest, messages)


def without(number: int) -> Lie:
    """One message is left out."""

    def lie(query: pb.SampleQuery, honest: Honest) -> Honest:
        return (each for position, each in enumerate(honest) if position != number)

    return lie


def repeated(query: pb.SampleQuery, honest: Honest) -> Honest:
    for response in honest:
        yield response
        yield response


def answered_as_if(**changes: Any) -> Lie:
    """The answer to another query."""

    def lie(query: pb.SampleQuery, honest: Honest) -> Honest:
        other = pb.SampleQuery()
        other.CopyFrom(query)
        for name, value in changes.items():
            other.ClearField(name)
            other.MergeFrom(pb.SampleQuery(**{name: value}))
        server = Server(Script(message_samples=(3,)))
        call = server.open_call(other).call
        while True:
            try:
                yield next(call)
            except (StopIteration, grpc.RpcError):
                return

    return lie


def shifted(response: pb.StreamSamplesResponse) -> None:
    response.batch.indices[:] = [index + 100 for index in response.batch.indices]


def reversed_(response: pb.StreamSamplesResponse) -> None:
    response.batch.indices[:] = response.batch.indices[::-1]


def as_jpeg(response: pb.StreamSamplesResponse) -> None:
    image = response.batch.tensors[0]
    array = codec.array_from_tensor(image)
    image.CopyFrom(codec.tensor_from_array(array, pb.OUTPUT_IMAGE, pb.CODEC_JPEG))


def of_another_size(response: pb.StreamSamplesResponse) -> None:
    image = response.batch.tensors[0]
    array = codec.array_from_tensor(image)[:, :-1]
    image.CopyFrom(codec.tensor_from_array(array, pb.OUTPUT_IMAGE))


def drop_output(response: pb.StreamSamplesResponse) -> None:
    del response.batch.tensors[0]


def no_weight(response: pb.StreamSamplesResponse) -> None:
    weights = np.zeros(len(response.batch.indices), np.float32)
    response.batch.tensors[-1].CopyFrom(codec.tensor_from_array(weights, pb.OUTPUT_WEIGHT))


def set_fields(**fields: Any) -> Edit:
    def edit(response: pb.StreamSamplesResponse) -> None:
        for name, value in fields.items():
            setattr(response, name, value)

    return edit


def discards(response: pb.StreamSamplesResponse) -> None:
    """The samples as if the filter had rejected them."""
    response.discarded += len(response.batch.indices)
    response.batch.Clear()


PLAIN: dict[str, Any] = {"count": 12}
RANGE: dict[str, Any] = {"end_index": 12}
PINNED: dict[str, Any] = {"count": 12, "bundle_id": BUNDLE_ID}
SHARD: dict[str, Any] = {"end_index": 24, "shard_index": 1, "num_shards": 2}
LISTED: dict[str, Any] = {"indices": [1, 2, 4, 8, 16, 32]}
LATENTS: dict[str, Any] = {"z": np.zeros((9, 8), np.float32)}
FILTERED: dict[str, Any] = {"end_index": 40, "max_uncertainty": 0.5}
ASKED: dict[str, Any] = {"count": 12, "outputs": ["image", "mask"]}
BIG = 2**63
# Options of the stream, the lie, and a part of the message of the MalformedMessage.
LIES: dict[str, tuple[dict[str, Any], Lie, str]] = {
    "another bundle than pinned": (
        PINNED, edited(set_fields(bundle_id="sha256:evil"), 0), "sha256:evil"),
    "another bundle in the middle": (
        PLAIN, edited(set_fields(bundle_id="sha256:evil")), "one of bundle 'sha256:scripted'"),
    "an endless bundle_id": (
        PLAIN, edited(set_fields(bundle_id="a" * 2**20), 0), "a bundle_id of 1048576 characters"),
    "an endless learned_id": (
        PLAIN, edited(set_fields(learned_id="a" * 257), 0), "a learned_id of 257 characters"),
    "no bundle": (PLAIN, edited(set_fields(bundle_id=""), 0), "samples of bundle ''"),
    "a message left out": (RANGE, without(1), "which are 5"),
    "samples left out": (RANGE, edited(discards), "has no filter"),
    "indices left out, silently": (
        RANGE, edited(lambda r: r.batch.Clear()), "sent 0 samples and discarded 0"),
    "a message twice": (PLAIN, repeated, "went back|are outside"),
    "more than count": (
        {"count": 4}, answered_as_if(count=0, end_index=40), "6 samples; count is 4"),
    "more than end_index": ({"end_index": 5}, answered_as_if(end_index=40), "ends at 5"),
    "beyond the end of indices": (PLAIN, edited(set_fields(next_index=2**64 - 1)), "which are"),
    "indices of the future": (PLAIN, edited(shifted, 0), "are outside"),
    "descending indices": ({"count": 12}, edited(reversed_, 2), "do not ascend"),
    "another shard": (SHARD, answered_as_if(shard_index=0), "not of shard 1 of 2"),
    "no shard": (SHARD, answered_as_if(num_shards=1, shard_index=0), "not of shard 1 of 2"),
    "another seed's range": (RANGE, answered_as_if(start_index=6), "are outside|which are"),
    "other indices than listed": (
        LISTED, answered_as_if(indices=[1, 3, 4, 8]), "not one of the requested"),
    "a listed index left out": (LISTED, answered_as_if(indices=[1, 2, 8, 16, 32]), "which are 4"),
    "rows that were not sent": (LATENTS, edited(set_fields(next_index=10), 3), "ends at 9"),
    "more than the filter keeps": (
        FILTERED, answered_as_if(filter=pb.Filter()), "max_uncertainty is 0.5"),
    "an older server, which ignores where": (
        {"end_index": 40, "where": "uncertainty <= 0.5"}, edited(lambda r: None),
        "ignored where, because"),
    "an older server, which ignores balance": (
        {"end_index": 40, "where": "uncertainty <= 0.5", "balance": {"eye": 0.5}},
        edited(set_fields(applied=1), 0), "ignored balance, because"),
    "an older server, which ignores keep_by": (
        {"end_index": 40, "keep_by": "eye", "keep_fraction": 0.5}, edited(lambda r: None),
        "ignored keep_by, because"),
    "a weight that is none": (
        {"count": 12, "outputs": ["image", "weight"]}, edited(no_weight, 0), "a weight is not"),
    "more discarded than there are": (
        FILTERED, edited(set_fields(discarded=BIG)), f"discarded {BIG}"),
    "position going back": (
        FILTERED, edited(set_fields(next_index=0), 2), "went back"),
    "an output left out": (ASKED, edited(drop_output), "requested are"),
    "no image by default": (PLAIN, edited(drop_output, 0), "no images"),
    "another output": (ASKED, answered_as_if(outputs=[1, 2, 3]), "requested are"),
    "outputs that change": (PLAIN, edited(lambda r: r.batch.tensors.pop()), "outputs changed"),
    "no outputs": (PLAIN, edited(lambda r: r.batch.ClearField("tensors")), "no outputs"),
    "another image size": (PLAIN, edited(of_another_size), "outputs changed"),
    "jpeg that was not accepted": (PLAIN, edited(as_jpeg), "codec 3, which was not accepted"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_ends_a_stream_with_a_typed_error_at_its_position(
    target: str, service: ScriptedService, lie: str
) -> None:
    options, service.lie, words = LIES[lie]
    service.script = Script(message_samples=(3, 1, 4))
    got: list[int] = []
    with Client(target, patience=QUICK) as client:
        with pytest.raises(MalformedMessage, match=words) as caught:
            for batch in client.stream(2, **options):
                got += batch.indices.tolist()
        assert got == sorted(set(got))
        assert caught.value.next_index is not None
        assert not got or caught.value.next_index > got[-1]
        assert client.reconnects == 0


GENERATED = {  # lies in the one message of GenerateSamples
    "another bundle than pinned": (PINNED, set_fields(bundle_id="sha256:evil"), "sha256:evil"),
    "fewer samples": (PLAIN, lambda r: truncated(r, 7), "before all requested"),
    "samples left out": (RANGE, discards, "has no filter"),
    "indices of the future": (PLAIN, shifted, "are outside"),
    "descending indices": (PLAIN, reversed_, "do not ascend"),
    "other indices than listed": (
        LISTED, lambda r: r.batch.indices.__setitem__(1, 3), "not one of the requested"),
    "an output left out": (ASKED, drop_output, "requested are"),
    "jpeg that was not accepted": (PLAIN, as_jpeg, "not accepted"),
    "more discarded": (FILTERED, set_fields(discarded=BIG), f"discarded {BIG}"),
}  # fmt: skip


def truncated(response: pb.StreamSamplesResponse, samples: int) -> None:
    honest = Server(Script(message_samples=(samples,))).open_call(pb.SampleQuery()).call
    response.CopyFrom(next(honest))


@pytest.mark.parametrize("lie", GENERATED)
def test_a_lie_in_one_message_is_refused_too(
    target: str, service: ScriptedService, lie: str
) -> None:
    options, edit, words = GENERATED[lie]
    service.lie = edited(edit, 0)
    with Client(target) as client, pytest.raises(MalformedMessage, match=words):
        client.generate(**options)


@pytest.mark.parametrize("options", [PLAIN, RANGE, SHARD, LISTED, LATENTS, FILTERED], ids=str)
def test_a_stream_that_ends_early_with_ok_is_resumed(
    target: str, service: ScriptedService, options: dict[str, Any]
) -> None:
    with Client(target, patience=QUICK) as client:
        wanted = [int(i) for batch in client.stream(2, **options) for i in batch.indices]
        service.lie = cut(1)
        got = [int(i) for batch in client.stream(2, **options) for i in batch.indices]
        assert got == wanted and client.reconnects > 0
        service.lie = cut(0)
        with pytest.raises(Unreachable, match="ended the stream at index 0, before its end"):
            next(client.stream(2, **options))


def test_a_download_that_ends_early_is_not_complete(
    tmp_path: Path, target: str, service: ScriptedService
) -> None:
    """Of 40 samples the first ones come, and then the server says that this was all."""
    request = checked_request(format="png", count=40)
    left = iter([2])
    service.lie = lambda query, honest: itertools.islice(honest, next(left, 0))
    with Client(target, patience=QUICK) as client:
        with pytest.raises(Unreachable, match="before its end"):
            complete_folder(client, request, tmp_path / "set")
        assert not (tmp_path / "set" / "card.json").exists()
        service.lie = lambda query, honest: honest
        card = complete_folder(client, request, tmp_path / "set")
    assert card["samples"] == {**card["samples"], "kept": 40, "examined": 40}


def test_streams_that_always_end_by_age_are_not_opened_as_fast_as_they_can(
    target: str, service: ScriptedService
) -> None:
    def lie(query: pb.SampleQuery, honest: Honest) -> Honest:
        position = query.start_index + 1
        yield pb.StreamSamplesResponse(next_index=position, discarded=1, bundle_id=BUNDLE_ID)
        raise aged("grown old")

    service.lie = lie
    began = time.monotonic()
    with Client(target) as client, pytest.raises(LabelmintError):
        next(client.stream(2, max_uncertainty=0.5, deadline_s=1.5))
    # The least time between two calls holds however long a busy machine takes for the deadline.
    assert len(service.queries) <= (time.monotonic() - began) / AGED_S + 2


def test_heartbeats_that_bring_nothing_do_not_make_failures_forgotten(
    target: str, service: ScriptedService
) -> None:
    def lie(query: pb.SampleQuery, honest: Honest) -> Honest:
        yield pb.StreamSamplesResponse(next_index=query.start_index, bundle_id=BUNDLE_ID)
        raise Ended(grpc.StatusCode.UNAVAILABLE, "not now")

    service.lie = lie
    with Client(target, patience=replace(QUICK, first_wait_s=0.05)) as client:
        with pytest.raises(Unreachable, match="not now"):
            next(client.stream(2))
        assert 1 < client.reconnects < 9


def idle(query: pb.SampleQuery, honest: Honest) -> Honest:
    yield next(honest)
    position = query.start_index + 3
    while True:
        yield pb.StreamSamplesResponse(next_index=position, bundle_id=BUNDLE_ID)


def test_a_flood_of_heartbeats_ends_a_stream(target: str, service: ScriptedService) -> None:
    service.lie = idle
    with Client(target) as client, pytest.raises(MalformedMessage, match="without a sample"):
        list(client.stream(3))


class Heartbeats:
    """An endless source of messages without samples."""

    def __init__(self) -> None:
        self.taken = 0

    def messages(self) -> Iterator[Message]:
        while True:
            self.taken += 1
            yield Message(kept_from_proto(pb.SampleBatch()), 0, BUNDLE_ID)

    def watch(self) -> None: ...

    def close(self) -> None: ...


def test_messages_without_bytes_are_not_held_without_limit() -> None:
    source = Heartbeats()
    prefetch = Prefetch(source, 1 << 20)
    assert eventually(lambda: source.taken > MAX_ITEMS)
    time.sleep(0.1)
    assert source.taken == MAX_ITEMS + 1
    prefetch.close()


def test_models_that_were_not_asked_for_are_refused(target: str, service: ScriptedService) -> None:
    service.model = pb.Model(name="\x1b[2Jother", bundle_id="sha256:other")
    with Client(target) as client:
        with pytest.raises(MalformedMessage, match=r"\\x1b\[2Jother.* instead of 'scripted'"):
            client.model("scripted")
        assert client.model().bundle_id == "sha256:other"


@pytest.mark.parametrize("threshold", [float("nan"), -1.0, float("-inf")])
def test_a_threshold_that_is_none_is_refused(
    target: str, service: ScriptedService, threshold: float
) -> None:
    service.threshold = threshold
    with Client(target) as client, pytest.raises(MalformedMessage, match="a number from 0 up"):
        client.model(keep_fraction=0.5)


def test_a_skeleton_without_its_keypoints_is_refused(target: str, service: ScriptedService) -> None:
    wrong = pb.Model()
    wrong.CopyFrom(MODEL)
    wrong.skeleton.add(from_keypoint=0, to_keypoint=3)
    service.models = [MODEL, wrong]
    with Client(target) as client, pytest.raises(MalformedMessage, match="connects keypoint 3"):
        client.models()


def test_a_download_is_of_the_bundle_it_began_with(
    tmp_path: Path, target: str, service: ScriptedService
) -> None:
    service.model = pb.Model()
    service.model.CopyFrom(MODEL)
    service.model.bundle_id = "sha256:promised"
    service.script = Script(bundle_id="sha256:promised")
    service.lie = edited(set_fields(bundle_id="sha256:evil"), 0)
    request = checked_request(format="png", count=4)
    with Client(target) as client, pytest.raises(MalformedMessage, match="sha256:evil"):
        complete_folder(client, request, tmp_path / "set")
