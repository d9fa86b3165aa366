"""The whole loop against a real Label Studio, over HTTP: from `git clone` and an empty folder to corrected labels."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import pytest

from a2lc_backend.bench.scenes import draw_world
from a2lc_backend.bench.world import World, load_world
from a2lc_backend.demo.run import DemoRound, Loop
from a2lc_backend.demo.servers import Server, backend, free_port
from a2lc_backend.label_studio import FOLLOWS, VIEW_TITLE, LabelStudioProject, rest_of
from a2lc_backend.settings import Settings
from tests.conftest import REPOSITORY, SHARED, Studio, batch_predict

pytestmark = pytest.mark.e2e

IMAGES = 16
BUDGET = 80


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Real street images where they are at hand, drawn scenes otherwise."""
    if (SHARED / "camvid").exists():
        return load_world(SHARED / "camvid", limit=IMAGES)
    return draw_world(tmp_path_factory.mktemp("street"), images=IMAGES, val_images=1)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone of the repository, whose code the backend runs."""
    target = tmp_path_factory.mktemp("clone") / "a2lc"
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(target)], check=True)
    return target


@pytest.fixture(scope="module")
def server(studio: Studio, world: World, clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The backend out of the clone, with an empty folder for its data and for every cache."""
    folder = tmp_path_factory.mktemp("backend")
    settings = {
        "A2LC_WORLD": str(world.root.absolute()),
        "A2LC_PROPOSALS": "world",
        "PYTHONPATH": str(clone),
        "PYTHONSAFEPATH": "1",
        "XDG_CACHE_HOME": str(folder / "cache"),
        "HOME": str(folder / "home"),
    }
    if world.backbone_path is not None:
        settings["A2LC_BACKBONE"] = str(world.backbone_path.absolute())
    server = backend(folder, studio.url, studio.account.token, settings, port=free_port())
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(scope="module")
def loop(studio: Studio, server: Server, world: World) -> Iterator[Loop]:
    made = Loop(studio.server, server, studio.account, world, BUDGET)
    made.create_project(lambda done, total: None)
    yield made
    made.close()


def predictions(loop: Loop) -> dict[int, list[str]]:
    """Model versions of every task's predictions."""
    tasks = loop.client.tasks.list(project=loop.project_id, include="id")
    return {
        task.id: sorted(item.model_version or "" for item in loop.client.predictions.list(task=task.id))
        for task in tasks
    }


def assert_quick_while_a_round_runs(loop: Loop) -> None:
    """Label Studio gives /health and a webhook one second; the program promises 100 ms."""
    project = {"id": loop.project_id}
    seconds: dict[str, list[float]] = {"health": [], "setup": [], "webhook": []}
    with httpx.Client(base_url=loop.server.url, timeout=10) as client:
        for _ in range(40):
            for name, call in (
                ("health", lambda: client.get("/health")),
                ("setup", lambda: client.post("/setup", json={"project": f"{loop.project_id}.1", "schema": ""})),
                ("webhook", lambda: client.post("/webhook", json={"action": "ANNOTATION_UPDATED", "project": project})),
            ):
                begun = time.perf_counter()
                call().raise_for_status()
                seconds[name].append(time.perf_counter() - begun)
            time.sleep(0.05)
    for name, measured in seconds.items():
        print(f"/{name} during a round: median {1e3 * median(measured):.0f} ms, slowest {1e3 * max(measured):.0f} ms")
        assert median(measured) < 0.1, name


def wait_for_phase(loop: Loop, number: int, name: str) -> None:
    """Wait until a round is inside a phase."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        reply = loop.server.ask(f"/api/projects/{loop.project_id}/rounds/{number}")
        phases = reply.json().get("phases", []) if reply.status_code == 200 else []
        if phases and phases[-1]["name"] == name and phases[-1]["status"] == "running":
            return
        time.sleep(0.02)
    pytest.fail(f"round {number} never reached {name}")


def test_three_rounds_correct_the_labels_and_survive_a_kill(loop: Loop, clone: Path) -> None:
    code = f"import a2lc_backend; print(a2lc_backend.__file__.startswith({str(clone)!r}))"
    environment = os.environ | dict(loop.server.environment)
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout == "True\n", "the backend runs the clone's code"

    rows: list[DemoRound] = []
    reports: list[dict[str, Any]] = []
    loop.start_training()
    reports.append(loop.wait_round(0))
    rows.append(loop.measure(0, 0, 0, lambda done, total: None))
    for number in (1, 2, 3):
        work = loop.annotator().work()
        assert 0 < work.looked_at <= BUDGET
        loop.start_training()
        if number == 1:
            assert_quick_while_a_round_runs(loop)
        if number == 2:
            wait_for_phase(loop, number, "publish")
            loop.server.kill()
            loop.server.start()
        reports.append(loop.wait_round(number))
        rows.append(loop.measure(number, work.looked_at, work.changed, lambda done, total: None))

    mious = [row.data_miou for row in rows]
    assert all(after > before for before, after in pairwise(mious)), mious
    assert mious[-1] > mious[0] + 0.03
    versions = [report["round"]["version"] for report in reports]
    assert len(set(versions)) == 4
    held = predictions(loop)
    sources = [
        task.id
        for task in loop.client.tasks.list(project=loop.project_id, include="id,data")
        if FOLLOWS not in (task.data or {})
    ]
    assert len(sources) == len(loop.world.names)
    for task_id, found in held.items():
        assert len(found) == len(set(found)), f"task {task_id} holds a prediction twice"
    for task_id in sources:
        assert found_versions(held[task_id], versions) == sorted(versions), f"task {task_id} lacks a round"
    for row, report in zip(rows[1:], reports[1:], strict=True):
        summary = report["round"]["summary"]
        assert summary["answered"] == row.queried
        assert summary["changed_by_people"] == row.changed_by_people
        assert not [problem for problem in report["problems"] if problem["phase"] != "correct"]


def found_versions(held: list[str], versions: list[str]) -> list[str]:
    return sorted(version for version in held if version in versions)


def test_people_are_never_overruled_and_never_asked_twice(loop: Loop) -> None:
    """After three rounds every mask a person answered shows that answer, and is not queued again."""
    version = loop.client.projects.get(id=loop.project_id).model_version or ""
    said: dict[tuple[int, str], str] = {}
    for task in loop.client.tasks.list(project=loop.project_id, fields="all", include="id,data,annotations,updated_at"):
        owner = int((task.data or {}).get(FOLLOWS, task.id))
        for stamp in task.annotations or []:
            for item in loop.client.annotations.get(id=stamp["id"]).result or []:
                if item["meta"]["a2lc"]["rank"] is not None:
                    said[owner, item["id"]] = item["value"]["bitmasklabels"][0]
    assert len(said) > BUDGET
    for (task_id, region_id), label in said.items():
        parts = (version, rest_of(version))
        held = [item.result for item in loop.client.predictions.list(task=task_id) if item.model_version in parts]
        region = next(item for result in held for item in result if item["id"] == region_id)
        assert region["value"]["bitmasklabels"] == [label]
        assert region["meta"]["a2lc"]["source"] == "human"
        assert region["meta"]["a2lc"]["rank"] is None


def test_a_backend_is_known_by_what_it_says_of_itself(loop: Loop) -> None:
    settings = Settings(data_dir=Path(loop.server.environment["A2LC_DATA_DIR"]))
    project = LabelStudioProject(loop.client, loop.studio.url, loop.project_id)
    assert project.is_connected("http://elsewhere:9090", settings.installation), "known by another name"
    assert not project.is_connected("http://elsewhere:9090", "another"), "an only backend may be another team's"
    assert project.is_connected(loop.server.url, "another")


def test_the_backend_is_connected_as_an_admin_sees_it(loop: Loop) -> None:
    row = loop.client.ml.list(project=loop.project_id)[0]
    assert getattr(row.state, "value", row.state) == "CO"
    hooks = loop.client.webhooks.list(project=loop.project_id)
    assert [hook.url for hook in hooks] == [f"{loop.server.url}/webhook"]
    assert any(view.data["title"] == VIEW_TITLE for view in loop.client.views.list(project=loop.project_id))  # type: ignore[index,call-overload]


def test_a_known_task_is_predicted_from_the_store_when_label_studio_asks(loop: Loop, studio: Studio) -> None:
    task_id = next(iter(predictions(loop)))
    held = loop.client.predictions.list(task=task_id)
    last = max(held, key=lambda item: item.id)
    loop.client.predictions.delete(id=last.id)
    again = batch_predict(studio, loop.project_id, task_id)
    assert again.id != last.id
    assert again.model_version == last.model_version
    assert again.result[: len(last.result)] == last.result, "what was kept off the page follows"
    rest = [item.result for item in held if item.model_version == rest_of(last.model_version)]
    assert len(again.result) == len(last.result) + sum(map(len, rest))


def test_doctor_finds_a_healthy_installation(loop: Loop) -> None:
    environment = os.environ | dict(loop.server.environment)
    command = [sys.executable, "-m", "a2lc_backend", "doctor", "--project", str(loop.project_id)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAIL" not in done.stdout
    assert "rounds ask no foundation model; smart tools are not answered" in done.stdout
    wanting = environment | {"A2LC_PROPOSALS": "grounded-sam"}
    done = subprocess.run(command, env=wanting, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "FAIL models" in done.stdout
    assert "a2lc weights fetch grounding-dino-tiny" in " ".join(done.stdout.split())
    refused = environment | {"LABEL_STUDIO_API_KEY": "0" * 40}
    done = subprocess.run(command, env=refused, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "FAIL token" in done.stdout
    assert "LABEL_STUDIO_API_KEY" in done.stdout


def test_the_command_line_shows_the_rounds(loop: Loop) -> None:
    environment = os.environ | dict(loop.server.environment) | {"COLUMNS": "200"}
    command = [sys.executable, "-m", "a2lc_backend", "rounds"]
    listed = subprocess.run(
        [*command, "list", "--project", str(loop.project_id)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert listed.stdout.count("done") == 4
    shown = subprocess.run(
        [*command, "show", "--project", str(loop.project_id)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "labeling=1" in shown.stdout
    assert "changed by corrector" in shown.stdout


def test_sigterm_ends_the_backend(loop: Loop) -> None:
    process = loop.server.process_id
    os.kill(process, signal.SIGTERM)
    end = time.monotonic() + 20
    while loop.server.answers():
        assert time.monotonic() < end
        time.sleep(0.1)
