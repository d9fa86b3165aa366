"""A backend with workers on a real Redis, which tests may kill."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from a2lc_backend.bench.scenes import draw_world
from a2lc_backend.bench.world import World
from a2lc_backend.demo.run import Loop
from a2lc_backend.demo.servers import backend
from a2lc_backend.label_studio import rest_of
from a2lc_backend.store import Ledger
from tests.conftest import REPOSITORY, Studio, wait_until
from tests.servers import RedisServer

SHORT = ("-m", "tests.short_program")
"""The command line with a short training: these tests are about the rounds around it."""


@contextmanager
def drawn_project(
    studio: Studio, folder: Path, images: int, budget: int, first_round: bool = True,
    more: Mapping[str, str] | None = None,
) -> Iterator[Loop]:  # fmt: skip
    """A project of drawn streets on a backend of its own, whose rounds run on a thread.

    Args:
        studio: the real Label Studio.
        folder: for images and data.
        images: how many.
        budget: masks queued a round.
        first_round: wait until round 0 is done; else none is begun.
        more: environment variables.
    """
    world = draw_world(folder / "street", images=images, val_images=1)
    settings = {"A2LC_WORLD": str(world.root), "A2LC_PROPOSALS": "world", "PYTHONPATH": str(REPOSITORY), **(more or {})}
    server = backend(folder / "data", studio.url, studio.account.token, settings)
    server.command = [sys.executable, *SHORT, "serve"]
    loop = Loop(studio.server, server.start(), studio.account, world, budget)
    try:
        loop.create_project(lambda done, total: None)
        if first_round:
            loop.start_training()
            loop.wait_round(0)
        yield loop
    finally:
        loop.close()
        server.stop()


@dataclass
class WorkerProcess:
    """`a2lc worker` as a process of its own."""

    environment: dict[str, str]
    log: Path
    queues: str = "a2lc-gpu,a2lc-cpu"
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *SHORT, "worker", "--queues", self.queues],
                env=os.environ | self.environment, stdout=log, stderr=log, cwd=REPOSITORY,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return 0 if self._process is None else self._process.pid

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(how)
        return self._process.wait(60)


class Rig:
    """A project in Label Studio, its backend, a Redis and some workers.

    Args:
        studio: the real Label Studio.
        world: images and truth.
        folder: for data and logs.
        workers: how many.
        budget: masks queued a round.
        label_studio_url: where backend and workers reach Label Studio, if not directly.
        database_url: of the ledger; SQLite in the folder if not given.
        more: environment variables.
        redis_password: what Redis asks for.
    """

    def __init__(
        self, studio: Studio, world: World, folder: Path, workers: int = 1, budget: int = 40,
        label_studio_url: str = "", database_url: str = "", more: Mapping[str, str] | None = None,
        redis_password: str = "",
    ) -> None:  # fmt: skip
        self.studio, self.folder = studio, folder
        self.data = folder / "data"
        folder.mkdir(parents=True, exist_ok=True)
        self.redis = RedisServer(folder, redis_password)
        settings = {
            "A2LC_WORLD": str(world.root.absolute()), "A2LC_PROPOSALS": "world", "A2LC_REDIS_URL": self.redis.url,
            "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY),
            "A2LC_TEST_HOLDS": str(folder / "holds"),
        }  # fmt: skip
        settings |= more or {}
        if database_url:
            settings["A2LC_DATABASE_URL"] = database_url
        self.server = backend(self.data, label_studio_url or studio.url, studio.account.token, settings)
        self.server.command = [sys.executable, *SHORT, "serve"]
        self.server.log = folder / "backend.log"
        self.environment = dict(self.server.environment)
        self.workers = [WorkerProcess(self.environment, folder / f"worker-{index}.log") for index in range(workers)]
        self._ledger: Ledger | None = None
        self.loop = Loop(studio.server, self.server, studio.account, world, budget)

    def start(self) -> Rig:
        self.redis.start()
        self.server.start()
        for worker in self.workers:
            worker.start()
        self.wait_for_workers(len(self.workers))
        return self

    def stop(self) -> None:
        self.server.stop()
        for worker in self.workers:
            worker.end(signal.SIGKILL)
        self.redis.end()
        self.loop.close()
        self.forget_ledger()

    def forget_ledger(self) -> None:
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    def wait_for_workers(self, count: int) -> None:
        wait_until(lambda: len(self.get("/api/workers")) >= count, 120, 0.2)

    @property
    def project_id(self) -> int:
        return self.loop.project_id

    def get(self, path: str) -> Any:
        reply = self.server.ask(path)
        reply.raise_for_status()
        return reply.json()

    def post(self, path: str, body: Any = None) -> httpx.Response:
        return self.server.ask(path, "POST", body)

    def next_round(self) -> int:
        reply = self.post(f"/api/projects/{self.project_id}/rounds", {})
        reply.raise_for_status()
        return int(reply.json()["number"])

    def metrics(self) -> str:
        return httpx.get(f"{self.server.url}/metrics", timeout=30).text

    def wait_status(self, number: int, *wanted: str, seconds: float = 240.0) -> dict[str, Any]:
        """Wait until a round has one of some states; a round that fails otherwise fails the test with its reason."""
        end = time.monotonic() + seconds
        while True:
            try:
                report = self.get(f"/api/projects/{self.project_id}/rounds/{number}")
            except httpx.HTTPError:
                report = None
            if report is not None:
                status = report["round"]["status"]
                if status in wanted:
                    return report
                assert status != "failed", report["round"]["error"]
            assert time.monotonic() < end, f"round {number}: {report and report['phases']}"
            time.sleep(0.1)

    def run_round(self) -> dict[str, Any]:
        return self.wait_status(self.next_round(), "done")

    def phases(self, number: int) -> dict[str, str]:
        """Status of each phase, read beside the backend, which may be dead."""
        if self._ledger is None:
            self._ledger = Ledger(self.environment.get("A2LC_DATABASE_URL") or f"sqlite:///{self.data}/ledger.db")
        return {phase.name: phase.status for phase in self._ledger.phases(self.project_id, number)}

    def predictions(self, version: str) -> dict[tuple[int, int], list[bytes]]:
        """What Label Studio holds of a version: by the task's image and whether the task repeats it."""
        tasks = self.loop.client.tasks.list(project=self.project_id, include="id,data", resolve_uri=False)
        owners = {task.id: (int(task.data.get("a2lc_follows", task.id)), "a2lc_follows" in task.data) for task in tasks}
        found: dict[tuple[int, int], list[bytes]] = {}
        for item in self.loop.client.predictions.list(project=self.project_id):
            if item.model_version == version:
                content = json.dumps([item.result, item.score], sort_keys=True).encode()
                found.setdefault(owners[item.task], []).append(content)
        return found

    def shown_version(self) -> str:
        return str(self.loop.client.projects.get(id=self.project_id).model_version)

    def snapshot(self) -> Path:
        """Copy the store, while nothing runs."""
        target = self.folder / "snapshot"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.data, target)
        return target

    def restore(self, snapshot: Path, version: str) -> None:
        """Put the store back to a snapshot, and Label Studio to the version it showed then; servers are stopped."""
        self.forget_ledger()
        shutil.rmtree(self.data)
        shutil.copytree(snapshot, self.data)
        client = self.loop.client
        for task in client.tasks.list(project=self.project_id, include="id,data", resolve_uri=False):
            if "a2lc_follows" in task.data:
                client.tasks.delete(id=str(task.id))
        client.projects.update(id=self.project_id, model_version=version)
        http = client._client_wrapper.httpx_client
        address = f"api/projects/{self.project_id}/model-versions/"
        for held in http.request(address, method="GET").json():
            if re.match(r"a2lc-r", held) and held not in (version, rest_of(version)):
                http.request(address, method="DELETE", json={"model_version": held})
