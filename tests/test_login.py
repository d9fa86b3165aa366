"""Who may see and change what: the real Label Studio decides who people are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import expect, sync_playwright

from a2lc_backend.app import create_app
from a2lc_backend.demo.servers import backend
from a2lc_backend.service import Service
from a2lc_backend.settings import Settings
from a2lc_backend.store import Project
from a2lc_backend.web.login import COOKIE
from scripts.screenshots import CHROMIUM, FLAGS, enter
from tests.browser import harmless
from tests.conftest import OWN_TOKEN, Studio
from tests.people import new_person

HOST = {"host": "backend.example"}


@pytest.fixture
def away(tmp_path: Path) -> Iterator[TestClient]:
    """A backend whose Label Studio is away."""
    settings = Settings(data_dir=tmp_path, label_studio_url="http://127.0.0.1:9", label_studio_api_key="f" * 40)  # type: ignore[arg-type]
    with TestClient(create_app(Service(settings))) as client:
        yield client


@pytest.fixture
def web(studio: Studio, tmp_path: Path) -> Iterator[TestClient]:
    """A backend beside the real Label Studio, with one known project."""
    settings = Settings(
        data_dir=tmp_path, label_studio_url=studio.url, label_studio_api_key=studio.account.token,
        admins="Chief@example.com, ",
    )  # type: ignore[arg-type]  # fmt: skip
    service = Service(settings)
    service.ledger.save_project(Project(3, "Streets", ("Sky", "Road")))
    with TestClient(create_app(service), base_url="http://backend.example") as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/projects"), ("GET", "/api/projects/3/rounds"), ("POST", "/api/projects/3/rounds"),
        ("PUT", "/api/projects/3/proposals/approval"), ("GET", "/api/workers"), ("GET", "/api/me"),
        ("GET", "/api/projects/3/rounds/0/masks/1/a.jpg"),
    ],
)  # fmt: skip
def test_nothing_is_told_to_somebody_unknown(away: TestClient, method: str, path: str) -> None:
    assert away.request(method, path).status_code == 401
    assert away.request(method, path, headers={"Cookie": f"{COOKIE}=made-up"}).status_code == 401


def test_every_path_but_the_contract_asks_who_it_is(away: TestClient) -> None:
    """A path that is added later is closed unless somebody opens it."""
    paths = away.get("/openapi.json").json()["paths"]
    answers = {path: away.request(next(iter(paths[path])), path.format_map(_Ones())).status_code for path in paths}
    opened = {path for path, status in answers.items() if status not in {401, 303}}
    assert opened <= {
        "/health", "/setup", "/versions", "/predict", "/webhook", "/metrics", "/api/login", "/api/logout"
    }  # fmt: skip


class _Ones(dict[str, str]):
    def __missing__(self, _key: str) -> str:
        return "1"


def test_label_studio_and_prometheus_need_no_login(away: TestClient) -> None:
    assert away.get("/health").status_code == 200
    assert away.get("/metrics").status_code == 200
    assert away.post("/webhook", json={"action": "TASKS_CREATED", "project": {"id": 3}}).status_code == 200


def test_the_programs_own_token_works_while_label_studio_is_away(away: TestClient) -> None:
    assert away.get("/api/projects", headers=OWN_TOKEN).status_code == 200
    assert away.get("/api/me", headers=OWN_TOKEN).json()["role"] == "admin"
    refused = away.get("/api/projects", headers={"Authorization": "Token " + "e" * 40})
    assert refused.status_code == 502
    assert "no answer from Label Studio" in refused.json()["detail"]


def test_a_page_sends_on_to_the_login_and_back(away: TestClient) -> None:
    reply = away.get("/", follow_redirects=False)
    assert (reply.status_code, reply.headers["location"]) == (303, "login?next=")


def test_without_login_everybody_is_an_admin(tmp_path: Path) -> None:
    with TestClient(create_app(Service(Settings(data_dir=tmp_path, login=False)))) as client:
        assert client.get("/api/me").json()["role"] == "admin"


@pytest.mark.e2e
def test_an_account_of_label_studio_logs_in_by_password(web: TestClient, studio: Studio) -> None:
    body = {"email": studio.account.email, "password": studio.account.password}
    reply = web.post("/api/login", json=body)
    assert reply.json()["role"] == "admin"  # the owner of the program's token
    said = reply.headers["set-cookie"]
    assert "HttpOnly" in said
    assert "SameSite=lax" in said
    assert web.get("/api/projects").json()[0]["title"] == "Streets"
    assert web.get("/api/me").json()["email"] == studio.account.email
    assert studio.account.password not in str(web.get("/api/me").json())
    secret = web.cookies[COOKIE]
    web.post("/api/logout")
    assert web.get("/api/projects", headers={"Cookie": f"{COOKIE}={secret}"}).status_code == 401


@pytest.mark.e2e
def test_what_is_wrong_is_said(web: TestClient, studio: Studio) -> None:
    wrong = web.post("/api/login", json={"email": studio.account.email, "password": "nonsense"})
    assert wrong.status_code == 401
    assert "does not know" in wrong.json()["detail"]
    assert web.post("/api/login", json={"token": "e" * 40}).status_code == 401
    assert web.post("/api/login", json={"email": studio.account.email}).status_code == 422
    for _ in range(5):
        last = web.post("/api/login", json={"email": studio.account.email, "password": "nonsense"})
    assert last.status_code == 429
    right = {"email": studio.account.email, "password": studio.account.password}
    assert web.post("/api/login", json=right).status_code == 429


@pytest.mark.e2e
def test_an_annotator_answers_and_changes_nothing_else(web: TestClient, studio: Studio) -> None:
    person = new_person(studio, "Ann")
    assert web.post("/api/login", json={"token": person.token}).json() | {"id": 0} == {
        "id": 0, "name": "Ann", "email": person.email, "role": "annotator",
    }  # fmt: skip
    assert web.get("/api/me").json()["id"] == person.id
    refused = web.post("/api/projects/3/rounds", json={})
    assert refused.status_code == 403
    assert "A2LC_ADMINS" in refused.json()["detail"]
    assert web.get("/", follow_redirects=False).headers["location"] == "review/"
    assert web.get("/api/projects/3/rounds/0/masks/1/a.jpg").status_code == 404  # may be asked for


@pytest.mark.e2e
def test_admins_are_named_by_address_and_tokens_do_for_programs(web: TestClient, studio: Studio) -> None:
    chief = new_person(studio, "Chief", "chief@example.com")
    header = {"Authorization": f"Bearer {chief.token}"}
    assert web.get("/api/me", headers=header).json()["role"] == "admin"
    assert web.get("/api/projects", headers=header).status_code == 200
    assert web.get("/api/projects", headers={"Authorization": "Token " + "e" * 40}).status_code == 401


@pytest.mark.e2e
def test_another_hosts_page_cannot_act_for_somebody(web: TestClient, studio: Studio) -> None:
    web.post("/api/login", json={"token": studio.account.token})
    refused = web.post("/api/projects/3/rounds/pause", headers={"Origin": "http://evil.example"})
    assert refused.status_code == 403
    assert "evil.example" in refused.json()["detail"]
    allowed = web.post("/api/projects/3/rounds/pause", headers={"Origin": "http://backend.example"})
    assert allowed.status_code == 409  # there is no round to pause


@pytest.mark.e2e
def test_the_page_logs_in_and_goes_on(studio: Studio, tmp_path: Path) -> None:
    server = backend(tmp_path, studio.url, studio.account.token, {}).start()
    try:
        with sync_playwright() as playwright:
            page = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS).new_page()
            page.goto(server.url)
            page.get_by_label("E-mail address").fill(studio.account.email)
            page.get_by_label("Password").fill("nonsense")
            page.keyboard.press("Enter")
            expect(page.get_by_role("alert")).to_contain_text("does not know this e-mail address")
            harmless(page)
            enter(page, server.url, studio.account)
            expect(page.get_by_role("heading", name="No project yet")).to_be_visible()
            page.goto(f"{server.url}/login?next=//evil.example/")
            page.get_by_text("With an access token instead").click()
            page.get_by_label("Access token").fill(studio.account.token)
            page.keyboard.press("Enter")
            expect(page.get_by_role("heading", name="No project yet")).to_be_visible()
            assert page.url.startswith(server.url)
            page.context.browser.close()
    finally:
        server.stop()
