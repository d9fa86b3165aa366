"""What keeps strangers from calling in Label Studio's name, and anybody from sending too much."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from a2lc_backend.app import create_app
from a2lc_backend.service import Service
from a2lc_backend.settings import Settings, SettingsError, load_settings
from a2lc_backend.store import Person, Project, Session
from a2lc_backend.web.login import COOKIE, _digest
from tests.conftest import OWN_TOKEN

ANN, CHIEF = Person(5, "ann@example.com", "Ann"), Person(6, "chief@example.com", "Chief")
BASIC = ("label-studio", "open sesame")
EVENT = {"action": "TASKS_CREATED", "project": {"id": 3}}


def serve(folder: Path, **settings: Any) -> Iterator[TestClient]:
    """A backend whose Label Studio is away, with two people logged in."""
    service = Service(
        Settings(
            data_dir=folder, label_studio_url="http://127.0.0.1:9", label_studio_api_key="f" * 40,
            admins=CHIEF.email, **settings,
        )
    )  # type: ignore[arg-type]  # fmt: skip
    service.ledger.save_project(Project(3, "Streets", ("Sky", "Road")))
    service.ledger.save_people([ANN, CHIEF])
    for person in (ANN, CHIEF):
        service.ledger.open_session(Session(_digest(person.email), person.id, False, time.time() + 60))
    with TestClient(create_app(service), follow_redirects=False) as client:
        yield client


@pytest.fixture
def web(tmp_path: Path) -> Iterator[TestClient]:
    yield from serve(
        tmp_path, basic_auth_user=BASIC[0], basic_auth_password=BASIC[1], webhook_secret="hark", max_request_mb=1,
        rate_limit="40/minute",
    )  # fmt: skip


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[TestClient]:
    yield from serve(tmp_path, basic_auth_user=BASIC[0], basic_auth_password=BASIC[1], webhook_secret="hark")


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[TestClient]:
    yield from serve(tmp_path)


def cookie(person: Person) -> dict[str, str]:
    return {"Cookie": f"{COOKIE}={person.email}"}


NOBODY, ANNOTATOR, ADMIN, CALLER, EVENTS = range(5)

MAY = {
    "GET /health": NOBODY, "GET /login": NOBODY, "POST /api/login": NOBODY, "POST /api/logout": NOBODY,
    "GET /review/pictures/{signature}/{project_id}/{number}/{task_id}/{region_id}.jpg": NOBODY,
    "POST /setup": CALLER, "GET /versions": CALLER, "POST /predict": CALLER, "GET /metrics": CALLER,
    "POST /webhook": EVENTS,
    "GET /api/me": ANNOTATOR, "GET /review/": ANNOTATOR, "GET /review/{project_id}": ANNOTATOR,
    "GET /api/review/projects": ANNOTATOR, "GET /api/projects/{project_id}/review": ANNOTATOR,
    "POST /api/projects/{project_id}/review/lease": ANNOTATOR,
    "POST /api/projects/{project_id}/review/grid": ANNOTATOR,
    "POST /api/projects/{project_id}/review/answers": ANNOTATOR,
    "POST /api/projects/{project_id}/review/undo": ANNOTATOR,
    "POST /api/projects/{project_id}/review/release": ANNOTATOR,
    "GET /api/projects/{project_id}/rounds/{number}/masks/{task_id}/{region_id}.jpg": ANNOTATOR,
}  # fmt: skip
"""Who may call what; whatever is not named here is an admin's."""


def test_every_path_knows_who_may_call_it(guarded: TestClient) -> None:
    """A path that is added later is an admin's unless somebody decides otherwise here."""
    shown: dict[int, dict[str, str]] = {
        NOBODY: {}, ANNOTATOR: cookie(ANN), ADMIN: cookie(CHIEF), EVENTS: {"X-A2LC-Secret": "hark"},
        CALLER: {"Authorization": httpx.BasicAuth(*BASIC)._auth_header},
    }  # fmt: skip
    routes = [route for route in guarded.app.routes if isinstance(route, APIRoute)]  # type: ignore[attr-defined]
    lines = {f"{method} {route.path}" for route in routes for method in route.methods}
    assert lines >= MAY.keys()
    assert len(lines) > 40
    wrong = []
    for line in sorted(lines, key=lambda line: line.endswith("logout")):  # last, as it logs out
        method, path = line.split(" ")
        wanted = MAY.get(line, ADMIN)
        for role, headers in shown.items():
            reply = guarded.request(method, path.format_map(_Ones()), headers=headers)
            let_in = reply.status_code not in {303, 401, 403}
            at_home = (
                (wanted, role) == (EVENTS, CALLER) or wanted in {role, NOBODY} or (wanted, role) == (ANNOTATOR, ADMIN)
            )
            if let_in != at_home:
                wrong.append((line, role, reply.status_code))
    assert wrong == []


def test_label_studio_must_show_the_password_it_was_told(web: TestClient) -> None:
    assert web.get("/versions", auth=BASIC).status_code == 200
    for auth in (None, (BASIC[0], "open barley"), ("somebody", BASIC[1])):
        reply = web.post("/setup", json={"project": "3.17"}, auth=auth)
        assert reply.status_code == 401
        assert reply.headers["WWW-Authenticate"].startswith("Basic")
        assert "a2lc connect" in reply.json()["detail"]
    assert web.get("/versions", headers=OWN_TOKEN).status_code == 401  # a token is no password
    assert web.get("/health").status_code == 200


def test_events_must_carry_the_secret(web: TestClient) -> None:
    assert web.post("/webhook", json=EVENT, headers={"X-A2LC-Secret": "hark"}).json() == {"status": "persisted"}
    for headers in ({}, {"X-A2LC-Secret": "harp"}):
        reply = web.post("/webhook", json=EVENT, headers=headers)
        assert reply.status_code == 401
        assert "X-A2LC-Secret" in reply.json()["detail"]
    assert web.post("/webhook", json=EVENT, auth=BASIC).status_code == 200  # as Start Training comes
    assert web.post("/webhook", json=EVENT, auth=(BASIC[0], "guess")).status_code == 401


def test_without_secrets_anybody_calls_as_before(plain: TestClient) -> None:
    assert plain.get("/versions").status_code == 200
    assert plain.post("/webhook", json=EVENT).status_code == 200


def test_who_guesses_is_refused_for_a_while_and_who_knows_is_not_counted(web: TestClient) -> None:
    for _ in range(100):
        assert web.get("/versions", auth=BASIC).status_code == 200
    for _ in range(60):
        assert web.get("/versions", auth=("label-studio", "guess")).status_code == 401
    late = web.get("/versions", auth=("label-studio", "guess"))
    assert late.status_code == 429
    assert 1 <= int(late.headers["Retry-After"]) <= 60


def test_a_person_may_ask_so_much_and_no_more_and_others_are_not_held_up(web: TestClient) -> None:
    for _ in range(40):
        assert web.get("/api/me", headers=cookie(ANN)).status_code == 200
    late = web.get("/api/me", headers=cookie(ANN))
    assert late.status_code == 429
    assert "A2LC_RATE_LIMIT" in late.json()["detail"]
    assert int(late.headers["Retry-After"]) >= 1
    assert web.get("/api/me", headers=cookie(CHIEF)).status_code == 200
    assert web.get("/health").status_code == 200


def test_a_request_that_is_too_large_is_refused_before_it_is_read(web: TestClient) -> None:
    headers = {"X-A2LC-Secret": "hark", "Content-Type": "application/json"}
    large = web.post("/webhook", json=EVENT | {"padding": "x" * 2**20}, headers=headers)
    assert large.status_code == 413
    assert "A2LC_MAX_REQUEST_MB" in large.json()["detail"]
    read = []

    def endless() -> Iterator[bytes]:
        """A body that does not say how long it is."""
        yield b'{"action": "'
        for _ in range(1000):
            read.append(1)
            yield b"x" * 2**16

    late = web.post("/webhook", content=endless(), headers=headers)
    assert late.status_code == 413
    fits = web.post("/webhook", json=EVENT | {"padding": "x" * 2**19}, headers=headers)
    assert fits.status_code == 200


def test_pages_load_their_own_files_alone(plain: TestClient) -> None:
    page = plain.get("/login")
    assert page.headers["Cache-Control"] == "no-cache"
    policy = page.headers["Content-Security-Policy"]
    assert "unsafe-inline" not in policy
    assert "frame-ancestors 'none'" in policy
    script = plain.get("/static/login.js")
    assert script.headers["Cache-Control"] == "no-cache"
    assert script.headers["X-Content-Type-Options"] == "nosniff"
    again = plain.get("/static/login.js", headers={"If-None-Match": script.headers["ETag"]})
    assert again.status_code == 304
    assert plain.get("/docs").headers["Content-Security-Policy"] != policy


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("A2LC_RATE_LIMIT", "many", "3000/minute"),
        ("A2LC_BASIC_AUTH_USER", "label-studio", "A2LC_BASIC_AUTH_PASSWORD"),
        ("A2LC_BASIC_AUTH_PASSWORD", "sesame", "A2LC_BASIC_AUTH_USER"),
        ("A2LC_MAX_REQUEST_MB", "0", "A2LC_MAX_REQUEST_MB"),
        ("A2LC_WEBHOOK_SECRET", "sesame", "Start Training"),
    ],
)
def test_settings_that_cannot_be_are_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=said) as error:
        load_settings()
    assert "sesame" not in str(error.value)


class _Ones(dict[str, str]):
    def __missing__(self, _key: str) -> str:
        return "1"
