"""The objects for KServe are valid, fit each other, and start a server that Triton's client knows.

The schemas have the keys that KServe 0.20 defines for these kinds, as far as they are used, and no
others; what is a container or a volume in them is checked as part of a pod.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import tritonclient.grpc as triton
import yaml

from labelmint import Client, __version__
from tests.deploy.chart import CHECKOUT, Object, one, render
from tests.deploy.custom_resources import TEXT, TEXTS, WHOLE, Schema, closed, several
from tests.deploy.test_render import NEWEST, OLDEST, problems
from tests.service.test_process import READY, bundle_at

FOLDER = CHECKOUT / "helm/kserve"
RUNTIME, MODEL_DIR = "kserve-container", "/mnt/models"
ANY: Schema = {"type": "object"}
FORMAT = {"name": TEXT, "version": TEXT}
PROTOCOL: Schema = {"enum": ["v1", "v2", "grpc-v1", "grpc-v2"]}
SPECS = {
    "ClusterServingRuntime": closed(
        ("containers",),
        annotations=TEXTS,
        supportedModelFormats=several(
            closed(("name",), **FORMAT, autoSelect={"type": "boolean"}, priority=WHOLE)
        ),
        protocolVersions=several(PROTOCOL),
        containers=several(ANY),
        volumes=several(ANY),
    ),
    "InferenceService": closed(
        ("predictor",),
        predictor=closed(
            ("model",),
            minReplicas=WHOLE,
            maxReplicas=WHOLE,
            tolerations=several(ANY),
            model=closed(
                ("modelFormat",),
                modelFormat=closed(("name",), **FORMAT),
                protocolVersion=PROTOCOL,
                runtime=TEXT,
                storageUri={"type": "string", "pattern": "^(pvc|s3|gs|https|oci)://[a-z0-9]"},
                image=TEXT,
                args=several(TEXT),
                resources=ANY,
            ),
        ),
    ),
}
VERSIONS = {"ClusterServingRuntime": "v1alpha1", "InferenceService": "v1beta1"}


def stored(name: str) -> list[Object]:
    return list(yaml.safe_load_all((FOLDER / name).read_text("utf-8")))


(runtime,) = stored("serving_runtime.yaml")
services = stored("inference_service.yaml")
each_service = pytest.mark.parametrize("service", services, ids=lambda s: s["metadata"]["name"])


def pod_of(service: Object) -> Object:
    """The pod as KServe makes it: a service's arguments are added, image and resources replace."""
    (container,) = runtime["spec"]["containers"]
    text = json.dumps(container).replace("{{.Name}}", service["metadata"]["name"])
    container = json.loads(text)
    model = service["spec"]["predictor"]["model"]
    container["args"] += model.get("args", [])
    container |= {key: model[key] for key in ("image", "resources") if key in model}
    tolerations = service["spec"]["predictor"].get("tolerations", [])
    spec = {"containers": [container], "volumes": runtime["spec"]["volumes"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "annotations": runtime["spec"]["annotations"]},
        "spec": spec | {"tolerations": tolerations},
    }


def test_the_objects_have_keys_that_kserve_knows() -> None:
    for found in (runtime, *services):
        kind = found["kind"]
        assert found["apiVersion"] == f"serving.kserve.io/{VERSIONS[kind]}"
        jsonschema.validate(found["spec"], SPECS[kind])
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(found["spec"] | {"prot": 1}, SPECS[kind])


@each_service
def test_the_pod_is_valid_restricted_and_as_large_as_the_charts(service: Object) -> None:
    pod = pod_of(service)
    for version in (OLDEST, NEWEST):
        assert problems(json.dumps(pod), version) == ""
    (container,) = pod["spec"]["containers"]
    gpu = "nvidia.com/gpu" in container["resources"]["limits"]
    engine: Object = {"mode": "gpu", "engine": {"runtime": "onnxruntime-cuda"}} if gpu else {}
    chart = one(render(engine), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"] == chart["resources"]["limits"]
    assert container["securityContext"].items() >= chart["securityContext"].items()
    assert container["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    target = "gpu" if gpu else "cpu"
    assert container["image"].endswith(f"/labelmint:{__version__}-{target}")


@each_service
def test_kserve_finds_the_runtime_and_its_ports(service: Object) -> None:
    spec, model = runtime["spec"], service["spec"]["predictor"]["model"]
    offered = [{k: f[k] for k in ("name", "version")} for f in spec["supportedModelFormats"]]
    assert model["modelFormat"] in offered
    assert all(found["autoSelect"] for found in spec["supportedModelFormats"])
    assert model["protocolVersion"] in spec["protocolVersions"]
    (container,) = pod_of(service)["spec"]["containers"]
    assert container["name"] == RUNTIME
    environment = {found["name"]: found["value"] for found in container["env"]}
    (port,) = container["ports"]  # the first is the service's port 80
    assert environment["LABELMINT_SERVER_LISTEN"] == f"0.0.0.0:{port['containerPort']}"
    assert port["name"] == "h2c"  # by which KServe and Knative know gRPC
    metrics = int(environment["LABELMINT_SERVER_METRICS_PORT"])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == metrics
    assert spec["annotations"]["prometheus.kserve.io/port"] == str(metrics)


@contextmanager
def served(service: Object, bundle: Path) -> Iterator[str]:
    """The pod's own command on the fake engine; yields the server's address."""
    (container,) = pod_of(service)["spec"]["containers"]
    words: list[str] = [*container["command"], *container["args"], "--engine=fake"]
    assert words[0] == "python" and any(MODEL_DIR in word for word in words)
    line = [sys.executable, *(word.replace(MODEL_DIR, str(bundle)) for word in words[1:])]
    given = {found["name"]: found["value"] for found in container["env"]}
    free = {"LABELMINT_SERVER_LISTEN": "127.0.0.1:0", "LABELMINT_SERVER_METRICS_PORT": "0"}
    assert free.keys() <= given.keys()
    with subprocess.Popen(
        line, cwd=CHECKOUT, env=os.environ | given | free, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        try:
            ready = READY.fullmatch(process.stdout.readline())
            assert ready
            yield f"{ready[1]}:{ready[2]}"
        finally:
            process.kill()


def test_tritons_client_gets_the_samples_of_the_model_named_as_the_service(tmp_path: Path) -> None:
    service = services[0]
    name = service["metadata"]["name"]
    with served(service, bundle_at(tmp_path / "bundle")) as target:
        client = triton.InferenceServerClient(target)
        assert client.is_server_ready() and client.is_model_ready(name)
        index = triton.InferInput("index", [4], "UINT64")
        index.set_data_from_numpy(np.arange(4, dtype=np.uint64))
        seed = triton.InferInput("seed", [1], "UINT64")
        seed.set_data_from_numpy(np.array([7], np.uint64))
        result = client.infer(name, [index, seed], outputs=[triton.InferRequestedOutput("mask")])
        client.close()
        with Client(target) as own:
            batches = list(own.stream(model=name, count=4, seed=7, outputs=["mask"]))
    expected = np.concatenate([np.asarray(batch.masks) for batch in batches])
    np.testing.assert_array_equal(result.as_numpy("mask"), expected)
