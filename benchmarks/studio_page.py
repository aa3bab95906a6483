"""The studio's page at 1,024 px: first paint, a list of 500 images, and strokes.

    python -m benchmarks.studio_page [--earlier DIR] [--rounds 3] [--out demo/studio_page]

A generator of 1,024 px with random weights and few channels draws 8 images, and 500 moved copies of
them are the set. A chromium without a
window, hence without a GPU, opens the page in a window of 1280 x 720:

    paint     from the click on a link to the first frame that shows the page
    list      Pick with 500 images, turned from top to bottom by the wheel: main-thread time of
              frames, and how many pictures were asked for before
    strokes   the brush at its first and at its largest size, 60 moves in 5 strokes each: from the
              first move that a frame takes in until that frame has been drawn, and what releasing
              the pointer takes
    work      the same once more, the list turned back: processor time of the main thread in each
              of its tasks; of a stroke from pressing to releasing the pointer, and from there until
              it is saved

With --earlier, a checkout of an earlier version is measured in alternation. Times are in frames of
1/60 s. Those of work are of the processor, which other programs of the machine lengthen less.
"""

import json
import shutil
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.machine import machine_name
from benchmarks.random_weights import write_weights
from benchmarks.sizes import Size
from benchmarks.studio_session import StudioSession, started_studio
from training.images.image_set import write_image_set
from training.images.sample import (
    SampleConfig,
    drawn_w,
    entries_from_names,
    names_for_count,
)
from training.label_crop import crop_for_generator, images_from_ws
from training.options import read_generator

SIZE = Size(1024, 2048, 1024, (32, 32), 2, 1)
DRAWN, IMAGES = 8, 500
FRAME_MS = 1000 / 60
STROKES, MOVES = 5, 60
WAIT_MS = 600_000
# In the page: the time from the first event of a kind that a frame takes in until it is drawn.
WATCH = """(kind) => {
  globalThis.frames_ms = [];
  let began = null;
  addEventListener(kind, () => {
    if (began !== null) return;
    began = performance.now();
    requestAnimationFrame(() => {
      const channel = new MessageChannel();
      channel.port1.onmessage = () => {
        globalThis.frames_ms.push(performance.now() - began);
        began = null;
      };
      channel.port2.postMessage(0);
    });
  }, true);
}"""


@click.command()
@click.option("--earlier", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--rounds", default=3, help="Runs of each version.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo/studio_page"))
def main(earlier: Path | None, rounds: int, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    generator, project = drawn_project(out)
    versions = {"now": None} | ({} if earlier is None else {"earlier": earlier})
    found: dict[str, list[dict[str, list[float]]]] = {name: [] for name in versions}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for number in range(rounds):
            for name, checkout in versions.items():
                with opened(browser, generator, project, checkout) as page:
                    found[name].append(measured(browser, page))
                print(f"round {number + 1} of {rounds}, {name}: done", flush=True)
        browser.close()
    (out / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"machine: {machine_name()}; load {Path('/proc/loadavg').read_text().split()[0]}")
    print(table(found))


def drawn_project(out: Path) -> tuple[Path, Path]:
    """Generator and project; a project that is there is not drawn again."""
    project, weights = out / "project", out / "generator.safetensors"
    if not (project / "index.json").exists():
        write_weights(out, SIZE)
        generator, _, sha256 = read_generator(weights, None)
        crop = crop_for_generator(generator.config)
        ws = drawn_w(generator, SampleConfig(count=DRAWN, candidates=DRAWN))
        ws = np.repeat(ws[:, None], generator.config.num_ws, axis=1)
        pictures = np.concatenate([images_from_ws(generator, w[None], crop) for w in ws])
        # The same pictures again and again, each moved by a row, so that no file is like another.
        shown = np.stack([np.roll(pictures[i % DRAWN], i, axis=0) for i in range(IMAGES)])
        names = names_for_count(IMAGES)
        entries = entries_from_names(names, [None] * IMAGES)
        made: dict[str, str | int | float | bool | None]
        made = {"by": "benchmarks.studio_page", "drawn": DRAWN}
        write_image_set(project, ws[np.arange(IMAGES) % DRAWN], shown, crop, entries, sha256, made)
    return weights, project


@contextmanager
def opened(
    browser: Browser, generator: Path, project: Path, checkout: Path | None
) -> Iterator[Page]:
    """A tab of a studio, with two classes."""
    with started_studio(generator, project, checkout) as (port, token):
        session = StudioSession(port, f"studio-{port}={token}", (0, 0), 255)
        cards = [{"name": "ground", "color": 0x30343F}, {"name": "figure", "color": 0xF2B48C}]
        session.post("PUT", "/api/classes", {"classes": cards, "before": []})
        context = browser.new_context(viewport={"width": 1280, "height": 720})
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{port}/?token={token}")
        page.locator("main h1").first.wait_for(state="attached")
        yield page
        context.close()


def measured(browser: Browser, page: Page) -> dict[str, list[float]]:
    """Times in milliseconds, and counts."""
    root = page.url.split("#")[0]
    found: dict[str, list[float]] = {}
    page.goto("about:blank")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{root}#pick")
    page.locator("main.pick .grid img").first.wait_for()
    found["first paint"] = [
        page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    ]
    page.wait_for_timeout(3000)
    found["pictures asked for"] = [
        len([u for u in asked if "/thumbnails/" in u or "/images/" in u])
    ]
    page.evaluate(WATCH, "scroll")
    page.mouse.move(640, 400)
    turn(page, 240)
    found["list"] = page.evaluate("globalThis.frames_ms")
    found["work of a task of the list"] = work_of_turning(browser, page)
    page.goto("about:blank")
    page.goto(f"{root}#paint/000")
    page.locator("#saved", has_text="All saved").wait_for()
    page.wait_for_timeout(3000)
    page.keyboard.press("b")
    page.evaluate(WATCH, "pointermove")
    found["stroke"], found["release"] = strokes(page)
    work = {"first": work_of_strokes(browser, page)}
    page.get_by_label("Brush size in pixels").fill("256")
    found["stroke, largest brush"], _ = strokes(page)
    work["largest"] = work_of_strokes(browser, page)
    for size, (drawn, released) in work.items():
        found[f"work of a stroke's task, {size} brush"] = drawn
        found[f"work of a task after releasing, {size} brush"] = released
    return found


def turn(page: Page, pixels: int) -> None:
    """Turns the list by the wheel, frame by frame."""
    for _ in range(60):
        page.mouse.wheel(0, pixels)
        page.evaluate("new Promise(requestAnimationFrame)")


def work_of_turning(browser: Browser, page: Page) -> list[float]:
    """Processor milliseconds of each task of the page's main thread while the list is turned back
    to its top."""
    marks, tasks = traced(browser, page, lambda: turn(page, -240))
    return [task["tdur"] / 1000 for task in tasks if task["ts"] >= marks[0][0]]


def work_of_strokes(browser: Browser, page: Page) -> tuple[list[float], list[float]]:
    """Processor milliseconds of each task of the page's main thread: while the pointer is down, and
    after it until all is saved."""
    marks, tasks = traced(browser, page, lambda: strokes(page))
    found: dict[str, list[float]] = {"pointerdown": [], "pointerup": []}
    for task in tasks:
        # A task belongs to the last event that it has, or that was before it.
        before = [name for at, name in marks if at <= task["ts"] + task["dur"]]
        if before and before[-1] in found:
            found[before[-1]].append(task["tdur"] / 1000)
    return found["pointerdown"], found["pointerup"]


def traced(
    browser: Browser, page: Page, work: Callable[[], object]
) -> tuple[list[tuple[float, str]], list[dict[str, Any]]]:
    """Times and names of marks, which are the beginning, presses and releases of the pointer, and
    the end, in order; and tasks of the page's main thread that tell their processor time."""
    browser.start_tracing(page=page, categories=["toplevel", "blink.user_timing"])
    page.evaluate("""() => {
      performance.mark("begin");
      for (const kind of ["pointerdown", "pointerup"])
        addEventListener(kind, () => performance.mark(kind), { capture: true });
    }""")
    work()
    page.evaluate("performance.mark('end')")
    events: list[Any] = json.loads(browser.stop_tracing())["traceEvents"]
    marks = sorted(
        (e["ts"], e["name"], e["pid"], e["tid"])
        for e in events
        if e.get("cat") == "blink.user_timing"
        and e["name"] in ("begin", "pointerdown", "pointerup", "end")
    )
    thread = marks[0][2:]
    tasks = [
        e for e in events
        if e.get("ph") == "X" and "RunTask" in e["name"] and (e["pid"], e["tid"]) == thread
        and "tdur" in e
    ]  # fmt: skip
    return [(at, name) for at, name, *_ in marks], tasks


def strokes(page: Page) -> tuple[list[float], list[float]]:
    """Draws strokes across the picture; times of frames, and of releasing the pointer."""
    box = page.locator("canvas.board").bounding_box()
    assert box is not None
    release = """() => new Promise((done) => addEventListener("pointerup", () => {
      const began = performance.now();
      requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
    }, { capture: true, once: true }))"""
    page.evaluate("globalThis.frames_ms = []")
    released = []
    for stroke in range(STROKES):
        y = box["y"] + box["height"] * (0.2 + 0.12 * stroke)
        left, width = box["x"] + box["width"] * 0.2, box["width"] * 0.6
        page.keyboard.press("12"[stroke % 2])
        page.mouse.move(left, y)
        page.mouse.down()
        for move in range(MOVES):
            page.mouse.move(left + width * move / MOVES, y + 20 * (move % 2))
        waiting = page.evaluate_handle(f"() => {{ globalThis.released = ({release})(); }}")
        page.mouse.up()
        released.append(float(page.evaluate("globalThis.released")))
        waiting.dispose()
        page.locator("#saved", has_text="All saved").wait_for()
    return page.evaluate("globalThis.frames_ms"), released


def table(found: dict[str, list[dict[str, list[float]]]]) -> str:
    """Markdown: medians and worst of all rounds, in frames, and the share of over a frame."""
    lines = ["| what | version | median | largest | over 1 |", "|---|---|---|---|---|"]
    for what in found["now"][0]:
        for name, rounds in found.items():
            values: list[Any] = [value for one in rounds for value in one[what]]
            unit = 1.0 if what == "pictures asked for" else FRAME_MS
            middle, most = statistics.median(values) / unit, max(values) / unit
            over = statistics.mean(value > unit for value in values)
            lines.append(f"| {what} | {name} | {middle:.2f} | {most:.2f} | {over:.1%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
