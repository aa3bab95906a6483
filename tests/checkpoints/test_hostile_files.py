"""A hostile file does nothing: one line names it and the reason, in bounded memory."""

import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import torch

from checkpoints import ForeignFileError, TorchFile, WeightsError, read_array, read_foreign
from tests.checkpoints.assembler import Raw, legacy_file, network, pickled, storage_file, tensor
from tests.checkpoints.hostile import corpus
from tests.checkpoints.hostile_reader import Outcome, Report

pytestmark = pytest.mark.long

CHECKOUT = Path(__file__).resolve().parents[2]
FIXTURES = Path(__file__).parent / "fixtures"
FILES = sorted(FIXTURES.rglob("file_*.p*"))
CUTS = 20  # lengths at which every file is cut
DAMAGED = 200  # files damaged at random
MAX_GROWTH_BYTES = 128 << 20  # by any file of a few megabytes
LARGE = "~large"  # an honest file, read last
LARGE_BYTES = 64 << 20


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """What came of reading every hostile file, in a process that was watched; and the canary."""
    canary = tmp_path_factory.mktemp("canary") / "was here"
    folder = tmp_path_factory.mktemp("files")
    for name, data in {**corpus(canary), **cut_files(), **damaged_files(), **arrays()}.items():
        (folder / name).write_bytes(data)
    torch.save(torch.zeros(LARGE_BYTES // 4), folder / LARGE)
    command = [sys.executable, "-m", "tests.checkpoints.hostile_reader", str(folder), str(FIXTURES)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert not done.stderr
    return canary, msgspec.json.decode(done.stdout, type=Report)


def cut_files() -> dict[str, bytes]:
    """Every fixture, cut at a twentieth, two twentieths ... of its length."""
    files = {file.stem: file.read_bytes() for file in FILES}
    return {
        f"cut {name} {part:02}": data[: len(data) * part // CUTS]
        for name, data in files.items()
        for part in range(CUTS)
    }


def damaged_files() -> dict[str, bytes]:
    """Fixtures with bytes changed, cut out, doubled, or replaced by the largest length."""
    files = [file.read_bytes() for file in FILES]
    damaged = {}
    for seed in range(DAMAGED):
        rng = random.Random(seed)
        data = bytearray(rng.choice(files))
        for _ in range(rng.randint(1, 8)):
            # Most of a file is numbers: half of the damage is done to what stands before them.
            at = rng.randrange(len(data) if rng.random() < 0.5 else 1000)
            piece = data[at : at + rng.randint(1, 40)]
            new = rng.choice([bytes([rng.randrange(256)]), b"", piece * 2, b"\xff" * 4])
            data[at : at + len(piece if rng.random() < 0.5 else new)] = new
        damaged[f"damaged {seed:04}"] = bytes(data)
    return damaged


def arrays() -> dict[str, bytes]:
    """Arrays that lie about what they are."""
    headers = {
        "huge": "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }",
        "huge and empty": "{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999, 0), }",
        "objects": "{'descr': '|O', 'fortran_order': False, 'shape': (2,), }",
        "code": "{'descr': __import__('os').system('true'), 'fortran_order': False, 'shape': ()}",
        "nothing": "",
    }
    files = {
        name: b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(8)
        for name, text in headers.items()
    }
    files["huge and empty"] = files["huge and empty"][:-8]
    files["long header"] = b"\x93NUMPY\x02\x00" + b"\xff" * 4 + b"{"
    files["cut"] = b"\x93NUMPY\x01\x00"
    return {f"array {name}.npy": data for name, data in files.items()}


def test_every_hostile_file_is_refused_in_one_line_that_names_it(
    watched: tuple[Path, Report],
) -> None:
    outcomes = [o for o in watched[1].outcomes if not o.name.startswith(("damaged", LARGE))]
    assert len(outcomes) > 350
    accepted = [outcome.name for outcome in outcomes if outcome.error is None]
    assert not accepted
    for outcome in outcomes:
        check_refusal(outcome)


def test_a_damaged_file_is_read_or_refused_in_one_line(watched: tuple[Path, Report]) -> None:
    damaged = [o for o in watched[1].outcomes if o.name.startswith("damaged")]
    refused = [outcome for outcome in damaged if outcome.error is not None]
    assert len(damaged) == DAMAGED
    assert len(refused) > DAMAGED // 2
    for outcome in refused:
        check_refusal(outcome)


def check_refusal(outcome: Outcome) -> None:
    assert outcome.kind in (ForeignFileError.__name__, WeightsError.__name__), outcome
    assert outcome.error is not None
    path, reason = outcome.error[: outcome.error.find(outcome.name)], outcome.error
    assert Path(path).is_absolute() and outcome.name in outcome.error
    assert reason and outcome.error.isprintable() and len(reason) < 400, outcome


def test_no_hostile_file_has_any_effect(watched: tuple[Path, Report]) -> None:
    canary, report = watched
    assert not canary.exists()
    assert report.imported == []
    assert {o.name: o.events for o in report.outcomes if o.events} == {}


def test_no_hostile_file_takes_much_memory(watched: tuple[Path, Report]) -> None:
    *others, large = watched[1].outcomes
    assert max(outcome.peak_bytes for outcome in others) < MAX_GROWTH_BYTES
    assert large.name == LARGE and "holds a Tensor" in (large.error or "")
    assert large.peak_bytes < 2.5 * LARGE_BYTES


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("code os.system, protocol 4", "it has 'posix.system' there; nothing was run"),
        ("code eval under D", "no network of NVIDIA's code under G_ema"),
        ("code os.system beside a network", "no StyleGAN2 generator"),
        (
            "code exec in a zip file",
            "has 'builtins.exec' where plain data belongs; nothing was run",
        ),
        ("code os.system in a legacy file", "has 'posix.system' where plain data belongs"),
        ("nested legacy file", "not a storage"),
        ("zip bomb", "is compressed"),
        ("zip script", "TorchScript"),
        ("length BINBYTES8 1073741824", "asks for 1073741824 bytes"),
        ("length storage 1073741824", "ends beyond the file"),
        ("length array shape", "has 2 elements"),
        ("length storages by number", "a value that is not text"),
        ("bomb laughs", "over 131072 values"),
        ("bomb laughs as a key", "a key that is neither"),
        ("bomb deep lists", "nested over 64 levels deep"),
        ("bomb opcodes, sets", "over 262144 opcodes"),
        ("bomb tensors of one storage", "over 4 times the file's size"),
        ("cut file_legacy 12", "cut short"),
        ("cut file_training 19", "zip directory"),
        ("array huge.npy", "has 2 elements"),
    ],
)
def test_a_refusal_gives_its_reason(watched: tuple[Path, Report], name: str, reason: str) -> None:
    errors = {outcome.name: outcome.error for outcome in watched[1].outcomes}
    assert reason in (errors[name] or "")


def test_the_source_in_a_network_is_not_run(tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "network.pkl"
    weight = tensor(storage_file([1.0]), 0, (1,), (1,))
    path.write_bytes(pickled({"G_ema": network({"w": weight}, f"open({str(canary)!r}, 'w')")}))
    read_foreign(path)
    assert not canary.exists()


@pytest.mark.parametrize("number", [1 << 30, (1 << 32) - 1])
def test_a_huge_memo_number_takes_no_memory(tmp_path: Path, number: int) -> None:
    path = tmp_path / "memo.pt"
    path.write_bytes(legacy_file(Raw(b"Nr" + struct.pack("<I", number)), [], b""))
    assert read_foreign(path) == TorchFile(None)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pkl")
    for path in (tmp_path, tmp_path / "pipe.pkl", tmp_path / "missing.pkl", Path("/dev/zero")):
        for reader in (read_foreign, read_array):
            with pytest.raises(ForeignFileError, match=f"^{path}: it "):
                reader(path)


def test_a_file_of_holes_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "holes.pkl"
    for size, head in ((1 << 40, b"\x80\x04"), (1 << 32, b"")):
        with path.open("wb") as stream:
            stream.write(head)
            stream.truncate(size)
        with pytest.raises(ForeignFileError):
            read_foreign(path)
