"""Nobody but the page itself reads or changes a project: hosts, origins, tokens, names, bodies."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.__main__ import listening_socket, stored_token
from studio.errors import StudioError
from tests.studio.conftest import TOKEN, Served, serving

READS = ("/", "/page/main.js", "/images/000", "/api/project", "/api/images/000/mask")
EVIL = "evil.example"


@pytest.fixture(scope="module")
def served(
    tiny_weights: tuple[Path, Path], drawn_set: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """One studio for all of these, since none of them may change it."""
    project = Path(shutil.copytree(drawn_set, tmp_path_factory.mktemp("safe") / "project"))
    with serving(tiny_weights[0], project) as found:
        yield found


def test_a_name_that_was_rebound_to_loopback_gets_nothing(served: Served) -> None:
    for host in (EVIL, f"{EVIL}:{served.port}", "127.0.0.1.evil.example", "192.168.0.1:80", ""):
        for path in READS:
            answer = served.request("GET", path, host=host)
            assert answer.status in (400, 421), (host, path)
            assert b"studio</title>" not in answer.body
    for host in (f"localhost:{served.port}", f"127.0.0.1:{served.port}"):
        assert served.request("GET", "/api/project", host=host).status == 200


@pytest.mark.parametrize("origin", ["", "null", f"http://{EVIL}", "https://127.0.0.1", "port"])
def test_another_site_changes_nothing(served: Served, origin: str) -> None:
    origin = f"http://127.0.0.1:{served.port + 1}" if origin == "port" else origin
    before = served.mask("000")
    for method, path in (
        ("PUT", "/api/images/000/mask"),
        ("PUT", "/api/classes"),
        ("POST", "/api/images"),
        ("POST", "/api/learn"),
        ("POST", "/api/export"),
        ("DELETE", "/api/images/001"),
    ):
        answer = served.request(method, path, bytes(served.pixels), origin=origin, if_match="none")
        assert answer.status == 403, (path, answer.text)
    assert served.mask("000") == before
    assert len(served.studio.project.images) == 4


def test_another_sites_page_can_neither_read_nor_embed(served: Served) -> None:
    for site in ("cross-site", "same-site"):
        assert served.request("GET", "/images/000", sec_fetch_site=site).status == 403
    link = served.request("GET", "/", sec_fetch_site="cross-site", sec_fetch_mode="navigate")
    assert link.status == 200
    answer = served.request("GET", "/images/000", sec_fetch_site="same-origin")
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_without_the_token_there_is_nothing_and_with_it_a_cookie(served: Served) -> None:
    wrong = f"studio-{served.port}={TOKEN[:-1]}x"
    for cookie in ("", "a=b", wrong, f"studio-1={TOKEN}", "\x01;;=", f"x{wrong}"):
        for path in (*READS, "/api/events?tab=11111111-tab", "/?token=x", f"/api?token={TOKEN}"):
            answer = served.request("GET", path, cookie=cookie)
            assert answer.status == 401, (cookie, path)
            assert TOKEN not in answer.text
    entered = served.request("GET", f"/?token={TOKEN}", cookie="")
    assert (entered.status, entered.headers["location"]) == (303, "/")
    cookie = entered.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert served.request("GET", "/", cookie=cookie.partition(";")[0]).status == 200


@pytest.mark.parametrize(
    "name",
    [
        "..%2findex", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "000.png", "..", "%00", "a%0d%0ab",
        "latents", "%2Fetc%2Fpasswd", "000%2F..%2F001", "x" * 5000, "%ff",
    ],
)  # fmt: skip
def test_names_that_the_index_lacks_reach_no_file(served: Served, name: str) -> None:
    for path in (f"/images/{name}", f"/page/{name}", f"/api/images/{name}/mask",
                 f"/api/images/{name}/proposal", f"/api/labels/{name}"):  # fmt: skip
        answer = served.request("GET", path)
        assert answer.status == 404, (path, answer.status)
        assert len(answer.body) < 400
    saved = served.save(name, bytes(served.pixels), "none")
    assert saved.status in (404, 405)
    assert served.request("DELETE", f"/api/images/{name}").status in (404, 405)


def test_bodies_are_bounded_before_they_are_read(served: Served) -> None:
    most = 1 << 20
    claimed = served.save("000", b"", "none", content_length=str(most + 1))
    assert claimed.status == 413
    sent = served.request(
        "PUT", "/api/images/000/mask", b"%x\r\n" % (most + 1) + bytes(most + 1) + b"\r\n0\r\n\r\n",
        transfer_encoding="chunked", content_length="", if_match="none",
        x_studio_classes="a",
    )  # fmt: skip
    assert sent.status == 413, sent.text
    assert not (served.folder / "masks").exists()


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"tab": 1}', b'{"tab": "../../x"}', b'{"tab": "' + b"a" * 99 + b'"}',
     b'{"tab": "11111111", "extra": 1}', b"[" * 100_000, b"\xff\xfe"],
)  # fmt: skip
def test_a_body_that_is_not_the_pages_is_refused_in_a_line(served: Served, body: bytes) -> None:
    answer = served.request("POST", "/api/images/000/hold", body)
    assert answer.status == 400
    assert "\n" not in answer.text and "Traceback" not in answer.text


def test_the_page_runs_only_its_own_scripts_and_names_no_other_host(served: Served) -> None:
    answer = served.request("GET", "/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy
    assert "unsafe" not in policy and "http" not in policy
    assert answer.headers["cache-control"] == "no-store"
    for path in sorted(Path("studio/page").iterdir()):
        text = path.read_text()
        hosts = set(re.findall(r"https?://[^\s\"'`)]+", text)) - {"http://www.w3.org/2000/svg"}
        assert hosts == set(), path
        assert "innerHTML" not in text and "eval(" not in text
        assert not re.search(r"\son[a-z]+=|\sstyle=|<script>|<style", text), path


def test_it_listens_on_loopback_alone() -> None:
    for listen in ("0.0.0.0:0", ":0", "10.0.0.1:80", "example.org:80", "127.0.0.1", "127.0.0.1:x",
                   "127.0.0.1:70000", "[::]:0"):  # fmt: skip
        with pytest.raises(StudioError, match="ssh -L"):
            listening_socket(listen)
    with (
        listening_socket("127.0.0.1:0") as listener,
        pytest.raises(StudioError, match="give another port"),
    ):
        listening_socket(f"127.0.0.1:{listener.getsockname()[1]}")


def test_the_token_is_the_users_alone_and_outlives_the_server(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token = stored_token(path)
    assert len(token) >= 32 and path.stat().st_mode & 0o777 == 0o600
    assert stored_token(path) == token
    path.write_text("")  # a full disk left it so
    assert len(stored_token(path)) >= 32
