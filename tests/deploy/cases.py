"""Values for the chart; together they use every enum value and every switch."""

from tests.deploy.chart import Object

DIGEST = "sha256:" + "0123456789abcdef" * 4
GPU: Object = {
    "mode": "gpu",
    "engine": {"build": {"at": "start"}},
    "probes": {"startup": {"failureThreshold": 720}},
}
KEDA: Object = {"mode": "keda", "keda": {"serverAddress": "http://prometheus.monitoring:9090"}}
MUTUAL: Object = {
    "tls": {"mode": "secret", "secret": "cert", "mutual": {"enabled": True}},
    "client": {"tlsSecret": "client-cert"},
}
PEER: Object = {"namespaceSelector": {"matchLabels": {"team": "vision"}}}
CLAIM: Object = {"name": "a", "source": "claim", "claim": {"name": "bundles", "subPath": "a"}}
IMAGE: Object = {
    "name": "b",
    "source": "image",
    "bundleId": DIGEST,
    "image": {"reference": "registry/b:1", "pullPolicy": "Always"},
}
DOWNLOAD: Object = {
    "name": "C_d.e",
    "source": "download",
    "bundleId": DIGEST,
    "download": {
        "image": "rclone/rclone:1",
        "command": ["rclone", "copy", "s3:b", "$(MODEL_DIR)"],
        "env": [{"name": "A", "value": "b"}],
        "envFrom": [{"secretRef": {"name": "s3"}}],
        "sizeLimit": "2Gi",
    },
}
LIMITS: Object = {
    "maxStreams": 64,
    "maxClientStreams": 8,
    "maxClientRequestsPerS": 2.5,
    "maxInflightBytes": 4 << 30,
    "maxMessageBytes": 16 << 20,
}
SMALL: Object = {
    "requests": {"cpu": "50m", "memory": "64Mi"},
    "limits": {"cpu": 1, "memory": "1Gi"},
}
TERM: Object = {
    "topologyKey": "kubernetes.io/hostname",
    "labelSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
    "namespaceSelector": {},
    "matchLabelKeys": ["pod-template-hash"],
}
AFFINITY: Object = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [
                {"matchExpressions": [{"key": "gpus", "operator": "Gt", "values": ["4"]}]},
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n-1"]}]},
            ]
        },
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {
                "weight": 100,
                "preference": {"matchExpressions": [{"key": "ssd", "operator": "Exists"}]},
            }
        ],
    },
    "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [TERM]},
    "podAntiAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": TERM}]
    },
}
PLACEMENT: Object = {
    "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H200"},
    "tolerations": [{"key": "team", "operator": "Equal", "value": "vision", "effect": "NoExecute"}],
    "affinity": AFFINITY,
    "priorityClassName": "high",
    "schedulerName": "volcano",
}
JOB: Object = {"enabled": True, "claim": "data"}
CASES: dict[str, Object] = {
    "default": {},
    "many replicas": {"replicas": 3, "rollout": {"maxSurge": 0, "maxUnavailable": "50%"}},
    "names": {"nameOverride": "labels", "fullnameOverride": "x" * 60, "commonLabels": {"a": "b"}},
    "image by digest": {
        "image": {"digest": DIGEST, "pullPolicy": "Never", "pullSecrets": ["registry"]}
    },
    "image by tag": {"image": {"repository": "r/l", "tag": "9", "pullPolicy": "Always"}},
    "image of the nodes": {"image": {"registry": "", "pullPolicy": "Never"}},
    "registry of a parent chart": {"global": {"imageRegistry": "localhost:5000/mirror"}},
    "claims and downloads": {"models": [CLAIM, DOWNLOAD]},
    "image volume": {
        "models": [
            IMAGE,
            CLAIM,
            {
                "name": "c",
                "source": "image",
                "image": {"reference": "r/c:1", "pullPolicy": "Never"},
            },
            {
                "name": "d",
                "source": "image",
                "image": {"reference": "r/d:1", "pullPolicy": "IfNotPresent"},
            },
        ]
    },
    "gpu": GPU,
    "gpu by claims of devices": GPU | {
        "gpu": {"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]},
        "extraObjects": [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "{{ .Release.Name }}-note"},
                "data": {"a": "b"},
            }
        ],
    },
    "gpu with all pods in one place": GPU | PLACEMENT | {
        "gpu": {"runtimeClassName": "nvidia"}, "dataset": JOB, "podLabels": {"team": "vision"}
    },
    "gpu with everything": {
        "mode": "gpu",
        "models": [CLAIM, DOWNLOAD],
        "gpu": {"resource": "nvidia.com/mig-1g.18gb", "count": 2, "runtimeClassName": "nvidia"},
        "engine": {
            "runtime": "tensorrt",
            "fallbacks": ["onnxruntime-cuda", "onnxruntime"],
            "batchSizes": [1, 8],
            "cache": {"claim": "engines"},
            "build": {"at": "init", "image": "r/export:1", "args": ["--precision", "fp16"]},
        },
        "tolerations": [{"operator": "Exists"}],
    },
    "gpu that builds before it serves": {"mode": "gpu", "engine": {"build": {"at": "init"}}},
    "gpu with an engine that is there": {
        "mode": "gpu",
        "engine": {"cache": {"claim": "engines"}, "build": {"at": "never"}},
    },
    "gpu by ONNX Runtime": {"mode": "gpu", "engine": {"runtime": "onnxruntime-cuda"}},
    "gpu by both": {"mode": "gpu", "engine": {"runtime": "onnxruntime-tensorrt"}},
    "gpu by kernels": {
        "mode": "gpu",
        "engine": {"runtime": "tensorrt-fused", "fallbacks": ["tensorrt"], "build": {"at": "init"}},
    },
    "gpu by portable plans": {
        "mode": "gpu",
        "engine": {"runtime": "tensorrt-rtx", "fallbacks": ["onnxruntime"]},
    },
    "plain engine": {"engine": {"runtime": "onnxruntime", "batchDelaySeconds": 0.002}},
    "fake": {"engine": {"runtime": "fake", "threads": 2}},
    "limits": {"limits": LIMITS},
    "text logs": {"logging": {"format": "text", "level": "warning"}},
    "debug logs and traces": {
        "logging": {"level": "debug"}, "tracing": {"endpoint": "http://collector:4317"}
    },
    "error logs": {"logging": {"level": "error"}},
    "tokens": {
        "auth": {"tokens": {"secret": "t"}, "adminTokens": {"secret": "a", "key": "x"}},
        "client": {"tokenSecret": {"name": "mine"}},
    },
    "TLS": {"tls": {"mode": "secret", "secret": "cert"}},
    "mutual TLS": {**MUTUAL, "dataset": {"enabled": True, "claim": "data"}},
    "mutual TLS by another authority": {
        "tls": {
            "mode": "certManager",
            "mutual": {"enabled": True, "secret": "clients", "key": "bundle.pem"},
            "certManager": {"issuer": {"name": "ca", "kind": "ClusterIssuer"}},
        },
        "tests": {"enabled": False},
    },
    "cert-manager": {
        "tls": {
            "mode": "certManager",
            "certManager": {"issuer": {"name": "ca"}, "dnsNames": ["labels.example.com"]},
        }
    },
    "no sleep": {"drain": {"preStopSeconds": 0}, "terminationGracePeriodSeconds": 11},
    "slow loads": {"load": {"timeoutSeconds": 7200.5}},
    "slow drain": {
        "drain": {"preStopSeconds": 20, "delaySeconds": 2.5, "graceSeconds": 60},
        "terminationGracePeriodSeconds": 83,
    },
    "hpa": {"autoscaling": {"mode": "hpa", "minReplicas": 2}},
    "keda": {"autoscaling": KEDA},
    "keda by a secret": {
        "autoscaling": {**KEDA, "keda": {**KEDA["keda"], "authentication": "prometheus"}},
        "podDisruptionBudget": {"maxUnavailable": "25%"},
    },
    "no budget": {"replicas": 2, "podDisruptionBudget": {"enabled": False}},
    "IPv6": {"service": {"listen": "[::]"}},
    "node port": {"service": {"type": "NodePort", "port": 443, "metricsPort": 8080}},
    "load balancer": {"service": {"type": "LoadBalancer", "annotations": {"a": "b"}}},
    "gateway": {
        "gateway": {
            "enabled": True,
            "parentRefs": [{"name": "public", "namespace": "gateways", "sectionName": "grpc"}],
            "hostnames": ["labels.example.com"],
        }
    },
    "gateway that encrypts": {
        "gateway": {
            "enabled": True,
            "parentRefs": [{"name": "public"}],
            "backendTls": {"enabled": True, "authority": {"kind": "ConfigMap", "name": "ca"}},
        },
        "tls": {"mode": "certManager", "certManager": {"issuer": {"name": "ca"}}},
    },
    "gateway that trusts a secret": {
        "gateway": {
            "enabled": True,
            "parentRefs": [{"name": "public"}],
            "backendTls": {
                "enabled": True,
                "hostname": "labels.example.com",
                "authority": {"kind": "Secret", "name": "ca"},
            },
        },
        "tls": {"mode": "secret", "secret": "cert"},
    },
    "gateway that trusts its system": {
        "gateway": {
            "enabled": True,
            "parentRefs": [{"name": "public"}],
            "backendTls": {"enabled": True, "hostname": "labels.example.com"},
        },
        "tls": {"mode": "secret", "secret": "cert"},
    },
    "streams that stay": {"streams": {"maxAgeSeconds": 0}},
    "streams of half a minute": {"streams": {"maxAgeSeconds": 37.5}},
    "network policy": {"networkPolicy": {"enabled": True}},
    "network policy with peers": {
        "networkPolicy": {
            "enabled": True,
            "clients": [PEER],
            "monitoring": [PEER],
            "egress": [{"to": [PEER], "ports": [{"port": 4317, "endPort": 4318}]}],
        }
    },
    "pod monitor": {"metrics": {"monitor": {"kind": "pod", "labels": {"release": "p"}}}},
    "service monitor": {"metrics": {"monitor": {"kind": "service", "intervalSeconds": 5}}},
    "alerts": {
        "metrics": {
            "alerts": {
                "enabled": True, "labels": {"a": "b"}, "runbookUrl": "https://wiki/operations.md"
            }
        }
    },
    "dashboard": {"metrics": {"dashboard": {"enabled": True}}},
    "dataset": {
        "models": [CLAIM, DOWNLOAD],
        "dataset": {
            "enabled": True,
            "claim": "data",
            "format": "coco",
            "model": "a",
            "endIndex": 5_000_000_000,
            "args": ["--keep-fraction", "0.9"],
        },
    },
    "dataset as pictures": {"dataset": {"enabled": True, "claim": "data", "format": "png"}},
    "dataset as shards": {"dataset": {"enabled": True, "claim": "d", "format": "webdataset"}},
    "account of others": {"serviceAccount": {"create": False, "name": "mine"}},
    "annotated account": {"serviceAccount": {"annotations": {"role": "reader"}}},
    "hard spread": {
        "topologySpread": [
            {
                "topologyKey": "zone",
                "whenUnsatisfiable": "DoNotSchedule",
                "maxSkew": 2,
                "minDomains": 3,
                "nodeAffinityPolicy": "Honor",
                "nodeTaintsPolicy": "Ignore",
            }
        ]
    },
    "soft spread": {
        "topologySpread": [
            {"topologyKey": "zone", "nodeAffinityPolicy": "Ignore", "nodeTaintsPolicy": "Honor"}
        ]
    },
    "the cluster's user": {"user": None, "dataset": JOB},
    "a quota of everything": {
        "models": [
            DOWNLOAD,
            DOWNLOAD | {"name": "b", "download": DOWNLOAD["download"] | {"resources": SMALL}},
        ],
        "init": {"resources": SMALL},
        "tests": {"resources": SMALL},
        "resources": SMALL,
        "dataset": JOB | {"model": "b", "resources": SMALL},
    },
    "sidecars": {
        "sidecars": [
            {
                "name": "proxy",
                "image": "registry/envoy:1",
                "resources": SMALL,
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            }
        ],
        "extraInitContainers": [
            {
                "name": "agent",
                "image": "registry/agent:1",
                "restartPolicy": "Always",
                "resources": SMALL,
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            }
        ],
    },
    "extras": PLACEMENT | {
        "podAnnotations": {"a": "b"},
        "extraEnv": [
            {"name": "OTEL_SERVICE_NAME", "value": "labelmint"},
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    },
}  # fmt: skip
