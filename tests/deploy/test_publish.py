"""What is published: the chart's archive, its signature, its push, and inventories of images."""

import io
import json
import re
import shutil
import subprocess
import tarfile
from importlib.metadata import version
from pathlib import Path

import helm_python
import pytest
import yaml
from click.testing import CliRunner, Result
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from helm.package_chart import main
from helm.sbom import inventory
from labelmint import __version__
from tests.deploy.chart import CHART, CHECKOUT, LEAST, Object
from tests.deploy.oci_registry import registry

SOURCE = "https://example.com/labelmint"
STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u14
Description: GNU C Library
 Version: 9

Package: gone
Status: deinstall ok config-files
Version: 1
"""


def published(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def file_in(archive: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        found = tar.extractfile(f"labelmint/{name}")
        assert found is not None
        return found.read()


def test_the_archive_is_the_chart_with_its_home_and_licence(tmp_path: Path) -> None:
    done = published("--out", str(tmp_path), "--source", SOURCE)
    assert done.exit_code == 0, done.output
    archive = Path(done.output.strip())
    assert archive == tmp_path / f"labelmint-{__version__}.tgz"
    chart: Object = yaml.safe_load(file_in(archive.read_bytes(), "Chart.yaml"))
    assert (chart["home"], chart["sources"]) == (SOURCE, [SOURCE])
    assert chart["icon"].startswith("data:image/svg+xml;") and chart["maintainers"]
    assert b"Apache License" in file_in(archive.read_bytes(), "LICENSE")
    for name in ("values.schema.json", "prometheus-adapter.yaml", "README.md", "alerts/rules.yaml"):
        assert file_in(archive.read_bytes(), name) == (CHART / name).read_bytes()
    found = helm_python.lint(str(archive), LEAST, strict=True)
    assert (found["errors"], found["messages"]) == ([], [])


def test_a_registry_that_is_told_has_the_archive(tmp_path: Path) -> None:
    with registry() as (host, stored):
        place = f"oci://{host}/team/charts"
        done = published("--out", str(tmp_path), "--push", place, "--plain-http")
    assert done.exit_code == 0, done.output
    path, reference = done.output.splitlines()
    name, digest = reference.split("@")
    assert name == f"{host}/team/charts/labelmint:{__version__}"
    assert stored[__version__] == stored[digest]
    (layer,) = json.loads(stored[digest])["layers"]
    assert stored[layer["digest"]] == Path(path).read_bytes()


def test_a_key_signs_the_archive(tmp_path: Path) -> None:
    if shutil.which("gpg") is None:
        pytest.skip("gpg is not installed")
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--pinentry-mode", "loopback",
           "--passphrase", ""]  # fmt: skip
    rings = {}
    try:
        subprocess.run([*gpg, "--quick-gen-key", "tests", "rsa2048", "sign"], check=True)
        for kind in ("--export-secret-keys", "--export"):
            rings[kind] = tmp_path / kind.strip("-")
            rings[kind].write_bytes(subprocess.check_output([*gpg, kind, "tests"]))
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)
    keyring = str(rings["--export-secret-keys"])
    done = published("--out", str(tmp_path), "--key", "tests", "--keyring", keyring)
    assert done.exit_code == 0, done.output
    archive, signature = done.output.splitlines()
    assert signature == f"{archive}.prov"
    helm_python.verify(archive, keyring=str(rings["--export"]))
    with Path(archive).open("ab") as file:
        file.write(b"more")
    with pytest.raises(helm_python.HelmError):
        helm_python.verify(archive, keyring=str(rings["--export"]))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--push", "ghcr.io/team"], 2, "give oci://HOST/PATH"),
        (["--key", "tests"], 2, "give both or neither"),
        (["--source", "github.com/a"], 2, "begins with https://"),
        (["--push", "oci://127.0.0.1:1/a", "--plain-http"], 1, "connection refused"),
    ],
)
def test_what_cannot_be_published_is_one_line(
    words: list[str], code: int, said: str, tmp_path: Path
) -> None:
    done = published("--out", str(tmp_path), *words)
    assert (done.exit_code, said in done.output) == (code, True), done.output


def test_an_inventory_has_every_package_of_the_environment_and_of_the_base(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text(STATUS)
    text = inventory(CHECKOUT, CHECKOUT / ".venv", status)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert text == inventory(CHECKOUT, CHECKOUT / ".venv", status)
    document: Object = json.loads(text)
    assert document["metadata"]["component"]["version"] == __version__
    urls = {found["purl"] for found in document["components"]}
    assert f"pkg:pypi/grpcio@{version('grpcio')}" in urls
    assert f"pkg:pypi/cyclonedx-python-lib@{version('cyclonedx-python-lib')}" in urls
    assert [url for url in urls if url.startswith("pkg:deb/")] == [
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u14"
    ]
    licences = {c["name"]: c.get("licenses") for c in document["components"]}
    assert licences["click"] == [{"expression": "BSD-3-Clause"}]


def test_every_stage_that_installs_writes_the_inventory_anew() -> None:
    dockerfile = (CHECKOUT / "Dockerfile").read_text("utf-8")
    stages = re.findall(r"(?ms)^FROM \S+ AS (builder\S*)\n(.*?)(?=^FROM)", dockerfile)
    assert len(stages) == 5
    for name, text in stages:
        installed, written = text.rfind('" && pip'), text.rfind("sbom.py /app /opt/venv")
        assert written > max(installed, text.rfind("pip uninstall"), text.rfind("COPY service")), (
            name
        )


def test_make_passes_platforms_and_attestations_to_the_builder() -> None:
    words = {
        "BUILDER": "docker buildx build",
        "IMAGE": "ghcr.io/team/labelmint",
        "PLATFORM": "linux/amd64,linux/arm64",
        "BUILD_ARGS": "--push --sbom=true",
        "SOURCE": SOURCE,
    }
    line = [
        "make",
        "-n",
        "--no-print-directory",
        "image",
        *(f"{name}={value}" for name, value in words.items()),
    ]
    printed = subprocess.run(line, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    said = " ".join(printed.replace("\\\n", " ").split())
    assert said.startswith(
        f"docker buildx build --target cpu --tag ghcr.io/team/labelmint:{__version__}-cpu "
        f"--platform linux/amd64,linux/arm64 --build-arg VERSION={__version__}"
    )
    assert said.endswith(f"--build-arg SOURCE={SOURCE} --push --sbom=true .")
