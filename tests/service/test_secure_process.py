"""TLS and tokens as a user sets them up: server flags, the client's options, the health command."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from labelmint import Client, Tls
from tests.hangs import HANG_S
from tests.service.identities import write_identity
from tests.service.test_process import ROOT, bundle_at, command, ran, run_once, running

TOKEN = "s3cret-of-the-trainer"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secure")
    write_identity(trustme.CA(), folder, "127.0.0.1")
    (folder / "tokens").write_text(f"trainer {TOKEN}\n")
    bundle_at(folder / "fake")
    return folder


def flags_in(folder: Path) -> list[str]:
    return [
        "--engine", "fake", "--tls-certificate", str(folder / "certificate.pem"), "--tls-key",
        str(folder / "key.pem"), "--tls-client-authorities", str(folder / "ca.pem"),
        "--token-file", str(folder / "tokens"),
    ]  # fmt: skip


def test_a_secured_server_serves_the_client_and_the_commands(folder: Path) -> None:
    ca, key, own = (str(folder / name) for name in ("ca.pem", "key.pem", "certificate.pem"))
    with running(folder / "fake", *flags_in(folder)) as process:
        target = f"127.0.0.1:{process.port}"
        with Client(target, tls=Tls(ca, own, key), token=TOKEN) as client:
            assert sum(len(batch.indices) for batch in client.stream(count=20)) == 20
        models = [
            str(Path(sys.executable).with_name("labelmint")), "models", "--target", target,
            "--authorities", ca, "--certificate", own, "--private-key", key,
        ]  # fmt: skip
        for token, code in ((TOKEN, 0), ("wrong-token-of-nobody", 4)):
            environment = {**os.environ, "LABELMINT_TOKEN": token}
            done = subprocess.run(models, cwd=ROOT, env=environment, capture_output=True, text=True)
            assert done.returncode == code, done.stderr
            assert token not in done.stderr
        health = command(
            "health", "--target", target, "--tls-authorities", ca, "--tls-client-certificate", own,
            "--tls-client-key", key,
        )  # fmt: skip
        assert subprocess.run(health, cwd=ROOT, capture_output=True).returncode == 0


def test_a_json_log_has_no_lines_of_grpc(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)  # that the command may have set here
    log = ("--log-format", "json")
    with running(folder / "fake", *flags_in(folder), *log) as process:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", process.port)) as stranger:
                stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
                assert stranger.recv(1) in (b"", b"\x15")  # hung up, or a TLS alert
        process.popen.terminate()
        assert process.popen.wait(HANG_S) == 0
        assert process.popen.stderr
        lines = process.popen.stderr.read().splitlines()
    assert all(json.loads(line) for line in lines), lines


def test_a_certificate_without_its_key_is_a_usage_error(folder: Path) -> None:
    certificate = ("--tls-certificate", str(folder / "certificate.pem"))
    half = ran("run", "--bundle", str(folder / "fake"), *certificate)
    assert half.exit_code == 2 and "--tls-key" in half.stderr


def test_missing_files_end_the_start_in_one_line(folder: Path) -> None:
    for flag in ("--token-file", "--tls-key"):
        line = [*flags_in(folder), flag, str(folder / "none")]
        result = run_once(folder / "fake", *line)
        assert result.returncode == 1
        assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
        assert str(folder / "none") in result.stderr
