"""A studio that runs as a user starts it, and requests as its page sends them."""

import http.client
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TAB = "simulated-tab"
WAIT_S = 3600  # for an answer; a select reads features on a busy machine
POLL_S = 1.0  # between two looks at the learner


@dataclass
class StudioSession:
    """A tab of a running studio."""

    port: int
    cookie: str
    size: tuple[int, int]  # height, width
    ignore_id: int

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Any:
        """The answer's body and headers. Raises RuntimeError for a refusal."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        sent = {"Cookie": self.cookie, "Origin": f"http://127.0.0.1:{self.port}"}
        sent |= {"X-Studio-Tab": TAB, **{k.replace("_", "-"): v for k, v in headers.items()}}
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {data.decode()[:200]}")
        return data, answer.headers

    def post(self, method: str, path: str, content: object) -> tuple[bytes, Any]:
        """Sends JSON."""
        data, headers = self.request(method, path, json.dumps(content).encode())
        return data, headers

    def project(self) -> Any:
        """What the page knows of the project."""
        return json.loads(self.request("GET", "/api/project")[0])

    def mask(self, stem: str, kind: str = "mask") -> NDArray[np.uint8]:
        """A mask, or with `kind` "proposal" what the ensemble proposes, [H, W]."""
        data, _ = self.request("GET", f"/api/images/{stem}/{kind}")
        return np.frombuffer(data, np.uint8).reshape(self.size).copy()

    def save(self, stem: str, mask: NDArray[np.uint8]) -> None:
        """Saves a mask as a stroke does."""
        _, headers = self.request("GET", f"/api/images/{stem}/mask")
        made_by = headers.get("x-studio-classes", "")  # earlier versions do not ask for it
        self.request("PUT", f"/api/images/{stem}/mask", mask.tobytes(), if_match=headers["etag"],
                     x_studio_classes=made_by)  # fmt: skip

    def select(
        self, stem: str, column: int, row: int, class_id: int
    ) -> tuple[NDArray[np.uint8], int]:
        """Levels [H, W] around a click, and the level proposed."""
        body = {"points": [[column, row]], "class_id": class_id}
        data, headers = self.post("POST", f"/api/images/{stem}/select", body)
        levels = np.frombuffer(data, np.uint8).reshape(self.size)
        return levels, int(headers["x-studio-level"])

    def learn(self) -> None:
        """Runs a round of learning to its end."""
        before = self.project()["learn"]["rounds"]
        self.post("POST", "/api/learn", {"action": "start"})
        while True:
            time.sleep(POLL_S)
            state = self.project()["learn"]
            if state["phase"] == "idle":
                if state["rounds"] == before:
                    raise RuntimeError(f"the learner has ended: {state['message']}")
                return


@contextmanager
def started_studio(
    generator: Path, folder: Path, checkout: Path | None = None
) -> Iterator[tuple[int, str]]:
    """Starts `python -m studio` on a project, and ends it; gives its port and its token.

    `checkout` is that of an earlier version; None: this one.
    """
    words = ("-m", "studio", "--generator", str(generator.resolve()), "--project",
             str(folder.resolve()), "--listen", "127.0.0.1:0")  # fmt: skip
    with subprocess.Popen(
        [sys.executable, *words], cwd=checkout, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r"http://127\.0\.0\.1:(\d+)/\?token=(\S+)", line):
                    break
            else:
                raise RuntimeError("the studio has not started")
            yield int(found[1]), found[2]
        finally:
            process.terminate()


@contextmanager
def studio_session(generator: Path, folder: Path) -> Iterator[StudioSession]:
    """A tab of a studio that is started for it."""
    with started_studio(generator, folder) as (port, token):
        session = StudioSession(port, f"studio-{port}={token}", (0, 0), 255)
        known = session.project()
        session.size, session.ignore_id = (known["height"], known["width"]), known["ignore_id"]
        yield session
