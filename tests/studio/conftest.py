"""A studio served in this process, and requests as its page sends them."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser

from checkpoints import ClassCard, sha256_of_file
from studio import wall
from studio.__main__ import listening_socket, opened_studio, server_of
from studio.summary import Studio
from studio.wall_run import STEP
from tests.studio.chromium import IGNORED, launched
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
    end: Callable[[], None] = lambda: None  # stops the server, as Ctrl-C does; frees its port
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

    def listed(self, kind: str = "classes") -> Any:
        """The list of classes or keypoints of now."""
        return json.loads(self.request("GET", "/api/project").body)[kind]

    def change(self, kind: str, content: Mapping[str, Any]) -> Answer:
        """Replaces the list of classes or keypoints, made from the one of now; a class is the one
        that has its id, unless it has a key."""
        before = self.listed(kind)
        if kind == "classes":
            keys = [card.pop("keys")[-1] for card in before]
            rows = [{"key": key, **row} for key, row in zip_longest(keys, content[kind]) if row]
            content = {kind: rows}
        return self.send("PUT", f"/api/{kind}", {**content, "before": before})

    def mask(self, stem: str) -> tuple[bytes, str]:
        answer = self.request("GET", f"/api/images/{stem}/mask")
        assert answer.status == 200, answer.text
        return answer.body, answer.headers["etag"]

    def save(self, stem: str, pixels: bytes, tag: str, **headers: str) -> Answer:
        """Saves a mask, made by the classes of now unless a header says otherwise."""
        if "x_studio_classes" not in headers:
            headers["x_studio_classes"] = " ".join(card["keys"][-1] for card in self.listed())
        headers["if_match"] = tag
        return self.request("PUT", f"/api/images/{stem}/mask", pixels, **headers)

    def place(self, stem: str, points: object, **headers: str) -> Answer:
        """Saves keypoints that were made by the names of now."""
        body = {"points": points, "names": self.listed("keypoints")["names"]}
        return self.send("PUT", f"/api/images/{stem}/points", body, **headers)

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


def classes(*names: str) -> dict[str, Any]:
    """Body of a change of classes."""
    return {"classes": [{"name": n, "color": 0x102030 * (i + 1)} for i, n in enumerate(names)]}


def painted(served: Served, value: int = 1, count: int = 40) -> bytes:
    """A mask whose first pixels are painted."""
    mask = np.full(served.pixels, IGNORED, np.uint8)
    mask[:count] = value
    return mask.tobytes()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's chromium, without a window; one for each worker."""
    with launched() as found:
        yield found


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """That chromium; what a test has opened in it is closed at its end."""
    yield chromium
    for context in chromium.contexts:
        context.close()


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
def serving(generator: Path, project: Path, port: int = 0) -> Iterator[Served]:
    """A studio of a project, which gets two classes if it has none; port 0: any free one."""
    studio = opened_studio(generator, None, project)
    listener = listening_socket(f"127.0.0.1:{port}")
    server = server_of(studio, TOKEN)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})

    def end() -> None:
        server.should_exit = True
        thread.join()
        listener.close()

    thread.start()
    found = Served(studio, listener.getsockname()[1], end=end)
    try:
        if not studio.project.classes:
            answer = found.change("classes", classes("ground", "figure"))
            assert answer.status == 204, answer.text
        yield found
    finally:
        for stream in found.streams:
            stream.close()
        end()
        studio.learner.close()
        studio.export.close()
        studio.reviews.close()


@pytest.fixture
def served(tiny_weights: tuple[Path, Path], project: Path) -> Iterator[Served]:
    """A studio of a copy of that set."""
    with serving(tiny_weights[0], project) as found:
        yield found


@pytest.fixture
def proposed(tiny_weights: tuple[Path, Path], project: Path) -> Iterator[Served]:
    """A studio whose learner has proposed class 1 and two keypoints for each of four images."""
    folder, stems = project / "studio/proposals", ("000", "001", "002", "003")
    folder.mkdir(parents=True)
    for stem in stems:
        Image.fromarray(np.ones((32, 32), np.uint8)).save(folder / f"{stem}.mask.png")
    proposal = {"uncertainty": 0.1, "points": [[8.0, 8.0], [16.0, 16.0]]}
    lists = {"classes": ["ground", "figure"], "keypoints": ["left", "right"]}
    learned = {"rounds": 1, **lists, "proposals": dict.fromkeys(stems, proposal)}
    (project / "studio/proposals.json").write_text(json.dumps(learned))
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
        assert found.change("classes", classes(*(f"class {i}" for i in range(4)))).status == 204
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
