"""Starts and ends the servers of the demo and of the end-to-end tests."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

LABEL_STUDIO_SECONDS = 300
"""Longest wait for Label Studio; its first start migrates a database, 45 s on two cores."""

_BACKEND_SECONDS = 60
_STOP_SECONDS = 20


class ServerError(RuntimeError):
    """A server did not start; the message ends with what it last said."""


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A child process that serves HTTP on the loopback interface.

    Attributes:
        command: what to run.
        environment: added to this process's environment.
        url: its address.
        log: file that takes what it prints.
        wait_seconds: longest time until it is ready.
        headers: that its API wants to see.
    """

    command: list[str]
    environment: Mapping[str, str]
    url: str
    log: Path
    wait_seconds: int = _BACKEND_SECONDS
    headers: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self, tick: Callable[[], None] = lambda: None) -> Server:
        """Start it and wait until it answers.

        Args:
            tick: called a few times a second while waiting.

        Raises:
            ServerError: if it ends, or does not answer in time.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own commands
                self.command, env=os.environ | dict(self.environment), stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        end = time.monotonic() + self.wait_seconds
        while time.monotonic() < end:
            tick()
            if self._process.poll() is not None:
                raise ServerError(f"{self.command[0]} ended with {self._process.returncode}:\n{self._tail()}")
            if self.answers():
                return self
            time.sleep(0.2)
        self.stop()
        raise ServerError(f"{self.command[0]} did not answer in {self.wait_seconds} s:\n{self._tail()}")

    def answers(self) -> bool:
        """Whether it says that it is healthy."""
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def ask(self, path: str, method: str = "GET", body: Any = None) -> httpx.Response:
        """Call its API."""
        return httpx.request(method, f"{self.url}{path}", json=body, headers=self.headers, timeout=30)

    @property
    def process_id(self) -> int:
        """Id of the process; 0 before it is started."""
        return self._process.pid if self._process else 0

    def stop(self) -> None:
        """End it and its children; a server that was not started is no error."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        os.killpg(self._process.pid, how)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(_STOP_SECONDS)

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


@dataclass(frozen=True)
class Account:
    """The admin that a fresh Label Studio is made with."""

    email: str = "admin@example.com"
    password: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    token: str = field(default_factory=lambda: secrets.token_hex(20))


def label_studio(program: Path, folder: Path, account: Account, port: int | None = None) -> Server:
    """A Label Studio on SQLite that accepts backends on this machine.

    Args:
        program: the `label-studio` command of its own environment.
        folder: where it keeps its data.
        account: of its first user.
        port: a free one if not given.
    """
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder.absolute()),
        "LABEL_STUDIO_USERNAME": account.email,
        "LABEL_STUDIO_PASSWORD": account.password,
        "LABEL_STUDIO_USER_TOKEN": account.token,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_HOST": url,
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        # Label Studio refuses backends and webhooks on private addresses unless told otherwise.
        "USE_DEFAULT_BANNED_SUBNETS": "false",
    }
    command = [str(program), "start", "--no-browser", "--port", str(port), "--internal-host", "127.0.0.1"]
    return Server(command, environment, url, folder / "label-studio.log", LABEL_STUDIO_SECONDS)


def backend(
    folder: Path, label_studio_url: str, token: str, settings: Mapping[str, str], port: int | None = None
) -> Server:
    """The backend with its embedded default: SQLite, a local folder, rounds on a thread.

    Args:
        folder: where it keeps its data.
        label_studio_url: of the Label Studio it serves.
        token: for that Label Studio.
        settings: further environment variables.
        port: a free one if not given.
    """
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        "LABEL_STUDIO_URL": label_studio_url,
        "LABEL_STUDIO_API_KEY": token,
        "A2LC_DATA_DIR": str(folder.absolute()),
        "A2LC_HOST": "127.0.0.1",
        "A2LC_PORT": str(port),
        "A2LC_URL": url,
        **settings,
    }
    command = [sys.executable, "-m", "a2lc_backend", "serve"]
    headers = {"Authorization": f"Token {token}"}
    return Server(command, environment, url, folder / "backend.log", headers=headers)
