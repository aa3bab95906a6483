"""The proxy of docs/operations.md: nginx with the page's settings, before a server of a test.

Enter: the server's port. Leave: the proxy's port, its process, and the limits that the page states.
"""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT
from tests.hangs import eventually

BLOCK = re.compile(r"```nginx\n(.*?)```", re.DOTALL)
RATE = re.compile(r"rate=(\d+)r/s")
BURST = re.compile(r"burst=(\d+)")


@dataclass(frozen=True)
class Proxy:
    """A running nginx."""

    port: int
    worker: int  # its process
    rate: int  # calls a second of one address
    burst: int  # calls beyond its rate


@contextmanager
def proxied(
    port: int, folder: Path, certificate: tuple[Path, Path] | None = None
) -> Iterator[Proxy]:
    """nginx before the server at `port`, with its files in `folder`.

    With files of a certificate and its key, it is the page's settings but for names and the port,
    and the server has to speak TLS as well. Without them neither side does.
    """
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if nginx is None:
        pytest.skip("nginx is not installed (Debian's package nginx-light has it)")
    documented = BLOCK.search((CHECKOUT / "docs/operations.md").read_text())
    assert documented
    rate, burst = RATE.search(documented[1]), BURST.search(documented[1])
    assert rate and burst
    with socket.create_server(("127.0.0.1", 0)) as free:
        own_port = int(free.getsockname()[1])
    listen, upstream = f"listen 127.0.0.1:{own_port} http2;", f"grpc://127.0.0.1:{port};"
    if certificate is not None:
        listen = (
            f"listen 127.0.0.1:{own_port} ssl http2; ssl_certificate {certificate[0]}; "
            f"ssl_certificate_key {certificate[1]};"
        )
        upstream = f"grpcs://127.0.0.1:{port};"
    settings, replaced = re.subn(
        r"listen 443 ssl http2;.*ssl_certificate_key [^;]*;", listen, documented[1],
        flags=re.DOTALL,
    )  # fmt: skip
    assert replaced == 1
    settings, replaced = re.subn(r"grpcs://\S+;", upstream, settings)
    assert replaced == 1
    own = "".join(
        f"{name}_temp_path {folder}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/log; worker_processes 1;"
        f"events {{}} http {{ access_log off; {own} {settings} }}"
    )
    with subprocess.Popen([nginx, "-c", folder / "nginx.conf", "-e", folder / "log"]) as popen:
        try:
            children = Path(f"/proc/{popen.pid}/task/{popen.pid}/children")
            assert eventually(lambda: popen.poll() is not None or children.read_text())
            assert eventually(lambda: _listens(own_port))
            worker = int(children.read_text().split()[0])
            yield Proxy(own_port, worker, int(rate[1]), int(burst[1]))
        finally:
            popen.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return not sock.connect_ex(("127.0.0.1", port))
