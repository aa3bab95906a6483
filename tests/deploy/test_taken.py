"""Values that Kubernetes and the server take are taken, in all of their forms."""

import helm_python
import pytest

from tests.deploy.cases import CLAIM, GPU, SMALL
from tests.deploy.chart import one, render
from tests.deploy.values import OWN, RBAC, TWO, allowed, beside, extra, needing


def test_the_largest_values_that_a_server_takes_are_taken() -> None:
    render({"rollout": {"maxUnavailable": "100%", "maxSurge": "150%"}})
    render({"resources": {"requests": {"memory": "3072Mi", "cpu": 2}, "limits": {"cpu": "2000m"}}})
    render({"models": [CLAIM | {"claim": {"name": "b", "subPath": "a/..b/c"}}]})
    render({"commonLabels": {"a.b/c": "d" * 63}, "resources": SMALL})
    render({"gateway": {"hostnames": ["*.example.com"]}})
    render({"extraObjects": [extra("Service", OWN | {"namespace": "other"})]})
    render(needing({"key": "a.b/c", "operator": "Gt", "values": ["8"]}))


@pytest.mark.parametrize(
    "amount", ["129e6", "+1E9", ".5Gi", "2.", "123456789n", "1500u", "1P", "1Pi", "1E", "1Ei", 1e9]
)
def test_amounts_are_taken_in_all_forms_of_kubernetes(amount: object) -> None:
    render({"resources": {"requests": {"ephemeral-storage": amount}}})


def test_amounts_in_different_forms_are_compared() -> None:
    requests = {"cpu": "1500000u", "memory": "1e9", "ephemeral-storage": "0.5Pi"}
    limits = {"cpu": "1500m", "memory": "1G", "ephemeral-storage": "512Ti"}
    render({"resources": {"requests": requests, "limits": limits}})
    for name, over in (("cpu", "1500001u"), ("memory", "1.1e9"), ("ephemeral-storage", "1E")):
        with pytest.raises(helm_python.HelmError, match=f"requests.{name}={over} is over limits"):
            render({"resources": {"requests": {name: over}, "limits": limits}})


def test_values_that_an_api_server_takes_are_taken() -> None:
    """An object of another API group has a name of its own; keys of annotations may be capitals."""
    knative, istio = "serving.knative.dev/v1", "networking.istio.io/v1"
    both = [extra("Gateway", OWN, group) for group in (istio, "gateway.networking.k8s.io/v1")]
    render({"extraObjects": [extra("Service", OWN, knative), *both]})
    render({"podAnnotations": {"Example.com/Team": "a"}})
    render(beside(
        livenessProbe={"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 3},
        lifecycle={"preStop": {"sleep": {"seconds": 5}}, "stopSignal": "SIGUSR1"},
    ))  # fmt: skip
    headers = [{"name": "Host", "value": "a"}]
    get = {"path": "/", "port": "http", "scheme": "HTTPS", "host": "a", "httpHeaders": headers}
    render(beside(
        livenessProbe={"grpc": {"port": 1, "service": ""}, "terminationGracePeriodSeconds": 5},
        readinessProbe={"exec": {"command": ["a"]}, "initialDelaySeconds": 0, "timeoutSeconds": 2},
        startupProbe={"tcpSocket": {"port": "http"}, "successThreshold": 1, "failureThreshold": 9},
        lifecycle={"postStart": {"httpGet": get}, "preStop": {"tcpSocket": {"port": 1}}},
    ))  # fmt: skip
    render({"networkPolicy": {"egress": [{"ports": [{"port": "https"}, {"port": 443}]}]}})
    render(allowed("10.0.0.0/8", "10.1.0.0/16", "10.255.255.255/32"))
    render(allowed("0.0.0.0/0", "169.254.169.254/32"))
    render(allowed("2001:db8::/33", "2001:db8:7fff::/48", "2001:DB8::1.2.3.4/128"))
    render(allowed("::/0", "::1/128", "1:2:3:4:5:6:7:8/128", "::ffff:10.0.0.0/104"))
    render({"tolerations": [{"key": "a", "operator": "", "value": "b"}]})
    render({"extraEnv": [TWO | {"value": ""}]})
    wanted, limits = (
        {"hugepages-2Mi": "1Gi", "a.b/c": "1k"},
        {"hugepages-2Mi": "1024Mi", "a.b/c": 1e3},
    )
    render({"resources": {"requests": wanted, "limits": limits}})
    issuer = {"name": "a", "kind": "StepClusterIssuer", "group": "certmanager.step.sm"}
    times = {"duration": "1.5h", "renewBefore": "0.5h"}
    render({"tls": {"mode": "certManager", "certManager": {"issuer": issuer, **times}}})
    render({"extraObjects": [extra("ClusterRole", {"name": "system:labelmint:reader"}, RBAC)]})
    labels = {"matchLabels": {"matchExpressions": "a"}}
    render({"networkPolicy": {"clients": [{"podSelector": labels}]}})


def test_replicas_are_spread_as_kubernetes_can() -> None:
    spread = {"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "minDomains": 2}
    policies = {"nodeAffinityPolicy": "Honor", "nodeTaintsPolicy": "Ignore"}
    found = one(render({"topologySpread": [spread | policies]}), "Deployment")
    (rendered,) = found["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert (spread | policies).items() <= rendered.items()


def test_a_container_beside_the_server_can_claim_the_gpu_of_the_pod() -> None:
    claims = [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]
    values = GPU | {"gpu": {"resourceClaims": claims}}
    render(values | beside(resources={"claims": [{"name": "gpu", "request": "a"}]}))
