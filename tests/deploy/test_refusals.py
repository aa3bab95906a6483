"""Values that cannot work make rendering fail, with the key and the fix in the message."""

import helm_python
import pytest

from tests.deploy.cases import CLAIM, GPU, IMAGE, KEDA
from tests.deploy.chart import Object, render

TLS: Object = {"mode": "secret", "secret": "cert"}
BAD: list[tuple[Object, tuple[str, ...]]] = [
    ({"replicaCount": 3}, ("replicaCount",)),
    ({"drain": {"grace": 3}}, ("/drain", "grace")),
    ({"load": {"timeoutSeconds": 0}}, ("/load/timeoutSeconds", "0")),
    ({"load": {"timeout": 3}}, ("/load", "timeout")),
    ({"mode": "tpu"}, ("/mode", "cpu", "gpu")),
    ({"replicas": "3"}, ("/replicas", "integer")),
    ({"limits": {"maxStream": 3}}, ("/limits", "maxStream")),
    ({"models": []}, ("/models",)),
    ({"models": [{"name": "a", "source": "claim"}]}, ("/models/0", "claim")),
    ({"models": [{**CLAIM, "name": "../a"}]}, ("/models/0/name", "../a")),
    ({"models": [CLAIM, CLAIM]}, ("models", '"a"', "name of its own")),
    ({"models": [{**IMAGE, "bundleId": "12"}]}, ("/models/0/bundleId",)),
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
    ({"nameOverride": "Labels"}, ("/nameOverride", "Labels")),
    ({"fullnameOverride": "my_labels"}, ("/fullnameOverride", "my_labels")),
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
]


@pytest.mark.parametrize(("values", "named"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_a_bad_value_is_named_with_its_fix(values: Object, named: tuple[str, ...]) -> None:
    with pytest.raises(helm_python.HelmError) as refused:
        render(values)
    assert [word for word in named if word not in str(refused.value)] == []
