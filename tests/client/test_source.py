"""A stream goes on at its position, whatever happens to its servers."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import Any

import grpc
import pytest
from hypothesis import given

from labelmint.errors import RpcError, Unreachable
from labelmint.v1 import label_service_pb2 as pb
from labelmint.v1.label_service_pb2_grpc import LabelServiceStub
from labelmint.wire.prefetch import Prefetch
from labelmint.wire.resuming_stream import OpenedCall, ResumingStream
from labelmint.wire.retries import Patience, Reconnects
from tests.client.scripted_calls import TARGET, FailedCall, Server
from tests.client.scripted_queries import BATCH_SIZES, SCRIPTS, STREAMS, expected, queries
from tests.client.scripted_service import BUNDLE_ID, Ended, Script, aged
from tests.hangs import HANG_S

C = grpc.StatusCode
HOURS = Patience(connect_s=1e6, reconnect_s=1e6, first_wait_s=1e5)


@given(queries(), SCRIPTS, BATCH_SIZES, STREAMS)
def test_a_dropped_stream_goes_on_without_loss_or_repeats(
    query: pb.SampleQuery, script: Script, batch_size: int, streams: int
) -> None:
    script = replace(script, messages_until_drop=1 + (script.messages_until_drop or 0))
    server = Server(script, drops=20)
    got = list(server.batches(query, batch_size, streams))
    assert [int(index) for batch in got for index in batch.indices] == expected(query)
    assert all(reopened.bundle_id == BUNDLE_ID for reopened in server.queries[streams:])


def test_without_a_first_message_patience_is_short() -> None:
    server = Server(Script(messages_until_drop=0), drops=9)
    with pytest.raises(Unreachable, match=f"{TARGET} is unreachable: draining") as caught:
        next(server.batches(pb.SampleQuery()))
    assert caught.value.code == "UNAVAILABLE"
    assert len(server.calls) == 1


def test_a_stream_that_stays_away_ends_where_it_can_go_on() -> None:
    dead = Script(messages_until_drop=0)
    server = Server(Script(messages_until_drop=1), *[dead] * 9999, drops=9999)
    batches = server.batches(pb.SampleQuery(count=10), 3)
    assert next(batches).indices.tolist() == [0, 1, 2]
    with pytest.raises(Unreachable) as caught:
        next(batches)
    assert caught.value.next_index == 3
    assert len(server.queries) > 3  # tried for a while
    assert {(query.start_index, query.count) for query in server.queries[1:]} == {(3, 7)}


class Ending:
    """A call that ends so at once."""

    def __init__(self, end: Ended) -> None:
        self._end = end

    def __next__(self) -> pb.StreamSamplesResponse:
        raise FailedCall(self._end)

    def cancel(self) -> bool:
        return True


def source(*calls: Any, patience: Patience) -> tuple[ResumingStream, Server, Reconnects]:
    """A source that gets these calls, then those of a scripted server."""
    server, reconnects, left = Server(), Reconnects(), list(calls)

    def open_call(query: pb.SampleQuery, timeout_s: float | None) -> OpenedCall:
        if left:
            return OpenedCall(left.pop(0), TARGET)
        return server.open_call(query)

    stream = ResumingStream(open_call, pb.SampleQuery(end_index=30), patience, reconnects)
    return stream, server, reconnects


@pytest.mark.parametrize("code", [C.RESOURCE_EXHAUSTED, C.INVALID_ARGUMENT, C.INTERNAL])
def test_what_does_not_pass_is_not_tried_again(code: grpc.StatusCode) -> None:
    patient = Patience(connect_s=5.0, first_wait_s=0.001)
    found, server, _ = source(Ending(Ended(code, "too large")), patience=patient)
    with pytest.raises(RpcError, match="too large") as caught:
        next(found.messages())
    assert caught.value.code == code.name and not server.calls


def test_a_call_that_a_crowded_server_cancels_is_tried_again() -> None:
    """gRPC does so, at random, on a server where over 10,000 calls wait."""
    patient = Patience(connect_s=5.0, first_wait_s=0.001)
    found, server, reconnects = source(Ending(Ended(C.CANCELLED, "CANCELLED")), patience=patient)
    assert next(found.messages()).kept.indices[0] == 0
    assert len(server.calls) == reconnects.count == 1


def test_a_call_that_this_process_cancels_is_not_tried_again(target: str) -> None:
    """As `labelmint bench` does at its end."""
    channel = grpc.insecure_channel(target)
    calls = []

    def open_call(query: pb.SampleQuery, timeout_s: float | None) -> OpenedCall:
        stream = LabelServiceStub(channel).StreamSamples(pb.StreamSamplesRequest(query=query))
        calls.append(stream)
        return OpenedCall(stream, target)

    found = ResumingStream(open_call, pb.SampleQuery(), Patience(), Reconnects())
    messages = found.messages()
    next(messages)
    calls[0].cancel()
    with pytest.raises(RpcError, match="Locally cancelled") as caught:
        list(messages)
    assert caught.value.code == "CANCELLED" and len(calls) == 1
    channel.close()


def test_every_try_again_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    away = Ended(C.UNAVAILABLE, "connection reset")
    patient = Patience(connect_s=5.0, first_wait_s=0.001)
    found, _, reconnects = source(Ending(away), Ending(away), patience=patient)
    with caplog.at_level(logging.INFO, "labelmint"):
        list(found.messages())
    assert reconnects.count == 2
    assert len(caplog.messages) == 2
    assert all("connection reset" in line and "index 0" in line for line in caplog.messages)


def test_a_stream_that_ends_by_age_goes_on_without_a_wait_or_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = Script(messages_until_drop=1, drop=aged("its age"))
    server, reconnects = Server(script, drops=5), Reconnects()
    found = ResumingStream(server.open_call, pb.SampleQuery(end_index=30), HOURS, reconnects)
    with caplog.at_level(logging.INFO, "labelmint"):
        got = [int(i) for message in found.messages() for i in message.kept.indices]
    assert got == list(range(30)) and len(server.calls) == 6 and reconnects.count == 0
    assert [(r.levelno, "its age" in r.message) for r in caplog.records] == [(20, True)] * 5


def test_a_server_that_ends_streams_before_they_get_anywhere_is_not_asked_at_once_again() -> None:
    patient = Patience(connect_s=5.0, first_wait_s=0.001)
    found, _, reconnects = source(*[Ending(aged("old"))] * 3, patience=patient)
    assert sum(len(message.kept) for message in found.messages()) == 30
    assert reconnects.count == 3
    found, _, _ = source(*[Ending(aged("old"))] * 99, patience=Patience(connect_s=0.0))
    with pytest.raises(Unreachable, match="old"):
        next(found.messages())


CLOSING = Ended(
    C.UNAVAILABLE, "Stream removed (GOAWAY received; Error code: 0; Debug Text: max_age)"
)


@pytest.mark.parametrize(
    "end", [CLOSING, Ended(C.UNAVAILABLE, "ipv4:127.0.0.1:1: subchannel lost all connections")]
)
def test_a_call_that_meets_the_end_of_its_connection_begins_again_at_once_and_is_no_reconnect(
    end: Ended, caplog: pytest.LogCaptureFixture
) -> None:
    found, server, reconnects = source(Ending(end), patience=HOURS)
    with caplog.at_level(logging.INFO, "labelmint"):
        assert sum(len(message.kept) for message in found.messages()) == 30
    assert len(server.calls) == 1 and reconnects.count == 0
    (record,) = caplog.records
    assert record.levelno == logging.INFO and "index 0 at once" in record.message


def test_a_server_that_closes_every_connection_is_waited_for_as_others_are() -> None:
    found, _, reconnects = source(*[Ending(CLOSING)] * 3, patience=Patience(first_wait_s=0.001))
    assert sum(len(message.kept) for message in found.messages()) == 30
    assert reconnects.count == 2  # the first was none
    found, server, _ = source(*[Ending(CLOSING)] * 99, patience=Patience(connect_s=0.0))
    with pytest.raises(Unreachable, match="GOAWAY"):
        next(found.messages())
    assert not server.calls


def test_a_stream_that_ended_by_age_may_meet_the_end_of_its_connection() -> None:
    script = Script(messages_until_drop=1, drop=aged("its age"))
    server, reconnects = Server(script, drops=5), Reconnects()
    calls = 0

    def open_call(query: pb.SampleQuery, timeout_s: float | None) -> OpenedCall:
        nonlocal calls
        calls += 1
        return server.open_call(query) if calls % 2 else OpenedCall(Ending(CLOSING), TARGET)

    found = ResumingStream(open_call, pb.SampleQuery(end_index=30), HOURS, reconnects)
    assert sum(len(message.kept) for message in found.messages()) == 30
    assert calls == 11 and reconnects.count == 0


def test_a_server_that_says_so_after_an_answer_is_waited_for() -> None:
    script = Script(messages_until_drop=1, drop=CLOSING)
    server, reconnects = Server(script, drops=5), Reconnects()
    quick = Patience(first_wait_s=0.001)
    found = ResumingStream(server.open_call, pb.SampleQuery(end_index=30), quick, reconnects)
    assert sum(len(message.kept) for message in found.messages()) == 30
    assert reconnects.count == 5


LOADING = Ended(C.UNAVAILABLE, "the server is loading; try again soon")


def test_a_server_that_is_loading_is_waited_for_with_one_log_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    short = Patience(connect_s=0.0, reconnect_s=60.0, first_wait_s=0.001)
    found, _, reconnects = source(*[Ending(LOADING)] * 5, patience=short)
    with caplog.at_level(logging.INFO, "labelmint"):
        assert sum(len(message.kept) for message in found.messages()) == 30
    assert reconnects.count == 5
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "is loading" in record.message and "up to 60 s" in record.message


def test_a_server_that_goes_on_loading_is_unreachable_after_reconnect_s() -> None:
    short = Patience(connect_s=0.0, reconnect_s=0.05, first_wait_s=0.001)
    found, server, reconnects = source(*[Ending(LOADING)] * 999, patience=short)
    with pytest.raises(Unreachable, match=f"{TARGET} is unreachable: the server is loading"):
        next(found.messages())
    assert reconnects.count > 1 and not server.calls


class SilentCall:
    """A call that the server never got."""

    def __init__(self) -> None:
        self._ended = threading.Event()

    def __next__(self) -> pb.StreamSamplesResponse:
        assert self._ended.wait(HANG_S)
        raise FailedCall(Ended(C.CANCELLED, "cancelled"))

    def cancel(self) -> bool:
        self._ended.set()
        return True


def test_a_silent_stream_is_opened_anew() -> None:
    patient = Patience(connect_s=9.0, silence_s=0.1)
    found, server, _ = source(SilentCall(), patience=patient)
    messages = Prefetch(found, 1 << 20)
    first = messages.get()
    assert first is not None and first.kept.indices[0] == 0
    assert len(server.calls) == 1
    messages.close()


def test_silence_is_unreachable_in_the_end() -> None:
    patient = Patience(connect_s=0.0, silence_s=0.1)
    messages = Prefetch(source(SilentCall(), patience=patient)[0], 1 << 20)
    with pytest.raises(Unreachable, match=r"sent nothing for 0\.1 s"):
        messages.get()
    messages.close()
