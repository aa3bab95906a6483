"""Runs the command and Python blocks of a page as a reader would, from a checkout of its own.

Sybil finds the blocks and runs the Python. Ours are the folder, the servers that a page starts, and
what a page leaves to its reader: files, work by hand, hours.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sybil import Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser
from sybil.region import Lexeme

from tests.hangs import HANG_S

CHECKOUT = Path(__file__).resolve().parent.parent
# What commands need of a checkout. All else that a page names is in its record, or made by it.
TREE = (
    "benchmarks", "bundle", "checkpoints", "constraints.txt", "engines", "examples", "export",
    "helm", "labelmint", "labelmint_engine", "nets", "pyproject.toml", "service", "studio", "tests",
    "training",
)  # fmt: skip
READY = re.compile(r"labelmint ready on \S+:(\d+), models: [^,]+(?:, metrics on \S+:(\d+))?")


@dataclass(frozen=True)
class Page:
    """What a page leaves to its reader. Each entry must be used, or the test fails.

    A source is a path in the checkout, or begins with demo/.
    """

    files: Mapping[str, str] = field(default_factory=dict)  # path on the page -> source
    before: tuple[str, ...] = ()  # commands that make what the page takes for granted
    by_hand: Mapping[str, str] = field(default_factory=dict)  # comment -> command in its place
    smaller: Mapping[str, str] = field(default_factory=dict)  # text -> text that takes less time
    given: str = ""  # Python that defines the reader's own names
    not_run: Mapping[str, str] = field(default_factory=dict)  # part of a command -> why


class Reader:
    """A folder like a checkout with ./demo, and the server that the page started last."""

    def __init__(self, page: Page, folder: Path, demo: Path) -> None:
        self.page, self.folder = page, folder
        self.used = set[str]()
        self._ports: tuple[str, str] | None = None  # of the server: gRPC, metrics
        self._server = ExitStack()
        for name in TREE:
            (folder / name).symlink_to(CHECKOUT / name)
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / "demo").symlink_to(demo)
        for name, source in page.files.items():
            found = demo.parent / source if source.startswith("demo/") else CHECKOUT / source
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(found)

    def close(self) -> None:
        self._server.close()

    def left_over(self) -> set[str]:
        """Entries of the page's record that no block used."""
        return {*self.page.by_hand, *self.page.smaller, *self.page.not_run} - self.used

    def shell(self, block: str) -> None:
        """Runs each command of a block; a server goes on in the background."""
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            command = self._by_hand(line.strip())
            if not command or command.startswith("#") or self.is_not_run(command):
                continue
            if " -m service run " in command:
                self._serve(self.as_run(command))
            else:
                self._run(self.as_run(command))

    def as_run(self, text: str) -> str:
        """The text with the running server's ports, and with smaller numbers."""
        for printed, less in self.page.smaller.items():
            if printed in text:
                self.used.add(printed)
                text = text.replace(printed, less)
        if " -m service run " in text:
            text = re.sub(r"(?<=:)50051\b", "0", text)
            return text.replace("--metrics-port 9090", "--metrics-port 0")
        if self._ports is not None:
            grpc, metrics = self._ports
            text = text.replace("localhost:50051", f"127.0.0.1:{grpc}")
            text = text.replace("localhost:9090", f"127.0.0.1:{metrics}")
        return text

    def is_not_run(self, text: str) -> bool:
        found = [part for part in self.page.not_run if part in text]
        self.used.update(found)
        return bool(found)

    def _by_hand(self, line: str) -> str:
        """The line, or the command that stands for the work that it asks for."""
        if line in self.page.by_hand:
            self.used.add(line)
        return self.page.by_hand.get(line, line)

    def _environment(self) -> dict[str, str]:
        target = {} if self._ports is None else {"LABELMINT_TARGET": f"127.0.0.1:{self._ports[0]}"}
        return os.environ | {"PYTHONPATH": str(CHECKOUT)} | target

    def _run(self, command: str) -> None:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.folder, env=self._environment(), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=HANG_S,
        )  # fmt: skip
        assert done.returncode == 0, f"$ {command}\n{done.stdout}\nexit code {done.returncode}"

    def _serve(self, command: str) -> None:
        """Starts a server in place of the one before, as a page's reader would."""
        self._server.close()
        self._ports = self._server.enter_context(self._serving(command))

    @contextmanager
    def _serving(self, command: str) -> Iterator[tuple[str, str]]:
        log = self.folder / "server.log"
        with (
            log.open("w") as errors,
            subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.folder, env=self._environment(), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=errors, text=True,
            ) as process,
        ):  # fmt: skip
            try:
                assert process.stdout is not None
                ready = READY.match(process.stdout.readline())
                assert ready, f"$ {command}\n{log.read_text()}"
                yield ready[1], ready[2] or ""
            finally:
                process.terminate()
                process.wait(HANG_S)


def run_page(path: Path, page: Page, folder: Path, demo: Path) -> None:
    """Runs every block of a page in order, in `folder`, which is also the working directory."""
    reader = Reader(page, folder, demo)
    python = PythonEvaluator()

    def run_shell(example: Example) -> None:
        reader.shell(example.parsed)

    def run_python(example: Example) -> None:
        block = example.parsed
        if not reader.is_not_run(block):
            example.parsed = Lexeme(reader.as_run(block), block.offset, block.line_offset)
            python(example)

    parsers = [CodeBlockParser("sh", run_shell), CodeBlockParser("python", run_python)]
    document = Sybil(parsers).parse(path)
    try:
        for command in page.before:
            reader.shell(command)
        exec(reader.as_run(page.given), document.namespace)
        for example in document.examples():
            try:
                example.evaluate()
            except Exception as error:
                error.add_note(f"in {path.name}, the block of line {example.line}")
                raise
    finally:
        reader.close()
    left = reader.left_over()
    assert not left, f"no block of {path.name} has what its record names: {sorted(left)}"
