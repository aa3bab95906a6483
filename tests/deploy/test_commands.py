"""The commands, probes and metrics that the chart uses exist in the applications."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from bundle.__main__ import main as bundle_command
from labelmint.cli.download import download
from tests.deploy.cases import CASES
from tests.deploy.chart import CHECKOUT, Object, containers, one, pod_specs, render
from tests.service.test_process import Process, bundle_at, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with running(bundle_at(tmp_path_factory.mktemp("server") / "b"), "--engine", "fake") as process:
        yield process


def test_the_probes_and_the_scrape_are_answered(server: Process) -> None:
    (container,) = one(render(), "Deployment")["spec"]["template"]["spec"]["containers"]
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
    monitors = [one(render(CASES[f"{kind} monitor"]), kind.title() + "Monitor")["spec"]
                for kind in ("pod", "service")]  # fmt: skip
    (pods,), (services,) = monitors[0]["podMetricsEndpoints"], monitors[1]["endpoints"]
    paths = [*(probe["path"] for probe in probes), pods["path"], services["path"]]
    assert [server.get(path)[0] for path in paths] == [200] * 5
    assert server.get("/none")[0] == 404


def test_the_command_of_helm_test_streams(server: Process, tmp_path: Path) -> None:
    model = {"name": "m", "source": "claim", "claim": {"name": "c"}}
    pod = one(render({"models": [model]}), "Pod", "demo-labelmint-test")
    (container,) = pod["spec"]["containers"]
    words = [*container["command"][1:], *container["args"]]
    line = [sys.executable, *(word.replace("/tmp/", f"{tmp_path}/") for word in words)]
    environment = {**os.environ, "LABELMINT_TARGET": f"127.0.0.1:{server.port}"}
    done = subprocess.run(line, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "0/images").iterdir())) == 4


@pytest.mark.parametrize("case", CASES)
def test_every_option_that_a_pod_gives_exists(case: str) -> None:
    assert isinstance(bundle_command, click.Group)
    known = {"download": download, "verify": bundle_command.commands["verify"]}
    for container in _with_commands(render(CASES[case]), known):
        words = [*container["command"][3:], *container.get("args", [])]
        command = known[words[0]]
        options = {name for parameter in command.params for name in parameter.opts}
        given = {word.split("=")[0] for word in words if word.startswith("--")}
        assert given and given <= options


def _with_commands(objects: list[Object], known: dict[str, click.Command]) -> Iterator[Object]:
    for _, spec in pod_specs(objects):
        for container in containers(spec):
            words = container.get("command", [])
            if words[:2] == ["python", "-m"] and words[3:4] and words[3] in known:
                yield container
