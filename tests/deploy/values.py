"""Values of the chart that tests of refusals and of what is taken have in common."""

from tests.deploy.cases import DOWNLOAD
from tests.deploy.chart import Object

TLS: Object = {"mode": "secret", "secret": "cert"}
RBAC = "rbac.authorization.k8s.io/v1"
OWN: Object = {"name": "demo-labelmint"}
TWO: Object = {"name": "A", "value": "b", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}


def needing(expression: Object) -> Object:
    """Values of pods that go to nodes which match the expression."""
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": terms}
    return {"affinity": {"nodeAffinity": required}}


def beside(**fields: object) -> Object:
    """Values with a container beside the server."""
    return {"sidecars": [{"name": "a", "image": "a/b:1", **fields}]}


def downloaded(**fields: object) -> Object:
    """Values with a bundle that a container downloads."""
    return {"models": [DOWNLOAD | {"download": DOWNLOAD["download"] | fields}]}


def mounted(**fields: object) -> Object:
    """Values with a volume of the user's own."""
    mount = {"name": "a", "mountPath": "/a", **fields}
    return {"extraVolumes": [{"name": "a", "emptyDir": {}}], "extraVolumeMounts": [mount]}


def extra(kind: object, metadata: object, version: object = "v1") -> Object:
    """An object for extraObjects."""
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def allowed(cidr: str, *excepted: str) -> Object:
    """Clients with these addresses, but for those excepted."""
    return {"networkPolicy": {"clients": [{"ipBlock": {"cidr": cidr, "except": list(excepted)}}]}}


def near(**fields: object) -> Object:
    """Values of pods that go where others are."""
    term = {"topologyKey": "zone", **fields}
    return {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}
