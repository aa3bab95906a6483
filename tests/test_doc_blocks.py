"""Every command and every Python block of the pages runs as printed, page by page."""

import re
from pathlib import Path

import pytest

from tests.doc_blocks import CHECKOUT, Page, run_page
from tests.doc_pages import PAGES

KINDS = {"sh", "python", "text", "toml", "nginx", "yaml"}  # the last four are never commands
# They train for a minute or two each. The notebook runs the first day's steps in their place, and
# test_frameworks what docs/training.md says of Lightning and Accelerate.
SLOW = {
    "README.md", "docs/first_day.md", "docs/inverse_graphics.md", "docs/inversion.md",
    "docs/labels.md", "docs/rare.md", "docs/refiner.md", "docs/training.md", "docs/views.md",
}  # fmt: skip
READABLE = ("*.md", "docs/**/*.md", "examples/**/*.md", "benchmarks/*.md", "helm/**/*.md")


def blocks(page: str) -> list[tuple[str, str]]:
    """Kind and text of each fenced block."""
    text = (CHECKOUT / page).read_text("utf-8")
    return re.findall(r"(?ms)^ *```(\w*)[^\n]*\n(.*?)^ *```", text)


def test_every_page_with_commands_or_python_has_a_record_here() -> None:
    found = {p.relative_to(CHECKOUT).as_posix() for glob in READABLE for p in CHECKOUT.glob(glob)}
    kinds = {page: {kind for kind, _ in blocks(page)} for page in found}
    assert {page for page in found if kinds[page] & {"sh", "python"}} == PAGES.keys()
    assert set().union(*kinds.values()) <= KINDS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.long
def test_the_readme_runs_as_printed_up_to_the_readers_own_generator(
    tiny_bundle: Path, folder: Path
) -> None:
    """On a bundle of 32 px in place of the demo's, which takes minutes to make."""
    demo = folder.with_name(f"{folder.name}-demo")
    demo.mkdir()
    (demo / "bundle").symlink_to(tiny_bundle)
    own = dict.fromkeys(("network.pkl", "my-bundle"), "the long test below runs it")
    quick = Page(not_run={**PAGES["README.md"].not_run, **own})
    run_page(CHECKOUT / "README.md", quick, folder, demo)


@pytest.mark.filterwarnings("ignore::FutureWarning:lightning", "ignore::UserWarning:lightning")
@pytest.mark.long
@pytest.mark.parametrize(
    "page", [pytest.param(p, marks=pytest.mark.slow if p in SLOW else ()) for p in sorted(PAGES)]
)
def test_each_page_runs_as_printed(page: str, demo_bundle: Path, folder: Path) -> None:
    run_page(CHECKOUT / page, PAGES[page], folder, demo_bundle.parent)


def test_a_block_that_fails_fails_its_page(tmp_path: Path) -> None:
    for block in (
        "```sh\nfalse\n```\n",
        "```sh\ntrue\nfalse | true\n```\n",
        "```python\n1 / 0\n```",
    ):
        page, folder = tmp_path / "page.md", tmp_path / str(len(list(tmp_path.iterdir())))
        page.write_text(block)
        folder.mkdir()
        with pytest.raises((AssertionError, ZeroDivisionError)) as raised:
            run_page(page, Page(), folder, tmp_path)
        assert raised.value.__notes__ == ["in page.md, the block of line 1"]


def test_an_entry_of_no_use_fails_its_page(tmp_path: Path) -> None:
    page, folder = tmp_path / "page.md", tmp_path / "folder"
    page.write_text("```sh\ntrue\n```\n")
    folder.mkdir()
    with pytest.raises(AssertionError, match="train"):
        run_page(page, Page(not_run={"train": "hours"}), folder, tmp_path)
