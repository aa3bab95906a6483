"""With every switch the chart renders valid Kubernetes objects that fit each other."""

import functools
import json
from collections.abc import Callable
from typing import Any

import helm_python
import jsonschema
import kubernetes_validate
import pytest

from service.config import Config
from tests.deploy.cases import CASES, GPU, IMAGE
from tests.deploy.chart import CHART, Object, containers, least, one, pod_specs, render
from tests.deploy.custom_resources import SCHEMAS

# It would read the schema of a version anew for each object.
kubernetes_validate.utils.schema_contents = functools.cache(
    kubernetes_validate.utils.schema_contents
)
OLDEST, NEWEST = "1.30", "1.37"  # the first as Chart.yaml's kubeVersion
IMAGE_VOLUMES, DEVICE_CLAIMS = "1.33", "1.31"
Guarantee = Callable[[str, list[Object]], None]
GUARANTEES: list[Guarantee] = []  # of every case


@functools.cache
def rendered(case: str) -> list[Object]:
    return render(CASES[case])


def guarantee(holds: Guarantee) -> Guarantee:
    """Adds a check of a case's name and objects; its name is the guarantee."""
    GUARANTEES.append(holds)
    return holds


@functools.cache
def problems(document: str, version: str) -> str:
    """Validation errors of an object; cached, because most objects are equal in most cases."""
    try:
        kubernetes_validate.validate(json.loads(document), version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("case", CASES)
def test_every_guarantee_holds(case: str) -> None:
    broken = []
    for holds in GUARANTEES:
        try:
            holds(case, rendered(case))
        except (AssertionError, KeyError, StopIteration, ValueError) as error:
            broken.append(f"{holds.__name__}: {type(error).__name__} {error}")
    assert not broken, "\n\n".join(broken)


@guarantee
def every_object_is_valid_for_the_oldest_and_the_newest_kubernetes(
    case: str, objects: list[Object]
) -> None:
    oldest = IMAGE_VOLUMES if IMAGE in CASES[case].get("models", []) else OLDEST
    if CASES[case].get("gpu", {}).get("resourceClaims"):
        oldest = DEVICE_CLAIMS
    for found in objects:
        if found["kind"] in SCHEMAS:
            jsonschema.validate(found, SCHEMAS[found["kind"]])
        else:
            for version in (oldest, NEWEST):
                assert problems(json.dumps(found), version) == ""


@guarantee
def lint_finds_nothing(case: str, _: list[Object]) -> None:
    found = helm_python.lint(str(CHART), least(CASES[case]), strict=True)
    assert (found["errors"], found["messages"]) == ([], [])


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_the_validation_refuses_unknown_keys_and_wrong_types(version: str) -> None:
    for change in ({"replica": 3}, {"replicas": "3"}):
        broken = one(render(), "Deployment")
        broken["spec"] |= change
        assert problems(json.dumps(broken), version) != ""


@pytest.mark.parametrize("kind", SCHEMAS)
def test_every_custom_resource_is_made_by_a_case_and_refuses_unknown_keys(kind: str) -> None:
    found = next(o for case in CASES for o in rendered(case) if o["kind"] == kind)
    jsonschema.validate(found, SCHEMAS[kind])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(found | {"spec": found["spec"] | {"prot": 1}}, SCHEMAS[kind])


@guarantee
def selectors_name_the_servers_and_nothing_else(case: str, objects: list[Object]) -> None:
    pods = [labels for labels, _ in pod_specs(objects)]
    (servers,) = (p for p in pods if p["app.kubernetes.io/component"] == "server")
    others = [p for p in pods if p is not servers]
    services = [o["metadata"]["labels"] for o in objects if o["kind"] == "Service"]
    for found in objects:
        spec = found.get("spec", {})
        if found["kind"] == "ServiceMonitor":
            wanted = spec["selector"]["matchLabels"].items()
            assert len([s for s in services if wanted <= s.items()]) == 1
        elif found["kind"] in ("Deployment", "PodDisruptionBudget", "PodMonitor", "Service"):
            selector = spec["selector"]
            wanted = selector.get("matchLabels", selector).items()
            assert wanted <= servers.items()
            assert not any(wanted <= other.items() for other in others)
        elif found["kind"] == "NetworkPolicy":
            assert spec["podSelector"]["matchLabels"].items() <= servers.items()
            inside = spec["ingress"][0]["from"][0]["podSelector"]["matchLabels"].items()
            assert all(inside <= other.items() for other in others)


@guarantee
def ports_that_are_named_exist(case: str, objects: list[Object]) -> None:
    server = _server(objects)
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert server[probe]["httpGet"]["port"] in ports
    for found in objects:
        spec = found.get("spec", {})
        if found["kind"] == "Service":
            for port in spec["ports"]:
                assert ports[port["targetPort"]] == port["port"]  # a headless name maps no ports
        elif found["kind"] in ("PodMonitor", "ServiceMonitor"):
            endpoints = spec.get("endpoints", spec.get("podMetricsEndpoints"))
            assert {endpoint["port"] for endpoint in endpoints} <= ports.keys()
        elif found["kind"] == "NetworkPolicy":
            assert {p["port"] for rule in spec["ingress"] for p in rule["ports"]} <= ports.keys()
        elif found["kind"] == "GRPCRoute":
            (backend,) = spec["rules"][0]["backendRefs"]
            service = one(objects, "Service", backend["name"])
            assert backend["port"] in [port["port"] for port in service["spec"]["ports"]]
        elif found["kind"] == "BackendTLSPolicy":
            (target,) = spec["targetRefs"]
            service = one(objects, "Service", target["name"])
            assert target["sectionName"] in [port["name"] for port in service["spec"]["ports"]]


@guarantee
def volumes_that_are_mounted_exist_and_the_rest_of_the_root_is_read_only(
    case: str, objects: list[Object]
) -> None:
    for _, spec in pod_specs(objects):
        volumes = [volume["name"] for volume in spec["volumes"]]
        assert len(volumes) == len(set(volumes))
        mounted = {m["name"] for c in containers(spec) for m in c.get("volumeMounts", [])}
        assert mounted == set(volumes)
        for container in containers(spec):
            paths = [mount["mountPath"] for mount in container["volumeMounts"]]
            assert len(paths) == len(set(paths))
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
            }
        given = CASES[case].get("user", 10001)
        ids = [spec["securityContext"].get(key) for key in ("runAsUser", "runAsGroup", "fsGroup")]
        assert ids == [given] * 3
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False


@guarantee
def the_grace_period_outlasts_the_drain(case: str, objects: list[Object]) -> None:
    spec = _server_pod(objects)
    environment = _environment(_server(objects))
    sleep = _server(objects).get("lifecycle", {}).get("preStop", {}).get("sleep", {})
    drain = float(environment["LABELMINT_SERVER_DRAIN_DELAY"])
    drain += float(environment["LABELMINT_SERVER_DRAIN_GRACE"]) + sleep.get("seconds", 0)
    assert spec["terminationGracePeriodSeconds"] > drain


@guarantee
def replicas_belong_to_the_deployment_or_to_one_autoscaler(
    case: str, objects: list[Object]
) -> None:
    scalers = [o for o in objects if o["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")]
    deployment = next(o for o in objects if o["kind"] == "Deployment")
    # Nothing is live here; test_upgrade.py has the number that an upgrade keeps.
    assert ("replicas" in deployment["spec"]) + len(scalers) == 1
    for scaler in scalers:
        target = scaler["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])


@guarantee
def a_gpu_is_asked_for_in_gpu_mode_alone(case: str, objects: list[Object]) -> None:
    spec = _server_pod(objects)
    resources = _server(objects)["resources"]
    gpus = [count for name, count in resources["limits"].items() if name.startswith("nvidia.com/")]
    claims = [claim["name"] for claim in spec.get("resourceClaims", [])]
    assert [claim["name"] for claim in resources.get("claims", [])] == claims
    assert len(gpus) + len(claims) == (CASES[case].get("mode") == "gpu")
    assert all(count >= 1 for count in gpus)
    tolerated = [t.get("key") for t in spec.get("tolerations", [])]
    assert ("nvidia.com/gpu" in tolerated) == bool(gpus or claims)


@guarantee
def every_container_has_resources_that_a_quota_may_ask_for(
    case: str, objects: list[Object]
) -> None:
    for _, spec in pod_specs(objects):
        for container in containers(spec):
            resources = container["resources"]
            assert {"cpu", "memory"} <= resources["requests"].keys(), container["name"]
            assert resources["limits"]["memory"], container["name"]
            if case == "a quota of everything":
                assert resources["limits"]["cpu"], container["name"]


@guarantee
def every_pod_goes_where_the_server_may_go(case: str, objects: list[Object]) -> None:
    keys = ("nodeSelector", "tolerations", "affinity", "priorityClassName", "schedulerName")
    server = _server_pod(objects)
    for labels, spec in pod_specs(objects):
        for key in (*keys, "runtimeClassName"):
            assert spec.get(key) == server.get(key), (labels["app.kubernetes.io/component"], key)
        assert labels.items() >= CASES[case].get("podLabels", {}).items()


@guarantee
def no_image_is_named_latest_and_no_secret_value_is_in_the_chart(
    case: str, objects: list[Object]
) -> None:
    assert not [o for o in objects if o["kind"] == "Secret"]
    for _, spec in pod_specs(objects):
        for container in containers(spec):
            name = container["image"].rpartition("/")[2]
            assert ":" in name and not name.endswith(":latest")


def test_a_budget_is_there_for_replicas_and_not_for_one() -> None:
    kinds = {case: [o["kind"] for o in rendered(case)] for case in CASES}
    assert "PodDisruptionBudget" not in kinds["default"] + kinds["no budget"]
    assert all("PodDisruptionBudget" in kinds[case] for case in ("many replicas", "keda", "hpa"))


def test_other_settings_of_a_dataset_are_another_job() -> None:
    job = {"enabled": True, "claim": "data"}
    names = set()
    for change in ({}, {"seed": 1}, {"parts": 8}, {"parallelism": 1}, {"args": ["--tls"]}):
        objects = render({"dataset": job | change})
        (found,) = (o["metadata"]["name"] for o in objects if o["kind"] == "Job")
        names.add(found)
    assert len(names) == 5 and all(len(name) <= 63 for name in names)


def test_the_notes_say_how_to_wait_where_to_look_and_what_is_still_to_do() -> None:
    values = CASES["hpa"] | {"dataset": {"enabled": True, "claim": "data"}}
    with helm_python.Chart.load(str(CHART)) as chart:
        files = chart.render(least(values), name="demo", namespace="prod")
    (notes,) = (text for path, text in files.items() if path.endswith("NOTES.txt"))
    job = next(o for o in render(values) if o["kind"] == "Job")
    (folder,) = {w.split("/")[2] for w in json.dumps(job).split('"') if w.startswith("--out=")}
    for said in (
        "rollout status deployment/demo-labelmint",
        "helm test --namespace prod demo",
        "claim bundles, which has to have the bundle",
        f"claim data, folder {folder}",
        "prometheus-adapter.yaml",
        "Streams are not encrypted",
    ):
        assert said in notes


def test_large_numbers_are_written_in_full() -> None:
    environment = _environment(_server(rendered("limits")))
    assert environment["LABELMINT_SERVER_MAX_INFLIGHT_BYTES"] == str(4 << 30)
    assert environment["LABELMINT_SERVER_MAX_CLIENT_REQUESTS_PER_S"] == "2.5"
    job = next(o for o in rendered("dataset") if o["kind"] == "Job")
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--end-index=5000000000" in arguments


def test_a_gateway_expects_a_name_that_is_in_the_servers_certificate() -> None:
    objects = rendered("gateway that encrypts")
    expected = one(objects, "BackendTLSPolicy")["spec"]["validation"]["hostname"]
    assert expected in one(objects, "Certificate")["spec"]["dnsNames"]


def test_the_servers_own_image_builds_its_engines_unless_another_is_named() -> None:
    images = {}
    for case in ("gpu that builds before it serves", "gpu with everything"):
        spec = _server_pod(rendered(case))
        (builder,) = {c["image"] for c in spec["initContainers"] if c["name"].startswith("engine")}
        images[case] = builder, _server(rendered(case))["image"]
    own, other = images.values()
    assert own[0] == own[1] and own[0].endswith("-gpu-trt")
    assert other[0] == "r/export:1" != other[1]


def test_a_registry_is_before_the_images_name_and_a_parent_charts_comes_first() -> None:
    for case, name in (
        ("default", "registry.example.com/labelmint:"),
        ("image of the nodes", "labelmint:"),
        ("registry of a parent chart", "localhost:5000/mirror/labelmint:"),
    ):
        for _, spec in pod_specs(rendered(case)):
            assert all(c["image"].startswith(name) for c in containers(spec))


def test_each_revision_is_spread_for_itself_unless_told_otherwise() -> None:
    (spread,) = _server_pod(rendered("default"))["topologySpreadConstraints"]
    assert spread["matchLabelKeys"] == ["pod-template-hash"]
    (spread,) = _server_pod(rendered("hard spread"))["topologySpreadConstraints"]
    assert "matchLabelKeys" not in spread


def test_a_mode_has_its_resources_and_values_replace_them_one_by_one() -> None:
    limits = {"memory": "16Gi", "nvidia.com/gpu": 1}
    assert _server(rendered("gpu"))["resources"]["limits"] == limits
    assert _server(rendered("default"))["resources"]["limits"] == {"memory": "3Gi"}
    given = {"resources": {"limits": {"memory": "24Gi"}}}
    resources = _server(render(GPU | given))["resources"]
    assert resources["limits"] == limits | {"memory": "24Gi"}
    assert resources["requests"] == {"cpu": "2", "memory": "4Gi"}


def test_a_sidecar_has_the_charts_security_and_its_own_in_addition() -> None:
    own = {"runAsUser": 101, "readOnlyRootFilesystem": False}
    sidecar = {"name": "proxy", "image": "a/b:1", "securityContext": own}
    (_, proxy) = _server_pod(render({"sidecars": [sidecar]}))["containers"]
    expected = _server(rendered("default"))["securityContext"] | own
    assert proxy["securityContext"] == expected


def test_the_image_has_tensorrt_for_whoever_may_fall_back_to_it() -> None:
    for fallbacks, target in ((["onnxruntime"], "gpu"), (["onnxruntime-tensorrt"], "gpu-trt")):
        engine = {"runtime": "onnxruntime-cuda", "fallbacks": fallbacks}
        server = _server(render({"mode": "gpu", "engine": engine}))
        assert server["image"].endswith(f"-{target}")
        assert _environment(server)["LABELMINT_SERVER_ENGINE"] == f"onnxruntime-cuda,{fallbacks[0]}"


def test_portable_plans_have_an_image_of_their_own_and_nothing_is_built() -> None:
    spec = _server_pod(rendered("gpu by portable plans"))
    assert _server(rendered("gpu by portable plans"))["image"].endswith("-gpu-rtx")
    assert not any(c["name"].startswith("engine") for c in spec.get("initContainers", []))


def test_the_fused_engine_is_built_where_it_is_asked_for() -> None:
    for runtime, flags in (("tensorrt", []), ("tensorrt-fused", ["--fused"])):
        engine = {
            "runtime": runtime,
            "build": {"at": "init", "image": "r/export:1", "args": ["-x"]},
        }
        spec = _server_pod(render({"mode": "gpu", "engine": engine}))
        (builder,) = (c for c in spec["initContainers"] if c["name"].startswith("engine"))
        assert builder["command"][-2 - len(flags) :] == ["/engines", *flags, "-x"]


def test_a_download_is_verified_before_the_server_reads_it() -> None:
    spec = _server_pod(rendered("claims and downloads"))
    names = [container["name"] for container in spec["initContainers"]]
    assert names == ["download-1", "verify-1"]
    mounts = {m["name"]: m for c in spec["containers"] for m in c["volumeMounts"]}
    assert mounts["model-0"]["readOnly"] and mounts["model-1"]["readOnly"]


def _server(objects: list[Object]) -> Object:
    (server,) = (c for c in _server_pod(objects)["containers"] if c["name"] == "server")
    return dict(server)


def _server_pod(objects: list[Object]) -> Object:
    (deployment,) = (o for o in objects if o["kind"] == "Deployment")
    return dict(deployment["spec"]["template"]["spec"])


def _environment(container: Object) -> dict[str, Any]:
    return {variable["name"]: variable.get("value") for variable in container["env"]}


def test_the_limit_of_a_load_is_the_servers() -> None:
    limits = [
        float(_environment(_server(rendered(case)))["LABELMINT_SERVER_LOAD_TIMEOUT"])
        for case in ("default", "slow loads")
    ]
    assert limits == [Config.load_timeout_s, 7200.5]
