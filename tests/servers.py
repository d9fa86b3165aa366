"""Real servers that tests start on free ports, wait for and end: Redis, PostgreSQL, and one that speaks S3."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import httpx

from a2lc_backend.demo.servers import free_port

_SECONDS = 60.0


def wait_for_port(port: int) -> None:
    """Wait until somebody listens."""
    end = time.monotonic() + _SECONDS
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < end, f"nobody listens on {port}"
        time.sleep(0.05)


def answers(url: str) -> bool:
    """Whether a server says that it is healthy."""
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


class RedisServer:
    """A real redis-server on a port of its own; it keeps nothing on disk, so a kill empties it."""

    def __init__(self, folder: Path, password: str = "") -> None:
        self.port = free_port()
        self._folder, self._password = folder, password
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return (
            f"redis://:{self._password}@127.0.0.1:{self.port}/0"
            if self._password
            else f"redis://127.0.0.1:{self.port}/0"
        )

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command += ["--requirepass", self._password] if self._password else []
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)
        wait_for_port(self.port)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(30)


class PostgresServer:
    """A real PostgreSQL with a data folder of its own; it does not run as root.

    Args:
        user: that it begins with.
        password: of that user; nobody needs one if not given.
    """

    def __init__(self, user: str = "a2lc", password: str = "") -> None:
        self.port = free_port()
        self._user, self._password = user, password
        self._folder = Path(tempfile.mkdtemp(prefix="a2lc-postgres-"))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Make a cluster and start it."""
        data = self._folder / "data"
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres", "postgres")
        word = self._folder / "password"
        word.write_text(self._password)
        word.chmod(0o644)
        how = ["--auth", "scram-sha-256", "--pwfile", str(word)] if self._password else ["--auth", "trust"]
        self._run("initdb", "--pgdata", str(data), *how, "--username", self._user, "--no-sync")
        command = self._command(
            "postgres", "-D", str(data), "-p", str(self.port), "-h", "127.0.0.1", "-k", str(self._folder),
            "-c", "fsync=off",
        )  # fmt: skip
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        wait_for_port(self.port)

    def new_database(self) -> str:
        """Address of an empty database."""
        name = f"a2lc_{uuid.uuid4().hex[:8]}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "a2lc", name)
        return f"postgresql://a2lc@127.0.0.1:{self.port}/{name}"

    def stop(self) -> None:
        """End it and remove its folder."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)  # ends without waiting for clients
            self._process.wait(_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, *command: str) -> None:
        done = subprocess.run(self._command(*command), capture_output=True, text=True, cwd="/tmp", check=False)
        assert done.returncode == 0, done.stderr

    def _command(self, program: str, *arguments: str) -> list[str]:
        found = shutil.which(program) or next(iter(sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))), None)
        assert found, f"there is no {program}; run these tests with `make test`, which installs PostgreSQL"
        user = ["runuser", "-u", "postgres", "--"] if getpass.getuser() == "root" else []
        return [*user, str(found), *arguments]


class S3Server:
    """A server that speaks S3, with an empty bucket; it forgets everything when it ends."""

    bucket = "masks"

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._log = folder / "s3.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What programs that use it need to know."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}", "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "of-no-value",
        }  # fmt: skip

    def start(self) -> None:
        """Start it and make the bucket."""
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for_port(self.port)
        httpx.put(f"http://127.0.0.1:{self.port}/{self.bucket}", timeout=30).raise_for_status()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(30)
