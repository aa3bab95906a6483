"""An upgrade keeps replicas, and starts no job beside one that still writes."""

import helm_python
import pytest

from tests.deploy.api_server import upgraded
from tests.deploy.cases import KEDA
from tests.deploy.chart import NAME, Object, one

DATASET: Object = {"dataset": {"enabled": True, "claim": "data"}}
RUNNING: Object = {"active": 2}
ENDED: Object = {"conditions": [{"type": "Failed", "status": "True"}]}


def deployment(replicas: int) -> Object:
    return {"kind": "Deployment", "metadata": {"name": NAME}, "spec": {"replicas": replicas}}


@pytest.mark.parametrize("scaler", [{"mode": "hpa"}, KEDA], ids=["hpa", "keda"])
@pytest.mark.parametrize(("live", "kept"), [(3, 3), (1, 2), (7, 7)])
def test_autoscaling_starts_from_the_replicas_that_are_there(
    scaler: Object, live: int, kept: int
) -> None:
    values = {"replicas": 3, "autoscaling": scaler | {"minReplicas": 2, "maxReplicas": 8}}
    spec = one(upgraded(values, [deployment(live)]), "Deployment")["spec"]
    assert spec["replicas"] == kept


def test_without_a_deployment_the_number_is_the_autoscalers() -> None:
    spec = one(upgraded({"autoscaling": {"mode": "hpa"}}, []), "Deployment")["spec"]
    assert "replicas" not in spec


def test_without_autoscaling_the_number_is_that_of_the_values() -> None:
    spec = one(upgraded({"replicas": 4}, [deployment(7)]), "Deployment")["spec"]
    assert spec["replicas"] == 4


def job(values: Object, status: Object) -> Object:
    (found,) = (o for o in upgraded(values, []) if o["kind"] == "Job")
    return {"kind": "Job", "metadata": {"name": found["metadata"]["name"]}, "status": status}


OTHER: Object = {"dataset": DATASET["dataset"] | {"seed": 1}}


@pytest.mark.parametrize("status", [RUNNING, {}, ENDED | {"terminating": 1}])
def test_a_job_with_other_settings_waits_for_the_one_before(status: Object) -> None:
    before = job(DATASET, status)
    with pytest.raises(helm_python.HelmRenderError) as refused:
        upgraded(OTHER, [before])
    name = before["metadata"]["name"]
    assert f"kubectl --namespace prod delete job {name} --cascade=foreground" in str(refused.value)


def test_a_job_that_is_unchanged_or_ended_stops_no_upgrade() -> None:
    foreign = {"kind": "Job", "metadata": {"name": "demo-other"}, "status": RUNNING}
    for live in ([job(DATASET, RUNNING), foreign], [job(OTHER, ENDED)]):
        assert job(DATASET, {})["metadata"]["name"] in [
            o["metadata"]["name"] for o in upgraded(DATASET, live) if o["kind"] == "Job"
        ]
