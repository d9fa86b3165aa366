"""Terminals in which tests do what a document tells the reader to do."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.conftest import wait_until
from tests.servers import answers


class Terminal:
    """A shell that keeps its folder and its variables from one block of commands to the next.

    Args:
        folder: where it begins.
        log: folder for what it prints, and its state.
        environment: variables; nothing of this program's own is inherited.
    """

    def __init__(self, folder: Path, log: Path, environment: Mapping[str, str] | None = None) -> None:
        log.mkdir(parents=True, exist_ok=True)
        self._log = log / "output.log"
        self._state = log / "state.sh"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("A2LC_", "LABEL_"))}
        self._environment = inherited | dict(environment or {})
        self._state.write_text(f"cd {shlex.quote(str(folder))}\n")
        self._server: subprocess.Popen[bytes] | None = None

    def run(self, text: str, seconds: float = 300.0) -> str:
        """Run commands to their end; what they printed. The test fails where one of them does."""
        keep = f'{{ echo "cd $(printf %q "$PWD")"; export -p; }} > {shlex.quote(str(self._state))}'
        script = f". {shlex.quote(str(self._state))}\n{text}\n{keep}\n"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], env=self._environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds, check=False,
        )  # fmt: skip
        with self._log.open("a") as log:
            log.write(f"{text}\n{done.stdout}\n")
        assert done.returncode == 0, f"{text}\n{done.stdout}"
        return done.stdout

    def serve(self, text: str, url: str, seconds: float = 300.0) -> None:
        """Run commands of which the last stays in the foreground, and wait until its server is healthy."""
        script = f". {shlex.quote(str(self._state))}\n{text}\n"
        with self._log.open("ab") as log:
            self._server = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", script], env=self._environment, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

        def ready() -> bool:
            assert self._server is not None
            assert self._server.poll() is None, self._log.read_text(errors="replace")[-3000:]
            return answers(url)

        wait_until(ready, seconds, 0.2)

    def interrupt(self) -> None:
        """Press Ctrl-C; no server is no error."""
        if self._server is None:
            return
        if self._server.poll() is None:
            os.killpg(self._server.pid, signal.SIGINT)
            try:
                self._server.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self._server.pid, signal.SIGKILL)
                self._server.wait(30)
        self._server = None
