"""Links, paths, make targets, modules and snippets that the pages name exist."""

import ast
import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    path.relative_to(CHECKOUT).as_posix()
    for folder in (CHECKOUT, CHECKOUT / "docs", CHECKOUT / "benchmarks")
    for path in (folder.glob("*.md") if folder != CHECKOUT / "docs" else folder.rglob("*.md"))
)
# Paths that a documented command or the user writes.
MADE = (
    ".venv",
    "demo/",
    "set/",
    "9090/",
    "bundles/faces",
    "data/faces",
    "classes.toml",
    "classes.txt",
    "depth.toml",
    "etc/",
    "faces/",
    "images/train/",
    "labels/train/",
    "labelmap.txt",
    "svc/",
    "linux/",
    "registry.example.com/",
)


def test_relative_links_lead_somewhere() -> None:
    for page in PAGES:
        path = CHECKOUT / page
        links = re.findall(r"\]\(([^)#\s]+)", path.read_text("utf-8"))
        relative = [link for link in links if "://" not in link]
        assert [link for link in relative if not (path.parent / link).exists()] == [], page


def test_paths_in_code_exist() -> None:
    for page in PAGES:
        named = {
            word
            for code in _code(page)
            for word in re.findall(r"[\w.-]+(?:/[\w.-]+)+/?|[\w-]+\.(?:py|md|toml|txt)\b", code)
            if not word.startswith(MADE) and not re.match(r"[\d.]+$|https?$|\d+r/s$", word)
        }
        bases = (CHECKOUT, (CHECKOUT / page).parent)
        missing = {word for word in named if not any((base / word).exists() for base in bases)}
        assert missing == set(), page


def test_make_targets_exist() -> None:
    rules = set(re.findall(r"(?m)^([a-z]+):", (CHECKOUT / "Makefile").read_text("utf-8")))
    for page in PAGES:
        named = {
            target
            for code in _code(page)
            for targets in re.findall(r"(?m)(?:^|\s)make((?: [a-z]+)+)", code)
            for target in targets.split()
        }
        assert named - rules == set(), page


def test_modules_that_are_run_exist() -> None:
    for page in PAGES:
        named = {m for code in _code(page) for m in re.findall(r"python -m ([a-z0-9_.]+)", code)}
        paths = {m: CHECKOUT / m.replace(".", "/") for m in named - {"pip", "pytest"}}
        missing = {
            m
            for m, path in paths.items()
            if not (path / "__main__.py").exists() and not path.with_suffix(".py").exists()
        }
        assert missing == set(), page


def test_python_snippets_parse() -> None:
    for page in PAGES:
        text = (CHECKOUT / page).read_text("utf-8")
        for snippet in re.findall(r"(?ms)^```python\n(.*?)^```", text):
            ast.parse(snippet, page)


def test_the_readme_has_the_training_loop_and_the_test_command() -> None:
    readme = (CHECKOUT / "README.md").read_text("utf-8")
    assert "LabelStream(" in readme and "client.stream(" in readme
    assert "make test" in readme
    assert "make test" in (CHECKOUT / ".ci/run").read_text("utf-8")


def _code(page: str) -> list[str]:
    """Inline code and fenced blocks."""
    text = (CHECKOUT / page).read_text("utf-8")
    blocks = re.findall(r"(?ms)^```\w*\n(.*?)^```", text)
    return blocks + re.findall(r"`([^`\n]+)`", re.sub(r"(?ms)^```.*?^```", "", text))
