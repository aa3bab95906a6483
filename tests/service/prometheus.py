"""Debian's prometheus and promtool, where they are installed."""

import json
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.hangs import HANG_S, eventually


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian's package prometheus has it)")
    return found


@contextmanager
def scraped_by(
    prometheus: str, ports: dict[int, dict[str, str]], folder: Path
) -> Iterator[Callable[[str], list[str]]]:
    """A Prometheus of its own for ports and the labels of each; yields a query's values."""
    targets = [
        {"targets": [f"127.0.0.1:{port}"], "labels": labels} for port, labels in ports.items()
    ]
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "labelmint", "static_configs": targets}],
    }
    with configured(prometheus, json.dumps(config), folder) as ask:
        yield ask


@contextmanager
def configured(prometheus: str, config: str, folder: Path) -> Iterator[Callable[[str], list[str]]]:
    """A Prometheus of its own with this configuration; yields a query's values."""
    (folder / "prometheus.yml").write_text(config)
    with started(prometheus, folder) as own:

        def ask(query: str) -> list[str]:
            url = f"http://127.0.0.1:{own}/api/v1/query?query={urllib.parse.quote(query)}"
            with urllib.request.urlopen(url, timeout=HANG_S) as answer:
                return [found["value"][1] for found in json.load(answer)["data"]["result"]]

        yield ask


@contextmanager
def started(prometheus: str, folder: Path) -> Iterator[int]:
    """The port of a Prometheus that is ready: the first of five free ones that nobody else takes
    before Prometheus does."""
    for _ in range(5):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        line = [
            prometheus, f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ]  # fmt: skip
        with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as running:
            try:
                if answers(running, port):
                    yield port
                    return
            finally:
                running.kill()
            assert running.stderr is not None
            said = running.stderr.read().decode()
        assert "address already in use" in said, said
    raise AssertionError("every free port was taken by somebody else")


def answers(running: subprocess.Popen[bytes], port: int) -> bool:
    """Whether it comes to answer queries there, or ends."""
    assert eventually(lambda: running.poll() is not None or ready(port)), "Prometheus says nothing"
    return running.poll() is None


def ready(port: int) -> bool:
    """Whether a Prometheus answers queries there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
