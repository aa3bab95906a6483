"""Null in place of a default, which is how Helm is told to take it away."""

import re
from collections.abc import Iterator

import helm_python
import pytest

from tests.deploy.cases import GPU, KEDA
from tests.deploy.chart import CHART, LEAST, NAMESPACE, Object, default_values

EVERYTHING: Object = (
    LEAST
    | GPU
    | {
        "autoscaling": KEDA,
        "tls": {
            "mode": "certManager",
            "certManager": {"issuer": {"name": "a"}},
            "mutual": {"enabled": True},
        },
        "auth": {"tokens": {"secret": "a"}, "adminTokens": {"secret": "a"}},
        "client": {"tokenSecret": {"name": "a"}, "tlsSecret": "a"},
        "gateway": {
            "enabled": True,
            "parentRefs": [{"name": "a"}],
            "backendTls": {"enabled": True},
        },
        "networkPolicy": {"enabled": True},
        "metrics": {
            "monitor": {"kind": "pod"},
            "alerts": {"enabled": True},
            "dashboard": {"enabled": True},
        },
        "dataset": {"enabled": True, "claim": "a"},
    }
)


@pytest.mark.long
def test_null_in_place_of_a_section_or_list_is_its_absence_or_one_line() -> None:
    """Helm takes a default away where a value is null; many are used by some modes alone."""

    def without(values: Object, least: Object) -> Iterator[tuple[str, Object]]:
        """`least` with null in place of each section and list of `values`."""
        for name, value in values.items():
            if isinstance(value, dict | list) and name != "models":
                yield name, least | {name: None}
            if isinstance(value, dict):
                inner = least.get(name, {})
                yield from ((key, least | {name: one}) for key, one in without(value, inner))

    refused = 0
    with helm_python.Chart.load(str(CHART)) as chart:
        for least in (LEAST, EVERYTHING):
            chart.render(least, name="demo", namespace=NAMESPACE)
            for name, values in without(default_values(), least):
                try:
                    chart.render(values, name="demo", namespace=NAMESPACE)
                except helm_python.HelmError as error:
                    refused += 1
                    said = str(error).strip()
                    missed = f"- at '.*': missing property '{name}'$"
                    assert re.search(rf"{missed}|^execution error at \(.*\): .*{name}", said), said
    assert refused > 40
