"""An API server as far as `lookup` of a chart goes: it answers with objects that it is given."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import helm_python

from tests.deploy.chart import CHART, NAMESPACE, RELEASE, Object, least, objects_in

KINDS = {"Deployment": ("apps", "deployments"), "Job": ("batch", "jobs")}


def upgraded(values: Object, live: list[Object]) -> list[Object]:
    """The objects of an upgrade to these values, while those of `live` are in the cluster.

    Raises helm_python.HelmError.
    """
    with served(live) as config, helm_python.Chart.load(str(CHART)) as chart:
        files = config.render(
            chart, least(values), name=RELEASE, namespace=NAMESPACE, is_upgrade=True
        )
    return objects_in(files)


@contextmanager
def served(live: list[Object]) -> Iterator[helm_python.Config]:
    """Helm's configuration for a cluster that has these objects."""
    answers = _answers(live)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            missing = {"kind": "Status", "apiVersion": "v1", "reason": "NotFound", "code": 404}
            found = answers.get(self.path.partition("?")[0])
            data = json.dumps(found or missing).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    cluster = {"server": f"http://127.0.0.1:{server.server_port}"}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": cluster}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
        "current-context": "c",
    }
    try:
        yield helm_python.Config(
            kubeconfig_content=json.dumps(content), storage_driver="memory", namespace=NAMESPACE
        )
    finally:
        server.shutdown()
        server.server_close()


def _answers(live: list[Object]) -> dict[str, Object]:
    """Answers by path: which kinds there are, each object, and the list of a kind."""
    answers: dict[str, Object] = {}
    for kind, (group, plural) in KINDS.items():
        version: Object = {"apiVersion": f"{group}/v1"}
        entry = {"name": plural, "namespaced": True, "kind": kind, "verbs": ["get", "list"]}
        answers[f"/apis/{group}/v1"] = {
            "kind": "APIResourceList", "groupVersion": f"{group}/v1", "resources": [entry],
        }  # fmt: skip
        place = f"/apis/{group}/v1/namespaces/{NAMESPACE}/{plural}"
        items = [version | found for found in live if found["kind"] == kind]
        answers[place] = version | {"kind": f"{kind}List", "metadata": {}, "items": items}
        answers |= {f"{place}/{found['metadata']['name']}": found for found in items}
    return answers
