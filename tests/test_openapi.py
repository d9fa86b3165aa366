"""The API as its own description says, asked at random: logged in and not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.testclient import TestClient

from a2lc_backend.app import create_app
from a2lc_backend.label_studio import patience
from a2lc_backend.service import Service
from a2lc_backend.settings import Settings
from tests.conftest import OWN_TOKEN
from tests.stored import PROJECT, StoredProject

# Threads of the program draw random pauses while a request is being made up.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")

EXAMPLES = 20
OPEN = {"/health", "/setup", "/predict", "/versions", "/webhook", "/metrics", "/api/login", "/api/logout"}
"""What anybody may ask: Label Studio, Prometheus, and who logs in."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A project with two rounds; Label Studio is away."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(patience, "GREETING_SECONDS", 0.0)
        settings = Settings(
            data_dir=tmp_path_factory.mktemp("api"), label_studio_url="http://127.0.0.1:9",
            label_studio_api_key="f" * 40,  # type: ignore[arg-type]
        )  # fmt: skip
        service = Service(settings)
        project = StoredProject(service.ledger, service.artifacts)
        labels = project.labels()
        project.finish_round(0, labels)
        project.finish_round(1, project.apply(labels, [0, 1, 5], 2, 1, held_back=1))
        yield service


@pytest.fixture(scope="module")
def web(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service), raise_server_exceptions=False) as client:
        yield client


def operations(web: TestClient) -> list[Any]:
    described = schemathesis.openapi.from_dict(web.get("/openapi.json", headers=OWN_TOKEN).json())
    return [found.ok() for found in described.get_all_operations()]


def ask(web: TestClient, operation: Any, headers: dict[str, str], check: Callable[[Case, Any], None]) -> None:
    """Ask one thing many times, of what there is as often as of what there is not."""

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy())
    def once(case: Case) -> None:
        for name, value in (("project_id", PROJECT), ("number", 1), ("task_id", 1), ("region_id", "m1")):
            held = case.path_parameters.get(name)
            if (isinstance(held, int) and held % 4) or (isinstance(held, str) and len(held) % 2):
                case.path_parameters[name] = value
        request = case.as_transport_kwargs(base_url="http://testserver", headers=headers)
        request.pop("cookies", None)
        reply = web.request(
            follow_redirects=False, **{key: value for key, value in request.items() if value is not None}
        )
        check(case, reply)

    once()


def test_answers_are_what_the_description_says(web: TestClient, service: Service) -> None:
    def check(case: Case, reply: Any) -> None:
        assert reply.status_code != 500, reply.text
        # 502 is said where Label Studio is away; 422 also where names mean nothing to the project.
        case.validate_response(reply, excluded_checks=[not_a_server_error, positive_data_acceptance])

    before = service.artifacts.read(f"project-{PROJECT}/rounds/1/labels")
    for operation in operations(web):
        ask(web, operation, OWN_TOKEN, check)
    assert service.artifacts.read(f"project-{PROJECT}/rounds/1/labels") == before
    assert [item.number for item in service.ledger.rounds(PROJECT)][:2] == [0, 1]
    assert web.get("/health").status_code == 200
    assert web.get(f"/api/projects/{PROJECT}/rounds/1", headers=OWN_TOKEN).status_code == 200


def test_who_is_not_logged_in_learns_and_changes_nothing(web: TestClient, service: Service) -> None:
    def check(case: Case, reply: Any) -> None:
        if case.operation.path in OPEN:
            assert reply.status_code not in {401, 403, 500} or case.operation.path == "/api/login", reply.text
        else:
            assert reply.status_code == 401, reply.text
        case.validate_response(reply, excluded_checks=[not_a_server_error, positive_data_acceptance])

    before = [(item.id, len(service.ledger.rounds(item.id))) for item in service.ledger.projects()]
    for operation in operations(web):
        ask(web, operation, {}, check)
    assert [(item.id, len(service.ledger.rounds(item.id))) for item in service.ledger.projects()] == before
