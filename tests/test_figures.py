"""What the control room says of masks and projects, against cases counted by hand, and with 5,000 corrections."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Page, expect

from a2lc_backend.app import create_app
from a2lc_backend.audit import STRATA
from a2lc_backend.demo.servers import Server, backend
from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.insight import paces
from a2lc_backend.service import Service
from a2lc_backend.settings import Settings
from a2lc_backend.store import (
    Artifacts,
    Audit,
    Correction,
    Ledger,
    Person,
    Query,
    SeenAnnotation,
    Undone,
)
from tests.browser import faultless_page, harmless
from tests.conftest import OWN_TOKEN, REPOSITORY
from tests.stored import CAR, HUMAN, PROJECT, ROAD, SKY, StoredProject

pytestmark = pytest.mark.timed

NOON = datetime(2026, 3, 2, 12, tzinfo=timezone.utc)
AT = f"/api/projects/{PROJECT}"


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(Settings(data_dir=tmp_path, label_studio_url="http://127.0.0.1:9", label_studio_api_key="f" * 40))  # type: ignore[arg-type]


@pytest.fixture
def web(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service), headers=OWN_TOKEN) as client:
        yield client


@pytest.fixture
def project(service: Service) -> StoredProject:
    """Two images of four masks, all Sky at first. People were asked about both m1 and m2 of task 1, and m1 of task 2;
    they called the m1 Road and kept m2. The corrector then made m2 and m3 of task 2 Road, and held m4 back."""
    made = StoredProject(service.ledger, service.artifacts)
    ledger = service.ledger
    made.finish_round(0, made.labels())
    ledger.save_queries(
        PROJECT, 0,
        [Query(0, 1, 1, "m1", SKY, ROAD, 3.0), Query(0, 2, 1, "m2", SKY), Query(0, 3, 2, "m1", SKY, ROAD, 1.0)],
    )  # fmt: skip
    ledger.save_audits(PROJECT, 0, [Audit(0, 1, "m2", "random", -1, SKY, SKY)])
    answer(service, 11, 1, {"m1": ROAD, "m2": SKY}, NOON)
    answer(service, 12, 2, {"m1": ROAD}, NOON + timedelta(minutes=3))
    labels = made.labels()
    people = [made.place(1, 1), made.place(1, 2), made.place(2, 1)]
    labels.labels[people], labels.sources[people] = [ROAD, SKY, ROAD], HUMAN
    labels.proposals[people] = labels.labels[people]
    labels = made.apply(labels, [made.place(2, 2), made.place(2, 3), made.place(2, 4)], ROAD, 1, held_back=1)
    summary = {
        "queued": 2, "next_fixes": 1.5, "next_fixes_low": 1, "next_fixes_high": 2,
        "queued_half": 1, "next_fixes_half": 0.75, "next_fixes_half_low": 0, "next_fixes_half_high": 1,
    }  # fmt: skip
    made.finish_round(1, labels, summary)
    ledger.save_queries(PROJECT, 1, [Query(1, 1, 2, "m2", ROAD), Query(1, 2, 2, "m4", SKY, ROAD, 2.0)])
    ledger.save_audits(PROJECT, 1, [Audit(1, 2, "m2", "stating", -1, SKY, ROAD)])
    return made


def answer(
    service: Service, annotation: int, task_id: int, labels: dict[str, int], at: datetime, number: int = 1
) -> None:
    """One person, user 7, submits an annotation; every mask was shown as Sky."""
    said = [Correction(annotation, task_id, name, "label", one, SKY, 7, at, number) for name, one in labels.items()]
    service.ledger.save_annotation(PROJECT, SeenAnnotation(annotation, task_id, at.isoformat()), said)


def ask(web: TestClient, path: str, status: int = 200, **params: Any) -> Any:
    reply = web.get(f"{AT}/{path}", params=params)
    assert reply.status_code == status, reply.text
    return reply.json()


@pytest.mark.usefixtures("project")
def test_the_lineage_of_a_corrected_mask(web: TestClient, service: Service) -> None:
    found = ask(web, "masks/2/m3")
    assert (found["first_label"], found["first_source"]) == ("Sky", "foundation")
    assert [(one["round"], one["label"], one["source"]) for one in found["held"]] == [
        (0, "Sky", "foundation"), (1, "Road", "corrector"),
    ]  # fmt: skip
    assert found["held"][1]["version"] == "a2lc-r1-00000001"
    assert found["answers"] == found["asked"] == []
    step = {"round": 1, "before": "Sky", "after": "Road", "stratum": STRATA[5].name, "outcome": "applied"}
    assert found["automatic"] == [step | {"belief": pytest.approx(0.9)}]
    taught = found["teaching"]
    assert (taught["label"], taught["round"], taught["agreeing"], taught["nearest"]) == ("Road", 1, 2, 3)
    assert [(one["task_id"], one["region_id"]) for one in taught["teachers"]] == [(2, "m1"), (1, "m1")]
    assert taught["teachers"][0]["picture"] == f"{AT[1:]}/rounds/1/masks/2/m1.jpg"
    assert found["label_studio"].endswith("/data?task=2")

    service.ledger.undo(PROJECT, [Undone(1, 2, "m3", SKY, ROAD, "foundation")], 1, "a2lc-r1-0000000u")
    service.ledger.change_status(PROJECT, 1, ["running"], "done")
    found = ask(web, "masks/2/m3")
    assert [one["label"] for one in found["held"]] == ["Sky", "Sky"]
    assert found["automatic"][0]["outcome"] == "taken back"


@pytest.mark.usefixtures("project")
def test_the_lineage_of_a_mask_that_was_held_back_or_answered(web: TestClient, service: Service) -> None:
    held = ask(web, "masks/2/m4")
    assert held["automatic"][0]["outcome"] == "held back"
    assert held["asked"][0] | {"rank": 2, "queued": 2, "guess": "Road"} == held["asked"][0]
    service.ledger.save_people([Person(7, "Ada", "ada@example.com")])
    answered = ask(web, "masks/1/m1")
    assert [(one["name"], one["before"], one["label"], one["round"]) for one in answered["answers"]] == [
        ("Ada", "Sky", "Road", 1)
    ]
    assert answered["asked"][0]["why"].startswith("ranked")
    assert answered["teaching"] is None
    assert ask(web, "masks/1/m2")["asked"][0]["why"].startswith("drawn at random")


@pytest.mark.usefixtures("project")
def test_why_a_mask_is_asked_about_is_told_after_it_is_answered(web: TestClient, service: Service) -> None:
    assert ask(web, "masks/2/m2")["asked"][0]["why"].startswith("not told")
    assert ask(web, "masks/2/m4")["asked"][0]["why"].startswith("not told")
    answer(service, 13, 2, {"m2": ROAD}, NOON, number=2)
    assert "state how right" in ask(web, "masks/2/m2")["asked"][0]["why"]


@pytest.mark.usefixtures("project")
def test_what_is_not_there_is_said(web: TestClient) -> None:
    assert "m9" in ask(web, "masks/2/m9", 404)["detail"]
    assert "round 9" in ask(web, "masks/2/m1", 404, round=9)["detail"]
    assert "99" in web.get("/api/projects/99/figures").json()["detail"]


@pytest.mark.usefixtures("project")
def test_figures_are_those_counted_by_hand(web: TestClient, service: Service) -> None:
    found = ask(web, "figures")
    assert found["round"] == 1
    balance = [tuple(one.values()) for one in found["classes"]]
    # name, masks, pixels, by people, by the corrector, queued
    assert balance == [("Sky", 4, 256, 1, 0, 1), ("Road", 4, 256, 2, 2, 1), ("Car", 0, 0, 0, 0, 0)]
    # round, queued, answered, changed, drawn at random and answered, of those changed
    assert [tuple(one.values()) for one in found["hit_rates"]] == [(0, 3, 3, 2, 1, 0), (1, 2, 0, 0, 0, 0)]
    assert found["precision"] == [], "nobody has answered the audit yet"
    assert [(one["share"], one["queries"], one["fixes"]["value"]) for one in found["purchases"]] == [
        (0.5, 1, 0.75), (1.0, 2, 1.5),
    ]  # fmt: skip
    pace = found["people"][0]
    assert (pace["name"], pace["answers"], pace["changes"]) == ("user 7", 3, 2)
    assert pace["answers_an_hour"] == pytest.approx(20), "one answer in the only three minutes that can be measured"

    answer(service, 13, 2, {"m2": CAR}, NOON + timedelta(hours=1), number=2)
    found = ask(web, "figures")
    assert [(one["round"], one["name"], one["audited"], one["right"]) for one in found["precision"]] == [
        (-1, "", 1, 0), (-1, "Road", 1, 0), (1, "", 1, 0), (1, "Road", 1, 0),
    ]  # fmt: skip
    assert found["precision"][0]["high"] == pytest.approx(0.975), "Clopper and Pearson's, of none in one"
    assert found["hit_rates"][1]["changed"] == 1


def test_a_project_without_rounds_has_no_figures(web: TestClient, service: Service) -> None:
    StoredProject(service.ledger, service.artifacts)
    found = ask(web, "figures")
    assert found["round"] is None
    assert found["classes"] == found["hit_rates"] == found["people"] == found["precision"] == found["purchases"] == []


def test_pauses_do_not_count_as_work() -> None:
    def saved(minute: float, *labels: int) -> list[Correction]:
        at = NOON + timedelta(minutes=minute)
        return [
            Correction(int(minute), 1, f"m{place}", "label", label, SKY, 7, at, 1) for place, label in enumerate(labels)
        ]

    # Ten masks in the six minutes before and after a long break; who begins after it took nobody knows how long.
    work = saved(0, ROAD, ROAD) + saved(2, ROAD, SKY) + saved(4, ROAD) + saved(64, SKY) + saved(66, ROAD, SKY)
    other = [Correction(99, 2, "m1", "deleted", IGNORE, SKY, 8, NOON, 1)]
    first, second = paces([*work, *other], {8: Person(8, "", "b@example.com")})
    assert (first.name, first.answers, first.changes) == ("user 7", 8, 5)
    assert first.hours == pytest.approx(0.1)
    assert first.answers_an_hour == pytest.approx(50)
    assert first.changes_an_hour == pytest.approx(30)
    assert (second.name, second.answers, second.changes, second.answers_an_hour) == ("b@example.com", 1, 1, None)


def test_label_studio_that_is_away_is_said_at_once(web: TestClient, project: StoredProject) -> None:
    said = web.get("/api/label-studio").json()
    assert "http://127.0.0.1:9" in said["trouble"]
    assert "LABEL_STUDIO_URL" in said["trouble"]
    reply = web.get(f"{AT}/rounds/1/masks/{project.task_ids[0]}/m1.jpg")
    assert reply.status_code == 502
    assert reply.json()["detail"] == said["trouble"]


# 5,000 automatic corrections in a real browser, while Label Studio is away

MANY, PAGE = 5000, 24


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A backend whose project holds 5,000 corrections of one round, without a Label Studio."""
    folder = tmp_path_factory.mktemp("crowded")
    settings = Settings(data_dir=folder)
    with closing(Ledger(settings.ledger_url)) as ledger:
        made = StoredProject(ledger, Artifacts(settings.artifact_url), images=101, grid=(5, 10))
        made.finish_round(0, made.labels())
        taught = [made.place(101, mask) for mask in range(1, 41)]
        said = [Correction(9, 101, f"m{mask}", "label", ROAD, SKY, 7, NOON, 1) for mask in range(1, 41)]
        ledger.save_annotation(PROJECT, SeenAnnotation(9, 101, NOON.isoformat()), said)
        labels = made.labels()
        labels.labels[taught], labels.sources[taught], labels.proposals[taught] = ROAD, HUMAN, ROAD
        labels = made.apply(labels, list(range(MANY)), ROAD, 1)
        made.finish_round(1, labels, {"masks": 5050, "changed_by_corrector": MANY})
    environment = {"A2LC_LOGIN": "false", "PYTHONPATH": str(REPOSITORY)}
    server = backend(folder, "http://127.0.0.1:9", "f" * 40, environment).start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def browser_page(crowded: Server) -> Iterator[Page]:
    """The control room of that project; long pieces of work on the page's only thread are noted."""
    note = (
        "new PerformanceObserver((list) => (globalThis.long ??= []).push(...list.getEntries().map((e) => e.duration)))"
    )
    with faultless_page() as opened:
        opened.add_init_script(f"{note}.observe({{ type: 'longtask', buffered: true }})")
        opened.goto(crowded.url)
        yield opened


@pytest.mark.e2e
def test_five_thousand_corrections_do_not_hold_the_page_up(crowded: Server, browser_page: Page) -> None:
    page, asked = browser_page, []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith(".jpg") else None)
    begun = time.monotonic()
    page.reload()
    page.get_by_role("button", name="Sky → Road").click()
    expect(page.get_by_role("heading", name="Sky → Road: 1 to 24 of 5000")).to_be_visible()
    assert time.monotonic() - begun < 10, "pictures are there to be looked at"
    expect(page.locator(".masks li")).to_have_count(PAGE)
    for start in (25, 49, 73):
        page.get_by_role("button", name="More").click()
        expect(page.get_by_role("heading", name=f"{start} to {start + 23} of 5000")).to_be_visible()
        assert page.evaluate("document.activeElement.id") == "later", "who pages with the keyboard goes on"
    page.get_by_role("button", name="Last", exact=True).click()
    expect(page.get_by_role("heading", name="4993 to 5000 of 5000")).to_be_visible()
    expect(page.get_by_role("button", name="More")).to_be_disabled()
    assert len(asked) <= 4 * PAGE + 8, "no picture is asked for that is not on the page"
    assert max(page.evaluate("globalThis.long ?? []"), default=0) < 1000, "milliseconds at a stretch"
    for offset in (0, 4976):
        begun = time.monotonic()
        found = crowded.ask(f"{AT}/proposals/masks?before=Sky&after=Road&limit=24&offset={offset}").json()
        assert len(found) == PAGE
        assert time.monotonic() - begun < 0.5


@pytest.mark.e2e
def test_without_label_studio_the_page_says_so_and_shows_what_it_has(browser_page: Page) -> None:
    page = browser_page
    expect(page.locator("#studio")).to_contain_text("Label Studio does not answer at http://127.0.0.1:9")
    expect(page.locator("#studio")).to_contain_text("LABEL_STUDIO_URL")
    expect(page.get_by_text("The image cannot be had now.").first).to_be_visible()
    balance = page.locator("section", has=page.get_by_role("heading", name="Classes after round 1"))
    expect(balance.get_by_role("row", name="Road")).to_contain_text("5040")
    expect(page.get_by_role("heading", name="What people do")).to_be_visible()
    harmless(page)


@pytest.mark.e2e
def test_the_history_of_a_mask_opens_and_closes_with_the_keyboard(browser_page: Page) -> None:
    page = browser_page
    page.get_by_role("button", name="First", exact=True).click()
    expect(page.get_by_role("heading", name="1 to 24 of 5000")).to_be_visible()
    page.locator("#mask-1-m2").focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Mask m2 of task 1")
    expect(dialog.get_by_text("Sky → Road", exact=True)).to_be_visible()
    expect(dialog.get_by_text("20 are Road")).to_be_visible()
    expect(dialog.locator(".teachers li")).to_have_count(5)
    expect(dialog.locator(".timeline li")).to_have_count(3)
    expect(dialog.get_by_role("link", name="Open task 1 in Label Studio")).to_be_visible()
    for scheme, width in (("light", 1280), ("dark", 390)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 844})
        harmless(page)
        assert dialog.evaluate("(one) => one.scrollWidth <= one.clientWidth")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert page.evaluate("document.activeElement.id") == "mask-1-m2"
    harmless(page)
