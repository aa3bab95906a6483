"""`python -m bundle verify` lets the bundle that was meant pass, and no other."""

import json
from pathlib import Path

from click.testing import CliRunner, Result

from bundle.__main__ import main
from bundle.manifest import MANIFEST
from bundle.open import open_bundle


def verify(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["verify", *arguments], catch_exceptions=False)


def test_the_bundle_that_was_meant_passes(folder: Path) -> None:
    identity = open_bundle(folder).manifest.bundle_id
    for arguments in ((), ("--bundle-id", identity)):
        passed = verify(str(folder), *arguments)
        assert (passed.exit_code, passed.stdout) == (0, f"{folder}: {identity}\n")


def test_another_bundle_is_one_line_with_both_names(folder: Path) -> None:
    other = "sha256:" + "0" * 64
    refused = verify(str(folder), "--bundle-id", other)
    assert refused.exit_code == 1 and len(refused.stderr.splitlines()) == 1
    assert other in refused.stderr and open_bundle(folder).manifest.bundle_id in refused.stderr


def test_a_changed_byte_and_a_missing_folder_are_one_line(folder: Path, tmp_path: Path) -> None:
    graph = folder / "mapping.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    for broken, named in ((folder, "mapping.onnx"), (tmp_path / "none", "manifest.json")):
        refused = verify(str(broken))
        assert refused.exit_code == 1 and len(refused.stderr.splitlines()) == 1
        assert named in refused.stderr


def test_what_a_manifest_says_cannot_write_to_the_terminal(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["bundle_id"] = "sha256:\x1b[2J\x9b\nok\u202e" + "0" * (1 << 20)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    refused = verify(str(folder))
    assert refused.exit_code == 1 and refused.stderr.removesuffix("\n").isprintable()
    assert r"sha256:\x1b[2J\x9b\nok\u202e000" in refused.stderr and len(refused.stderr) < 5000
