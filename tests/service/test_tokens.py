"""Bearer tokens: who may call, and files that change or are broken."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from labelmint.v1 import label_service_pb2 as pb
from service.errors import StartError
from service.tokens import Tokens
from tests.hangs import HANG_S
from tests.service.harness import refusal, served
from tests.service.identities import TOKENS, TWO, bearer, config
from tests.service.test_metrics import scraped

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


def answers(call: Any, metadata: Any) -> None:
    answer = call(TWO, timeout=HANG_S, metadata=metadata)
    if isinstance(answer, Iterator):
        list(answer)


def test_only_token_holders_may_call_but_health_answers_all(tokens: Path) -> None:
    with served(config=config(token_file=tokens)) as server:
        unary, stream = server.stub.GenerateSamples, server.stub.StreamSamples
        good = unary(TWO, timeout=HANG_S, metadata=bearer(TOKENS["trainer"]))
        assert len(good.batch.indices) == 2
        request = pb.StreamSamplesRequest(query=TWO.query)
        messages = stream(request, timeout=HANG_S, metadata=bearer(TOKENS["night-job"]))
        assert sum(len(m.batch.indices) for m in messages) == 2
        for metadata in (
            (), bearer(""), bearer("t" * 19), bearer("t" * 21), bearer("trainer"),
            (("authorization", TOKENS["trainer"]),), (("authorization", "Basic dDp0"),),
        ):  # fmt: skip
            for call in (unary, stream):
                refused = refusal(partial(answers, call, metadata))
                assert refused.code is UNAUTHENTICATED
                assert not any(token in refused.message for token in TOKENS.values())
        reflection: Any = server.channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        )
        refused = refusal(lambda: list(reflection(iter([b""]), timeout=HANG_S)))
        assert refused.code is UNAUTHENTICATED
        health: Any = health_pb2_grpc.HealthStub(server.channel)
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=HANG_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_tokens_change_with_their_file_and_a_broken_one_changes_nothing(
    tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = Tokens(tokens)
    assert known.name_of(TOKENS["trainer"]) == "trainer"
    tokens.write_text("fresh " + "f" * 16)
    assert known.name_of("f" * 16) == "fresh" and known.name_of(TOKENS["trainer"]) is None
    tokens.write_text("fresh short")
    assert known.name_of("f" * 16) == "fresh" and known.unusable
    assert "line 1" in caplog.text and "short" not in caplog.text


def test_tokens_that_change_under_load_end_no_stream_and_hold_for_every_new_call(
    tokens: Path,
) -> None:
    with served(config=config(token_file=tokens)) as server:
        request = pb.StreamSamplesRequest()
        old = server.stub.StreamSamples(request, timeout=HANG_S, metadata=bearer(TOKENS["trainer"]))
        indices = list(next(old).batch.indices)
        before = TOKENS["trainer"]
        for number in range(40):
            token = f"token-number-{number:07}"
            new = tokens.with_name("new")
            new.write_text(f"trainer {token}\n")
            os.replace(new, tokens)
            unary = server.stub.GenerateSamples
            assert unary(TWO, timeout=HANG_S, metadata=bearer(token)).batch.indices
            refused = refusal(partial(answers, unary, bearer(before)))
            assert refused.code is UNAUTHENTICATED
            indices += next(old).batch.indices
            before = token
        assert indices == list(range(len(indices)))
        old.cancel()


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_text("# none\n")


def put_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link_to_a_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("revoke", [remove, empty, put_a_pipe, link_to_a_device])
def test_a_file_without_tokens_revokes_them_all_after_a_short_grace(
    tokens: Path, revoke: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    content = tokens.read_text()
    known = Tokens(tokens, grace_s=1.0)
    began = time.monotonic()
    revoke(tokens)
    while known.name_of(TOKENS["trainer"]) == "trainer":
        assert time.monotonic() - began < HANG_S
        time.sleep(0.01)
    assert time.monotonic() - began >= 1.0 and known.unusable
    assert "no token is valid from 1 s from now on" in caplog.text
    tokens.unlink(missing_ok=True)
    assert known.name_of(TOKENS["trainer"]) is None  # no second grace
    tokens.write_text("trainer short")
    assert known.name_of(TOKENS["trainer"]) is None
    tokens.write_text(content)
    assert known.name_of(TOKENS["trainer"]) == "trainer" and not known.unusable


def test_a_file_replaced_in_two_steps_revokes_nothing(tokens: Path) -> None:
    known = Tokens(tokens)
    content = tokens.read_text()
    tokens.unlink()
    assert known.name_of(TOKENS["trainer"]) == "trainer"
    tokens.write_text(content)
    assert known.name_of(TOKENS["trainer"]) == "trainer"


def test_an_unusable_token_file_is_a_metric(tokens: Path) -> None:
    with served(config=replace(config(token_file=tokens), metrics_port=0)) as server:
        key = "labelmint_token_file_unusable", frozenset({("flag", "token-file")})
        assert scraped(server)[key] == 0
        tokens.unlink()
        assert scraped(server)[key] == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["no token", "NAME TOKEN"]),
        ("# nothing\n", ["no token"]),
        ("\n\na " + "x" * 15, ["line 3", "15 characters", "16"]),
        ("a", ["line 1", "1 words"]),
        ("a b " + "x" * 20, ["line 1", "3 words"]),
        ("ä " + "x" * 20, ["line 1", "name"]),
        (f"a {'x' * 20}\na {'y' * 20}", ["line 2", "already"]),
        (f"a {'x' * 20}\nb {'x' * 20}", ["same token for two names"]),
        ("a " + "x" * (1 << 20), ["over 1048576 bytes"]),
    ],
)
def test_a_broken_token_file_ends_the_start_in_one_line(
    tmp_path: Path, content: str, words: list[str]
) -> None:
    path = tmp_path / "tokens"
    path.write_text(content)
    with pytest.raises(StartError) as caught:
        Tokens(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message and "xxx" not in message
    assert all(word in message for word in words), message


def test_a_token_is_found_without_a_look_at_the_others(tmp_path: Path) -> None:
    """Whoever guesses tokens takes the event loop's time, and no more with 10,000 of them."""
    file = tmp_path / "tokens"
    calls: list[int] = []
    for count in (1, 10_000):
        file.write_text("".join(f"n{i} {i:020}\n" for i in range(count)))
        tokens = Tokens(file)
        assert tokens.name_of(f"{count - 1:020}") == f"n{count - 1}"
        seen: list[str] = []
        sys.setprofile(partial(_note, seen))
        try:
            found = tokens.name_of("wrong" * 4)
        finally:
            sys.setprofile(None)
        assert found is None
        calls.append(len(seen))
    assert calls[0] == calls[1]


def _note(seen: list[str], frame: Any, event: str, argument: Any) -> None:
    seen.append(event)
