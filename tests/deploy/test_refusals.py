"""Values that cannot work make rendering fail, with the key and the fix in the message."""

import re

import helm_python
import pytest

from tests.deploy.cases import CASES, CLAIM, DOWNLOAD, GPU, IMAGE, KEDA
from tests.deploy.chart import CHART, LEAST, NAMESPACE, Object, render
from tests.deploy.values import (
    OWN,
    RBAC,
    TLS,
    TWO,
    allowed,
    beside,
    downloaded,
    extra,
    mounted,
    near,
    needing,
)

BAD: list[tuple[Object, tuple[str, ...]]] = [
    ({"replicaCount": 3}, ("replicaCount",)),
    ({"drain": {"grace": 3}}, ("/drain", "grace")),
    ({"load": {"timeoutSeconds": 0}}, ("/load/timeoutSeconds", "0")),
    ({"load": {"timeout": 3}}, ("/load", "timeout")),
    ({"mode": "tpu"}, ("/mode", "cpu", "gpu")),
    ({"replicas": "3"}, ("/replicas", "integer")),
    ({"limits": {"maxStream": 3}}, ("/limits", "maxStream")),
    ({"models": []}, ("models is empty", "models[0].claim.name=bundles")),
    ({"models": [{"name": "a", "source": "claim"}]}, ("/models/0", "claim")),
    ({"models": [{**CLAIM, "name": "../a"}]}, ("/models/0/name", "a name such as cars")),
    ({"models": [CLAIM, CLAIM]}, ("models", '"a"', "name of its own")),
    ({"models": [{**IMAGE, "bundleId": "12"}]}, ("/models/0/bundleId", "64 hexadecimal digits")),
    ({"image": {"digest": "latest"}}, ("/image/digest",)),
    ({"tls": {"mode": "secret"}}, ("tls.secret", "kubernetes.io/tls")),
    ({"tls": {"secret": "cert"}}, ("tls.secret=cert", "tls.mode=secret")),
    ({"tls": {"mode": "certManager"}}, ("tls.certManager.issuer.name", "issuer")),
    ({"tls": {"mutual": {"enabled": True}}}, ("tls.mutual.enabled", "tls.mode=secret")),
    ({"tls": TLS | {"mutual": {"enabled": True}}}, ("client.tlsSecret", "tests.enabled=false")),
    ({"auth": {"tokens": {"secret": "t"}}}, ("client.tokenSecret.name", "tests.enabled=false")),
    ({"terminationGracePeriodSeconds": 15}, ("terminationGracePeriodSeconds=15", "20 or more")),
    ({"drain": {"graceSeconds": 24.5, "delaySeconds": 1}}, ("= 30.5", "36 or more")),
    ({"rollout": {"maxSurge": 0}}, ("rollout.maxSurge", "to 1")),
    ({"rollout": {"maxSurge": "0%"}}, ("rollout.maxSurge", "to 1")),
    ({"autoscaling": {"mode": "keda"}}, ("autoscaling.keda.serverAddress", "http://")),
    ({"autoscaling": KEDA | {"maxReplicas": 1, "minReplicas": 2}}, ("minReplicas=2", "raise")),
    ({"autoscaling": {"mode": "hpa", "minReplicas": 0}}, ("minReplicas=0", "set it to 1")),
    ({"autoscaling": {"mode": "cpu"}}, ("/autoscaling/mode", "keda")),
    (GPU | {"gpu": {"resource": ""}}, ("gpu.resource=nvidia.com/gpu", "mode=cpu")),
    (GPU | {"gpu": {"count": 0}}, ("count=0", "gpu.count=1")),
    ({"mode": "gpu"}, ("engine.build.at=start", "engine.cache.claim")),
    (GPU | {"engine": {"fallbacks": ["tensorrt"], "build": {"at": "start"}}}, ("tensorrt", "once")),
    (
        GPU | {"engine": {"runtime": "tensorrt-rtx", "fallbacks": ["tensorrt"]}},
        ("different images",),
    ),
    ({"engine": {"fallbacks": ["onnxruntime-cuda"]}}, ("engine.fallbacks", "mode=gpu")),
    ({"engine": {"fallbacks": ["cuda"]}}, ("/engine/fallbacks/0",)),
    ({"streams": {"maxAgeSeconds": 0.5}}, ("streams.maxAgeSeconds=0.5", "1 to 86400")),
    ({"streams": {"maxAgeSeconds": 86401}}, ("/streams/maxAgeSeconds", "86,400")),
    ({"mode": "gpu", "engine": {"build": {"at": "start"}}}, ("300 s", "failureThreshold=720")),
    ({"mode": "gpu", "engine": {"runtime": "onnxruntime"}}, ("engine.runtime", "onnxruntime-cuda")),
    ({"engine": {"runtime": "tensorrt"}}, ("engine.runtime=tensorrt", "mode=gpu")),
    ({"engine": {"build": {"at": "start"}}}, ("engine.build.at", "mode=gpu")),
    ({"service": {"port": 9090}}, ("service.metricsPort", "9090")),
    ({"gateway": {"enabled": True}}, ("gateway.parentRefs",)),
    (
        {"gateway": {"backendTls": {"enabled": True}}, "tls": TLS},
        ("gateway.backendTls.enabled", "gateway.enabled=true"),
    ),
    (
        {
            "gateway": {
                "enabled": True,
                "parentRefs": [{"name": "a"}],
                "backendTls": {"enabled": True},
            }
        },
        ("gateway.backendTls.enabled", "tls.mode=secret"),
    ),
    ({"dataset": {"enabled": True}}, ("dataset.claim",)),
    ({"nameOverride": "Labels"}, ("/nameOverride", "of small letters")),
    ({"fullnameOverride": "my_labels"}, ("/fullnameOverride", "of small letters")),
    ({"engine": {"batchSizes": [8, 4]}}, ("engine.batchSizes", "4 after 8", "ascending")),
    ({"engine": {"batchSizes": [4, 4]}}, ("4 after 4", "each once")),
    (
        {"dataset": {"enabled": True, "claim": "d", "model": "demmo"}},
        ("dataset.model=demmo", "one of: demo"),
    ),
    (
        {"dataset": {"enabled": True, "claim": "d"}, "models": [CLAIM, CLAIM | {"name": "b"}]},
        ("dataset.model", "a, b"),
    ),
    # What an API server would refuse, after a part of the release is there.
    ({"fullnameOverride": "x" * 38 + "--y"}, ("x" * 38 + "-", "set fullnameOverride")),
    ({"image": {"registry": ""}}, ("image: labelmint", "image.registry", "pullPolicy=Never")),
    ({"image": {"repository": "Labelmint"}}, ("/image/repository", "in small letters")),
    ({"image": {"pullSecrets": ["a..b"]}}, ("/image/pullSecrets/0",)),
    ({"commonLabels": {"a b": "c"}}, ("/commonLabels/a b", "another key, such as team")),
    ({"commonLabels": {"a": "-c"}}, ("/commonLabels/a", "letter or digit at both ends")),
    ({"commonLabels": {"a": "c" * 64}}, ("/commonLabels/a",)),
    ({"podLabels": {"x/" + "c" * 64: "c"}}, ("/podLabels",)),
    ({"podLabels": {"app.kubernetes.io/name": "b"}}, ("podLabels has app.kubernetes.io/name",)),
    ({"commonLabels": {"helm.sh/chart": "b"}}, ("commonLabels has helm.sh/chart",)),
    ({"podAnnotations": {"a_": "b"}}, ("/podAnnotations/a_", "another key")),
    ({"nodeSelector": {"gpu": "NVIDIA H200"}}, ("/nodeSelector/gpu", "up to 63 letters")),
    ({"tolerations": [{"effect": "NoSchedule"}]}, ("tolerations[0] has no key", "=Exists")),
    (GPU | {"gpu": {"tolerations": [{"value": "b"}]}}, ("gpu.tolerations[0] has no key",)),
    ({"tolerations": [{"key": "a b"}]}, ("/tolerations/0/key", "a key such as zone")),
    ({"tolerations": [{"key": "a", "tolerationSeconds": 3}]}, ("Seconds=3", "effect=NoExecute")),
    ({"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}, ("[0]", "value=b")),
    ({"tolerations": [{"key": "a", "effect": "Never"}]}, ("/tolerations/0/effect",)),
    ({"affinity": {"nodes": {}}}, ("/affinity", "nodes")),
    ({"affinity": {"nodeAffinity": {"required": {}}}}, ("/affinity/nodeAffinity", "required")),
    (needing({"key": "a"}), ("/nodeSelectorTerms/0/matchExpressions/0", "operator")),
    (needing({"key": "a b", "operator": "Exists"}), ("/matchExpressions/0/key", "such as zone")),
    (needing({"key": "a", "operator": "Has"}), ("/matchExpressions/0/operator", "NotIn")),
    (needing({"key": "a", "operator": "In"}), ("a has operator=In and no values", "add")),
    (needing({"key": "a", "operator": "Exists", "values": ["b"]}), ("operator=Exists", "leave")),
    (needing({"key": "a", "operator": "Gt", "values": ["b"]}), ("operator=Gt", '["8"]')),
    (
        {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}}},
        ("/affinity/podAntiAffinity/", "topologyKey"),
    ),
    (
        {"affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 101, "podAffinityTerm": {"topologyKey": "zone"}}]}}},
        ("/weight", "101", "100"),
    ),
    ({"rollout": {"maxUnavailable": "150%"}}, ("/rollout/maxUnavailable", "from 0% to 100%")),
    ({"podDisruptionBudget": {"maxUnavailable": "101%"}}, ("/podDisruptionBudget", "1% to 100%")),
    (GPU | {"gpu": {"resource": "gpu"}}, ("/gpu/resource", "such as nvidia.com/gpu")),
    (
        GPU | {"gpu": {"resourceClaims": [{"name": "a"}]}},
        ("/gpu/resourceClaims/0", "resourceClaimTemplateName"),
    ),
    (
        GPU | {"gpu": {"resourceClaims": [{"name": "a", "resourceClaimName": "b"}] * 2}},
        ("gpu.resourceClaims has a twice",),
    ),
    ({"models": [CLAIM | {"claim": {"name": "b", "subPath": "../x"}}]}, ("subPath ../x", "..")),
    ({"models": [CLAIM | {"claim": {"name": "b", "subPath": "/x"}}]}, ("subPath /x", "in it")),
    ({"resources": {"requests": {"memory": "4Gi"}}}, ("requests.memory=4Gi is over", "=3Gi")),
    (GPU | {"resources": {"requests": {"memory": "20G"}}}, ("memory=20G is over", "=16Gi")),
    (
        {"resources": {"requests": {"cpu": "1500m"}, "limits": {"cpu": 1}}},
        ("resources requests.cpu=1500m is over limits.cpu=1",),
    ),
    ({"resources": {"limits": {"gpu": 1}}}, ("/resources/limits/gpu", "such as nvidia.com/gpu")),
    ({"resources": {"requests": {"a.b/c": 1}}}, ("requests.a.b/c", "set limits.a.b/c=1")),
    ({"init": {"resources": {"limits": {"memory": "1Mi"}}}}, ("init.resources requests.memory",)),
    ({"tests": {"resources": {"limits": {"memory": 9}}}}, ("tests.resources requests.memory",)),
    ({"dataset": {"resources": {"limits": {"cpu": 0.1}}}}, ("dataset.resources requests.cpu",)),
    (
        {"models": [DOWNLOAD | {"download": DOWNLOAD["download"] | {"resources": {
            "requests": {"cpu": 2}, "limits": {"cpu": 1}}}}]},
        ("models: C_d.e has download.resources", "requests.cpu=2"),
    ),
    ({"extraVolumes": [{"name": "tmp", "emptyDir": {}}]}, ("extraVolumes has tmp",)),
    ({"extraVolumes": [{"name": "a_b", "emptyDir": {}}]}, ("/extraVolumes/0/name",)),
    ({"extraVolumes": [{"name": "a", "emptyDir": {}}] * 2}, ("extraVolumes has a",)),
    ({"extraVolumeMounts": [{"name": "a", "mountPath": "/a"}]}, ("a, which is no volume",)),
    ({"extraVolumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]}, ("/tmp, where another",)),
    ({"extraVolumeMounts": [{"name": "tmp", "mountPath": "/x", "subPath": ".."}]}, ("subPath",)),
    ({"extraEnv": [{"name": "A", "value": 1}]}, ("/extraEnv/0/value",)),
    ({"extraEnv": [{"name": "1 A"}]}, ("/extraEnv/0/name",)),
    ({"extraEnv": [{"name": "A"}] * 2}, ("extraEnv has A",)),
    ({"extraEnv": [{"name": "LABELMINT_SERVER_THREADS", "value": "1"}]}, ("LABELMINT_SERVER_TH",)),
    ({"sidecars": [{"name": "server", "image": "a/b:1"}]}, ("sidecars has server",)),
    (
        {"sidecars": [{"name": "a", "image": "a/b:1", "volumeMounts": [
            {"name": "b", "mountPath": "/b"}]}]},
        ("sidecars: volumeMounts of a", "b, which is no volume"),
    ),
    (
        {"sidecars": [{"name": "a", "image": "a/b:1", "resources": {
            "requests": {"cpu": 2}, "limits": {"cpu": 1}}}]},
        ("sidecars: a has resources, where requests.cpu=2", "limits.cpu=1"),
    ),
    (
        {"extraInitContainers": [{"name": "a", "image": "a/b:1", "env": [
            {"name": "B", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "a"}}}]}]},
        ("extraInitContainers: env of a has B", "leave one of them out"),
    ),
    ({"extraEnv": [{"name": "B", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "a"}}}]},
     ("extraEnv has B with value",)),
    ({"extraEnv": [{"name": "B", "valueFrom": {}}]}, ("/extraEnv/0/valueFrom",)),
    ({"extraEnv": [{"name": "B", "valueFrom": {"secretKeyRef": {"name": "a"}}}]}, ("key",)),
    ({"extraVolumes": [{"name": "a", "emptydir": {}}]}, ("/extraVolumes/0", "emptydir")),
    ({"extraVolumes": [{"name": "a"}]}, ("/extraVolumes/0",)),
    ({"sidecars": [{"name": "a", "image": "a/b:1", "cmd": ["a"]}]}, ("/sidecars/0", "cmd")),
    ({"networkPolicy": {"egress": [{"ports": [{"prot": 1}]}]}}, ("/egress/0/ports/0", "prot")),
    ({"networkPolicy": {"egress": [{"ports": [{"endPort": 3}]}]}}, ("egress[0] has endPort=3",)),
    ({"networkPolicy": {"egress": [{"ports": [{"port": "dns", "endPort": 3}]}]}}, ("port=dns",)),
    (
        {"networkPolicy": {"egress": [{"ports": [{"port": 4, "endPort": 3}]}]}},
        ("endPort=3 and port=4", "up to endPort"),
    ),
    ({"networkPolicy": {"clients": [{}]}}, ("networkPolicy.clients[0] is empty", "podSelector={}")),
    ({"networkPolicy": {"egress": [{"to": [{}]}]}}, ("networkPolicy.egress[0].to[0] is empty",)),
    (
        {"networkPolicy": {"monitoring": [{"podSelector": {}, "ipBlock": {"cidr": "::/0"}}]}},
        ("networkPolicy.monitoring[0] has ipBlock beside a selector", "two peers"),
    ),
    (
        {"networkPolicy": {"clients": [{"ipBlock": {"cidr": "256.0.0.0/8"}}]}},
        ("/networkPolicy/clients/0/ipBlock/cidr", "such as 10.0.0.0/8"),
    ),
    ({"replicas": 2**31}, ("/replicas", "maximum")),
    ({"autoscaling": {"maxReplicas": 2**31}}, ("/autoscaling/maxReplicas", "maximum")),
    ({"sidecars": [{"name": "a", "image": "a/b:1", "command": "x"}]}, ("/command", "want array")),
    (
        {"sidecars": [{"name": "a", "image": "a/b:1", "restartPolicy": "Always"}]},
        ("sidecars: a has restartPolicy=Always", "extraInitContainers"),
    ),
    (
        {"extraInitContainers": [{"name": "a", "image": "a/b:1", "restartPolicy": "Never"}]},
        ("extraInitContainers: a has restartPolicy=Never", "Always"),
    ),
    (
        {"extraInitContainers": [{"name": "a", "image": "a/b:1", "startupProbe": {}}]},
        ("extraInitContainers: a has startupProbe", "restartPolicy=Always"),
    ),
    (
        {"networkPolicy": {"clients": [{"podSelector": {"matchExpressions": [
            {"key": "a", "operator": "NotIn"}]}}]}},
        ("networkPolicy.clients[0].podSelector", "a has operator=NotIn and no values"),
    ),
    ({"sidecars": [{"name": "a", "image": "a/b:1", "ports": [{"containerPort": 99999}]}]},
     ("/sidecars/0/ports/0/containerPort",)),
    ({"extraVolumes": [{"name": "a", "emptyDir": {}, "hostPath": {"path": "/a"}}]},
     ("/extraVolumes/0",)),
    ({"resources": {"requests": {"hugepages-2Mi": "4Mi"}}}, ("set limits.hugepages-2Mi=4Mi",)),
    ({"engine": {"build": {"image": "export:1"}}}, ("engine.build.image: export:1 is in no",)),
    ({"networkPolicy": {"clients": [{"podSelector": {"matchLabels": {"a b": "c"}}}]}},
     ("/networkPolicy/clients/0/podSelector/matchLabels",)),
    ({"networkPolicy": {"monitoring": [{"ipBlock": {"cidr": "10.0.0.0"}}]}},
     ("/networkPolicy/monitoring/0/ipBlock/cidr",)),
    ({"extraObjects": [{"kind": "ConfigMap"}]}, ("/extraObjects/0", "apiVersion")),
    (
        {"extraObjects": [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}] * 2},
        ("extraObjects has ConfigMap a twice",),
    ),
    (
        {"extraObjects": [{"apiVersion": "v1", "kind": "Service", "metadata": {
            "name": "{{ .Release.Name }}-labelmint"}}]},
        ("extraObjects has Service demo-labelmint, which the chart makes",),
    ),
    (
        {"extraObjects": [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
            for name in ("demo", "{{ .Release.Name }}")]},
        ("extraObjects has ConfigMap demo twice",),
    ),
    ({"topologySpread": [{"topologyKey": "zone"}] * 2}, ("zone, ScheduleAnyway twice",)),
    (
        {"topologySpread": [{"topologyKey": "a", "matchLabelKeys": ["app.kubernetes.io/name"]}]},
        ("matchLabelKeys has app.kubernetes.io/name",),
    ),
    ({"gateway": {"hostnames": ["labels_example.com"]}}, ("/gateway/hostnames/0",)),
    ({"gateway": {"hostnames": ["Labels.example.com"]}}, ("/gateway/hostnames/0",)),
    ({"gateway": {"backendTls": {"hostname": "*.a.com"}}}, ("/gateway/backendTls/hostname",)),
    ({"tls": {"certManager": {"dnsNames": ["a..b"]}}}, ("/tls/certManager/dnsNames/0",)),
    (
        {"tls": {"mode": "certManager", "certManager": {
            "issuer": {"name": "ca"}, "duration": "2h", "renewBefore": "2h"}}},
        ("duration=2h and renewBefore=2h", "less"),
    ),
    ({"networkPolicy": {"clients": [{"pods": {}}]}}, ("/networkPolicy/clients/0", "pods")),
    ({"service": {"annotations": {"a b": "c"}}}, ("/service/annotations/a b", "another key")),
    (downloaded(env=[TWO]), ("models: download.env of C_d.e has A with value and valueFrom",)),
    (downloaded(env=[{"name": "MODEL_DIR"}]), ("has MODEL_DIR, which the chart sets; leave it",)),
    (downloaded(envFrom=[{"prefix": "A_"}]), ("download.envFrom of C_d.e[0] needs one",)),
    (
        beside(envFrom=[{"secretRef": {"name": "a"}, "configMapRef": {"name": "b"}}]),
        ("sidecars: envFrom of a[0] needs one of secretRef and configMapRef", "two entries"),
    ),
    (beside(envFrom="a"), ("/sidecars/0/envFrom", "want array")),
    (beside(ports=[{"containerPort": 80, "protocol": "tcp"}]), ("/ports/0/protocol", "'TCP'")),
    (beside(ports=[{"containerPort": 80, "name": "80"}]), ("/ports/0/name", "such as http")),
    (beside(terminationMessagePolicy="Log"), ("/terminationMessagePolicy", "'File'")),
    (beside(livenessProbe={}), ("sidecars: a has livenessProbe with 0 of exec, httpGet", "grpc")),
    (
        beside(readinessProbe={"grpc": {"port": 1}, "exec": {"command": ["a"]}}),
        ("sidecars: a has readinessProbe with 2 of", "give it one"),
    ),
    (beside(livenessProbe={"httpGet": {"path": "/"}}), ("/livenessProbe/httpGet", "'port'")),
    (beside(livenessProbe={"tcpSocket": {"port": 1}, "period": 3}), ("/livenessProbe", "'period'")),
    (beside(startupProbe={"exec": {}}), ("/startupProbe/exec", "'command'")),
    (beside(lifecycle={"prestop": {}}), ("/lifecycle", "'prestop'")),
    (beside(lifecycle={"preStop": "x"}), ("/lifecycle/preStop", "want object")),
    (beside(lifecycle={"preStop": {}}), ("a has lifecycle.preStop with 0 of exec,", "sleep")),
    ({"extraVolumes": [{"name": "a", "hostPath": {}}]}, ("/extraVolumes/0/hostPath", "'path'")),
    (
        {"extraVolumes": [{"name": "a", "persistentVolumeClaim": {"claim": "b"}}]},
        ("/extraVolumes/0/persistentVolumeClaim", "'claimName'"),
    ),
    ({"extraVolumes": [{"name": "a", "secret": {"name": "b"}}]}, ("/secret", "'secretName'")),
    (mounted(recursiveReadOnly="yes"), ("/recursiveReadOnly", "'IfPossible'")),
    (mounted(mountPropagation="both"), ("/mountPropagation", "'HostToContainer'")),
    (mounted(subPath="a", subPathExpr="$(B)"), ("has a with subPath and subPathExpr; leave one",)),
    (
        near(matchLabelKeys=["a"]),
        ("DuringExecution[0] has matchLabelKeys without labelSelector", "labelSelector={}"),
    ),
    (
        near(labelSelector={}, matchLabelKeys=["a", "b"], mismatchLabelKeys=["b"]),
        ("DuringExecution[0] has b in matchLabelKeys and in mismatchLabelKeys",),
    ),
    (allowed("10.0.0.0/8", "10.1.0.0/16", "192.168.0.0/16"), ("except[1]=192.168.0.0/16 is not",)),
    (allowed("10.0.0.0/8", "10.0.0.0/8"), ("clients[0].ipBlock.except[0]=10.0.0.0/8", "within")),
    (allowed("10.0.0.0/8", "fd00::/16"), ("is not a part of cidr=10.0.0.0/8",)),
    (allowed("2001:db8::/33", "2001:db8:8000::/48"), ("is not a part of cidr=2001:db8::/33",)),
    (allowed("1:2:3/8"), ("clients[0].ipBlock.cidr=1:2:3/8 is no address", "all 8 groups")),
    (allowed("::/0", "fd00::1::/64"), ("except[0]=fd00::1::/64 is no address", ":: once")),
    (
        beside(ports=[{"containerPort": port, "name": "http"} for port in (80, 81)]),
        ("sidecars: a has two ports named http", "name of its own"),
    ),
    (beside(resources={"claims": [{"name": "b"}]}), ("a claims b", "gpu.resourceClaims")),
    ({"topologySpread": [{"topologyKey": "a", "minDomains": 2}]}, ("a has minDomains=2", "Do")),
    (
        {"networkPolicy": {"egress": [{"ports": [{"port": "HTTPS"}]}]}},
        ("/networkPolicy/egress/0/ports/0/port", "such as http"),
    ),
    ({"extraObjects": [extra("ConfigMap", None)]}, ("/extraObjects/0/metadata", "want object")),
    ({"extraObjects": [extra("ConfigMap", {})]}, ("/extraObjects/0/metadata", "'name'")),
    ({"extraObjects": [extra("ConfigMap", {"name": 5})]}, ("/metadata/name", "want string")),
    ({"extraObjects": [extra("ConfigMap", {"name": "A_b"})]}, ('[0] has the name "A_b"', "253")),
    ({"extraObjects": [extra("ConfigMap", {"name": "{{ .Release.Name }}_b"})]}, ('"demo_b"',)),
    ({"extraObjects": [extra("ConfigMap", OWN | {"namespace": "a.b"})]}, ('namespace "a.b"', "63")),
    ({"extraObjects": [extra("Role", {"name": "a/b"}, RBAC)]}, ('name "a/b"', "system:reader")),
    ({"extraObjects": [extra("config map", OWN)]}, ("/extraObjects/0/kind", "such as Gateway")),
    ({"extraObjects": [extra("ConfigMap", OWN, "/v1")]}, ("/0/apiVersion", "version such as v1")),
    ({"extraObjects": [extra("ConfigMap", {"name": "{{ .Release.Name"})]}, ("[0]", "close it")),
    (
        {"extraObjects": [extra("ConfigMap", {"name": "a", "labels": {"a": '{{ "b\\n- c" }}\n'}})]},
        ("extraObjects[0] is no object once its templates are filled in", "quote"),
    ),
    ({"extraObjects": [extra(5, OWN)]}, ("/extraObjects/0/kind", "want string")),
    (GPU | {"gpu": {"tolerations": None}}, ("/gpu", "missing property 'tolerations'")),
    (
        {"autoscaling": KEDA | {"keda": {"serverAddress": "http://a", "fallback": None}}},
        ("/autoscaling/keda", "missing property 'fallback'"),
    ),
    ({"user": 0}, ("/user",)),
    ({"priorityClassName": "High"}, ("/priorityClassName",)),
]  # fmt: skip


@pytest.mark.parametrize(("values", "named"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_a_bad_value_is_named_with_its_fix(values: Object, named: tuple[str, ...]) -> None:
    with pytest.raises(helm_python.HelmError) as refused:
        render(values)
    said = str(refused.value)
    assert [word for word in named if word not in said] == []
    assert len(said.partition("labelmint:\n")[2].strip().splitlines()) <= 1, said
    assert not re.search(r"does not match|failed|\^\(|\[a-z", said), said


@pytest.mark.parametrize("release", ["a.b", "1a"])
def test_a_release_whose_name_no_service_can_have_is_told_another(release: str) -> None:
    with pytest.raises(helm_python.HelmError, match="set fullnameOverride") as refused:
        render(release=release)
    assert f"release {release} gives the name {release}-labelmint" in str(refused.value)
    render({"fullnameOverride": "labels"}, release=release)


def test_the_default_values_say_what_to_set_and_that_is_all_there_is_to_set() -> None:
    """An image and a model, because no one has published either."""
    values: Object = {}
    with helm_python.Chart.load(str(CHART)) as chart:
        for key, words in (("models", "models is empty"), ("image", "set image.registry")):
            with pytest.raises(helm_python.HelmRenderError, match=words):
                chart.render(values, name="demo", namespace=NAMESPACE)
            values[key] = LEAST[key]
        assert chart.render(values, name="demo", namespace=NAMESPACE)


@pytest.mark.long
def test_no_extra_object_takes_the_place_of_one_that_the_chart_makes() -> None:
    """Jobs of data sets have a hash in their names."""
    made: dict[tuple[str, str, str], Object] = {}
    for values in CASES.values():
        if "extraObjects" not in values:
            for each in render(values):
                place = (each["kind"], each["metadata"]["name"], each["apiVersion"])
                made.setdefault(place, values)
    kinds = dict[str, tuple[str, str, Object]]()
    for (kind, name, version), values in made.items():
        kinds.setdefault(kind, (name, version, values))
    assert len(kinds) == 16 and kinds.pop("Job")
    for kind, (name, version, values) in kinds.items():
        twice = extra(kind, {"name": name}, version)
        with pytest.raises(
            helm_python.HelmError, match=f"extraObjects has {kind} {name}, which the"
        ):
            render(values | {"extraObjects": [twice]})
