"""What bundles and callers choose can neither forge lines of the log nor fill it."""

import json
import subprocess
import sys

import pytest

from tests.hangs import HANG_S
from tests.service.test_process import ROOT

SCRIPT = r"""
import logging, sys
from grpc._cython import cygrpc
from service.logs import fields, set_up_logging
set_up_logging(sys.argv[1], "info")
log = logging.getLogger("grpc._cython.cygrpc")
client = "cn\r\n2026 ERROR\x1b\x9b\u2028\ud800ä"
log.info("model %s", "m\n2026 ERROR \x1b[2J", extra=fields(client=client))
bug = ValueError("a bug\n1999 ERROR \x1b \x9b \ud800")
for error in (cygrpc.ExecuteBatchError("SendStatus", "failed"), bug):
    try:
        raise error
    except Exception:
        log.exception("raised in core by servicer method")
"""


def logged(style: str) -> list[str]:
    line = [sys.executable, "-c", SCRIPT, style]
    run = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=HANG_S, check=True)
    return run.stderr.splitlines()


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_record_is_one_line_of_printable_text(style: str) -> None:
    first, second, *_ = logged(style)
    assert first.isprintable() and "2026 ERROR" in first and "servicer method" in second
    if style == "json":
        client = json.loads(first)["client"]
        assert client == "cn\r\n2026 ERROR\x1b\x9b\u2028\ud800ä" and "ä" in first


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_traceback_neither_forges_lines_nor_moves_the_cursor(style: str) -> None:
    lines = logged(style)
    assert all(line.isprintable() for line in lines)
    assert "1999 ERROR" in "".join(lines)
    assert not any(line.startswith("1999 ERROR") for line in lines)


@pytest.mark.parametrize("style", ["text", "json"])
def test_callers_that_hang_up_write_no_tracebacks(style: str) -> None:
    log = "\n".join(logged(style))
    assert log.count("servicer method") == 1
    assert "ValueError: a bug" in log and "ExecuteBatchError" not in log
