"""The image can be built, and serves as an unprivileged user on a read-only root."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labelmint import Client
from tests.deploy.cases import CASES
from tests.deploy.chart import CHECKOUT, one, render
from tests.deploy.image_builder import SERVE, Store, build_base, build_target, store_at
from tests.hangs import HANG_S

READY = re.compile(r"labelmint ready on 127\.0\.0\.1:(\d+), models: m, metrics on .*\n")


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    line = [str(Path(sys.executable).with_name("hadolint")), "Dockerfile"]
    linted = subprocess.run(line, cwd=CHECKOUT, capture_output=True, text=True)
    assert (linted.returncode, linted.stdout) == (0, "")


def test_what_the_dockerfile_copies_is_let_through_and_nothing_else_is() -> None:
    ignore = (CHECKOUT / ".dockerignore").read_text("utf-8").split("\n")
    allowed = {line[1:] for line in ignore if line.startswith("!")}
    copied = {
        word.split("/")[0]
        for line in re.findall(r"(?m)^COPY (?!--from)(.*) \S+$", _dockerfile())
        for word in line.split()
    }
    assert ignore[1] == "*" and copied == allowed
    assert all((CHECKOUT / name).exists() for name in allowed)


@pytest.mark.long
def test_an_init_container_builds_engines_with_what_gpu_trt_has_in_it(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    app = tmp_path / "app"
    for stage in ("builder", "builder-gpu", "builder-gpu-trt"):
        for sources, target in _copied(stage):
            for source in sources:
                place = app / target.removeprefix("/app/")
                if (CHECKOUT / source).is_dir():
                    shutil.copytree(CHECKOUT / source, place)
                else:
                    place.mkdir(exist_ok=True)
                    shutil.copy(CHECKOUT / source, place)
    assert (app / "export/engine_command.py").exists() and not (app / "nets").exists()
    deployment = one(render(CASES["gpu that builds before it serves"]), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["initContainers"]
    python, *words = container["command"]
    assert python == "python" and words[:2] == ["-m", "export.engine_command"]
    there = {"/models/demo": str(tiny_bundle), "/engines": str(tmp_path / "engines")}
    line = [sys.executable, *(there.get(word, word) for word in words)]
    done = subprocess.run(line, cwd=app, capture_output=True, text=True)
    # Without a GPU or TensorRT it starts and fails with a message that names the missing one.
    assert done.returncode == 0 or re.match("Error: .*(TensorRT|GPU)", done.stderr), done.stderr
    loaded = "import sys, export.engine_command; print('torch' in sys.modules)"
    asked = subprocess.run([sys.executable, "-c", loaded], cwd=app, capture_output=True, text=True)
    assert asked.stdout == "False\n"


def test_gpu_rtx_can_build_engines_too() -> None:
    assert _copied("builder-gpu-rtx") == _copied("builder-gpu-trt") != []
    assert re.search(r'(?m)^RUN pip install .*"\.\[serve,.*rtx\]"', _dockerfile())


def _copied(stage: str) -> list[tuple[list[str], str]]:
    """What a stage copies from the checkout: sources and target."""
    (text,) = re.findall(rf"(?ms)^FROM \S+ AS {stage}\n(.*?)(?=^FROM|\Z)", _dockerfile())
    lines = [line.split()[1:] for line in text.splitlines() if line.startswith("COPY ")]
    return [(words[:-1], words[-1]) for words in lines if words[-1].startswith("/app/")]


def test_cpu_is_the_default_target() -> None:
    targets = re.findall(r"(?m)^FROM runtime AS (\S+)$", _dockerfile())
    assert targets == ["export", "gpu", "gpu-trt", "gpu-rtx", "cpu"]


def _dockerfile() -> str:
    return (CHECKOUT / "Dockerfile").read_text("utf-8")


IMAGE = pytest.mark.long  # the first of them builds it: three minutes on two cores


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    if os.geteuid() != 0:
        pytest.skip("building an image without a daemon needs root")
    for tool in ("buildah", "mmdebstrap"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (Debian's package {tool} has it)")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("building an image needs mount namespaces, which are not allowed here")
    store = store_at(tmp_path_factory.mktemp("image") / "store")
    try:
        build_base(store, str(shutil.which("mmdebstrap")))
        build_target(store, "cpu")
        yield store
    finally:
        shutil.rmtree(store.folder)  # more than a gigabyte


@IMAGE
def test_the_image_says_how_it_is_run(built: Store) -> None:
    config = built.config()
    assert config["User"] == "10001:10001" and config["StopSignal"] == "SIGTERM"
    assert (config["Entrypoint"], config["Cmd"]) == (["python", "-m", "service"], ["run"])
    assert config["Healthcheck"]["Test"] == ["CMD", "python", "-m", "service", "health"]
    assert config["Labels"]["org.opencontainers.image.revision"] == "abc123"
    assert set(config["ExposedPorts"]) == {"50051/tcp", "9090/tcp"}
    assert "MALLOC_TRIM_THRESHOLD_=33554432" in config["Env"]


@IMAGE
def test_it_streams_as_user_10001_on_a_read_only_root(built: Store, tiny_bundle: Path) -> None:
    config = built.config()
    listen = ["LABELMINT_SERVER_LISTEN=127.0.0.1:0", "LABELMINT_SERVER_METRICS_PORT=0"]
    with _inside(
        built,
        tiny_bundle,
        [*config["Env"], *listen, "LABELMINT_SERVER_BUNDLE=m=/tmp/model"],
        [*config["Entrypoint"], *config["Cmd"]],
    ) as process:
        assert process.stdout and process.stderr
        try:
            ready = READY.fullmatch(process.stdout.readline())
            assert ready, process.stderr.read()
            status = Path(f"/proc/{process.pid}/status").read_text()
            assert re.search(r"(?m)^Uid:\s+10001\s", status)
            assert re.search(r"(?m)^CapEff:\s+0+$", status)
            with Client(f"127.0.0.1:{ready[1]}") as client:
                assert sum(len(batch.indices) for batch in client.stream(count=20)) == 20
            process.terminate()
            assert process.wait(HANG_S) == 0
        finally:
            process.kill()


@IMAGE
def test_the_root_is_read_only_there_and_tmp_is_not(built: Store, tiny_bundle: Path) -> None:
    for path, code in (("/app/x", 1), ("/opt/venv/x", 1), ("/tmp/x", 0)):
        with _inside(built, tiny_bundle, ["PATH=/usr/sbin:/usr/bin"], ["touch", path]) as process:
            _, log = process.communicate()
        assert process.returncode == code, log
        assert not code or "Read-only file system" in log


@IMAGE
def test_the_image_lists_its_packages(built: Store, tiny_bundle: Path) -> None:
    listed = ["cat", "/app/sbom.cdx.json"]
    with _inside(built, tiny_bundle, ["PATH=/usr/sbin:/usr/bin"], listed) as process:
        text, log = process.communicate()
    assert process.returncode == 0, log
    names = {found["name"] for found in json.loads(text)["components"]}
    assert {"grpcio", "onnxruntime"} <= names and "cyclonedx-python-lib" not in names


@pytest.mark.slow
def test_gpu_rtx_builds_a_plan_without_a_gpu(
    built: Store, tiny_bundle: Path, tmp_path: Path
) -> None:
    """The last test of the file: its image replaces the other one."""
    build_target(built, "gpu-rtx")
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    bundle.chmod(0o777)
    for file in bundle.iterdir():
        file.chmod(0o666)
    words = ["export.engine_command", "/tmp/model", "--runtime", "tensorrt-rtx"]
    environment = built.config()["Env"]
    with _inside(built, bundle, environment, ["python", "-m", *words]) as process:
        _, log = process.communicate()
    assert process.returncode == 0, log
    assert (bundle / "labeller.fp16.rtx.plan").stat().st_size > 0
    words = ["service", "run", "--bundle", "m=/tmp/model", "--engine", "tensorrt-rtx"]
    with _inside(built, bundle, environment, ["python", "-m", *words]) as process:
        _, log = process.communicate()
    assert process.returncode == 1 and "no NVIDIA GPU was found" in log, log


def _inside(
    store: Store, bundle: Path, environment: list[str], words: list[str]
) -> "subprocess.Popen[str]":
    """Runs a command in the image's root, as its user, with exactly that environment."""
    chroot = ["chroot", "--userspec=10001:10001", str(store.folder / "root")]
    here = ["sh", "-c", 'cd /app && exec "$@"', "sh", *words]
    line = store.command(SERVE, "env", "-i", *environment, *chroot, *here)
    return subprocess.Popen(
        line,
        cwd=store.folder,
        env=store.environment(BUNDLE=str(bundle)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
