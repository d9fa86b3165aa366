"""Reviewing in Label Studio's own page: in a real browser, on the real Label Studio."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from a2lc_backend.bench.world import World
from a2lc_backend.demo.servers import Account
from a2lc_backend.label_studio import LabelStudioProject, rest_of
from a2lc_backend.masks import Region
from a2lc_backend.regions import parse_label_config
from a2lc_backend.rounds.platform import Prediction
from a2lc_backend.rounds.workspace import Workspace
from scripts.screenshots import CHROMIUM, FLAGS, log_in
from tests.conftest import REPOSITORY, Studio, grid_masks
from tests.people import NewPerson, new_person
from tests.test_label_studio import SIZE, make_project, publish_tasks, title, versions_of
from tests.test_rebuild import everything, installed, next_round, street_project

__all__ = ["installed"]

pytestmark = pytest.mark.e2e

VIEW = {"width": 1500, "height": 860}
PAGE_MS = 60_000
BUDGET = 10

SHOWN = """() => { const store = window.Htx?.annotationStore; return store?.selected?.regions?.length > 0 ? {
    task: Htx.task.id, regions: store.selected.regions.map((region) => region.cleanId),
    from: store.selected.parent_prediction, versions: store.predictions.map((one) => one.createdBy) } : null }"""
"""What Label Studio's editor holds; null until the regions of a task are there."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


def page_of(browser: Browser, studio: Studio, account: Account | NewPerson) -> Page:
    """A browser of somebody's own, logged in."""
    page = browser.new_context(viewport=VIEW).new_page()  # type: ignore[arg-type]
    log_in(page, studio.url, Account(account.email, account.password))
    return page


def shown(page: Page, before: int = 0) -> dict[str, Any] | None:
    """The task on the page, once it is another than before; None where Label Studio says that there is none."""
    ready = f"""() => {{ const now = ({SHOWN})();
        return /No tasks found|No More Tasks/.test(document.body.innerText) || (now && now.task !== {before}) }}"""
    page.wait_for_function(ready, timeout=PAGE_MS)
    found: dict[str, Any] | None = page.evaluate(SHOWN)
    return found if found and found["task"] != before else None


def submit(page: Page, task_id: int) -> None:
    """Submit by keyboard, and wait until Label Studio has taken it."""
    with page.expect_response(lambda reply: f"/tasks/{task_id}/annotations" in reply.url and reply.ok):
        page.keyboard.press("Control+Enter")


def cut_quarters(number: int) -> Prediction:
    """Three regions on the page, of which one is queued, and nine off it."""
    masks = grid_masks(3, 4)
    regions = [
        Region(name, "Sky", masks.mask(index), 0.5, "foundation", number) for index, name in enumerate(masks.region_ids)
    ]
    return Prediction((replace(regions[0], score=None, rank=1), *regions[1:3]), 1.0, tuple(regions[3:]))


def test_what_is_kept_off_the_page_lies_beside_it(studio: Studio, browser: Browser) -> None:
    project, project_id = make_project(studio, 2)
    tasks = [task.id for task in project.tasks()]
    versions = ["a2lc-r0-00000000", "a2lc-r1-11111111"]
    row = {"task": tasks[0], "result": [], "score": 0.0, "model_version": rest_of(versions[1])}
    studio.client.projects.import_predictions(id=project_id, request=[row, row])
    for number, version in enumerate(versions):
        publish_tasks(project, version, tasks, tasks[:1], lambda _, number=number: cut_quarters(number))
    held = sorted([*versions, *map(rest_of, versions)])
    assert [versions_of(studio, task_id) for task_id in tasks] == [held] * 2, "doubles of the rest are removed too"
    now = LabelStudioProject(studio.client, studio.url, project_id)
    found = list(now.published(now.tasks()[1]))
    assert [(len(one.regions), len(one.rest)) for one in found] == [(3, 9)] * 2

    page = page_of(browser, studio, studio.account)
    page.goto(project.queue_link())
    queue = shown(page)
    assert queue is not None
    assert (queue["task"], len(queue["regions"])) == (tasks[0], 3)
    assert queue["versions"] == versions[1:], "what is kept off the page is not even sent to it"
    page.goto(f"{studio.url}/projects/{project_id}/data?task={tasks[0]}")
    opened = shown(page)
    assert opened is not None
    assert opened["regions"] == queue["regions"]
    assert opened["from"] == queue["from"]
    assert opened["versions"][0] == versions[1], "the other versions lie behind it, to be chosen"
    page.context.close()

    project.drop(versions[1], versions[0])
    assert versions_of(studio, tasks[0]) == sorted([versions[0], rest_of(versions[0])])
    for number in (2, 3):
        publish_tasks(project, f"a2lc-r{number}-{number}", tasks, tasks, lambda _, number=number: cut_quarters(number))
    project.prune(0)
    assert versions_of(studio, tasks[0]) == ["a2lc-r3-3", "a2lc-r3-rest-3"]


@pytest.mark.usefixtures("installed", "short_training")
def test_masks_are_reviewed_by_keyboard(
    studio: Studio, browser: Browser, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A2LC_BUDGET", str(BUDGET))
    monkeypatch.setenv("A2LC_REGIONS_SHOWN", "6")
    project_id = street_project(studio, world, "bitmasklabels")
    _, service = next_round(project_id)
    queries = service.ledger.queries(project_id, 0)
    before = everything(
        service.ledger,
        Workspace(service.artifacts, project_id),
        0,
    )
    service.close()
    labels = parse_label_config((REPOSITORY / "label_studio_config/street.xml").read_text()).labels
    keys = {label.name: label.hotkey for label in labels}
    wanted: dict[tuple[int, str], int] = {}
    page = page_of(browser, studio, studio.account)
    page.goto(LabelStudioProject(studio.client, studio.url, project_id).queue_link())
    task_id = 0
    while (task := shown(page, task_id)) is not None:
        task_id = task["task"]
        assert len(task["regions"]) <= max(6, sum(query.task_id == task_id for query in queries))
        count = place = 1
        while place <= count:
            page.keyboard.press("Alt+.")
            note = page.get_by_text(re.compile(rf"^Please check \({place} of \d+ in this image\)"))
            expect(note.first).to_be_visible(timeout=PAGE_MS)
            said = note.first.inner_text()
            count = int(re.search(r"of (\d+)", said)[1])  # type: ignore[index]
            asked = [query for query in queries if query.task_id == task_id][place - 1]
            label = asked.label
            if place % 2:  # every other one gets the class that follows
                label = (asked.label + 1) % len(labels)
                page.keyboard.press(keys[labels[label].name] or "")
                chosen = "(label) => Htx.annotationStore.selected.selectedRegions[0]?.labels?.[0] === label"
                page.wait_for_function(chosen, arg=labels[label].name)
            wanted[asked.task_id, asked.region_id] = label
            place += 1
        submit(page, task_id)
    page.context.close()
    assert wanted.keys() == {(query.task_id, query.region_id) for query in queries}

    record, service = next_round(project_id)
    assert record.summary["answered"] == BUDGET
    corrections = service.ledger.corrections(project_id)
    assert {(item.task_id, item.region_id): item.label for item in corrections} == wanted
    assert {item.kind for item in corrections} == {"label"}
    after = everything(service.ledger, Workspace(service.artifacts, project_id), 1)
    assert {key: row[0] for key, row in after.items() if row[1] == "human"} == wanted
    assert {key: row[3] for key, row in after.items()} == {key: row[3] for key, row in before.items()}
    service.close()


def test_two_annotators_share_a_queue(studio: Studio, browser: Browser) -> None:
    people = [new_person(studio, name) for name in ("ann", "ben")]
    project, project_id = make_project(studio, 20)
    tasks = [task.id for task in project.tasks()]
    publish_tasks(project, "a2lc-r0-00000000", tasks, tasks, lambda _: cut_quarters(0))
    targets, _ = project.prepare(tasks, tasks)
    for addresses in (["gone@example.com", people[0].email], [person.email for person in people]):
        for _ in range(2):
            project.share(targets, addresses)
    links = project.queue_links()
    assert links.keys() == {"", *(person.email for person in people)}
    pages = [page_of(browser, studio, person) for person in people]
    for page, person in zip(pages, people, strict=True):
        page.goto(links[person.email])
    served: list[list[int]] = [[], []]
    at_work = [0, 1]
    while at_work:
        for who in list(at_work):
            task = shown(pages[who], served[who][-1] if served[who] else 0)
            if task is None:
                at_work.remove(who)
                continue
            served[who].append(task["task"])
            submit(pages[who], task["task"])
    assert [len(mine) for mine in served] == [10, 10]
    assert sorted(served[0] + served[1]) == tasks
    stamps = project.annotation_stamps()
    assert sorted(stamp.task_id for stamp in stamps) == tasks, "no task was labelled twice"
    by = {stamp.task_id: project.annotation(stamp, SIZE).annotator for stamp in stamps}  # type: ignore[union-attr]
    assert by == dict.fromkeys(served[0], people[0].id) | dict.fromkeys(served[1], people[1].id)

    publish_tasks(project, "a2lc-r1-11111111", tasks, tasks[:1], lambda _: cut_quarters(1))
    for page in pages:  # through the queue of all they meet
        page.goto(links[""])
    met = [shown(page) for page in pages]
    assert met[0] is not None
    assert met[1] is not None
    assert met[0]["task"] == met[1]["task"]
    for page in pages:
        submit(page, met[0]["task"])
        page.context.close()
    answers = [project.annotation(stamp, SIZE) for stamp in project.annotation_stamps() if stamp.task_id == tasks[0]]
    assert {answer.annotator for answer in answers if answer and answer.shown_round == 1} == {one.id for one in people}
    project.share(targets, [])
    assert project.queue_links().keys() == {""}
    assert len([view for view in studio.client.views.list(project=project_id) if "·" in title(view)]) == 0
