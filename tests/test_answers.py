"""Answers of the review page on their way to the real Label Studio, and back, through faults and without them."""

from __future__ import annotations

import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from label_studio_sdk.client import LabelStudio
from pydantic import SecretStr

from a2lc_backend.demo.servers import free_port
from a2lc_backend.jobs.courier import Courier
from a2lc_backend.label_studio import (
    LabelStudioError,
    LabelStudioProject,
    LabelStudioUnreachableError,
    deliver_answers,
    hear_answers,
    patience,
)
from a2lc_backend.label_studio.review import WRONG
from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.platform import Question
from a2lc_backend.service import Service
from a2lc_backend.settings import Settings
from a2lc_backend.store import Answer, AnswerKind, Ledger, MaskKey, Project, Query
from tests.conftest import Studio, wait_until
from tests.fault_proxy import FaultProxy
from tests.people import NewPerson, new_person
from tests.test_label_studio import make_project

pytestmark = pytest.mark.e2e

OpenClient = Callable[[str, str], LabelStudio]

PROJECT_TITLE = "gateway · review"
SEED = 20261123


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many attempts as ever, sooner after each other."""
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(patience, "LONGEST_WAIT", 0.05)


def mask(number: int, round_number: int = 1) -> MaskKey:
    return MaskKey(round_number, 1 + number // 4, f"m{number}")


def questions(count: int, round_number: int = 1) -> list[Question]:
    return [
        Question(mask(n, round_number), n % 3 if n % 4 else IGNORE, ((n + 1) % 3, (n + 2) % 3)) for n in range(count)
    ]


def choice(label: str) -> list[dict[str, Any]]:
    """What Label Studio's own page makes of a key."""
    value = {"choices": [label]}
    return [{"id": "abcdefghij", "from_name": "label", "to_name": "mask", "type": "choices", "value": value}]


@dataclass
class Desk:
    """A project with its second one, seen from the ledger."""

    studio: Studio
    open_client: OpenClient
    ledger: Ledger
    project_id: int
    people: list[NewPerson] = field(default_factory=list)

    def platform(self, url: str = "") -> LabelStudioProject:
        url = url or self.studio.url
        client = self.open_client(url, self.studio.account.token)
        review = self.ledger.review_project(self.project_id)
        return LabelStudioProject(client, url, self.project_id, pages="http://backend.example", review=review)

    def ask(self, count: int, number: int = 1) -> dict[MaskKey, int]:
        """What the end of a round does."""
        asked = self.platform().ask(number, questions(count, number))
        assert asked.review is not None
        assert asked.problems == ()
        queries = [
            Query(number, n + 1, item.mask.task_id, item.mask.region_id, item.label, item.guesses[0])
            for n, item in enumerate(questions(count, number))
        ]
        self.ledger.save_queries(self.project_id, number, queries)
        self.ledger.save_review_project(self.project_id, asked.review)
        self.ledger.save_questions(self.project_id, asked.tasks)
        return asked.tasks

    @property
    def review_id(self) -> int:
        found = self.ledger.review_project(self.project_id)
        assert found is not None
        return found.id

    def answer(self, number: int, who: int, label: int = 0, kind: AnswerKind = "label") -> Answer:
        said = Answer(str(uuid.uuid4()), mask(number), who, kind, label, time.time(), 1.25)
        assert self.ledger.add_answer(self.project_id, said)
        return said

    def held(self) -> Counter[tuple[str, int, str]]:
        """What Label Studio holds in the end: (mask, person, what they said)."""
        stamps = self.platform().desk.stamps()
        return Counter(
            (
                item.reply.mask.region_id,
                item.reply.annotator,
                "skip" if item.reply.skipped else item.reply.label or WRONG,
            )
            for item in stamps
            if item.reply is not None
        )


@pytest.fixture
def desk(studio: Studio, clients: OpenClient, ledger: Ledger) -> Desk:
    _, project_id = make_project(studio, images=0)
    return Desk(studio, clients, ledger, project_id)


@pytest.fixture(scope="module")
def people(studio: Studio) -> Iterator[list[NewPerson]]:
    return [new_person(studio, name) for name in ("Ann", "Bob")]


@pytest.fixture
def ledger(tmp_path: Any) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield opened
    opened.close()


def test_the_second_project_asks_one_question_a_mask(desk: Desk, studio: Studio) -> None:
    tasks = desk.ask(5)
    assert desk.ask(5) == tasks  # again, as after a crash: nothing twice
    project = studio.client.projects.get(id=desk.review_id)
    assert project.title == PROJECT_TITLE
    task = studio.client.tasks.get(id=str(tasks[mask(1)]))
    assert task.data is not None
    assert task.data["picture"].startswith(
        '<img alt="the mask in its surroundings" src="http://backend.example/review/'
    )
    options = {item["value"]: item["hotkey"] for item in task.data["options"]}
    assert options == {"Road": "1", "Car": "2", "Sky": "3", WRONG: "0"}
    assert "(now)" in task.data["options"][0]["html"]
    none_held = studio.client.tasks.get(id=str(tasks[mask(0)]))
    assert none_held.data is not None
    assert [item["hotkey"] for item in none_held.data["options"]] == ["1", "2", "s", "0"]


def test_open_questions_of_a_round_that_is_over_go_and_answered_ones_stay(desk: Desk, people: list[NewPerson]) -> None:
    tasks = desk.ask(4)
    desk.answer(0, people[0].id, 2)
    deliver_answers(desk.ledger, desk.platform(), desk.project_id)
    desk.ask(2, number=2)
    listed = {found for _, found, _ in desk.platform().desk._listed(desk.ledger.review_project(desk.project_id))}  # type: ignore[arg-type]
    assert listed == {mask(0), mask(0, 2), mask(1, 2)}
    assert desk.held() == {("m0", people[0].id, "Car"): 1}
    late = desk.answer(1, people[1].id, 1)  # from a laptop that was closed meanwhile
    deliver_answers(desk.ledger, desk.platform(), desk.project_id)
    assert desk.held() == {("m0", people[0].id, "Car"): 1, ("m1", people[1].id, "Road"): 1}
    assert desk.ledger.questions(desk.project_id)[late.mask] != tasks[late.mask]
    assert desk.ledger.unsent_answers(desk.project_id) == []


def test_answers_become_annotations_of_who_gave_them(desk: Desk, people: list[NewPerson], studio: Studio) -> None:
    tasks = desk.ask(3)
    ann, bob = people
    first = desk.answer(0, ann.id, 2)
    desk.answer(1, bob.id, IGNORE, "skip")
    desk.answer(2, bob.id, IGNORE, "wrong")
    deliver_answers(desk.ledger, desk.platform(), desk.project_id)
    assert desk.held() == {("m0", ann.id, "Car"): 1, ("m1", bob.id, "skip"): 1, ("m2", bob.id, WRONG): 1}
    (held,) = studio.client.annotations.list(id=tasks[mask(0)])
    assert held.lead_time == 1.25
    desk.ledger.undo_answer(desk.project_id, first.id, ann.id)
    deliver_answers(desk.ledger, desk.platform(), desk.project_id)
    assert desk.held() == {("m1", bob.id, "skip"): 1, ("m2", bob.id, WRONG): 1}


def test_through_faults_every_answer_arrives_once(desk: Desk, people: list[NewPerson]) -> None:
    desk.ask(60)
    draw = random.Random(SEED)
    expected: Counter[tuple[str, int, str]] = Counter()
    classes = ("Sky", "Road", "Car")
    with FaultProxy(desk.studio.url, SEED, 0.35) as proxy:
        for number in range(60):
            who, label = draw.choice(people), draw.randrange(3)
            said = desk.answer(number, who.id, label)
            if draw.random() < 0.3:
                attempt(desk, proxy.url)  # it may be there already when it is taken back
                desk.ledger.undo_answer(desk.project_id, said.id, who.id)
            else:
                expected[mask(number).region_id, who.id, classes[label]] += 1
        for _ in range(50):
            attempt(desk, proxy.url)
            if not desk.ledger.unsent_answers(desk.project_id):
                break
        print(f"{sum(proxy.counts.values())} faults in {proxy.requests} requests: {dict(proxy.counts)}")
        assert proxy.counts["lost"] > 3
    assert desk.ledger.unsent_answers(desk.project_id) == []
    assert desk.held() == expected


def attempt(desk: Desk, url: str) -> None:
    """One attempt of the courier."""
    try:
        deliver_answers(desk.ledger, desk.platform(url), desk.project_id)
    except LabelStudioError:
        return


def test_a_label_studio_that_is_away_costs_nothing(desk: Desk, people: list[NewPerson]) -> None:
    desk.ask(2)
    desk.answer(0, people[0].id, 1)
    with pytest.raises(LabelStudioUnreachableError):
        deliver_answers(desk.ledger, desk.platform("http://127.0.0.1:9"), desk.project_id)
    assert len(desk.ledger.unsent_answers(desk.project_id)) == 1
    assert deliver_answers(desk.ledger, desk.platform(), desk.project_id) == []
    assert desk.held() == {("m0", people[0].id, "Road"): 1}


def test_the_courier_brings_what_waited_for_label_studio_and_does_not_wait_for_what_is_refused(
    desk: Desk, people: list[NewPerson], tmp_path: Path
) -> None:
    desk.ask(3)
    desk.ledger.save_project(Project(desk.project_id, "gateway", desk.platform().config.classes))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    key = SecretStr(desk.studio.account.token)
    service = Service(Settings(label_studio_url=url, label_studio_api_key=key, data_dir=tmp_path))
    courier = Courier(service)
    courier.start()
    try:
        desk.answer(0, people[0].id, 1)
        courier.wake()
        wait_until(lambda: bool(courier._retry), 60)
        assert desk.held() == {}
        assert len(desk.ledger.unsent_answers(desk.project_id)) == 1
        with FaultProxy(desk.studio.url, SEED, 0.0, port) as back:
            wait_until(lambda: not desk.ledger.unsent_answers(desk.project_id), 60)  # by itself
            desk.answer(1, 999_999, 1)  # nobody has this id
            courier.wake()
            wait_until(lambda: bool(courier._refused), 30)
            desk.answer(2, people[0].id, 1)
            courier.wake()
            wait_until(lambda: len(desk.ledger.unsent_answers(desk.project_id)) == 1, 30)
            assert back.requests > 2
            courier.stop()
    finally:
        courier.stop()
        service.close()
    assert desk.held() == {("m0", people[0].id, "Road"): 1, ("m2", people[0].id, "Road"): 1}


def test_one_refused_answer_does_not_hold_up_others(desk: Desk, people: list[NewPerson]) -> None:
    desk.ask(2)
    never = desk.answer(0, 999_999, 1)  # nobody has this id
    desk.answer(1, people[0].id, 1)
    assert deliver_answers(desk.ledger, desk.platform(), desk.project_id) == [never.id]
    assert desk.held() == {("m1", people[0].id, "Road"): 1}
    assert [item.annotator for item in desk.ledger.unsent_answers(desk.project_id)] == [999_999]
    assert deliver_answers(desk.ledger, desk.platform(), desk.project_id, {never.id}) == []


def test_what_people_answer_in_label_studio_is_heard(desk: Desk, people: list[NewPerson], studio: Studio) -> None:
    tasks = desk.ask(3)
    ann, bob = people
    own = desk.answer(2, ann.id, 1)
    deliver_answers(desk.ledger, desk.platform(), desk.project_id)

    def submit(person: NewPerson, number: int, label: str | None) -> int:
        reply = httpx.post(
            f"{studio.url}/api/tasks/{tasks[mask(number)]}/annotations/", timeout=30,
            headers={"Authorization": f"Token {person.token}"},
            json={"result": choice(label) if label else [], "was_cancelled": label is None},
        )  # fmt: skip
        return int(reply.raise_for_status().json()["id"])

    first = submit(bob, 0, "Car")
    heard = hear_answers(desk.ledger, desk.platform(), desk.project_id)
    submit(bob, 1, None)
    hear_answers(desk.ledger, desk.platform(), desk.project_id, heard)
    answers = desk.ledger.answers(desk.project_id)
    said = {(item.mask.region_id, item.annotator, item.kind, item.label) for item in answers}
    assert said == {("m0", bob.id, "label", 2), ("m1", bob.id, "skip", IGNORE), ("m2", ann.id, "label", 1)}
    assert desk.ledger.unsent_answers(desk.project_id) == []
    studio.client.annotations.update(id=first, result=choice("Sky"))
    hear_answers(desk.ledger, desk.platform(), desk.project_id)
    labels = {item.mask.region_id: item.label for item in desk.ledger.answers(desk.project_id)}
    assert labels == {"m0": 0, "m1": IGNORE, "m2": 1}
    assert own.id in {item.id for item in desk.ledger.answers(desk.project_id)}


def test_an_annotation_that_is_deleted_in_label_studio_is_an_answer_taken_back(
    desk: Desk, people: list[NewPerson], studio: Studio
) -> None:
    desk.ask(3)
    first, second, third = (desk.answer(number, people[0].id, 1) for number in range(3))
    deliver_answers(desk.ledger, desk.platform(), desk.project_id)
    annotations = {item.id: item.annotation_id for item in desk.ledger.sent_answers(desk.project_id)}
    heard = hear_answers(desk.ledger, desk.platform(), desk.project_id)
    assert len(desk.ledger.answers(desk.project_id)) == 3

    studio.client.annotations.delete(id=annotations[first.id])
    heard = hear_answers(desk.ledger, desk.platform(), desk.project_id, heard)
    assert {item.id for item in desk.ledger.answers(desk.project_id)} == {second.id, third.id}
    assert desk.ledger.unsent_answers(desk.project_id) == []  # there is nothing left to take back there
    again = desk.ledger.lease_questions(desk.project_id, 1, people[0].id, 3, time.time() + 60)
    assert [item.region_id for item in again] == ["m0"]

    studio.client.annotations.delete(id=annotations[second.id])  # while nobody listened
    hear_answers(desk.ledger, desk.platform(), desk.project_id)
    assert {item.id for item in desk.ledger.answers(desk.project_id)} == {third.id}
    studio.client.projects.delete(id=desk.review_id)  # that takes no answer back
    assert hear_answers(desk.ledger, desk.platform(), desk.project_id, heard) == ""
    assert {item.id for item in desk.ledger.answers(desk.project_id)} == {third.id}


def test_a_second_project_that_was_deleted_is_made_anew(desk: Desk, studio: Studio) -> None:
    desk.ask(2)
    studio.client.projects.delete(id=desk.review_id)
    gone = desk.review_id
    assert desk.platform().desk.stamps() == []
    assert len(desk.ask(2)) == 2
    assert desk.review_id != gone


def test_a_lost_ledger_finds_the_second_project_again(desk: Desk) -> None:
    tasks = desk.ask(2)
    before = desk.review_id
    fresh = LabelStudioProject(
        desk.open_client(desk.studio.url, desk.studio.account.token), desk.studio.url, desk.project_id, pages="http://b"
    )
    asked = fresh.ask(1, questions(2))
    assert asked.review is not None
    assert asked.review.id == before
    assert asked.tasks == tasks
