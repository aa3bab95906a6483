"""Resume: however often a download was cut short, its files are those of an uninterrupted one."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import repeat
from pathlib import Path
from threading import Lock
from typing import Any

import pytest

from engines.fake import FakeOptions
from labelmint import Client, LabelmintError
from labelmint.datasets.download import complete_folder
from labelmint.datasets.folder import Folder
from labelmint.datasets.request import checked_request
from tests.datasets.folders import contents, download, made, target_of
from tests.interrupts import INTERRUPTIBLE
from tests.service.harness import FakeModel, RunningServer, served

REQUESTS = {
    "webdataset": ("--format", "webdataset", "--count", "150", "--samples-per-shard", "32"),
    "coco": ("--format", "coco", "--end-index", "150", "--max-uncertainty", "0.7"),
    "png": ("--format", "png", "--count", "100", "--keep-fraction", "0.6", "--seed", "3"),
    "hf": ("--format", "hf", "--count", "120", "--samples-per-shard", "32"),
    "yolo": ("--format", "yolo-seg", "--count", "130"),
    "tasks": ("--format", "label-studio", "--count", "130"),
    "ranked": ("--filter", "research", "--fraction", "0.6", "--end-index", "200",
               "--samples-per-shard", "24"),
}  # fmt: skip
LONG = ("coco", "ranked", "tasks", "webdataset", "yolo")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(options, id=name, marks=pytest.mark.long if name in LONG else ())
        for name, options in REQUESTS.items()
    ],
)
def test_failures_and_forgotten_states_change_no_byte(
    server: RunningServer, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """The server fails after a few runs, over and over. Then, from every state on the way, the
    folder as it was left goes on: a kill just before a commit leaves files ahead of the state."""
    whole = contents(made(server, tmp_path / "whole", *options))
    out, choice = tmp_path / "cut", random.Random(7)
    state = out / ".labelmint" / "state.json"
    left: list[Path] = []
    for _ in range(100):
        with served(
            [FakeModel(options=FakeOptions(fail_after_runs=choice.randint(1, 4)))]
        ) as fails:
            ran = download(fails, out, *options)
        if ran.code == 0:
            break
        assert (ran.code, ran.err.count("\n")) == (1, 1), ran
        assert "changed it" not in ran.err
        left.append(tmp_path / f"left-{len(left)}")
        shutil.copytree(out, left[-1])
    assert contents(out) == whole
    assert len(left) > 3
    for earlier, later in reversed(list(zip(left, left[2:], strict=False))):
        shutil.copy(earlier / state.relative_to(out), later / state.relative_to(out))
        assert contents(made(server, later, *options)) == whole


@pytest.mark.long
@pytest.mark.parametrize("name", ["coco", pytest.param("ranked", marks=pytest.mark.slow)])
def test_kill_9_changes_no_byte(tmp_path: Path, name: str) -> None:
    options = {
        "coco": ("--format", "coco", "--count", "900", "--streams", "2"),
        "ranked": (
            "--filter", "top-fraction", "--fraction", "0.5", "--end-index", "800",
            "--samples-per-shard", "64",
        ),
    }[name]  # fmt: skip
    out, choice = tmp_path / "killed", random.Random(name)
    # Half a minute's work, so that no kill comes after it; what is left of it is made by another.
    slow = FakeModel(options=FakeOptions(seconds_per_sample=0.03))
    with served([slow]) as server:
        kills = [_killed(server, out, choice, options) for _ in range(3)]
    assert all(kills), "the kills came too late to show anything"
    with served() as fast:
        made(fast, out, *options)
        whole = made(fast, tmp_path / "whole", *options)
    assert contents(out) == contents(whole)


def _killed(
    server: RunningServer, out: Path, choice: random.Random, options: tuple[str, ...]
) -> bool:
    """Runs the command as a process and kills it, once it has got somewhat further."""
    command = [sys.executable, "-m", "labelmint", "download", "--target", target_of(server)]
    start = _progress(out)
    process = subprocess.Popen([*command, "--out", str(out), *options], stdout=subprocess.DEVNULL)
    while process.poll() is None and _progress(out) <= start:
        time.sleep(0.01)
    time.sleep(choice.random())
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def _progress(out: Path) -> int:
    """Samples that are safe; the file is replaced as a whole, so it can always be read."""
    try:
        state = json.loads((out / ".labelmint" / "state.json").read_text())["state"]
    except FileNotFoundError:
        return 0
    return int(state["kept"] + state["scored"])


def test_interruption_by_the_user_is_130_and_resumes(server: RunningServer, tmp_path: Path) -> None:
    options = ("--count", "300", "--samples-per-shard", "100")
    out = tmp_path / "d"
    command = [sys.executable, "-m", "labelmint", "download", "--out", str(out), *options]
    # Slow enough that it cannot be over before it is interrupted, on a busy machine too.
    with served([FakeModel(options=FakeOptions(seconds_per_sample=0.05))]) as slow:
        process = subprocess.Popen(
            [*INTERRUPTIBLE, *command, "--target", target_of(slow)],
            stderr=subprocess.PIPE,
            text=True,
        )
        while process.poll() is None and not _progress(out):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    what_to_do = f"{out} is incomplete; run the same command again, which resumes"
    assert (process.returncode, said.strip()) == (130, f"labelmint: interrupted: {what_to_do}")
    assert 0 < _progress(out) < 300
    made(server, out, *options)
    assert contents(out) == contents(made(server, tmp_path / "whole", *options))


@pytest.mark.long
def test_a_full_disk_is_a_line_and_resumes(server: RunningServer, tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: the same error at the same place."""
    options = ("--count", "200", "--samples-per-shard", "200")
    out = tmp_path / "d"
    command = [sys.executable, "-m", "labelmint", "download", "--out", str(out), *options]
    shell = 'ulimit -f 200; exec "$@"'
    ran = subprocess.run(
        ["bash", "-c", shell, "bash", *command, "--target", target_of(server)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)
    assert "File too large" in ran.stderr
    assert "run the same command again" in ran.stderr
    made(server, out, *options)
    assert contents(out) == contents(made(server, tmp_path / "whole", *options))


def test_a_complete_folder_asks_no_server(server: RunningServer, tmp_path: Path) -> None:
    out = made(server, tmp_path / "d", "--count", "3")
    before = contents(out)
    ran = download("localhost:1", out, "--count", "3")
    assert (ran.code, ran.err) == (0, "")
    assert "complete: 3 samples" in ran.out
    assert contents(out) == before


@pytest.mark.long
def test_streams_change_no_byte(server: RunningServer, tmp_path: Path) -> None:
    for name, options in REQUESTS.items():
        one = contents(made(server, tmp_path / name / "1", *options))
        assert contents(made(server, tmp_path / name / "3", *options, "--streams", "3")) == one


@pytest.mark.long
def test_downloads_to_one_folder_at_once_make_one_data_set(
    server: RunningServer, tmp_path: Path
) -> None:
    """All but one are told to wait, and those that come at the end find it complete."""
    whole = contents(made(server, tmp_path / "whole", "--format", "webdataset", "--count", "6"))
    with ThreadPoolExecutor(4) as threads:
        for round_ in range(20):
            out = tmp_path / str(round_)
            cards = list(threads.map(_download_when_unlocked, repeat(server, 4), repeat(out, 4)))
            assert cards[1:] == cards[:-1] and contents(out) == whole


@pytest.mark.parametrize("given", [False, True], ids=["new", "given"])
def test_a_download_that_is_refused_leaves_no_folder_that_it_made(
    server: RunningServer, tmp_path: Path, given: bool
) -> None:
    out = tmp_path / "new" / "set"
    if given:
        out.mkdir(parents=True)
    with Client(target_of(server)) as client:
        for _ in range(2):
            with pytest.raises(LabelmintError, match="missing"):
                complete_folder(
                    client, checked_request(format="webdataset", model="missing", count=6), out
                )
    assert list(tmp_path.rglob("*")) == ([out.parent, out] if given else [])


def test_of_many_that_are_refused_one_at_most_has_the_lock(tmp_path: Path) -> None:
    """Each removes the lock's file at its end, which another may have opened already."""
    request, holding = checked_request(format="webdataset", count=6), Lock()
    alone: list[bool] = []

    def refused(number: int) -> None:
        for _ in range(200):
            with suppress(LabelmintError), Folder(tmp_path / "set", request):
                alone.append(holding.acquire(blocking=False))
                time.sleep(0)
                if alone[-1]:
                    holding.release()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(refused, range(4)))
    assert all(alone) and len(alone) > 4 and not list(tmp_path.rglob("lock"))


def _download_when_unlocked(server: RunningServer, out: Path) -> dict[str, Any]:
    with Client(target_of(server)) as client:
        while True:
            try:
                return complete_folder(client, checked_request(format="webdataset", count=6), out)
            except LabelmintError as error:
                assert "is locked by another download" in str(error), error
