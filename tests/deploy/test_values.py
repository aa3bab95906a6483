"""values.yaml, its schema, the table in the README and the server's own flags agree."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml

from service.__main__ import run
from service.config import MODEL_NAME, ServerLimits
from service.flags import config_from_flags
from tests.deploy.cases import CASES
from tests.deploy.chart import CHART, Object, default_values, one, render
from tests.deploy.test_render import NEWEST

SCHEMA: Object = json.loads((CHART / "values.schema.json").read_text("utf-8"))


def resolved(schema: Object) -> Object:
    """The schema itself, or the definition that it refers to."""
    name = schema.get("$ref", "").rpartition("/")[2]
    return SCHEMA["definitions"][name] if name else schema


def choices(schema: Object) -> list[Any]:
    """The values of a switch or an enum, also of one that may be empty too."""
    kind = resolved(schema)
    if kind.get("type") == "boolean":
        return [True, False]
    others = [choice for one in kind.get("anyOf", []) for choice in choices(one)]
    return [*kind.get("enum", [kind["const"]] if "const" in kind else []), *others]


def objects_in(schema: Any, path: str = "") -> Iterator[tuple[str, Object]]:
    """Every object schema of the chart's own, with its key."""
    if not isinstance(schema, dict) or path == "global":
        return
    schema = resolved(schema)
    if schema.get("description", "").startswith("as in Kubernetes"):
        return
    if "properties" in schema and "type" in schema:
        yield path, schema
    for name, found in schema.get("properties", {}).items():
        yield from objects_in(found, f"{path}.{name}".strip("."))
    yield from objects_in(schema.get("items"), f"{path}[]")


def test_the_schema_is_closed_at_every_level() -> None:
    assert len(list(objects_in(SCHEMA))) > 30
    assert [path for path, found in objects_in(SCHEMA) if found["additionalProperties"]] == []


def test_every_default_is_in_the_schema_and_every_key_has_a_default() -> None:
    without = set()
    for path, found in objects_in(SCHEMA):
        if "[]" in path or path == "limits":
            continue
        at: Any = default_values()
        for name in path.split(".") if path else []:
            at = at[name]
        without |= {f"{path}.{name}".strip(".") for name in found["properties"].keys() - at.keys()}
    assert without == {"global"}


def test_a_number_or_word_that_null_takes_away_is_missed() -> None:
    """Templates would read 0, such as service.port=0; in place of an empty value it is empty."""
    unmissed = set()
    for path, found in objects_in(SCHEMA):
        if "[]" in path or path == "limits" or path.startswith(("resources", "init.", "tests.")):
            continue
        at: Any = default_values()
        for name in path.split(".") if path else []:
            at = at[name]
        for name, value in at.items():
            said = isinstance(value, int | float | str) and value is not False and value != ""
            if said and name not in found.get("required", ()):
                unmissed.add(f"{path}.{name}".strip("."))
    assert unmissed == {"user"}  # null is the cluster's choice


def test_every_enum_and_every_switch_is_used_by_a_case() -> None:
    everything = [default_values(), *CASES.values()]
    unused = set()
    for path, found in objects_in(SCHEMA):
        for name, kind in found["properties"].items():
            keys = [*path.replace("[]", ".[]").split("."), name]
            used = [value for values in everything for value in _at(values, keys)]
            unused |= {f"{path}.{name}={choice}" for choice in choices(kind) if choice not in used}
    assert unused == set()


def _at(value: Any, keys: list[str]) -> Iterator[Any]:
    if not keys:
        yield value
    elif keys[0] == "[]":
        for item in value:
            yield from _at(item, keys[1:])
    elif keys[0] == "":
        yield from _at(value, keys[1:])
    elif isinstance(value, dict) and keys[0] in value:
        yield from _at(value[keys[0]], keys[1:])


def test_the_limits_are_those_of_the_server() -> None:
    words = {name: name.split("_") for name in ServerLimits.__dataclass_fields__}
    camel = {name[0] + "".join(map(str.capitalize, name[1:])) for name in words.values()}
    assert SCHEMA["properties"]["limits"]["properties"].keys() == camel


def test_a_models_name_is_what_the_server_takes() -> None:
    name = SCHEMA["properties"]["models"]["items"]["properties"]["name"]
    assert name["if"]["pattern"] == f"^{MODEL_NAME.pattern}$"


def test_every_pattern_has_words_for_who_does_not_match_it() -> None:
    """Helm prints a pattern as it is, and the constant of `else` in its place."""
    bare, words = [], set()

    def look(at: Any, path: str) -> None:
        if isinstance(at, list):
            for inner in at:
                look(inner, path)
        elif isinstance(at, dict):
            if "pattern" in at and not path.endswith("/if"):
                bare.append(path)
            if "pattern" in at.get("if", {}):
                words.add(at["else"]["const"])
            if "patternProperties" in at:
                words.add(at["additionalProperties"]["const"])
            for name, inner in at.items():
                look(inner, f"{path}/{name}")

    look(SCHEMA, "")
    assert bare == [] and len(words) > 20
    assert not [said for said in words if re.search(r"[\^\[\](){}|]", said)]


def test_keys_of_containers_and_volumes_are_those_of_the_newest_kubernetes() -> None:
    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    for name in ("container", "volume", "valueFrom"):
        file = f"v{NEWEST}.0-local/{ {'valueFrom': 'envvarsource'}.get(name, name) }-v1.json"
        known = json.loads((folder / file).read_text("utf-8"))["properties"]
        assert SCHEMA["definitions"][name]["properties"].keys() == known.keys()


@pytest.mark.parametrize("case", CASES)
def test_the_server_understands_its_environment(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = next(o for o in render(CASES[case]) if o["kind"] == "Deployment")
    server = deployment["spec"]["template"]["spec"]["containers"][0]
    for variable in server["env"]:
        if "value" in variable:  # others are of a node, or of a secret
            monkeypatch.setenv(variable["name"], variable["value"])
    named = {v["name"] for v in server["env"] if v["name"].startswith("LABELMINT_SERVER_")}
    twins = {option.envvar for option in run.params if isinstance(option, click.Option)}
    assert named <= twins
    config = config_from_flags(run.make_context("run", list(server["args"])).params)
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    host = "[::]" if case == "IPv6" else "0.0.0.0"
    assert (config.listen, config.metrics_port) == (f"{host}:{ports['grpc']}", ports["metrics"])
    given = {**default_values(), **CASES[case]}
    assert config.max_stream_age_s == given["streams"]["maxAgeSeconds"]
    assert list(config.fallbacks) == given["engine"].get("fallbacks", [])
    mounted = {mount["mountPath"] for mount in server["volumeMounts"]}
    assert {str(bundle.path) for bundle in config.bundles} <= mounted
    files = [config.token_file, config.admin_token_file]
    if config.tls is not None:
        files += [config.tls.certificate, config.tls.key, config.tls.client_authorities]
    assert {str(file.parent) for file in files if file is not None} <= mounted


def test_the_readme_has_every_value_and_its_default() -> None:
    text = (CHART / "README.md").read_text("utf-8")
    rows = dict(re.findall(r"(?m)^\| `([\w.]+)` \| `(.*?)` \|", text))
    assert {key: yaml.safe_load(value) for key, value in rows.items()} == dict(
        leaves(default_values())
    )


def leaves(values: Object, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        key = f"{path}.{name}".strip(".")
        if isinstance(value, dict) and value and key not in ("metrics.dashboard.labels",):
            yield from leaves(value, key)
        else:
            yield key, value


def test_the_chart_has_the_version_of_the_package() -> None:
    from labelmint import __version__

    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["appVersion"] == chart["version"] == __version__
    image = one(render(), "Deployment")["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image.endswith(f":{__version__}-cpu")
