"""A server listens on every address of its host, or says in one line what holds one of them."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner

from labelmint.wire.addresses import addresses_of
from service.__main__ import main
from service.config import Config
from service.errors import StartError
from service.listening import listening_sockets
from service.metrics import Metrics
from service.server import Server
from tests.hangs import HANG_S
from tests.service.harness import served
from tests.service.identities import write_identity

HOLDER = """
import contextlib, pathlib, random, socket, sys, time
pathlib.Path("/proc/self/comm").write_text("hold\x1b[2J")  # a name that a terminal would obey
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
# Below the ports that the kernel chooses from, of which another test may be given the same one, at
# the address that is not held here.
for port in random.sample(range(20_000, 30_000), 100):
    with contextlib.suppress(OSError):
        held = socket.create_server((sys.argv[1], port), family=family)
        break
print(held.getsockname()[1], flush=True)
time.sleep(600)
"""


@contextmanager
def held_port(host: str) -> "Iterator[tuple[int, int]]":
    """A port of this address that another process listens on, and the process."""
    line = [sys.executable, "-S", "-c", HOLDER, host]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as popen:
        try:
            assert popen.stdout
            yield int(popen.stdout.readline()), popen.pid
        finally:
            popen.kill()


def refused(config: Config) -> str:
    async def start() -> None:
        async with Server(config, Metrics()).running():
            pass

    with pytest.raises(StartError) as caught:
        asyncio.run(start())
    return str(caught.value)


@pytest.mark.parametrize("held", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("host", ["localhost", "0.0.0.0", "[::]"])
def test_a_host_of_which_one_address_is_held_is_refused_with_the_holder(
    tmp_path: Path, host: str, held: str
) -> None:
    """Else callers of that address would reach another process than this server."""
    tls = write_identity(trustme.CA(), tmp_path)
    with held_port(held) as (port, holder):
        listen = f"{host}:{port}"
        end = f"process {holder} (hold\\x1b[2J) listens on "
        for config, flag in (
            (Config((), listen), f"--listen {listen}"),
            (Config((), listen, tls=tls), f"--listen {listen}"),
            (Config((), f"{host}:0", metrics_port=port), f"--metrics-port {port}"),
        ):
            said = refused(config)
            assert said.startswith(f"{flag} cannot be bound: {end}") and "\n" not in said
            assert said.endswith(f":{port}; end it, or give another port")
            if host == "localhost":
                assert (f"[{held}]:{port};" if ":" in held else f" {held}:{port};") in said


def test_a_name_is_served_at_each_of_its_addresses() -> None:
    with served(config=Config((), "localhost:0", metrics_port=0)) as server:
        for port in (server.server.port, server.server.metrics_port):
            assert port
            for _, address in addresses_of("localhost", port):
                socket.create_connection(address[:2], HANG_S).close()


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("nobody.invalid", "'nobody.invalid' has no address"),
        ("192.0.2.1", "192.0.2.1 is no address of this machine"),
        ("a" * 300, "has no address (it is not a host name)"),
        ("\x1b[2J\udcff", "has no address"),
    ],
)
def test_an_address_that_is_not_of_this_machine_is_refused(host: str, words: str) -> None:
    with pytest.raises(StartError, match="--listen x cannot be bound") as caught:
        listening_sockets("--listen x", host, 50051)
    said = str(caught.value)
    assert words in said and said.isprintable()


def test_one_port_for_calls_and_metrics_is_wrong_usage(tmp_path: Path) -> None:
    flags = ["--listen", "127.0.0.1:50999", "--metrics-port", "50999", "--watch", str(tmp_path)]
    ended = CliRunner().invoke(main, ["run", *flags])
    assert ended.exit_code == 2 and "50999 is the port of --listen" in ended.output
