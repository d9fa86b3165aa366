"""Answers of the review page as part of rounds, with the real Label Studio and a backend that is killed."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from a2lc_backend.demo.run import Loop
from a2lc_backend.images import decode_image
from tests.conftest import Studio, wait_until
from tests.people import NewPerson, new_person
from tests.rig import drawn_project

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

BUDGET = 40


@dataclass
class Reviewer:
    """Somebody at the review page, without the page."""

    person: NewPerson
    url: str
    given: dict[tuple[int, str], dict[str, Any]] = field(default_factory=dict)

    def ask(self, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Token {self.person.token}"}
        method = "GET" if body is None else "POST"
        return (
            httpx.request(method, f"{self.url}{path}", json=body, headers=headers, timeout=30).raise_for_status().json()
        )

    def look(self, project_id: int, count: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask(f"/api/projects/{project_id}/review/lease", {"count": count})[
            "questions"
        ]
        return found

    def say(self, project_id: int, question: dict[str, Any], kind: str, label: int | None = None) -> dict[str, Any]:
        mask = {name: question[name] for name in ("round", "task", "region")}
        said = mask | {"id": str(uuid.uuid4()), "kind": kind, "label": label, "seconds": 1.0}
        reply = self.ask(f"/api/projects/{project_id}/review/answers", {"answers": [said]})
        assert reply == {"accepted": [said["id"]], "refused": []}
        self.given[question["task"], question["region"]] = said
        return said


@pytest.fixture(scope="module")
def loop(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    with drawn_project(studio, tmp_path_factory.mktemp("review"), 10, BUDGET) as made:
        yield made


@pytest.fixture(scope="module")
def reviewers(studio: Studio, loop: Loop) -> list[Reviewer]:
    people = [new_person(studio, name) for name in ("Ann", "Bob")]
    return [Reviewer(person, loop.server.url) for person in people]


def held(loop: Loop, review_id: int) -> Counter[tuple[str, int]]:
    """Submitted annotations of the second project, by mask and person."""
    tasks = loop.client.tasks.list(
        project=review_id, include="id,data,annotations,completed_by,was_cancelled", page_size=200, resolve_uri=False
    )
    return Counter(
        (task.data["a2lc"]["region"], item["completed_by"])
        for task in tasks
        for item in task.annotations or []
        if task.data and not item["was_cancelled"]
    )


def test_answers_of_two_people_outlive_a_kill_and_count_in_the_next_round(
    loop: Loop, reviewers: list[Reviewer]
) -> None:
    ann, bob = reviewers
    project_id = loop.project_id
    before = ann.ask(f"/api/projects/{project_id}/review")
    assert (before["round"], before["total"], before["left"], before["said"]) == (0, BUDGET, BUDGET, "")
    assert [item["name"] for item in before["classes"]][:2] == ["Sky", "Building"]
    for _ in range(3):
        for reviewer in reviewers:
            for question in reviewer.look(project_id, 5):
                reviewer.say(project_id, question, "label", question["guesses"][0])
    skipped = ann.look(project_id, 1)[0]
    ann.say(project_id, skipped, "skip")
    wrong = ann.look(project_id, 1)[0]
    ann.say(project_id, wrong, "wrong")
    regretted = bob.look(project_id, 2)[1]
    said = bob.say(project_id, regretted, "label", 0)
    loop.server.kill()  # most of the answers have not been brought yet
    loop.server.start()
    undone = bob.ask(f"/api/projects/{project_id}/review/undo", {"id": said["id"]})
    assert undone["question"]["region"] == regretted["region"]
    assert not ann.given.keys() & bob.given.keys()

    wait_until(lambda: not ann.ask(f"/api/projects/{project_id}/review")["unsent"], 60, 0.2)
    review_id = int(before["review_link"].split("/")[-2])
    labels = {key: one for one in reviewers for key, said in one.given.items() if said["kind"] == "label"}
    expected = Counter((region, one.person.id) for (_, region), one in labels.items() if region != regretted["region"])
    expected[wrong["region"], ann.person.id] += 1
    assert held(loop, review_id) == expected

    loop.start_training()
    report = loop.wait_round(1)
    assert report["round"]["summary"]["answered"] == 30
    after = bob.ask(f"/api/projects/{project_id}/review")
    assert (after["round"], after["total"], after["left"], after["mine"]) == (1, BUDGET, BUDGET, 0)
    asked = {(item["task"], item["region"]) for item in bob.look(project_id, BUDGET)}
    assert len(asked) == BUDGET
    assert not asked & set(labels) - {(regretted["task"], regretted["region"])}


def test_an_answer_that_comes_after_its_round_still_counts(loop: Loop, reviewers: list[Reviewer]) -> None:
    ann, bob = reviewers
    bob.ask(f"/api/projects/{loop.project_id}/review/release", {"masks": bob.look(loop.project_id, BUDGET)})
    late = ann.look(loop.project_id, 1)[0]
    loop.server.ask(f"/api/projects/{loop.project_id}/rounds", "POST", {})
    loop.wait_round(2)
    ann.say(loop.project_id, late, "label", 1)
    loop.start_training()
    report = loop.wait_round(3)
    assert report["round"]["summary"]["answered"] == 1


def test_label_studio_shows_the_pictures_without_a_login(loop: Loop, reviewers: list[Reviewer]) -> None:
    status = reviewers[0].ask(f"/api/projects/{loop.project_id}/review")
    review_id = int(status["review_link"].split("/")[-2])
    task = next(iter(loop.client.tasks.list(project=review_id, include="id,data", resolve_uri=False)))
    assert task.data is not None
    address = task.data["picture"].split('src="')[1].rstrip('">')
    picture = httpx.get(address, timeout=30)
    assert max(decode_image(picture.content, 10**7).shape) <= 720
    assert httpx.get(address.replace("/pictures/", "/pictures/0"), timeout=30).status_code == 404


def test_what_cannot_be_answered_is_refused_with_words(loop: Loop, reviewers: list[Reviewer]) -> None:
    ann = reviewers[0]
    body = {"round": 9, "task": 1, "region": "x", "id": str(uuid.uuid4()), "kind": "label", "label": 0}
    path = f"/api/projects/{loop.project_id}/review/answers"
    (refused,) = ann.ask(path, {"answers": [body]})["refused"]
    assert "nobody asked about mask x" in refused["why"]
    question = ann.look(loop.project_id, 1)[0]
    mask = {name: question[name] for name in ("round", "task", "region")}
    (refused,) = ann.ask(path, {"answers": [mask | {"id": str(uuid.uuid4()), "kind": "label", "label": 200}]})[
        "refused"
    ]
    assert "no class 200" in refused["why"]
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        ann.ask("/api/projects/9999/review")
