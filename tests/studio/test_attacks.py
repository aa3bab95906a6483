"""Attacks on a studio by what else runs on the machine, by another studio, and by a project that
somebody else has made."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import io
import json
import logging
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from PIL import Image

from bundle.files import replace_file
from checkpoints import ClassCard
from studio.__main__ import owned_project, stored_token
from studio.connections import MAX_CONNECTIONS, PatientProtocol
from studio.errors import StudioError
from studio.learner import Learner
from studio.learning import INTERPRETER
from studio.pick import change_set, finish_change, remove_image
from studio.project import Project
from studio.reviews import Reviews
from tests.hangs import eventually
from tests.interrupted_process import FILE_EVENTS
from tests.studio.conftest import CARDS, TAB, TOKEN, Served, serving
from training.images.image_set import ImageEntry, sha256_of_array


@pytest.fixture(scope="module")
def served(
    tiny_weights: tuple[Path, Path], drawn_set: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """One studio for all of these, since none of them may change it."""
    project = Path(shutil.copytree(drawn_set, tmp_path_factory.mktemp("attacked") / "project"))
    with serving(tiny_weights[0], project) as found:
        yield found


def test_sockets_that_say_nothing_lock_nobody_out(served: Served) -> None:
    """Any program of the machine can open them, and a web page can make the browser do it."""
    silent = []
    try:
        for _ in range(MAX_CONNECTIONS + 40):
            silent.append(socket.create_connection(("127.0.0.1", served.port)))
            silent[-1].sendall(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n")
        assert served.request("GET", "/api/project").status == 200
        silent[0].settimeout(60)
        with suppress(ConnectionResetError):  # by time: either way the oldest has made room
            assert silent[0].recv(1) == b""
    finally:
        for one in silent:
            one.close()


def test_what_is_no_request_of_the_page_fills_no_log(served: Served) -> None:
    """A page of another site can open WebSockets, and speak TLS to any port."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[assignment, method-assign]
    logger = logging.getLogger("uvicorn.error")
    logger.addHandler(handler)
    upgrade = (
        b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    )
    for said in (upgrade, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/9\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", served.port)) as one:
            one.settimeout(60)
            one.sendall(said + b"\r\n\r\n")
            assert one.recv(12)[:9] == b"HTTP/1.1 "
    logger.removeHandler(handler)
    assert not records


class HastyProtocol(PatientProtocol):
    """As a studio's connections, in less time."""

    patience_s = 0.3


def test_a_request_that_comes_byte_by_byte_is_not_waited_for() -> None:
    async def application(scope: object, receive: object, send: object) -> None:
        raise AssertionError("no request is whole")

    async def attack() -> None:
        config = uvicorn.Config(application, http=HastyProtocol, ws="none", lifespan="off")
        config.load()
        server = uvicorn.Server(config)
        loop = asyncio.get_running_loop()
        made = await loop.create_server(
            lambda: HastyProtocol(config, server.server_state, {}, loop), "127.0.0.1", 0
        )
        reader, writer = await asyncio.open_connection(*made.sockets[0].getsockname())
        closed = asyncio.ensure_future(reader.read())
        for byte in b"GET / HTTP/1.1\r\n" + b"x: " + b"y" * 10_000:
            if closed.done():
                break
            writer.write(bytes([byte]))
            await asyncio.wait([closed], timeout=0.02)
        assert closed.done(), "it would have been waited for as long as bytes come"
        writer.close()
        made.close()

    asyncio.run(attack())


HUGE, BONES = "9" * 400, ", ".join(["[0, 1]"] * 9000)
BEFORE = '"before": {"names": [], "skeleton": []}'


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/api/images/000/points", f'{{"names": ["a"], "points": [[1, 1, {HUGE}]]}}'),
        ("PUT", "/api/images/000/points", '{"names": ["a"], "points": [[1, 1e999, 1]]}'),
        ("PUT", "/api/images/000/points", f'{{"names": ["a"], "points": [[{HUGE}.0, 1, 1]]}}'),
        ("POST", "/api/images/000/select", f'{{"points": [[1, 1]], "class_id": {HUGE}}}'),
        ("POST", "/api/images/000/select", '{"points": [[1, 1]], "class_id": -1}'),
        ("POST", "/api/images/000/select", f'{{"points": [[1, {HUGE}]], "class_id": 0}}'),
        ("PUT", "/api/classes", f'{{"classes": [{{"name": "a", "color": {HUGE}}}], "before": []}}'),
        ("PUT", "/api/classes", '{"classes": [{"name": "a", "color": -1}], "before": []}'),
        ("PUT", "/api/classes", '{"classes": [{"name": "a", "color": 16777216}], "before": []}'),
        ("PUT", "/api/classes", '{"classes": [{"name": "\\ud800", "color": 1}], "before": []}'),
        ("PUT", "/api/classes", '{"classes": [{"name": "a\\u202eb", "color": 1}], "before": []}'),
        ("PUT", "/api/keypoints", f'{{"names": ["a", "b"], "skeleton": [[0, {HUGE}]], {BEFORE}}}'),
        ("PUT", "/api/keypoints", f'{{"names": ["a", "b"], "skeleton": [{BONES}], {BEFORE}}}'),
        ("POST", "/api/images", f'{{"indices": [{HUGE}]}}'),
        ("GET", "/candidates/" + "9" * 5000, None),
        ("GET", "/api/review?error=nan", None),
        ("GET", "/api/review?error=" + "9" * 5000, None),
        ("GET", "/api/candidates?order=typical&pool=" + "9" * 5000, None),
        ("GET", "/api/events?tab=" + "a" * 5000, None),
        ("GET", "/api/events?tab=aaaaaaaa%0a", None),
        ("GET", "/api/events?" + "tab=aaaaaaaa&" * 65, None),
        ("GET", "/api/review/review-0000000000000000-99999/mask", None),
        ("PUT", "/api/review/review-0000000000000000-0/verdict", '{"verdict": "right"}'),
        ("GET", "/" + "%00" * 50, None),
    ],
)  # fmt: skip
def test_numbers_and_names_past_every_limit_are_refused_in_a_line(
    served: Served, method: str, path: str, body: str | None
) -> None:
    before = {p: p.read_bytes() for p in served.folder.rglob("*") if p.is_file()}
    answer = served.request(method, path, body)
    assert 400 <= answer.status < 500 or path.startswith(
        ("/api/candidates?order=typical&pool=24", "/?")
    )
    assert "Traceback" not in answer.text and answer.text.count("\n") <= 1
    after = {p: p.read_bytes() for p in served.folder.rglob("*") if p.is_file()}
    assert after == before


def test_a_host_with_more_than_a_name_and_a_port_is_not_the_studios(served: Served) -> None:
    for host in ("localhost:1 x", "localhost:x", "127.0.0.1:80;a=b", "localhost:", "[::1]:0x50",
                 "localhost:1,2", "localhost:" + "9" * 99):  # fmt: skip
        answer = served.request("GET", f"/?token={TOKEN}", host=host, cookie="")
        assert answer.status in (400, 421), host
        assert "set-cookie" not in answer.headers


def test_a_project_has_one_studio(project: Path) -> None:
    """Each keeps labels in memory, so the later one would lose what the first has saved since."""
    with owned_project(project):
        with pytest.raises(StudioError, match="is open in another studio"), owned_project(project):
            pass
        child = os.fork()
        if child == 0:
            try:
                with owned_project(project):
                    os._exit(0)
            except StudioError:
                os._exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    with owned_project(project):
        pass


def test_a_server_that_ends_with_a_tab_open_says_nothing_of_it(
    tiny_weights: tuple[Path, Path], project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A tab is open whenever a person ends it, whose terminal had sixty lines of a traceback."""
    with serving(tiny_weights[0], project) as served:
        stream = served.open_stream(TAB)
        (connection,) = served.streams
        served.streams.clear()  # it stays open until the server ends it
    with closing(connection), closing(stream):
        assert stream.read().endswith(b"\n\n")
    assert capfd.readouterr().err == ""


def test_the_lock_of_a_studio_that_ends_just_now_is_not_taken_for_the_projects(
    project: Path,
) -> None:
    """A new project's studio takes the file of its lock along; who had opened it locked nothing."""
    child = os.fork()
    if child == 0:
        left = [project / "studio" / "lock"]

        def hook(event: str, _arguments: object) -> None:
            if event == "fcntl.flock" and left:
                left.pop().unlink()  # between the opening of the file and its lock

        sys.addaudithook(hook)
        try:
            with owned_project(project), owned_project(project):
                os._exit(0)
        except StudioError:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


def test_weights_can_be_written_anywhere_in_a_project_that_is_open(project: Path) -> None:
    """Writers of weights wait for each other by a lock on the folder; the studio's learner waited
    for its own server, for ever."""
    with owned_project(project):
        for folder in (project, *(p for p in project.rglob("*") if p.is_dir())):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            finally:
                os.close(descriptor)


def test_a_project_that_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), owned_project(tmp_path / "new" / "project"):
        raise ZeroDivisionError
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("how", ["read by others", "of another text", "endless", "escapes", "link"])
def test_a_token_that_others_may_know_is_made_anew(tmp_path: Path, how: str) -> None:
    """As in a project that was copied from somebody else."""
    path = tmp_path / "token"
    known = "x" * 32
    if how == "endless":
        os.mkfifo(path)
    elif how == "link":
        path.symlink_to("/dev/zero")
    else:
        content = {"of another text": "y" * 31 + "\xe9", "escapes": known + "\x1b[2J"}
        path.write_text(content.get(how, known), "latin-1")
        path.chmod(0o644 if how == "read by others" else 0o600)
    token = stored_token(path)
    assert token != known and token.isascii() and token.isprintable()
    assert path.is_file() and not path.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600
    assert stored_token(path) == token


def test_a_tab_that_leaves_at_once_leaves_nothing(served: Served) -> None:
    tabs = served.studio.tabs
    before = len(tabs._queues)
    for number in range(100):
        with socket.create_connection(("127.0.0.1", served.port)) as one:
            lines = (
                f"GET /api/events?tab={number:08d}-tab HTTP/1.1",
                f"host: 127.0.0.1:{served.port}",
                f"cookie: {served.cookie % served.port}",
            )
            one.sendall("\r\n".join([*lines, "", ""]).encode())
    assert eventually(lambda: len(tabs._queues) == before)
    assert json.loads(served.request("GET", "/api/project").body)["holds"] == {}


def test_a_log_that_is_a_link_is_replaced_and_not_followed(project: Path, tmp_path: Path) -> None:
    """A project of somebody else may hold links to the files of whoever opens it."""
    precious = tmp_path / "precious"
    precious.write_text("work of years")
    opened = painted_project(project)
    for name in ("learning.log", "review.log"):
        (opened.work / name).symlink_to(precious)
    (opened.work / INTERPRETER).write_bytes(b"weights")
    ended = [sys.executable, "-c", ""]
    with closing(Learner(opened, ended, lambda kind, content: None)) as learner:
        learner.start()
    with closing(Reviews(opened, ended, lambda kind, content: None)) as reviews:
        reviews.draw_more()
    assert precious.read_text() == "work of years"


def painted_project(folder: Path) -> Project:
    opened = Project(folder)
    opened.set_classes(CARDS)
    opened.save_mask("000", bytes(opened.size[0] * opened.size[1]), "none")
    return opened


PICTURES = {
    "of another size": Image.new("L", (3, 3)),
    "of colors": Image.new("RGB", (32, 32)),
}


@pytest.mark.long
@pytest.mark.parametrize("kind", ["fifo", "directory", "json", "numbers", *PICTURES])
def test_files_that_can_be_made_again_are_not_trusted(
    tiny_weights: tuple[Path, Path], project: Path, kind: str
) -> None:
    """What lies in DIR/studio of somebody else's project neither hangs nor ends the studio."""
    opened = painted_project(project)
    (opened.work / INTERPRETER).write_bytes(b"weights")
    proposals, wall = opened.work / "proposals.json", opened.work / "review" / "wall.json"
    wall.parent.mkdir()
    sha = hashlib.sha256(b"weights").hexdigest()
    sample = {"uncertainty": 0.1, "shares": [1.0, 0.0], "tag": "a"}
    content = {
        "weights": sha, "generator": "0" * 64, "source": "learn", "seed": 1, "psi": 1.0,
        "cutoff": 0, "thresholds": [None, 0.1, 0.1, 0.1], "samples": [sample] * 3,
    }  # fmt: skip
    known = {
        "rounds": 1,
        "classes": ["ground", "figure"],
        "keypoints": [],
        "proposals": {"001": {"uncertainty": 0.5}},
    }
    if kind in PICTURES:
        proposals.write_text(json.dumps(known))
        wall.write_text(json.dumps(content))
        (opened.work / "proposals").mkdir()
        for name in ("mask", "uncertainty"):
            PICTURES[kind].save(opened.work / "proposals" / f"001.{name}.png")
            PICTURES[kind].save(wall.parent / f"00000.{name}.png")
    elif kind == "numbers":
        wall.write_text(json.dumps({**content, "thresholds": [0.1], "samples": []}))
        (project / "reviews").mkdir()
        review = {"verdict": "right", "loss": -3.0, "tag": "a"}
        facts = {name: content[name] for name in ("weights", "generator", "seed", "psi", "cutoff")}
        text = json.dumps({**facts, "samples": {"0": review, "-1": review}})
        (project / "reviews" / f"{sha[:16]}.json").write_text(text)
    for path in (proposals, wall):
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "directory":
            path.mkdir()
        elif kind == "json":
            path.write_text("[" * 100_000)
    with serving(tiny_weights[0], project) as found:
        for asked in (
            "/api/project", "/api/review", "/api/review/sheet", "/api/review/certificate",
            "/api/images/001/proposal", "/api/images/001/uncertainty",
            f"/api/review/review-{sha[:16]}-0/mask",
            f"/api/review/review-{sha[:16]}-0/uncertainty",
        ):  # fmt: skip
            answer = found.request("GET", asked)
            assert answer.status in (200, 404, 409), (asked, answer.text)
            assert answer.status != 200 or asked in ("/api/project", "/api/review"), asked


@pytest.mark.long
def test_a_studio_that_is_killed_between_any_two_file_operations_opens_again(
    project: Path, tmp_path: Path
) -> None:
    """Every label and image is as before the operation or after it."""
    painted_project(project)
    shape = Project(project).size
    unpainted = bytes([255]) * (shape[0] * shape[1])

    def save(opened: Project) -> None:
        mask = np.full(shape, 1, np.uint8)
        opened.save_mask("000", mask.tobytes(), opened.mask("000")[1])

    def add(opened: Project) -> None:
        images = opened.images
        picture = images.image(0).copy()
        picture[0, 0] ^= 1
        entry = ImageEntry(
            file="009.png", pixels_sha256=sha256_of_array(picture), source="sample 99"
        )
        with io.BytesIO() as stream:
            Image.fromarray(picture).save(stream, "png")
            replace_file(images.folder / "images" / entry.file, stream.getvalue())
        change_set(
            opened, np.concatenate([images.ws, images.ws[:1]]), [*images.index.images, entry]
        )

    operations: dict[str, Callable[[Project], object]] = {
        "a mask": save,
        "no mask": lambda p: p.save_mask("000", unpainted, p.mask("000")[1]),
        "classes": lambda p: p.set_classes([*CARDS, ClassCard(name="third", color=1)]),
        "points": lambda p: p.set_keypoints(["a"], []),
        "removal": lambda p: remove_image(p, "003"),
        "addition": add,
    }  # fmt: skip
    for name, operation in operations.items():
        whole = Path(shutil.copytree(project, tmp_path / name))
        old, moment = state_of(whole), 0
        assert not killed_at(whole, operation, 0)
        new = state_of(whole)
        assert old != new
        while killed_at(
            folder := Path(shutil.copytree(project, tmp_path / f"{name} {(moment := moment + 1)}")),
            operation, moment,
        ):  # fmt: skip
            assert state_of(folder) in (old, new), (name, moment)
        assert moment > 3, name


def state_of(folder: Path) -> object:
    """What a studio that is started shows."""
    finish_change(folder)
    opened = Project(folder)
    opened.images.check_files()
    masks = {stem: opened.mask(stem)[1] for stem in opened.images.stems}
    return masks, opened.classes, opened.keypoint_names


def killed_at(folder: Path, operation: Callable[[Project], object], moment: int) -> bool:
    """Does it in a process of its own that ends, as by SIGKILL, before its file operation of that
    number; whether it got so far."""
    child = os.fork()
    if child == 0:
        opened, count = Project(folder), 0

        def hook(event: str, arguments: object) -> None:
            nonlocal count
            if event in FILE_EVENTS:
                count += 1
                if count == moment:
                    os._exit(9)

        sys.addaudithook(hook)
        operation(opened)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9
