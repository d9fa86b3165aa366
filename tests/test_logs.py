"""All that a process logs has one form, and no secret in it."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import logging
import structlog
from a2lc_backend.logs import configure_logs

configure_logs("info", ["hunter2"])
structlog.get_logger().info("phase begins", project=3, round=1, phase="score", address="redis://:hunter2@host")
logging.getLogger("uvicorn.error").info("Started %s", "hunter2")
logging.getLogger("httpx").info("a request")
try:
    raise ValueError("hunter2")
except ValueError:
    logging.getLogger("rq.worker").exception("job failed")
"""


def test_libraries_log_as_the_program_does_and_secrets_are_hidden() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    lines = ran.stderr.splitlines()
    assert [line.split(" ", 1)[0].split("=")[0] for line in lines] == ["timestamp"] * 3
    assert 'event="phase begins" project=3 round=1 phase=score address=redis://:***@host' in lines[0]
    assert 'level=info event="Started ***" logger=uvicorn.error' in lines[1]
    assert "level=error" in lines[2]
    assert "ValueError: ***" in lines[2]
    assert "hunter2" not in "".join(lines)
