"""A studio served in this process, and requests as its page sends them."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser

from checkpoints import ClassCard, sha256_of_file
from studio import wall
from studio.__main__ import listening_socket, opened_studio, server_of
from studio.app import Studio
from studio.reviews import STEP
from tests.studio.chromium import launched
from training.__main__ import main as training_command

TOKEN = "a-token-of-thirty-two-characters"
CARDS = [ClassCard(name="ground", color=0x102030), ClassCard(name="figure", color=0x204060)]
NAMES = ("50% half", "Zoë #1", "plain")  # of photographs
TAB, OTHER_TAB = "11111111-tab", "22222222-tab"


@dataclass
class Answer:
    """Status, headers with lower-case names, and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass
class Served:
    """A running studio."""

    studio: Studio
    port: int
    cookie: str = f"studio-%d={TOKEN}"
    streams: list[http.client.HTTPConnection] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.studio.project.folder

    @property
    def pixels(self) -> int:
        height, width = self.studio.project.size
        return height * width

    @property
    def address(self) -> str:
        """As the command prints it, with the token."""
        return f"http://127.0.0.1:{self.port}/?token={TOKEN}"

    def request(
        self, method: str, path: str, body: bytes | str | None = None, **headers: str
    ) -> Answer:
        """Sends as the page does; an empty header is left out, "_" in names is "-"."""
        given = {
            "host": f"127.0.0.1:{self.port}",
            "cookie": self.cookie % self.port,
            "x-studio-tab": TAB,
        }
        if method not in ("GET", "HEAD"):
            given["origin"] = f"http://127.0.0.1:{self.port}"
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        data = body.encode() if isinstance(body, str) else body
        if data is not None and "content-length" not in given:
            given["content-length"] = str(len(data))
        for name, value in given.items():
            if value:
                connection.putheader(name, value)
        connection.endheaders(data)
        found = connection.getresponse()
        answer = Answer(found.status, {k.lower(): v for k, v in found.getheaders()}, found.read())
        connection.close()
        return answer

    def send(self, method: str, path: str, content: object, **headers: str) -> Answer:
        return self.request(method, path, json.dumps(content), **headers)

    def change(self, kind: str, content: Mapping[str, object]) -> Answer:
        """Replaces the list of classes or keypoints, made from the one of now."""
        before = json.loads(self.request("GET", "/api/project").body)[kind]
        return self.send("PUT", f"/api/{kind}", {**content, "before": before})

    def mask(self, stem: str) -> tuple[bytes, str]:
        answer = self.request("GET", f"/api/images/{stem}/mask")
        assert answer.status == 200, answer.text
        return answer.body, answer.headers["etag"]

    def save(self, stem: str, pixels: bytes, tag: str, **headers: str) -> Answer:
        return self.request("PUT", f"/api/images/{stem}/mask", pixels, if_match=tag, **headers)

    def open_stream(self, *tabs: str) -> http.client.HTTPResponse:
        """The stream of events of some tabs, open until the end of the test."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"cookie": self.cookie % self.port}
        query = "&".join(f"tab={tab}" for tab in tabs)
        connection.request("GET", f"/api/events?{query}", headers=headers)
        self.streams.append(connection)
        stream = connection.getresponse()
        assert stream.status == 200 and stream.readline() == b"retry: 1000\n"
        return stream


def classes(*names: str) -> dict[str, object]:
    """Body of a change of classes."""
    return {"classes": [{"name": n, "color": 0x102030 * (i + 1)} for i, n in enumerate(names)]}


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Debian's chromium, without a window."""
    with launched() as found:
        yield found


@pytest.fixture(scope="session")
def drawn_set(tiny_weights: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image set that `training sample` has drawn. Do not change it."""
    folder = tmp_path_factory.mktemp("drawn") / "set"
    arguments = ["sample", "--generator", str(tiny_weights[0]), "--out", str(folder)]
    training_command([*arguments, "--count", "4"], standalone_mode=False)
    return folder


@pytest.fixture
def project(drawn_set: Path, tmp_path: Path) -> Path:
    """A copy of that set, to change."""
    return Path(shutil.copytree(drawn_set, tmp_path / "project"))


@contextmanager
def serving(generator: Path, project: Path) -> Iterator[Served]:
    """A studio of a project, which gets two classes."""
    studio = opened_studio(generator, None, project)
    listener = listening_socket("127.0.0.1:0")
    server = server_of(studio, TOKEN)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    found = Served(studio, listener.getsockname()[1])
    try:
        answer = found.change("classes", classes("ground", "figure"))
        assert answer.status == 204, answer.text
        yield found
    finally:
        for stream in found.streams:
            stream.close()
        server.should_exit = True
        thread.join()
        listener.close()
        studio.learner.close()
        studio.export.close()
        studio.reviews.close()


@pytest.fixture
def served(tiny_weights: tuple[Path, Path], project: Path) -> Iterator[Served]:
    """A studio of a copy of that set."""
    with serving(tiny_weights[0], project) as found:
        yield found


@pytest.fixture(scope="session")
def drawn_wall(
    tiny_weights: tuple[Path, Path], drawn_set: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A set with weights that were learned, and a wall of their samples. Do not change it."""
    folder = Path(shutil.copytree(drawn_set, tmp_path_factory.mktemp("wall") / "set"))
    (folder / "studio").mkdir()
    for suffix in (".safetensors", ".toml"):
        shutil.copy(tiny_weights[1].with_suffix(suffix), folder / f"studio/interpreter{suffix}")
    weights = folder / "studio/interpreter.safetensors"
    sha = sha256_of_file(weights)
    wall.draw_wall(tiny_weights[0], None, folder, weights, sha, "learn", STEP)
    return folder


@pytest.fixture
def walled(tiny_weights: tuple[Path, Path], drawn_wall: Path, tmp_path: Path) -> Iterator[Served]:
    """A studio of a copy of that project."""
    project = Path(shutil.copytree(drawn_wall, tmp_path / "project"))
    with serving(tiny_weights[0], project) as found:
        assert found.change("classes", classes("a", "b", "c", "d")).status == 204
        yield found


@pytest.fixture(scope="session")
def photographs(tiny_weights: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three inverted photographs with names of their own, two of them larger than the images. Do
    not change the set."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for name, side in zip(NAMES, (32, 64, 96), strict=True):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
        coarse.resize((side, side)).save(folder / "photos" / f"{name}.png")
    arguments = ["--generator", str(tiny_weights[0]), "--images", str(folder / "photos")]
    training_command(
        ["invert", *arguments, "--out", str(folder / "set"), "--steps", "2"], standalone_mode=False
    )
    return folder / "set"
