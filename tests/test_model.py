"""The plug: served by label-studio-ml 1.0.9 to a real Label Studio, and called the way 2.x calls it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from a2lc_backend.bench.scenes import draw_world
from a2lc_backend.bench.world import load_world
from a2lc_backend.demo.run import Loop
from a2lc_backend.demo.servers import Server, free_port
from a2lc_backend.model import A2LCBackend
from a2lc_backend.settings import load_settings
from a2lc_backend.store import Ledger, Round
from tests.conftest import REPOSITORY, Studio, batch_predict


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that the plug starts, which are not run here."""
    commands: list[list[str]] = []
    recorder = SimpleNamespace(Popen=lambda command, **_: commands.append(command), DEVNULL=subprocess.DEVNULL)
    monkeypatch.setattr("a2lc_backend.model.subprocess", recorder)
    return commands


def test_fit_starts_a_round_for_start_training_only(started: list[list[str]]) -> None:
    plug = A2LCBackend()
    project = {"project": {"id": 7}}
    plug.fit((), event="ANNOTATION_CREATED", data=project, job_id="1", workdir="/tmp")  # 1.0.9
    plug.fit("ANNOTATION_UPDATED", project)  # 2.x
    plug.fit("START_TRAINING", {})
    assert started == []
    plug.fit((), event="START_TRAINING", data=project, job_id="1", workdir="/tmp")
    plug.fit("START_TRAINING", project)
    assert [command[2:] for command in started] == [["a2lc_backend", "rounds", "next", "--project", "7", "--here"]] * 2


@pytest.fixture
def server(studio: Studio, tmp_path: Path) -> Iterator[Server]:
    """`label-studio-ml init` and `start`, as its documentation says."""
    programs = Path(sys.executable).parent
    command = str(programs / "label-studio-ml")
    if not Path(command).exists():
        pytest.fail("label-studio-ml is not installed; run these tests with `make test`")
    script = f"{REPOSITORY / 'a2lc_backend' / 'model.py'}:A2LCBackend"
    subprocess.run([command, "init", "plug", "--script", script], cwd=tmp_path, check=True, capture_output=True)
    world = draw_world(tmp_path / "street", images=6, val_images=1, size=(120, 160))
    port = free_port()
    environment = {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "LABEL_STUDIO_URL": studio.url,
        "LABEL_STUDIO_API_KEY": studio.account.token,
        "A2LC_DATA_DIR": str(tmp_path / "data"),
        "A2LC_URL": f"http://127.0.0.1:{port}",
        "A2LC_PROPOSALS": "world",
        "A2LC_WORLD": str(world.root),
    }
    start = [command, "start", str(tmp_path / "plug"), "-p", str(port), "--host", "127.0.0.1"]
    server = Server(start, environment, f"http://127.0.0.1:{port}", tmp_path / "plug.log")
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.mark.e2e
def test_label_studio_ml_serves_the_plug(
    studio: Studio, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(studio.server, server, studio.account, load_world(tmp_path / "street"), budget=20)
    loop.create_project(lambda done, total: None)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    ledger = Ledger(load_settings().ledger_url)
    for number in (0, 1):
        if number == 1:
            assert loop.annotator().work().looked_at == 20
        loop.start_training()
        record = wait_for_round(ledger, loop.project_id, number, server)
        assert loop.client.projects.get(id=loop.project_id).model_version == record.version
    assert record.summary["answered"] == 20
    ledger.close()

    task = next(iter(loop.client.tasks.list(project=loop.project_id, include="id")))
    held = loop.client.predictions.list(task=task.id)
    for prediction in held:
        loop.client.predictions.delete(id=prediction.id)
    again = batch_predict(studio, loop.project_id, task.id)
    loop.close()
    last = max(held, key=lambda item: item.id)
    assert again.model_version == last.model_version == record.version
    assert again.result[: len(last.result)] == last.result, "what was kept off the page follows"


def wait_for_round(ledger: Ledger, project_id: int, number: int, server: Server) -> Round:
    end = time.monotonic() + 240
    while time.monotonic() < end:
        found = [record for record in ledger.rounds(project_id) if record.number == number]
        if found and found[0].status != "running":
            assert found[0].status == "done", found[0].error
            return found[0]
        time.sleep(0.2)
    pytest.fail(f"round {number} is not done; see {server.log.read_text()[-2000:]}")
