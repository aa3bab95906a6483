"""Command line: exit codes, and one line for whatever goes wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import grpc
import pytest
from PIL import Image

import labelmint
from labelmint import Client
from labelmint.cli import main
from labelmint.errors import NotReady, ServerFault
from labelmint.v1 import label_service_pb2 as pb
from tests.client.scripted_service import MODEL, Ended, Script, ScriptedService

Captured = pytest.CaptureFixture[str]
SCRIPT = "import sys; from labelmint.__main__ import main; sys.exit(main())"  # as pip's is


def run(capsys: Captured, *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_models_lists_what_a_user_needs_to_know(capsys: Captured, target: str) -> None:
    code, out, err = run(capsys, "models", "--target", target)
    assert (code, err) == (0, "")
    for fact in ("scripted", "8 x 6 px", "keypoints", "background, skin, eye", "calibrated"):
        assert fact in out


def test_a_picture_that_its_format_cannot_hold_is_refused_in_one_line(
    capsys: Captured, target: str, service: ScriptedService, tmp_path: Path
) -> None:
    out = tmp_path / "sheet.webp"  # at most 16,383 pixels
    arguments = ("--target", target, "--out", str(out), "--count", "256")
    code, _, err = run(capsys, "preview", *arguments)
    assert code != 0 and "give a lower --count, or write PNG" in err and "Traceback" not in err
    assert not out.exists()


def test_preview_writes_a_sheet_and_says_where_to_go_on(
    capsys: Captured, target: str, service: ScriptedService, tmp_path: Path
) -> None:
    out = tmp_path / "sheet.png"
    code, said, err = run(
        capsys, "preview", "--target", target, "--out", str(out), "--count", "3",
        "--seed", "5", "--keep-fraction", "0.5", "--start-index", "4",
    )  # fmt: skip
    assert (code, err) == (0, "")
    with Image.open(out) as sheet:
        assert sheet.width > 3 * 150
    query = service.queries[0]
    assert (query.count, query.start_index, query.sampling.seed) == (3, 4, 5)
    assert query.filter.keep_fraction == 0.5
    assert f"--start-index {int(said.split()[-1])}" in said


# Colors, a title, CSI in one character, the direction of writing, backspaces, line breaks.
STEERING = "\x1b[2J\x1b[31m \x1b]0;x\x07 \x9b31m \u202ee\u2066 a\rb\x08\x7f c\nd\u2028\x00"


COMMANDS = {
    "models": (), "doctor": (), "preview": ("--out", "sheet.png"),
    "bench": ("--streams", "1", "--duration", "1", "--warmup", "0"),
    "download": ("--out", "set", "--count", "3"),
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("refused", [False, True], ids=["served", "refused"])
def test_what_a_server_says_cannot_steer_a_terminal(
    capsys: Captured, target: str, service: ScriptedService, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    command: str, refused: bool,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    model = hostile_model(STEERING)
    service.model, service.models = model, [model]
    service.script = Script(bundle_id=STEERING)
    if refused:
        service.refusal = Ended(grpc.StatusCode.FAILED_PRECONDITION, f"no {STEERING}")
    with caplog.at_level("DEBUG", "labelmint"):
        code, out, err = run(capsys, command, "--target", target, *COMMANDS[command])
    logged = "".join(caplog.messages)
    shown = [*click.unstyle(out).split("\n"), *err.split("\n"), *logged.split("\n")]
    assert all(line.isprintable() for line in shown), shown
    assert (code != 0) == refused
    if refused or command in ("models", "doctor", "bench"):
        assert r"\x1b[2J\x1b[31m" in out + err  # escaped, not left out


def hostile_model(name: str) -> pb.Model:
    """A model with everything that a server may name called name."""
    model = pb.Model()
    model.CopyFrom(MODEL)
    model.name = model.bundle_id = model.family = model.engine = model.score_source = name
    model.score_measure = name
    model.licences.append(name)
    model.classes[0].name = model.keypoints[0].name = name
    return model


def test_errors_can_be_printed_whatever_a_server_says(
    target: str, service: ScriptedService
) -> None:
    steering = "\x1b[31m\u202e"
    service.refusal = Ended(grpc.StatusCode.INTERNAL, steering + "x" * 5000)
    with Client(target) as client, pytest.raises(ServerFault) as caught:
        client.models()
    for error in (caught.value, NotReady(f"replicas serve {steering}", "FAILED_PRECONDITION")):
        assert str(error).isprintable() and r"\x1b[31m\u202e" in str(error)
        assert len(str(error)) < 4100


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--max-uncertainty", "0"], "--max-uncertainty 0 keeps none of the 400 samples from "),
        (["--keep-fraction", "1e-5"], "--keep-fraction 1e-05 keeps none of the 400 samples from "),
        (
            ["--keep-fraction", "1e-5", "--start-index", str(2**64 - 9)],
            f"--keep-fraction 1e-05 keeps none of the samples from --start-index {2**64 - 9} on",
        ),
    ],
)
def test_a_preview_of_a_filter_that_keeps_nothing_says_so_in_words_of_the_preview(
    capsys: Captured, target: str, tmp_path: Path, arguments: list[str], words: str
) -> None:
    out = tmp_path / "sheet.png"
    arguments = ["--out", str(out), "--count", "2", "--seed", "7", *arguments]
    code, said, err = run(capsys, "preview", "--target", target, *arguments)
    assert (code, said, out.exists()) == (1, "", False)
    assert err.startswith(f"labelmint: {words}") and err.count("\n") == 1
    assert "; raise it, or leave it out: --out preview.html" in err


def test_a_preview_of_fewer_samples_than_asked_for_says_of_how_many(
    capsys: Captured, target: str, tmp_path: Path
) -> None:
    out = tmp_path / "sheet.png"
    arguments = ["--count", "8", "--keep-fraction", "0.002"]
    code, said, err = run(capsys, "preview", "--target", target, "--out", str(out), *arguments)
    assert (code, err, out.exists()) == (0, "", True)
    samples = f"{said.split()[2]} samples of 8: no more kept in 1600 examined"
    assert said == f"wrote {out}: {samples}; continue with --start-index 1600\n"


def test_target_comes_from_the_environment(
    capsys: Captured, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABELMINT_TARGET", target)
    assert run(capsys, "models")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--nonsense"], "No such option"),
        (["nonsense"], "No such command"),
        (["preview", "--target", "x"], "--out"),
        (["preview", "--target", "x", "--out", "sheet.xyz"], ".png"),
        (["preview", "--target", "x", "--out", "sheet.psd"], ".png"),  # Pillow only reads these
        (["preview", "--target", "x", "--out", "sheet.pdf"], "a browser prints a report as PDF"),
        (["preview", "--target", "x", "--out", "a.png", "--count", "0"], "1<=x<=65536"),
        (
            ["preview", "--target", "x", "--out", "a.png", "--count", "257"],
            "257 is over 256",
        ),
    ],
)
def test_usage_is_2(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, arguments: list[str], word: str
) -> None:
    monkeypatch.delenv("LABELMINT_TARGET", raising=False)
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert word in err


@pytest.mark.parametrize("subcommand", ["bench", "doctor", "download", "models", "preview"])
def test_without_a_target_it_is_the_port_of_the_pages(capsys: Captured, subcommand: str) -> None:
    code, out, _ = run(capsys, subcommand, "--help")
    words = " ".join(out.split())
    assert code == 0
    assert "[env var: LABELMINT_TARGET; default: localhost:50051]" in words
    assert "--target HOST:PORT" in words


def test_options_that_cannot_be_sent_are_usage(capsys: Captured, target: str) -> None:
    code, _, err = run(
        capsys, "preview", "--target", target, "--out", "a.png", "--keep-fraction", "2"
    )
    assert code == 2
    assert "keep_fraction 2.0 is outside (0, 1]" in err


@pytest.mark.parametrize("target", ["localhost", "localhost:99999", ",", "http://localhost:1"])
@pytest.mark.parametrize("verb", ["models", "doctor", "bench"])
def test_a_target_that_is_none_is_usage(capsys: Captured, verb: str, target: str) -> None:
    code, out, err = run(capsys, verb, "--target", target)
    assert (code, out) == (2, "")
    assert "localhost:50051" in err or "no target" in err


def test_bench_measures_one_target(capsys: Captured) -> None:
    code, _, err = run(capsys, "bench", "--target", "localhost:1,localhost:2")
    assert code == 2
    assert "has several addresses" in err


def test_a_file_that_is_not_pem_is_usage(capsys: Captured, tmp_path: Path) -> None:
    file = tmp_path / "certificate.der"
    file.write_bytes(b"0\x82\x03")
    code, _, err = run(capsys, "models", "--target", "localhost:1", "--authorities", str(file))
    assert code == 2
    assert f"{file} is not PEM" in err


@pytest.mark.parametrize("start", [["-m", "labelmint"], ["-c", SCRIPT]])
def test_a_failed_handshake_is_one_line(
    target: str, start: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A process of its own: grpc's lines come from beneath Python.
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)  # that the command set here
    command = [sys.executable, *start, "models", "--tls", "--target", target]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "leave TLS out" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(("verb", "half"), [("models", "private-key"), ("doctor", "certificate")])
def test_half_of_a_pair_for_mutual_tls_is_usage(tmp_path: Path, verb: str, half: str) -> None:
    file = tmp_path / "half.pem"
    file.write_text("not looked at")
    command = [sys.executable, "-m", "labelmint", verb, "--target", "localhost:1"]
    # A process of its own: grpc aborts the one that it is given half a pair in.
    ended = subprocess.run([*command, f"--{half}", str(file)], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"{file} is given without a" in ended.stderr


def test_unreachable_is_3(capsys: Captured) -> None:
    code, out, err = run(capsys, "models", "--target", "localhost:1")
    assert (code, out) == (3, "")
    assert err.startswith("labelmint: localhost:1 is unreachable")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("status", "code"),
    [("NOT_FOUND", 4), ("RESOURCE_EXHAUSTED", 4), ("DEADLINE_EXCEEDED", 3), ("INTERNAL", 1)],
)
def test_refusals_are_4_and_failures_1(
    capsys: Captured, target: str, service: ScriptedService, status: str, code: int
) -> None:
    service.refusal = Ended(grpc.StatusCode[status], "because\nof this")
    assert run(capsys, "models", "--target", target) == (code, "", "labelmint: because of this\n")


def test_a_sheet_that_cannot_be_written_is_1(capsys: Captured, target: str, tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "sheet.png"
    code, _, err = run(capsys, "preview", "--target", target, "--out", str(missing), "--count", "1")
    assert code == 1
    assert str(missing) in err


def test_module_version_and_help_work_as_a_process() -> None:
    command = [sys.executable, "-W", "error", "-m", "labelmint"]
    version = subprocess.run([*command, "--version"], capture_output=True, text=True)
    assert (version.returncode, version.stderr) == (0, "")
    assert labelmint.__version__ in version.stdout
