"""Strict schemas of the custom resources that the chart creates: unknown keys are errors.

The published definitions of these kinds accept unknown keys, so these schemas have the keys that
the documentation of each kind names, as far as the chart uses them.
"""

from typing import Any

Schema = dict[str, Any]
TEXT: Schema = {"type": "string", "minLength": 1}
WHOLE: Schema = {"type": "integer", "minimum": 0}
SECONDS: Schema = {"type": "string", "pattern": r"^\d+[smh]$"}
TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}


def closed(required: tuple[str, ...], **properties: Schema) -> Schema:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": properties,
    }


def several(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


def resource(group_version: str, kind: str, spec: Schema) -> Schema:
    metadata = closed(("name", "labels"), name=TEXT, labels=TEXTS, annotations=TEXTS)
    return closed(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": group_version},
        kind={"const": kind},
        metadata=metadata,
        spec=spec,
    )


def monitor(kind: str, endpoints: str) -> Schema:
    endpoint = closed(("port",), port=TEXT, path=TEXT, interval=SECONDS, scrapeTimeout=SECONDS)
    spec: dict[str, Schema] = {
        "selector": closed(("matchLabels",), matchLabels=TEXTS),
        "namespaceSelector": closed(("matchNames",), matchNames=several(TEXT)),
        endpoints: several(endpoint),
    }
    return resource("monitoring.coreos.com/v1", kind, closed(("selector", endpoints), **spec))


RULE = closed(
    ("alert", "expr"),
    alert={"type": "string", "pattern": "^[A-Z][A-Za-z]+$"},
    expr=TEXT,
    labels=TEXTS,
    annotations=TEXTS,
    **{"for": SECONDS},
)
GROUP = closed(("name", "rules"), name=TEXT, rules=several(RULE))
POLICY = closed(
    ("type", "value", "periodSeconds"),
    type={"enum": ["Pods", "Percent"]},
    value={"type": "integer", "minimum": 1},
    periodSeconds={"type": "integer", "minimum": 1, "maximum": 1800},
)
SCALING = closed(
    (),
    stabilizationWindowSeconds={"type": "integer", "minimum": 0, "maximum": 3600},
    policies=several(POLICY),
)
TARGET = closed(("name",), apiVersion=TEXT, kind=TEXT, name=TEXT)
TRIGGER = closed(
    ("type", "metadata"),
    type={"const": "prometheus"},
    metricType={"enum": ["AverageValue", "Value"]},
    metadata=closed(  # KEDA reads every one of these as text
        ("serverAddress", "query", "threshold"),
        serverAddress={"type": "string", "pattern": "^https?://"},
        query=TEXT,
        threshold={"type": "string", "pattern": r"^\d+$"},
        ignoreNullValues={"enum": ["true", "false"]},
    ),
    authenticationRef=closed(("name",), name=TEXT),
)
HOST: Schema = {"type": "string", "pattern": r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"}
AUTHORITY = closed(
    ("group", "kind", "name"),
    group={"const": ""},
    kind={"enum": ["ConfigMap", "Secret"]},  # the second where an implementation offers it
    name=TEXT,
)
SCHEMAS: dict[str, Schema] = {
    "PodMonitor": monitor("PodMonitor", "podMetricsEndpoints"),
    "ServiceMonitor": monitor("ServiceMonitor", "endpoints"),
    "PrometheusRule": resource(
        "monitoring.coreos.com/v1",
        "PrometheusRule",
        closed(
            ("groups",), groups=several(closed(("name", "rules"), name=TEXT, rules=several(RULE)))
        ),
    ),
    "ScaledObject": resource(
        "keda.sh/v1alpha1",
        "ScaledObject",
        closed(
            ("scaleTargetRef", "triggers"),
            scaleTargetRef=TARGET,
            minReplicaCount=WHOLE,
            maxReplicaCount=WHOLE,
            pollingInterval=WHOLE,
            fallback=closed(
                ("failureThreshold", "replicas"), failureThreshold=WHOLE, replicas=WHOLE
            ),
            advanced=closed(
                (),
                horizontalPodAutoscalerConfig=closed(
                    (), behavior=closed((), scaleUp=SCALING, scaleDown=SCALING)
                ),
            ),
            triggers=several(TRIGGER),
        ),
    ),
    "Certificate": resource(
        "cert-manager.io/v1",
        "Certificate",
        closed(
            ("secretName", "issuerRef", "dnsNames"),
            secretName=TEXT,
            duration=SECONDS,
            renewBefore=SECONDS,
            privateKey=closed((), rotationPolicy={"enum": ["Always", "Never"]}),
            usages=several({"enum": ["digital signature", "key encipherment", "server auth"]}),
            dnsNames=several({"type": "string", "pattern": r"^[a-z0-9*]([a-z0-9.-]*[a-z0-9])?$"}),
            issuerRef=closed(
                ("name",), name=TEXT, kind={"enum": ["Issuer", "ClusterIssuer"]}, group=TEXT
            ),
        ),
    ),
    "BackendTLSPolicy": resource(
        "gateway.networking.k8s.io/v1",
        "BackendTLSPolicy",
        closed(
            ("targetRefs", "validation"),
            targetRefs=several(
                closed(
                    ("group", "kind", "name"),
                    group={"const": ""},
                    kind={"const": "Service"},
                    name=TEXT,
                    sectionName=TEXT,
                )
            ),
            validation={
                "oneOf": [
                    closed(
                        ("hostname", "caCertificateRefs"),
                        hostname=HOST,
                        caCertificateRefs=several(AUTHORITY),
                    ),
                    closed(
                        ("hostname", "wellKnownCACertificates"),
                        hostname=HOST,
                        wellKnownCACertificates={"const": "System"},
                    ),
                ]
            },
        ),
    ),
    "GRPCRoute": resource(
        "gateway.networking.k8s.io/v1",
        "GRPCRoute",
        closed(
            ("parentRefs", "rules"),
            parentRefs=several(
                closed(
                    ("name",),
                    name=TEXT,
                    namespace=TEXT,
                    group=TEXT,
                    kind=TEXT,
                    sectionName=TEXT,
                    port=WHOLE,
                )
            ),
            hostnames=several(TEXT),
            rules=several(
                closed(
                    ("backendRefs",),
                    backendRefs=several(closed(("name", "port"), name=TEXT, port=WHOLE)),
                )
            ),
        ),
    ),
}
