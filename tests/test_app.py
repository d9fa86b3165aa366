"""The HTTP contract, over a real socket-less client; Label Studio itself calls it in test_loop.py."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from a2lc_backend.app import create_app
from a2lc_backend.features import mask_features
from a2lc_backend.foundation import FoundationError
from a2lc_backend.rounds.platform import PlatformError
from a2lc_backend.rounds.workspace import Workspace
from a2lc_backend.service import UNSCORED, Service
from a2lc_backend.settings import Settings
from a2lc_backend.store import Project, TaskState
from tests.conftest import OWN_TOKEN, grid_masks, wait_until

pytestmark = pytest.mark.timed

CONFIG = """<View><Image name="image" value="$image"/>
<BitmaskLabels name="label" toName="image"><Label value="Sky"/><Label value="Road"/></BitmaskLabels></View>"""


@pytest.fixture
def service(tmp_path: Path) -> Service:
    settings = Settings(data_dir=tmp_path, label_studio_url="http://127.0.0.1:9", label_studio_api_key="f" * 40)  # type: ignore[arg-type]
    return Service(settings)


@pytest.fixture
def web(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service), headers=OWN_TOKEN) as client:
        yield client


def remember_task(service: Service, task_id: int = 7) -> None:
    import numpy as np

    masks = grid_masks(2, 2, labels=[0, 1, 0, 1])
    workspace = Workspace(service.artifacts, 3)
    key = workspace.mask_key(task_id, "/a.jpg")
    workspace.write_masks(key, masks, mask_features(np.zeros((16, 16, 3), np.uint8), masks), imported=False)
    service.ledger.save_project(Project(3, "Streets", ("Sky", "Road")))
    service.ledger.save_tasks(3, [TaskState(task_id, "/a.jpg", ready=True, mask_key=key)])


def predict(web: TestClient, *task_ids: int) -> dict:
    tasks = [{"id": task_id, "data": {"image": "/data/upload/1/a.jpg"}, "project": 3} for task_id in task_ids]
    body = {"tasks": tasks, "project": "3.1795330662", "label_config": CONFIG, "params": {"login": None}}
    reply = web.post("/predict", json=body)
    assert reply.status_code == 200
    return reply.json()


def test_health_and_setup_are_quick_and_change_nothing(web: TestClient, service: Service) -> None:
    assert web.get("/health").json()["status"] == "UP"
    setup = {"project": "3.1795330662", "schema": CONFIG, "hostname": "", "access_token": "x", "extra_params": {}}
    for call in (lambda: web.get("/health"), lambda: web.post("/setup", json=setup)):
        call()
        begun = time.perf_counter()
        for _ in range(20):
            assert call().status_code == 200
        assert (time.perf_counter() - begun) / 20 < 0.1
    assert service.ledger.projects() == []
    assert service.ledger.rounds(3) == []


def test_setup_names_the_version_that_holds(web: TestClient, service: Service) -> None:
    assert web.post("/setup", json={"project": "3.17", "schema": ""}).json() == {"model_version": UNSCORED}
    record = service.ledger.begin_round(3, 10)
    service.ledger.save_round(replace(record, version="a2lc-r0-12345678"))
    service.ledger.change_status(3, 0, ["running"], "done")
    assert web.post("/setup", json={"project": "3.17", "schema": ""}).json() == {"model_version": "a2lc-r0-12345678"}
    assert web.get("/versions").json() == {"versions": []}, "the project itself is not known yet"
    assert web.get("/versions", params={"project": 3}).json() == {"versions": ["a2lc-r0-12345678"]}


def test_a_known_task_is_answered_from_the_store(web: TestClient, service: Service) -> None:
    remember_task(service)
    results = predict(web, 7)["results"]
    assert len(results) == 1
    assert results[0]["model_version"] == UNSCORED
    assert [region["value"]["bitmasklabels"] for region in results[0]["result"]] == [
        ["Sky"],
        ["Road"],
        ["Sky"],
        ["Road"],
    ]


def test_every_task_gets_an_entry_even_if_label_studio_is_away(web: TestClient, service: Service) -> None:
    remember_task(service)
    results = predict(web, 7, 8, 9)["results"]
    assert [len(entry["result"]) for entry in results] == [4, 0, 0]


def test_an_unknown_task_is_answered_within_the_deadline(
    web: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(project_id: int, _request: object) -> None:
        time.sleep(0.6)
        remember_task(service, 8)

    monkeypatch.setattr(service, "_propose", slow)
    service.settings.predict_deadline = 0.1
    begun = time.perf_counter()
    assert predict(web, 8)["results"][0]["result"] == []
    assert time.perf_counter() - begun < 0.5
    service.settings.predict_deadline = 10.0
    assert len(predict(web, 8)["results"][0]["result"]) == 4, "the work went on meanwhile"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"tasks": [], "project": "3.1"}, 422),
        ({"tasks": [{"id": 7}], "project": "3.1", "label_config": CONFIG}, 422),
        ({"tasks": [{"id": 7, "data": {}}], "label_config": CONFIG}, 422),
        ({"tasks": [], "project": "3.1", "label_config": "<View/>"}, 422),
        ({"tasks": [], "project": "3.1", "label_config": CONFIG}, 200),
    ],
)
def test_a_malformed_predict_is_refused_in_words(web: TestClient, body: dict, status: int) -> None:
    if "label_config" not in body:
        body = body | {"label_config": "<View><Image"}
    reply = web.post("/predict", json=body)
    assert reply.status_code == status
    assert status == 200 or reply.json()["detail"]


def test_start_training_begins_the_next_round_and_others_only_tell(
    web: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("a2lc_backend.label_studio.LabelStudioProject.is_connected", lambda *_: True)
    for action in ("TASKS_CREATED", "ANNOTATION_CREATED", "PROJECT_UPDATED"):
        assert web.post("/webhook", json={"action": action, "project": {"id": 3}}).status_code == 200
    assert service.ledger.rounds(3) == []
    assert web.post("/webhook", json={"action": "START_TRAINING", "project": {"id": 3}}).status_code == 200
    wait_until(lambda: service.ledger.open_events() == [])
    assert [record.number for record in service.ledger.rounds(3)] == [0]


def test_webhooks_are_answered_quickly(web: TestClient) -> None:
    body = {"action": "ANNOTATION_CREATED", "project": {"id": 3}, "annotation": {"result": ["x" * 100] * 3000}}
    web.post("/webhook", json=body)
    slowest = 0.0
    for _ in range(20):
        begun = time.perf_counter()
        assert web.post("/webhook", json=body).status_code == 200
        slowest = max(slowest, time.perf_counter() - begun)
    assert slowest < 0.1


@pytest.mark.parametrize(
    "body", [{}, {"action": "X"}, {"action": 3, "project": {"id": 3}}, {"action": "X", "project": "3"}]
)
def test_a_forged_webhook_is_refused(web: TestClient, body: dict) -> None:
    assert web.post("/webhook", json=body).status_code == 422


def test_a_round_that_cannot_run_fails_with_the_mend_and_can_be_asked_for_again(
    web: TestClient, service: Service
) -> None:
    for _ in range(2):
        assert web.post("/api/projects/3/rounds", json={"budget": 5}).status_code == 202
        end = time.monotonic() + 30
        while (report := web.get("/api/projects/3/rounds/0").json())["round"]["status"] == "running":
            assert time.monotonic() < end
            time.sleep(0.05)
        assert report["round"]["status"] == "failed"
        assert "LABEL_STUDIO_URL" in report["round"]["error"]
    assert len(web.get("/api/projects/3/rounds").json()) == 1
    assert web.get("/api/projects/3/rounds/9").status_code == 404
    assert web.post("/api/projects/3/rounds", json={"budget": 0}).status_code == 422


def test_metrics_are_prometheus_text(web: TestClient, service: Service) -> None:
    remember_task(service)
    record = service.ledger.begin_round(3, 10)
    service.ledger.save_round(replace(record, version="a2lc-r0-12345678"))
    service.ledger.change_status(3, 0, ["running"], "done")
    text = web.get("/metrics").text
    assert 'a2lc_rounds{project="3",status="done"} 1.0' in text
    assert "# TYPE a2lc_request_seconds histogram" in text


def test_no_answer_carries_a_token(web: TestClient) -> None:
    web.post("/api/projects/3/rounds", json={})
    time.sleep(0.2)
    for path in ("/api/projects/3/rounds/0", "/metrics", "/health", "/openapi.json"):
        assert "f" * 40 not in web.get(path).text


def test_a_round_that_could_never_begin_can_be_given_up(service: Service) -> None:
    service.ledger.begin_round(3, 10)
    assert service.ledger.change_status(3, 0, ["running"], "cancelling")
    assert service.run(3).status == "cancelled", "nothing was published: Label Studio need not answer"
    service.ledger.begin_round(3, 10)
    record = service.ledger.round(3, 1)
    assert record is not None
    service.ledger.save_round(replace(record, version="a2lc-r1-abc"))
    assert service.ledger.change_status(3, 1, ["running"], "cancelling")
    with pytest.raises(PlatformError):
        service.run(3)
    record = service.ledger.round(3, 1)
    assert record is not None
    assert record.status == "failed", "it would be tried for ever"
    assert not service.ledger.unfinished()


def test_a_round_that_published_nothing_is_cancelled_without_label_studio(web: TestClient, service: Service) -> None:
    status = lambda: [record.status for record in service.ledger.rounds(3)]  # noqa: E731
    assert web.post("/api/projects/3/rounds", json={}).status_code in (200, 202)
    wait_until(lambda: status() == ["failed"])
    assert web.post("/api/projects/3/rounds/cancel").status_code in (200, 202)
    wait_until(lambda: status() == ["cancelled"])
    assert service.ledger.lock_owner(3) == ""


def test_the_documentation_needs_no_internet(web: TestClient) -> None:
    page = web.get("/docs").text
    assert "https://" not in page
    assert web.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200


def test_a_model_that_fails_costs_a_prediction_not_the_request(
    web: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember_task(service)

    def broken(*_args: object) -> None:
        raise FoundationError("the device has too little memory")

    monkeypatch.setattr(service, "_propose", broken)
    known, failed = predict(web, 7, 8)["results"]
    assert known["result"]
    assert failed["result"] == []


def test_the_control_room_is_told_of_projects_and_of_what_is_not_there(web: TestClient, service: Service) -> None:
    assert web.get("/api/projects").json() == []
    remember_task(service)
    service.ledger.begin_round(3, 10)
    (project,) = web.get("/api/projects").json()
    assert (project["title"], project["rounds"], project["status"]) == ("Streets", 1, "running")
    assert project["label_studio"] == "http://127.0.0.1:9/projects/3/data"
    assert "<title>A²LC control room</title>" in web.get("/").text
    scripts = ("room.js", "api.js", "curve.js", "elements.js", "vendor/uplot/uPlot.iife.min.js")
    for file in (*scripts, "common.css", "room.css"):
        assert web.get(f"/static/{file}").status_code == 200
    away = web.get("/api/projects/3/links")
    assert (away.status_code, "LABEL_STUDIO_URL" in away.json()["detail"]) == (502, True)
    absent = web.get("/api/projects/3/rounds/0/masks/7/a.jpg")
    assert (absent.status_code, absent.json()["detail"]) == (404, "round 0 of project 3 has no masks of task 7")
    assert web.get("/api/projects/3/rounds/9/masks/7/a.jpg").status_code == 404
