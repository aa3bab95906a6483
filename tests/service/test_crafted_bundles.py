"""Dishonest bundles under --watch are refused in one line each while others are served, and a
direction that is replaced meanwhile never mixes with the one before it."""

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from bundle import open_bundle
from bundle.directions import bytes_from_rows
from bundle.files import sha256_of_file
from bundle.write import add_calibration, add_direction
from engines.fake import fake_bundle
from labelmint.v1 import label_service_pb2 as pb
from service.watch import Watch
from tests.bundle.conftest import Editor
from tests.hangs import HANG_S
from tests.service.harness import RunningServer, served
from tests.service.inference_calls import index_of
from tests.service.test_content import samples_of
from tests.service.test_process import bundle_at
from tests.service.test_repository import config

COUNT = 64
GIVEN = fake_bundle(16, directions=True).directions["more"]


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    """A folder with the bundle "honest", with a direction and a content table."""
    folder = tmp_path / "watched"
    folder.mkdir()
    honest = bundle_at(folder / "honest")
    learn(honest, 1.0)
    opened = open_bundle(honest)
    (known, *_) = opened.manifest.calibrations
    add_calibration(opened, known, True, np.zeros((40, 15), np.float32))
    return folder


def learn(folder: Path, scale: float) -> None:
    """Learns the direction "more" anew: that of GIVEN times `scale`."""
    data = bytes_from_rows((scale * GIVEN.rows).astype(np.float32))
    digest = hashlib.sha256(data).hexdigest()
    entry = msgspec.structs.replace(GIVEN.facts.file, sha256=digest)
    facts = msgspec.structs.replace(GIVEN.facts, file=entry)
    add_direction(open_bundle(folder), "more", data, facts, replace=True)


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with served([], config()) as running:
        yield running


@pytest.fixture
def look(server: RunningServer, watched: Path) -> Callable[[], None]:
    """Looks at the directory once, as the server does every few seconds."""
    watch = Watch(watched, server.server.repository, [])
    return lambda: server.call(lambda running: watch.poll())


def forge(file: Path, keys: str, data: bytes) -> None:
    """Other content of a file, with its hash and size in the manifest."""
    file.write_bytes(data)
    Editor(file.parent).set(f"{keys}|sha256", sha256_of_file(file))
    Editor(file.parent).set(f"{keys}|size", len(data))


def table_of(folder: Path) -> Path:
    (file,) = folder.glob("content.*")
    return file


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def link(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


CRAFTED: dict[str, tuple[Callable[[Path], object], str]] = {
    "noise": (
        lambda f: forge(table_of(f), "calibrations|-1|content|file", b"x"),
        "does not have 40 samples",
    ),
    "columns": (lambda f: Editor(f).set("calibrations|-1|content|columns", 9), "columns is 9"),
    "zero": (
        lambda f: forge(f / "direction-more.f32", "directions|more|file", bytes(GIVEN.rows.nbytes)),
        "direction-more.f32 has a largest value of 0",
    ),
    "swapped": (
        lambda f: (f / "direction-more.f32").write_bytes(bytes(GIVEN.rows.nbytes)),
        "direction-more.f32 has SHA-256",
    ),
    "short": (lambda f: os.truncate(f / "direction-more.f32", 4), "has 4 bytes, the manifest says"),
    "huge": (lambda f: os.truncate(table_of(f), 1 << 40), "has 1099511627776 bytes"),
    "pipe": (lambda f: pipe(f / "direction-more.f32"), "not a regular file"),
    "device": (lambda f: link(table_of(f)), "not a regular file"),
    "deep": (lambda f: (f / "manifest.json").write_bytes(b"[" * (1 << 20)), "manifest.json"),
    "unsorted": (
        lambda f: Editor(f).set("directions|more|strengths|0|strength", 9.0),
        "strengths is [9.0, 0.0, 2.0]; they must ascend",
    ),
}


def test_crafted_bundles_are_refused_and_the_honest_one_is_served(
    server: RunningServer,
    look: Callable[[], None],
    watched: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, (craft, _) in CRAFTED.items():
        shutil.copytree(watched / "honest", watched / name)
        craft(watched / name)
        (watched / name / "unlisted.f32").write_bytes(b"never read")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            look()
    states = {name: model.state for name, model in index_of(server.channel).items()}
    assert {name for name, state in states.items() if state == "READY"} == {"honest"}
    lines = [record.getMessage() for record in caplog.records]
    for name, (_, words) in CRAFTED.items():
        (line,) = (line for line in lines if f"model {name}" in line)
        assert words in line and "\n" not in line and len(line) < 700, line
    assert len(list(server.stream(model="honest", count=4)))


def ws_of(messages: Any) -> dict[int, Any]:
    """w+ by index, [num_ws * w_dim] each."""
    return {i: np.frombuffer(arrays["w"], np.float32) for i, arrays in samples_of(messages).items()}


def test_a_direction_that_is_replaced_never_mixes_with_the_one_before(
    server: RunningServer, look: Callable[[], None], watched: Path
) -> None:
    def stream(strength: float) -> Any:
        edits = [pb.Edit(direction="more", strength=strength)]
        return server.stream(
            HANG_S, model="honest", count=COUNT, outputs=[pb.OUTPUT_W],
            sampling=pb.SamplingOptions(edits=edits),
        )  # fmt: skip

    def scales(edited: dict[int, Any]) -> set[float]:
        assert edited.keys() == plain.keys()
        moved = [(edited[i] - plain[i]) / GIVEN.rows.reshape(-1) for i in plain]
        return {round(float(scale), 1) for scale in np.unique(moved)}

    look()
    plain = ws_of(stream(0.0))
    assert len(plain) == COUNT and scales(ws_of(stream(1.0))) == {1.0}
    for scale in (2.0, 3.0, 4.0):
        under_way = stream(1.0)
        start = ws_of([next(under_way)])
        learn(watched / "honest", scale)
        assert scales(ws_of(stream(1.0))) == {scale - 1}, "what is served was read before"
        look()
        assert scales(ws_of(stream(1.0))) == {scale}
        assert scales(start | ws_of(under_way)) == {scale - 1}, "it drains with what it began with"
