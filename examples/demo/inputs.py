"""What the demo's bundle was made from, so that tests take `./demo` only where it is up to date.

Enters: the checkout and the folder that `make demo` wrote. Leaves: a digest in that folder.
"""

import hashlib
from pathlib import Path

from bundle.errors import BundleError
from bundle.manifest import MANIFEST
from bundle.open import open_bundle

CHECKOUT = Path(__file__).resolve().parents[2]
NAME = "inputs.sha256"
# Whatever may change the labels, the weights or the graph; constraints.txt pins the libraries.
SOURCES = (
    "bundle", "checkpoints", "engines", "export", "labelmint", "nets", "training", "examples/demo",
)  # fmt: skip
FILES = ("examples/demo/generator.safetensors", "constraints.txt")


def record_inputs(folder: Path) -> None:
    """Writes the digest of the code and of the bundle's manifest, once the bundle is complete."""
    (folder / NAME).write_text(_digest(folder))


def is_current(folder: Path) -> bool:
    """Whether `folder` has an intact bundle that this very code has made."""
    try:
        recorded = (folder / NAME).read_text()
        open_bundle(folder / "bundle")
    except (OSError, BundleError):
        return False
    return recorded == _digest(folder)


def _digest(folder: Path) -> str:
    """SHA-256 over names and contents of the inputs and of the manifest, which hashes the rest."""
    paths = [path for source in SOURCES for path in sorted((CHECKOUT / source).rglob("*.py"))]
    digest = hashlib.sha256()
    for path in (*paths, *(CHECKOUT / name for name in FILES)):
        digest.update(f"{path.relative_to(CHECKOUT)} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    digest.update((folder / "bundle" / MANIFEST).read_bytes())
    return digest.hexdigest()
