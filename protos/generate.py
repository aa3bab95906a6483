"""Writes labelmint/v1/ from labelmint/v1/*.proto, or with --check proves that it is fresh.

The generator is an old one on purpose: generated code refuses runtimes older than
itself, and training images pin old protobuf releases. It lives in its own environment,
made on first use, because it needs an older protobuf than the rest of the checkout.

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
ENVIRONMENT = CHECKOUT / ".venv-protos"
# The last release whose output has no check of the grpcio version, for Python 3.10 to 3.12.
GENERATOR = ("grpcio-tools==1.62.3", "protobuf==4.25.9", "setuptools<81")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if stale")
    check = parser.parse_args().check
    python = ensure_generator(ENVIRONMENT)
    with tempfile.TemporaryDirectory() as scratch:
        generate(python, Path(scratch))
        fresh = {path.name: path.read_bytes() for path in (Path(scratch) / PACKAGE).iterdir()}
    committed = {path.name: path.read_bytes() for path in generated_files()}
    if fresh == committed:
        return 0
    stale = sorted(
        name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name)
    )
    if check:
        print(
            f"stale: {', '.join(stale)} in {PACKAGE}; fix: python protos/generate.py",
            file=sys.stderr,
        )
        return 1
    for name in stale:
        target = CHECKOUT / PACKAGE / name
        if name in fresh:
            target.write_bytes(fresh[name])
        else:
            target.unlink()
    print(f"wrote {', '.join(stale)}")
    return 0


def generated_files() -> list[Path]:
    """The committed stubs, which a changed proto name would leave behind."""
    folder = CHECKOUT / PACKAGE
    folder.mkdir(parents=True, exist_ok=True)
    return sorted(folder.glob("*_pb2*.py*"))


def ensure_generator(environment: Path) -> Path:
    """The interpreter of the generator's environment, which is (re)made when it differs."""
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
    """Runs protoc over every proto of the package, into target/labelmint/v1."""
    sources = sorted(str(path.relative_to(PROTOS)) for path in (PROTOS / PACKAGE).glob("*.proto"))
    subprocess.run(
        [
            python,
            "-m",
            "grpc_tools.protoc",
            f"--proto_path={PROTOS}",
            f"--python_out={target}",
            f"--pyi_out={target}",
            f"--grpc_python_out={target}",
            *sources,
        ],
        check=True,
    )


if __name__ == "__main__":
    sys.exit(main())
