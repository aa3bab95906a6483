"""Debian's prometheus and promtool, where they are installed."""

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


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
    (folder / "prometheus.yml").write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s"},
                "scrape_configs": [
                    {
                        "job_name": "labelmint",
                        "static_configs": [
                            {"targets": [f"127.0.0.1:{port}"], "labels": labels}
                            for port, labels in ports.items()
                        ],
                    }
                ],
            }
        )
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        own = free.getsockname()[1]
    line = [
        prometheus, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{own}", "--log.level=error",
    ]  # fmt: skip

    def ask(query: str) -> list[str]:
        url = f"http://127.0.0.1:{own}/api/v1/query?query={urllib.parse.quote(query)}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return [found["value"][1] for found in json.load(answer)["data"]["result"]]
        except OSError:  # not up yet
            return []

    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            yield ask
        finally:
            running.kill()


def eventually(condition: Callable[[], bool], within_s: float = 30) -> bool:
    until = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True
