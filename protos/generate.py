"""Writes the files generated from protos/, or checks with --check that they are up to date.

labelmint/v1/*.proto become Python stubs. inference/*.proto, which are copied from Triton, become a
set of descriptors: stubs of these would need a repaired import, and would register the same names
as a Triton client in the same process.

The generator is an old release on purpose: generated code refuses protobuf runtimes older than
itself, and training images pin old ones. It has its own environment, created on first use, because
it needs an older protobuf than the rest of the checkout.

    python protos/generate.py [--check]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

PROTOS = Path(__file__).resolve().parent
CHECKOUT = PROTOS.parent
PACKAGE = Path("labelmint/v1")
VENDORED = "inference"
DESCRIPTORS = Path("service/rpc/inference.binpb")
ENVIRONMENT = CHECKOUT / ".venv-protos"
# The last release whose output does not check the grpcio version, for Python 3.10 to 3.12.
GENERATOR = ("grpcio-tools==1.62.3", "protobuf==4.25.9", "setuptools<81")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if a file is out of date"
    )
    check = parser.parse_args().check
    python = ensure_generator(ENVIRONMENT)
    with tempfile.TemporaryDirectory() as scratch:
        generate(python, Path(scratch))
        fresh = contents(Path(scratch))
    committed = contents(CHECKOUT)
    if fresh == committed:
        return 0
    stale = sorted(
        path for path in fresh.keys() | committed.keys() if fresh.get(path) != committed.get(path)
    )
    if check:
        print(
            f"stale: {', '.join(map(str, stale))}; fix: python protos/generate.py",
            file=sys.stderr,
        )
        return 1
    for path in stale:
        target = CHECKOUT / path
        if path in fresh:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(fresh[path])
        else:
            target.unlink()
    print(f"wrote {', '.join(map(str, stale))}")
    return 0


def contents(root: Path) -> dict[Path, bytes]:
    """All generated files under `root`, including those whose proto was renamed or removed."""
    paths = [*(root / PACKAGE).glob("*_pb2*.py*"), *root.glob(str(DESCRIPTORS))]
    return {path.relative_to(root): path.read_bytes() for path in paths}


def ensure_generator(environment: Path) -> Path:
    """Path to Python in the generator's environment; creates it if missing or different."""
    python = environment / "bin" / "python"
    stamp = environment / "generator.txt"
    wanted = "\n".join(GENERATOR)
    if not stamp.is_file() or stamp.read_text() != wanted:
        venv.create(environment, with_pip=True, clear=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *GENERATOR],
            check=True,
        )
        stamp.write_text(wanted)
    return python


def generate(python: Path, target: Path) -> None:
    """Runs protoc on every proto; writes to `target`, with paths as in the checkout."""
    outputs = [f"--{kind}_out={target}" for kind in ("python", "pyi", "grpc_python")]
    run_protoc(python, PROTOS, str(PACKAGE), outputs)
    descriptors = target / DESCRIPTORS
    descriptors.parent.mkdir(parents=True)
    run_protoc(
        python, PROTOS / VENDORED, ".", [f"--descriptor_set_out={descriptors}", "--include_imports"]
    )


def run_protoc(python: Path, root: Path, folder: str, outputs: list[str]) -> None:
    """Runs protoc on the protos in `folder` of `root`."""
    sources = sorted(str(path.relative_to(root)) for path in (root / folder).glob("*.proto"))
    command = [str(python), "-m", "grpc_tools.protoc", f"--proto_path={root}", *outputs, *sources]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.exit(main())
