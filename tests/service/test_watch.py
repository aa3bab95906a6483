"""What lies in a watched directory is served, whole and in no other state."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import grpc
import pytest

from bundle.manifest import MANIFEST
from service import repository, watch
from service.config import NamedBundle
from service.watch import Watch
from tests.engines.conftest import Graphs
from tests.hangs import HANG_S, eventually
from tests.service.harness import RunningServer, channel_to, refusal, served
from tests.service.inference_calls import ask, index_of
from tests.service.test_endless_graphs import endless
from tests.service.test_metrics import scraped
from tests.service.test_process import bundle_at, changed, ran, running
from tests.service.test_repository import Held, config
from tests.service.test_repository_control import ADMIN


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    folder = tmp_path / "watched"
    folder.mkdir()
    return folder


@pytest.fixture
def server() -> Iterator[RunningServer]:
    """Serves nothing at first."""
    with served([], config()) as running:
        yield running


@pytest.fixture
def look(server: RunningServer, watched: Path) -> Callable[[], None]:
    """Looks at the directory once, as the server does every few seconds."""
    watch = Watch(watched, server.server.repository, ["taken"])
    return lambda: server.call(lambda running: watch.poll())


def models(server: RunningServer) -> dict[str, str]:
    """Names and ids of what is served."""
    return {n: m.version for n, m in index_of(server.channel).items() if m.state == "READY"}


def loads(server: RunningServer, name: str) -> tuple[float, float]:
    """Attempts that went well, and that failed."""
    values = scraped(server)
    ok, failed = (
        values.get(
            ("labelmint_model_loads_total", frozenset({"model": name, "outcome": o}.items())), 0
        )
        for o in ("ok", "failed")
    )
    return ok, failed


def link(path: Path, target: Path) -> None:
    """Points a symbolic link elsewhere in one step."""
    new = path.with_name(f".{path.name}")
    new.symlink_to(target)
    os.replace(new, path)


def test_folders_appear_are_swapped_and_go(
    server: RunningServer, look: Callable[[], None], watched: Path, tmp_path: Path
) -> None:
    look()
    assert not models(server)
    assert not ask(server.channel, "ServerReady").ready
    os.rename(bundle_at(tmp_path / "one"), watched / "m")
    look()
    assert ask(server.channel, "ServerReady").ready
    first = models(server)["m"]
    bundle_at(tmp_path / "two", view_layers=2)
    os.rename(watched / "m", tmp_path / "old")
    look()
    assert models(server) == {"m": first}  # another may be about to take its place
    os.rename(tmp_path / "two", watched / "m")
    look()
    second = models(server)["m"]
    assert second != first
    shutil.rmtree(watched / "m")
    look()
    look()
    assert not models(server) and "m" not in index_of(server.channel)
    assert loads(server, "m") == (2, 0)
    assert refusal(lambda: server.generate(count=1, model="m")).code is grpc.StatusCode.NOT_FOUND


def test_a_symbolic_link_is_swapped_by_renaming(
    server: RunningServer, look: Callable[[], None], watched: Path, tmp_path: Path
) -> None:
    link(watched / "m", bundle_at(tmp_path / "one"))
    look()
    first = models(server)["m"]
    link(watched / "m", bundle_at(tmp_path / "two", view_layers=2))
    look()
    assert models(server)["m"] != first
    link(watched / "m", tmp_path / "one")
    look()
    assert models(server)["m"] == first
    look()
    assert loads(server, "m") == (3, 0)


def test_a_folder_that_is_still_written_is_not_touched(
    server: RunningServer, look: Callable[[], None], watched: Path, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    whole = bundle_at(tmp_path / "whole")
    (watched / "m").mkdir()
    for _ in range(3):
        look()
    for name in (MANIFEST, "labeller.onnx", "mapping.onnx"):
        assert not models(server)
        shutil.copy(whole / name, watched / "m")
        look()
    assert "m" in models(server)
    assert loads(server, "m") == (1, 0) and not caplog.records


def test_a_broken_folder_is_tried_once_and_again_when_it_changes(
    server: RunningServer, look: Callable[[], None], watched: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = bundle_at(watched / "m")
    look()
    served_id = models(server)["m"]
    (bundle / "labeller.onnx").write_bytes(b"x")
    for _ in range(4):
        look()
    assert loads(server, "m") == (1, 1) and len(caplog.records) == 1
    assert models(server) == {"m": served_id}
    assert "labeller.onnx" in index_of(server.channel)["m"].reason
    (bundle / "labeller.onnx").write_bytes(b"")
    look()
    assert loads(server, "m") == (2, 1) and not index_of(server.channel)["m"].reason
    bundle_at(watched / "bad")
    changed(watched / "bad", format=2)
    for _ in range(4):
        look()
    assert index_of(server.channel)["bad"].state == "UNAVAILABLE"
    shutil.rmtree(watched / "bad")
    look()
    look()
    assert "bad" not in index_of(server.channel)


def test_a_calibration_that_is_added_is_taken_up(
    server: RunningServer, look: Callable[[], None], watched: Path
) -> None:
    bundle = bundle_at(watched / "m")
    look()
    calibrations = json.loads((bundle / MANIFEST).read_bytes())["calibrations"]
    changed(bundle, calibrations=calibrations[1:])
    look()
    assert loads(server, "m") == (2, 0)
    held = server.server.repository.models["m"].bundle.manifest.calibrations
    assert len(held) == len(calibrations) - 1


def test_other_things_in_the_directory_are_left_alone(
    server: RunningServer, look: Callable[[], None], watched: Path, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    for name in (".hidden", "no name", "taken"):
        bundle_at(watched / name)
    (watched / "file").touch()
    (watched / "dangling").symlink_to(tmp_path / "nothing")
    for _ in range(3):
        look()
    assert not models(server)
    assert sorted(record.message for record in caplog.records) == [
        "--watch: 'no name' is not a model name: use letters, digits, _ . and -, at most 128",
        "--watch: taken is served by --bundle; its folder is ignored",
    ]


def test_names_that_come_and_go_leave_nothing_behind(
    server: RunningServer, watched: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(repository, "MAX_FORGOTTEN", 2)
    monkeypatch.setattr(watch, "MAX_WARNINGS", 10)
    watching = Watch(watched, server.server.repository, ["taken"])
    for poll in range(4):
        for number in range(25):
            folder = watched / f"bad name {poll} {number}"
            folder.mkdir()
            (folder / MANIFEST).touch()
        broken = watched / f"broken{poll}"
        broken.mkdir()
        (broken / MANIFEST).touch()
        for _ in range(3):
            server.call(lambda _: watching.poll())
        assert loads(server, f"broken{poll}") == (0, 1)
        for folder in watched.iterdir():
            shutil.rmtree(folder)
        for _ in range(2):
            server.call(lambda _: watching.poll())
        assert not watching._warned and not index_of(server.channel)
    warned = [r.message for r in caplog.records if r.name == "service.watch"]
    assert len([message for message in warned if "is not a model name" in message]) == 4 * 10
    assert len([m for m in warned if m.endswith("more such entries; 10 are named here")]) == 4
    names = {dict(labels).get("model") for _, labels in scraped(server)}
    assert {name for name in names if name and "broken" in name} == {"broken2", "broken3"}


def test_a_folder_of_very_many_files_is_not_looked_through(
    server: RunningServer, look: Callable[[], None], watched: Path, caplog: pytest.LogCaptureFixture
) -> None:
    served, flooded = bundle_at(watched / "served"), bundle_at(watched / "flooded")
    for folder in (served, flooded):
        if folder is served:
            os.rename(flooded, watched.parent / "flooded")
            look()
            os.rename(watched.parent / "flooded", flooded)
        for number in range(2000):
            (folder / f"{number}.txt").touch()
    for _ in range(3):
        look()
    assert list(models(server)) == ["served"] and loads(server, "served") == (1, 0)
    assert sorted(record.message for record in caplog.records) == [
        f"--watch: {folder} has over 1024 files, so it is no bundle; the folder is ignored as it "
        "is now"
        for folder in (flooded, served)
    ]
    for path in flooded.glob("*.txt"):
        path.unlink()
    look()
    look()
    assert list(models(server)) == ["flooded", "served"]


def test_a_folder_that_cannot_be_read_keeps_no_other_from_being_served(
    server: RunningServer, look: Callable[[], None], watched: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (watched / "circle").symlink_to(watched / "circle")
    served = bundle_at(watched / "served")
    look()
    look()
    assert list(models(server)) == ["served"]
    os.rename(served, watched / "files")
    served.symlink_to(served)  # as an error of the file system
    bundle_at(watched / "later")
    for _ in range(3):
        look()
    assert list(models(server)) == ["files", "later", "served"]
    assert loads(server, "served") == (1, 0)
    assert sorted(record.message for record in caplog.records) == [
        f"--watch: '{name}' cannot be read: Too many levels of symbolic links"
        for name in ("circle", "served")
    ]


def test_a_directory_that_cannot_be_read_changes_nothing(
    server: RunningServer, look: Callable[[], None], watched: Path, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    bundle_at(watched / "m")
    look()
    os.rename(watched, tmp_path / "away")
    for _ in range(4):
        look()
    assert "m" in models(server) and len(caplog.records) == 1
    os.rename(tmp_path / "away", watched)
    look()
    assert loads(server, "m") == (1, 0)


def test_what_an_administrator_unloads_stays_so_until_its_folder_changes(
    server: RunningServer, look: Callable[[], None], watched: Path
) -> None:
    bundle = bundle_at(watched / "m")
    look()
    server.call(lambda running: running.repository.unload("m"))
    look()
    look()
    assert not models(server)
    server.call(lambda running: running.repository.load(NamedBundle("m", bundle)))
    assert "m" in models(server)
    server.call(lambda running: running.repository.unload("m"))
    (bundle / "mapping.onnx").touch()
    look()
    assert "m" in models(server)


def test_the_command_watches_a_directory_beside_its_bundles(watched: Path, tmp_path: Path) -> None:
    bundle_at(watched / "early")
    flags = ("--engine", "fake", "--watch", str(watched), "--watch-interval", "0.1")
    with running(bundle_at(tmp_path / "m"), *flags) as process:

        def info() -> set[str]:
            lines = process.get("/metrics")[1].splitlines()
            return {
                line.split('model="')[1].split('"')[0]
                for line in lines
                if line.startswith("labelmint_model_info{")
            }

        assert info() == {"m", "early"}  # ready means that both are
        os.rename(bundle_at(tmp_path / "late"), watched / "late")
        while "late" not in info():
            time.sleep(0.05)
        shutil.rmtree(watched / "early")
        while "early" in info():
            time.sleep(0.05)
        assert process.get("/readyz")[0] == 200


def test_a_load_that_hangs_does_not_hold_up_the_end(tmp_path: Path) -> None:
    good, admins = Graphs(tmp_path / "m").write(), tmp_path / "admins"
    admins.write_text(f"ops {'a' * 20}\n")
    flags = ("--drain-grace", "0.5", "--admin-token-file", str(admins))
    with (
        running(good.path, *flags) as process,
        channel_to(process.port) as channel,
        ThreadPoolExecutor() as pool,
    ):
        endless(good.path / "labeller.onnx", "ws")
        (good.path / MANIFEST).unlink()
        Graphs(good.path).listed()
        asked = partial(ask, channel, "RepositoryModelLoad", model_name="m", metadata=ADMIN)
        loading = pool.submit(refusal, asked)
        time.sleep(0.5)
        assert ask(channel, "ModelReady", name="m").ready
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(HANG_S) == 0
        assert loading.result().code is grpc.StatusCode.UNAVAILABLE


def test_a_load_that_hangs_holds_up_no_later_poll(
    watched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "TURN_S", 0.5)  # 10 s, which the test would wait
    held = Held("a")
    with served([], config(load_timeout_s=HANG_S), held) as server:
        watch = Watch(watched, server.server.repository, [])
        bundle_at(watched / "a")
        bundle_at(watched / "b")
        server.call(lambda running: watch._start())
        assert eventually(lambda: "b" in models(server))
        os.rename(bundle_at(tmp_path / "c"), watched / "c")
        server.call(lambda running: watch._start())
        assert eventually(lambda: "c" in models(server))
        assert index_of(server.channel)["a"].state == "LOADING"
        held.released.set()
        assert eventually(lambda: "a" in models(server))


@pytest.mark.long
def test_a_load_that_hangs_at_the_start_does_not_keep_the_others_from_being_served(
    watched: Path,
) -> None:
    held = Held("a")
    with served([], config(load_timeout_s=HANG_S), held) as server:
        watch = Watch(watched, server.server.repository, [])
        bundle_at(watched / "a")
        bundle_at(watched / "b")
        server.call(lambda running: watch.poll(patience_s=0.1))
        assert "b" in models(server) and index_of(server.channel)["a"].state == "LOADING"
        held.released.set()
        server.call(lambda running: watch.poll())
        assert "a" in models(server)


def test_the_command_needs_something_to_serve() -> None:
    result = ran("run")
    assert result.exit_code == 2 and "--bundle or --watch" in result.stderr
