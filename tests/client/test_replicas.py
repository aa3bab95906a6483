"""Several servers of one service: calls in turns, and streams that outlive a server."""

from __future__ import annotations

import random

from labelmint import Client
from labelmint.options import StreamOptions
from tests.client.scripted_service import CLOSED_PORT, Script, ScriptedService, serving


def test_targets_are_taken_in_turns_and_dead_ones_left_out(
    target: str, service: ScriptedService
) -> None:
    with serving() as (other, elsewhere), Client(f"{target}, {CLOSED_PORT},{other}") as client:
        for shard in range(4):
            batches = client.stream(4, count=4, shard_index=shard, num_shards=4, outputs=["mask"])
            assert len(next(batches)) == 4
        assert (len(service.queries), len(elsewhere.queries)) == (2, 2)
        assert client.reconnects == 1


def test_a_stream_goes_on_at_another_replica(target: str, service: ScriptedService) -> None:
    with serving() as (other, elsewhere), Client([target, other]) as client:
        service.script = elsewhere.script = Script(messages_until_drop=2)
        batches = list(client.stream(4, count=40, outputs=["mask"]))
        assert [i for batch in batches for i in batch.indices.tolist()] == list(range(40))
        assert client.reconnects == len(service.queries) + len(elsewhere.queries) - 1 >= 2


def test_the_calls_of_a_stream_go_round_the_replicas_of_one_name(
    target: str, service: ScriptedService
) -> None:
    with serving() as (other, elsewhere):
        ports = [address.rpartition(":")[2] for address in (target, other)]
        name = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
        with Client(name, streams=2) as client:
            for _ in range(4):  # until both are connected, one may get all
                batches = list(client.stream(4, count=20, outputs=["mask"]))
                assert [i for b in batches for i in b.indices.tolist()] == list(range(20))
        assert service.queries and elsewhere.queries


def test_the_shards_of_several_clients_spread_over_the_targets(
    target: str, service: ScriptedService
) -> None:
    with serving() as (other, elsewhere):
        for shard in range(4):
            with Client([target, other]) as client:
                options: StreamOptions = {
                    "shard_index": shard, "num_shards": 4, "count": 4, "outputs": ["mask"],
                }  # fmt: skip
                assert len(next(client.stream(4, **options))) == 4
        assert [query.shard_index for query in service.queries] == [0, 2]
        assert [query.shard_index for query in elsewhere.queries] == [1, 3]


def test_the_calls_of_one_shard_go_to_different_targets(
    target: str, service: ScriptedService
) -> None:
    with serving() as (other, elsewhere), Client([target, other], streams=2) as client:
        for shard in range(2):
            list(client.stream(4, count=20, shard_index=shard, num_shards=2, outputs=["mask"]))
        assert (len(service.queries), len(elsewhere.queries)) == (2, 2)


def test_clients_without_a_shard_begin_at_any_target_whatever_the_seed(
    target: str, service: ScriptedService
) -> None:
    with serving() as (other, elsewhere):
        for _ in range(32):  # all on one side: once in 2**31 runs
            random.seed(7)
            with Client([target, other]) as client:
                client.generate(count=1, outputs=["mask"])
        assert service.queries and elsewhere.queries
