"""A bundle whose graphs are noise: enough for code that only reads, hashes and writes."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bundle.manifest import Manifest
from bundle.read import bundle_id_from_content
from bundle.write import file_entries, write_manifest
from engines.fake import fake_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A valid bundle."""
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / "mapping.onnx").write_bytes(bytes(range(256)) * 9)
    (folder / "labeller.onnx").write_bytes(bytes(range(255, -1, -1)) * 21)
    write_manifest(folder, with_files(fake_bundle().manifest, folder))
    return folder


def with_files(manifest: Manifest, folder: Path) -> Manifest:
    files = file_entries(folder)
    bundle_id = bundle_id_from_content(manifest.generator, manifest.labels, manifest.heads, files)
    return msgspec.structs.replace(manifest, files=files, bundle_id=bundle_id)


class Editor:
    """Edits a manifest as text, the way a mistaken tool or hand would."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "manifest.json"

    def read(self) -> Any:
        return json.loads(self.path.read_text())

    def write(self, content: Any) -> None:
        self.path.write_text(json.dumps(content))

    def set(self, keys: str, value: object) -> None:
        """`keys` like "generator.z_dim" or "files.mapping.onnx|size" (| where names have dots)."""
        content = at = self.read()
        *parents, last = keys.split("|") if "|" in keys else keys.split(".")
        for key in parents:
            at = at[int(key) if isinstance(at, list) else key]
        at[last] = value
        self.write(content)


@pytest.fixture
def editor(folder: Path) -> Editor:
    """Edits the manifest of `folder`."""
    return Editor(folder)
