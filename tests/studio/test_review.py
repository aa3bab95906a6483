"""The review: samples of the weights of now alone, verdicts that survive, an honest certificate."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from bundle.open import open_bundle
from checkpoints import sha256_of_file
from export.checks.certificate import seed_from_hash, thresholds_of_bundle
from studio import wall
from studio.__main__ import opened_studio
from studio.reviews import SHORT
from studio.wall_run import STEP
from tests.hangs import eventually
from tests.interrupts import INTERRUPTIBLE
from tests.studio.chromium import CHECKOUT, WAIT_MS
from tests.studio.conftest import Served, classes, serving

PIXEL_ERROR = 0.4


def state(served: Served, error: float = 0.05) -> dict[str, object]:
    answer = served.request("GET", f"/api/review?error={error}")
    assert answer.status == 200, answer.text
    found: dict[str, object] = json.loads(answer.body)
    return found


def stems(served: Served) -> list[str]:
    samples = state(served)["samples"]
    assert isinstance(samples, list)
    return [str(sample["stem"]) for sample in samples]


def say(served: Served, stem: str, verdict: str | None = "right") -> int:
    return served.send("PUT", f"/api/review/{stem}/verdict", {"verdict": verdict}).status


def statements(served: Served) -> list[dict[str, float]]:
    found = state(served)["statements"]
    assert isinstance(found, list)
    return found


def test_reviews_count_in_the_order_of_the_stream_and_survive_a_restart(
    walled: Served, tiny_weights: tuple[Path, Path]
) -> None:
    names = stems(walled)
    assert len(names) == STEP and len(set(names)) == STEP
    assert walled.request("GET", "/api/review/certificate").status == 409
    for name in (*names[:10], names[12]):
        assert say(walled, name) == 204
    assert (state(walled)["reviewed"], state(walled)["counted"]) == (11, 10), "10 is open"
    row = statements(walled)[0]
    assert row["mean"] == 0 and 0.3 < row["upper_bound"] < 0.6
    assert row["expected_risk"] == pytest.approx(1 / 11)
    assert row["more"] > 50, "ten reviews prove little, and the page says how many would"
    assert say(walled, names[3], "wrong") == 204
    worse = statements(walled)[0]
    assert worse["mean"] == pytest.approx(0.1) and worse["upper_bound"] > row["upper_bound"]
    certificate = json.loads(walled.request("GET", "/api/review/certificate").body)
    assert certificate["losses"] == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    stored = list((walled.folder / "reviews").glob("*.certificate.json"))
    assert json.loads(stored[0].read_text()) == certificate
    assert say(walled, names[3], None) == 204
    assert state(walled)["counted"] == 3
    again = Path(shutil.copytree(walled.folder, walled.folder.parent / "again"))
    with serving(tiny_weights[0], again) as restarted:
        assert state(restarted)["reviewed"] == 10


def test_the_loss_of_a_corrected_mask_is_the_share_of_its_changed_pixels(walled: Served) -> None:
    stem = stems(walled)[0]
    address = f"/api/review/{stem}/mask"
    answer = walled.request("GET", address)
    label, tag = np.frombuffer(answer.body, np.uint8), answer.headers["etag"]
    changed = label.copy()
    count = round(PIXEL_ERROR * label.size)
    changed[:count] = (label[:count] + 1) % 4
    changed[0] = 255  # ignored: not known to be right
    saved = walled.request("PUT", address, changed.tobytes(), if_match=tag)
    assert saved.status == 204, saved.text
    assert walled.request("GET", address).body == changed.tobytes()
    assert statements(walled)[0]["mean"] == pytest.approx(count / label.size)
    outdated = walled.request("PUT", address, label.tobytes(), if_match=tag)
    assert outdated.status == 412
    for bad in (b"", label.tobytes()[1:], np.full_like(label, 4).tobytes()):
        refused = walled.request("PUT", address, bad, if_match=saved.headers["etag"])
        assert refused.status == 400 and "\n" not in refused.text
    back = walled.request("PUT", address, label.tobytes(), if_match=saved.headers["etag"])
    assert back.status == 204 and statements(walled)[0]["mean"] == 0
    # Nothing of it is a label to train on.
    assert not walled.studio.project.label_files.stems


def test_reviews_of_other_weights_or_other_labels_do_not_count(walled: Served) -> None:
    names = stems(walled)
    for name in names[:4]:
        assert say(walled, name) == 204
    wall_file = walled.folder / "studio/review/wall.json"
    content = json.loads(wall_file.read_text())
    assert content["seed"] == seed_from_hash(content["weights"])
    content["samples"][2]["tag"] = "0" * 16  # the ensemble labels this sample otherwise
    wall_file.write_text(json.dumps(content))
    assert state(walled)["counted"] == 2
    weights = walled.folder / "studio/interpreter.safetensors"
    weights.write_bytes(weights.read_bytes() + b"\0")  # another round of learning
    assert stems(walled) == [] and state(walled)["counted"] == 0
    assert say(walled, names[0]) == 404
    other = f"review-{sha256_of_file(weights)[:SHORT]}-0"
    hostile = (other, "review-..-0", "..%2f..%2findex", f"{names[0]}0000", "review-0")
    for name in hostile:
        assert walled.request("GET", f"/review/{name}").status == 404, name
        assert walled.request("GET", f"/api/review/{name}/uncertainty").status == 404, name
    for error in ("0", "1", "-1", "nan", "x"):
        assert walled.request("GET", f"/api/review?error={error}").status == 400, error


def test_the_thresholds_keep_what_is_sure(walled: Served) -> None:
    rows = statements(walled)
    kept = [row["kept"] for row in rows]
    assert kept == sorted(kept, reverse=True) and kept[0] == STEP > kept[-1]
    with Image.open(walled.folder / "studio/review/00000.mask.png") as mask:
        assert mask.size == walled.studio.project.size[::-1]
    sheet = walled.request("GET", "/api/review/sheet")
    with Image.open(io.BytesIO(sheet.body)) as picture:
        assert picture.width > 8 * 32 and picture.height > 3 * 2 * 32
    assert (
        walled.request("GET", f"/review/{stems(walled)[0]}").headers["content-type"] == "image/png"
    )


@pytest.fixture
def exported(tiny_weights: tuple[Path, Path], tiny_bundle: Path, project: Path) -> Iterator[Served]:
    """A studio of a project with a calibrated bundle, and a wall of its ensemble's samples."""
    shutil.copytree(tiny_bundle, project / "bundle")
    weights = project / "interpreter.safetensors"
    for suffix in (".safetensors", ".toml"):
        shutil.copy(tiny_weights[1].with_suffix(suffix), weights.with_suffix(suffix))
    wall.draw_wall(tiny_weights[0], None, project, weights, sha256_of_file(weights), "export", 6)
    with serving(tiny_weights[0], project) as found:
        assert found.change("classes", classes(*(f"class {i}" for i in range(4)))).status == 204
        yield found


def test_a_certificate_enters_the_bundle_of_its_own_weights(exported: Served) -> None:
    folder = exported.folder / "bundle"
    before = open_bundle(folder).manifest
    limits = [row["threshold"] for row in statements(exported)]
    assert limits == thresholds_of_bundle(before), "those of keep_fraction 0.9, 0.75 and 0.5"
    assert exported.request("POST", "/api/review/bundle").status == 409, "nothing is reviewed"
    for name in stems(exported)[:5]:
        assert say(exported, name) == 204
    fits = {"calibrated": True, "fits": True, "reviewed": None, "current": False}
    assert state(exported)["bundle"] == fits
    assert exported.request("POST", "/api/review/bundle").status == 204
    after = open_bundle(folder).manifest
    certificate = json.loads(exported.request("GET", "/api/review/certificate").body)
    assert msgspec.to_builtins(after.certificate) == certificate
    assert after.bundle_id == before.bundle_id
    assert state(exported)["bundle"] == fits | {"reviewed": 5, "current": True}
    assert say(exported, stems(exported)[2], "wrong") == 204
    assert state(exported)["bundle"] == fits | {"reviewed": 5}
    # A bundle of other weights is there by now.
    other = msgspec.json.decode((folder / "manifest.json").read_bytes())
    other["weights"]["interpreter_sha256"] = "d" * 64
    del other["certificate"]
    (folder / "manifest.json").write_bytes(msgspec.json.encode(other))
    assert state(exported)["bundle"] == fits | {"calibrated": False, "fits": False}
    refused = exported.request("POST", "/api/review/bundle")
    assert refused.status == 409 and "review samples of these weights" in refused.text
    (folder / "manifest.json").unlink()
    refused = exported.request("POST", "/api/review/bundle")
    assert refused.status == 409 and "\n" not in refused.text


@pytest.mark.long
def test_reviews_by_keys_enter_the_bundle_by_the_button_of_the_page_export(
    browser: Browser, exported: Served
) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.set_default_timeout(WAIT_MS)
    page.goto(exported.address)
    page.goto(f"http://127.0.0.1:{exported.port}/#review")
    page.get_by_role("button", name="Sample 1 is right").focus()
    for _ in range(3):
        page.keyboard.press("r")
    expect(page.locator(".proof")).to_contain_text("Among the 3 reviewed ones")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the certificate").click()
    assert len(json.loads(download.value.path().read_text())["losses"]) == 3
    page.get_by_role("navigation", name="Steps").get_by_text("Export").click()
    page.get_by_role("button", name="Put the certificate into the bundle").click()
    expect(page.get_by_role("region", name="Certificate")).to_contain_text("of 3 reviews")
    certificate = open_bundle(exported.folder / "bundle").manifest.certificate
    assert certificate is not None and len(certificate.losses) == 3


def drawing(project: Path) -> bool:
    """Whether a process draws samples of a project."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if b"studio.wall" in words and str(project).encode() in words:
                return True
    return False


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "SIGKILL"])
def test_a_studio_that_ends_while_samples_are_drawn_leaves_no_process_and_loses_nothing(
    drawn_wall: Path, tiny_weights: tuple[Path, Path], tmp_path: Path, how: signal.Signals
) -> None:
    """Of a killed one the process went on until its next report, and wrote the wall that the next
    studio draws on."""
    project = Path(shutil.copytree(drawn_wall, tmp_path / "project"))
    words = ["--generator", str(tiny_weights[0]), "--project", str(project)]
    with subprocess.Popen(
        [*INTERRUPTIBLE, sys.executable, "-m", "studio", *words, "--listen", "127.0.0.1:0"],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        found = re.search(r":(\d+)/\?token=(\S+)", process.stdout.readline())
        assert found is not None
        cookie = f"studio-%d={found[2]}"
        served = Served(opened_studio(tiny_weights[0], None, project), int(found[1]), cookie=cookie)
        names = stems(served)
        for name in names[:3]:
            assert say(served, name) == 204
        assert served.request("POST", "/api/review").status == 204
        assert eventually(lambda: drawing(project))
        process.send_signal(how)
        _, errors = process.communicate(timeout=60)
    told = "stopped; every stroke that the server has received is saved\n"
    assert (process.returncode, errors) in ((128 + signal.SIGINT, told), (-signal.SIGKILL, ""))
    assert eventually(lambda: not drawing(project))
    with serving(tiny_weights[0], project) as again:
        assert state(again)["counted"] == 3
        assert stems(again) == names, "nobody has drawn on"
