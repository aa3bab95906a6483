"""The chart as Helm renders it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
CHART = CHECKOUT / "helm/labelmint"
RELEASE, NAMESPACE, NAME = "demo", "prod", "demo-labelmint"
Object = dict[str, Any]
FAST = yaml.CSafeLoader  # in C: the others take as long as Helm itself


# What an installation has to say: where the image is, and which model it serves.
LEAST: Object = {
    "image": {"registry": "registry.example.com"},
    "models": [{"name": "demo", "source": "claim", "claim": {"name": "bundles"}}],
}


def least(values: Object) -> Object:
    """These values, and the least that an installation needs where they do not say it."""
    return {**LEAST, **values, "image": LEAST["image"] | values.get("image", {})}


def render(values: Object | None = None, release: str = RELEASE) -> list[Object]:
    """Every object of a release with `least` of these values. Raises helm_python.HelmError."""
    with helm_python.Chart.load(str(CHART)) as chart:
        files = chart.render(least(values or {}), name=release, namespace=NAMESPACE)
    return objects_in(files)


def objects_in(files: dict[str, str]) -> list[Object]:
    """The objects in rendered files, by the order of their paths."""
    texts = [text for path, text in sorted(files.items()) if path.endswith(".yaml")]
    return [document for text in texts for document in yaml.load_all(text, FAST) if document]


def one(objects: list[Object], kind: str, name: str = NAME) -> Object:
    """The only object of that kind and name."""
    (found,) = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name]
    return found


def pod_specs(objects: list[Object]) -> Iterator[tuple[dict[str, str], Object]]:
    """Labels and spec of every pod that the objects create."""
    for found in objects:
        pod = found if found["kind"] == "Pod" else found.get("spec", {}).get("template")
        if pod is not None:
            yield pod["metadata"]["labels"], pod["spec"]


def containers(spec: Object) -> list[Object]:
    """All containers of a pod, including init containers."""
    return [*spec.get("initContainers", []), *spec["containers"]]


def default_values() -> Object:
    """The values in values.yaml."""
    values: Object = yaml.load((CHART / "values.yaml").read_text("utf-8"), FAST)
    return values
