"""Figures in a file, one per line, so that a killed process leaves those it has measured."""

import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class Results:
    """Figures of all calls, in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, part: str, state: str = "measured", **figures: Any) -> None:
        """Writes and prints a row."""
        row = {"part": part, "state": state} | {k.replace("_", " "): v for k, v in figures.items()}
        with self._path.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        print("  " + ", ".join(f"{k} {v}" for k, v in row.items() if k != "part"), flush=True)

    def of(self, part: str) -> list[Row]:
        """Rows of a part in order. A failure is dropped once the part has a later figure."""
        rows = [row for row in self._rows() if row["part"] == part]
        measured = [i for i, row in enumerate(rows) if row["state"] == "measured"]
        last = measured[-1] if measured else -1
        return [row for i, row in enumerate(rows) if row["state"] == "measured" or i > last]

    def measured(self, part: str) -> list[Row]:
        """Rows with figures."""
        return [row for row in self.of(part) if row["state"] == "measured"]

    def has(self, part: str, **figures: Any) -> bool:
        """Whether this or an earlier call measured such a row."""
        wanted = {k.replace("_", " "): v for k, v in figures.items()}.items()
        return any(wanted <= row.items() for row in self.measured(part))

    def _rows(self) -> list[Row]:
        if not self._path.exists():
            return []
        return [json.loads(line) for line in self._path.read_text().splitlines()]


def table(rows: list[Row], columns: tuple[str, ...]) -> str:
    """Markdown."""
    if not rows:
        return "nothing measured"
    lines = [list(columns), ["---"] * len(columns)]
    lines += [[str(row.get(column, "")) for column in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
