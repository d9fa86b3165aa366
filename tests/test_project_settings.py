"""The settings of a project: a form made of the model, kept in Label Studio, with a history."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from a2lc_backend.demo.run import Loop
from a2lc_backend.project_settings import _HELP
from a2lc_backend.settings import ProjectSettings
from tests.conftest import Studio
from tests.people import new_person
from tests.rig import drawn_project

BUDGET = 40


def test_every_setting_is_explained() -> None:
    assert _HELP.keys() == ProjectSettings.model_fields.keys()
    assert _HELP["budget"] == "masks queued a round."
    assert "else superpixels. `grounded-sam`" in _HELP["proposals"], "over several lines"


@pytest.fixture(scope="module")
def loop(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """A project that no round was begun for, on an installation that sets something of its own."""
    with drawn_project(
        studio,
        tmp_path_factory.mktemp("settings"),
        2,
        BUDGET,
        first_round=False,
        more={"A2LC_ADMINS": "grace@example.com"},
    ) as made:
        yield made


@pytest.fixture
def web(loop: Loop, studio: Studio) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Token {studio.account.token}"}
    at = f"{loop.server.url}/api/projects/{loop.project_id}/"
    with httpx.Client(base_url=at, headers=headers, timeout=30) as client:
        yield client


def fields(web: httpx.Client) -> dict[str, dict[str, Any]]:
    return {field["name"]: field for field in web.get("settings").raise_for_status().json()["fields"]}


def kept(loop: Loop) -> dict[str, Any]:
    """What Label Studio holds."""
    return dict(loop.client.ml.list(project=loop.project_id)[0].extra_params or {})


@pytest.mark.e2e
def test_the_form_says_what_holds_and_who_says_so(web: httpx.Client) -> None:
    found = fields(web)
    assert found.keys() == ProjectSettings.model_fields.keys()
    budget, policy, precision = found["budget"], found["policy"], found["precision"]
    assert (budget["kind"], budget["least"], budget["value"], budget["origin"]) == ("integer", 1, BUDGET, "project")
    assert (policy["kind"], policy["choices"]) == ("choice", ["gain", "precision", "manual"])
    assert (precision["kind"], precision["least"], precision["most"]) == ("number", 0, 1)
    assert (found["proposals"]["value"], found["proposals"]["origin"]) == ("world", "installation")
    assert (found["explore"]["value"], found["explore"]["origin"]) == (0.15, "default")


@pytest.mark.e2e
def test_a_change_is_checked_kept_in_label_studio_and_remembered(web: httpx.Client, loop: Loop, studio: Studio) -> None:
    first = web.get("settings/history").json()
    assert [(item["name"], item["before"], item["after"], item["who"]) for item in first] == [
        ("budget", None, BUDGET, "in Label Studio")
    ]
    before = kept(loop)
    for wrong, name in ({"budget": 0}, "budget"), ({"policy": "hope"}, "policy"), ({"bugdet": 5}, "bugdet"):
        refused = web.put("settings", json={"settings": wrong})
        assert refused.status_code == 422
        assert [item["loc"][-1] for item in refused.json()["detail"]] == [name]
    together = web.put("settings", json={"settings": {"policy": "manual", "corrector": "paper"}}).json()["detail"]
    assert together[0]["loc"][-1] == ""
    assert together[0]["msg"].startswith("the policy manual needs")
    assert kept(loop) == before, "nothing of it is kept"
    assert web.get("settings/history").json() == first

    grace = new_person(studio, "Grace", "grace@example.com")
    own = {"Authorization": f"Token {grace.token}"}
    said = web.put("settings", json={"settings": {"explore": 0.2, "budget": "50"}}, headers=own)
    assert said.status_code == 200, said.text
    assert kept(loop) == before | {"explore": 0.2, "budget": 50}, "as the model reads it"
    assert fields(web)["explore"]["origin"] == "project"
    changes = web.get("settings/history").json()[:2]
    assert {(item["name"], item["before"], item["after"]) for item in changes} == {
        ("explore", None, 0.2), ("budget", BUDGET, 50),
    }  # fmt: skip
    assert {(item["who"], item["person"]) for item in changes} == {("Grace", grace.id)}
    assert all(abs(item["changed_at"] - changes[0]["changed_at"]) < 1 for item in changes)

    assert web.put("settings", json={"settings": {"explore": None}}).status_code == 200
    assert kept(loop) == before | {"budget": 50}
    assert fields(web)["explore"]["origin"] == "default"


@pytest.mark.e2e
def test_what_is_changed_in_label_studio_is_noticed_and_what_is_wrong_there_can_be_dropped(
    web: httpx.Client, loop: Loop
) -> None:
    changed = {"budget": 60, "bugdet": 70}
    loop.client.ml.update(id=loop.backend_id, project=loop.project_id, url=loop.server.url, extra_params=changed)
    form = web.get("settings").json()
    assert "bugdet is no setting of a project; did you mean budget?" in form["problem"]
    assert form["unknown"] == {"bugdet": 70}
    assert next(field for field in form["fields"] if field["name"] == "budget")["value"] == 60
    latest = web.get("settings/history").json()[0]
    assert (latest["name"], latest["after"], latest["who"]) == ("budget", 60, "in Label Studio")
    assert web.get("settings").json() == form
    assert web.get("settings/history").json()[0] == latest, "it is noticed once"
    assert web.put("settings", json={"settings": {"bugdet": None}}).json()["problem"] == ""
    assert kept(loop) == {"budget": 60}


@pytest.mark.e2e
def test_an_unconnected_project_says_how_to_connect_it(web: httpx.Client, loop: Loop, studio: Studio) -> None:
    other = studio.client.projects.create(title="Not connected", label_config="<View></View>")
    at = f"{loop.server.url}/api/projects/{other.id}/settings"
    refused = httpx.put(at, json={"settings": {"budget": 5}}, headers=web.headers, timeout=30)
    assert refused.status_code == 502
    assert f"a2lc connect --project {other.id}" in refused.json()["detail"]
