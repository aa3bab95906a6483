"""`python -m examples.demo` replaces files, so wrong arguments must not start it."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from examples.demo.__main__ import main
from examples.demo.inputs import NAME, is_current, record_inputs


@pytest.mark.parametrize(("argument", "code"), [("--help", 0), ("--samples", 2), ("again", 2)])
def test_questions_and_mistakes_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str, code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, [argument])
    assert result.exit_code == code and "Usage: " in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_demo_of_other_code_or_with_a_changed_file_is_made_again(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    assert not is_current(tmp_path)
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    record_inputs(tmp_path)
    assert is_current(tmp_path)
    recorded = (tmp_path / NAME).read_text()
    (tmp_path / NAME).write_text("0" * len(recorded))
    assert not is_current(tmp_path)
    (tmp_path / NAME).write_text(recorded)
    with (tmp_path / "bundle" / "labeller.onnx").open("ab") as graph:
        graph.write(b" ")
    assert not is_current(tmp_path)
