"""The control room in a real browser: what comes late, fails, or changes under one's hands. Label Studio is away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Page, Route, expect

from a2lc_backend.app import create_app
from a2lc_backend.demo.servers import Server, backend
from a2lc_backend.service import Service
from a2lc_backend.settings import Settings
from a2lc_backend.store import Artifacts, Ledger, SettingChange
from tests.browser import faultless_page, harmless
from tests.conftest import OWN_TOKEN, REPOSITORY
from tests.stored import PROJECT, ROAD, StoredProject

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

OTHER = PROJECT + 1
APPLIED, HELD_BACK, UNSURE = 4, 6, 3
RETRY_MS = 15_000

COUNT_PLOTS = """() => {
  const Real = globalThis.uPlot;
  globalThis.plots = 0;
  globalThis.uPlot = function (...how) {
    const made = new Real(...how);
    const destroy = made.destroy;
    globalThis.plots += 1;
    made.destroy = () => { globalThis.plots -= 1; destroy(); };
    return made;
  };
}"""


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ledger, Path]]:
    """Two projects: one with two rounds and proposals of many minds, one that has its round 0 only."""
    folder = tmp_path_factory.mktemp("states")
    settings = Settings(data_dir=folder)
    with closing(Ledger(settings.ledger_url)) as opened:
        artifacts = Artifacts(settings.artifact_url)
        made = StoredProject(opened, artifacts, images=2, grid=(3, 3))
        made.finish_round(0, made.labels(), {"tasks": 2, "masks": 18})
        count = APPLIED + HELD_BACK
        labels = made.apply(made.labels(), list(range(count)), ROAD, 1, held_back=HELD_BACK)
        labels.doubt[count - UNSURE : count] = 0.3
        made.finish_round(1, labels, {"tasks": 2, "masks": 18, "changed_by_corrector": APPLIED})
        opened.add_setting_changes(PROJECT, [SettingChange("budget", None, 40, 0, time.time())])
        other = StoredProject(opened, artifacts, project_id=OTHER, title="Rivers")
        other.finish_round(0, other.labels(), {"tasks": 2, "masks": 8})
        yield opened, folder


@pytest.fixture(scope="module")
def server(ledger: tuple[Ledger, Path]) -> Iterator[Server]:
    """Their backend; nobody has to log in."""
    environment = {"A2LC_LOGIN": "false", "PYTHONPATH": str(REPOSITORY)}
    made = backend(ledger[1], "http://127.0.0.1:9", "f" * 40, environment).start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def opened(server: Server) -> Iterator[Page]:
    with faultless_page() as page:
        yield page


@pytest.fixture
def page(opened: Page, server: Server) -> Page:
    """The room of the first project, loaded anew."""
    opened.goto("about:blank")
    opened.unroute_all()
    opened.goto(f"{server.url}/#/{PROJECT}")
    expect(opened.get_by_role("heading", name="Round 1: done")).to_be_visible()
    expect(opened.get_by_role("heading", name="Classes after round 1")).to_be_visible()
    return opened


def test_an_answer_that_comes_late_does_not_show_another_project(page: Page) -> None:
    held: list[Route] = []
    page.evaluate(f"location.hash = '#/{OTHER}'")
    expect(page.get_by_role("heading", name="Round 0: done")).to_be_visible()
    page.route(f"**/api/projects/{PROJECT}/rounds", lambda route: held.append(route))  # noqa: PLW0108 - Playwright marks what it calls
    with page.expect_request(f"**/api/projects/{PROJECT}/rounds"):
        page.evaluate(f"location.hash = '#/{PROJECT}'")
    expect(page.get_by_text("Looking the project up…")).to_be_visible()
    expect(page.get_by_role("button", name="Next round")).to_have_count(0)
    expect(page.get_by_role("button", name="Settings")).to_be_hidden()
    page.evaluate(f"location.hash = '#/{OTHER}'")
    expect(page.get_by_role("heading", name="Round 0: done")).to_be_visible()
    page.evaluate("document.querySelector('#now').dataset.same = 'yes'")
    with page.expect_response(f"**/api/projects/{PROJECT}/rounds"):
        held[0].continue_()
    with page.expect_response(f"**/api/projects/{OTHER}/rounds"):
        pass  # the next look of the room
    expect(page.locator("#now[data-same]")).to_have_text("Round 0: done")
    expect(page.get_by_role("link", name="Review page")).to_have_attribute("href", f"review/{OTHER}")
    expect(page.locator("#project")).to_have_value(str(OTHER))


def test_two_questions_are_answered_each_by_itself(page: Page) -> None:
    page.evaluate("""async () => {
      const { refused, sure } = await import("./static/controls.js");
      globalThis.answers = [];
      sure("Cancel round 1?", "It is dropped.", "Cancel it").then((yes) => answers.push(["cancel", yes]));
      refused(new Error("no worker is there")).then((yes) => answers.push(["refused", yes]));
    }""")
    page.get_by_role("dialog", name="That was not done").get_by_role("button", name="I see").click()
    first = page.get_by_role("dialog", name="Cancel round 1?")
    expect(first).to_be_visible()
    harmless(page)
    page.wait_for_function("answers.length === 1")
    assert page.evaluate("answers") == [["refused", True]]
    first.get_by_role("button", name="No, go back").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.wait_for_function("answers.length === 2")
    assert page.evaluate("answers") == [["refused", True], ["cancel", False]]
    page.evaluate("""async () => {
      const { sure } = await import("./static/controls.js");
      sure("Once more?", "", "Yes").then((yes) => answers.push(yes));
    }""")
    page.keyboard.press("Escape")
    page.wait_for_function("answers.at(-1) === false")


def test_what_cannot_be_had_is_asked_for_again_and_can_be_asked_for_at_once(page: Page) -> None:
    refused = []

    def refuse(route: Route) -> None:
        refused.append(route.request.url)
        route.fulfill(status=502, json={"detail": "the store is away"})

    for path in ("figures", "proposals/masks?*"):
        page.route(f"**/api/projects/{PROJECT}/{path}", refuse)
    page.reload()
    failure = page.locator("#figures .failure")
    expect(failure).to_contain_text("The figures cannot be had now: the store is away")
    harmless(page)
    count = len(refused)
    failure.get_by_role("button", name="Try again").click()
    page.wait_for_function("document.activeElement.id === 'figures-again'")
    assert len(refused) > count
    page.get_by_role("button", name="Sky → Road").click()
    expect(page.locator("#masks .failure")).to_contain_text("the store is away")
    page.unroute_all()
    expect(page.get_by_role("heading", name="Classes after round 1")).to_be_visible(timeout=RETRY_MS)
    expect(page.locator(".failure")).to_have_count(0, timeout=RETRY_MS)
    expect(page.locator(".masks li")).to_have_count(APPLIED + HELD_BACK)


def test_the_curve_follows_the_light_and_only_what_changed_is_drawn_anew(
    page: Page, ledger: tuple[Ledger, Path]
) -> None:
    page.evaluate(COUNT_PLOTS)
    colour = "getComputedStyle(document.querySelector('.u-legend tr:nth-child(2) .u-marker')).borderColor"
    light = page.evaluate(colour)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"{colour} !== '{light}'")
    harmless(page)
    page.emulate_media(color_scheme="light")
    page.wait_for_function(f"{colour} === '{light}'")
    assert page.evaluate("plots") == 1, "the one before was given back"

    page.get_by_role("button", name="Sky → Road").focus()
    page.evaluate("document.activeElement.dataset.same = 'yes'")
    page.evaluate("document.querySelector('#classes').dataset.same = 'yes'")
    record = ledger[0].rounds(PROJECT)[1]
    for changed in (5, 6):
        ledger[0].save_round(replace(record, summary=record.summary | {"changed_by_people": changed}))
        row = page.get_by_role("row", name=f"1 done {changed} ")
        expect(row).to_be_visible(timeout=RETRY_MS)
        expect(page.get_by_role("img", name=f"By people: unknown, {changed}")).to_be_visible()
        page.wait_for_function("plots === 1")
        expect(page.locator(".uplot")).to_have_count(1)
    assert page.evaluate("document.activeElement.dataset.same") == "yes"
    expect(page.locator("#classes[data-same]")).to_be_visible()
    page.evaluate(f"location.hash = '#/{OTHER}'")
    expect(page.get_by_role("heading", name="Round 0: done")).to_be_visible()
    assert page.evaluate("plots") == 0


def test_bands_are_chosen_and_what_was_held_back_is_approved(page: Page, ledger: tuple[Ledger, Path]) -> None:
    page.get_by_role("button", name="Sky → Road").click()
    group = page.locator("#masks")
    expect(group.get_by_role("heading", name=f"1 to {APPLIED + HELD_BACK} of {APPLIED + HELD_BACK}")).to_be_visible()
    expect(page.get_by_role("button", name="Sky → Road")).to_have_attribute("aria-pressed", "true")
    band = group.get_by_role("button", name=f"50–75 % sure: {UNSURE}")
    band.click()
    expect(group.get_by_role("heading", name=f"1 to {UNSURE} of {UNSURE}")).to_be_visible()
    expect(group.locator(".masks li")).to_have_count(UNSURE)
    expect(band).to_have_attribute("aria-pressed", "true")
    assert page.evaluate("document.activeElement.textContent").startswith("50–75 %"), "the keyboard goes on from there"
    group.get_by_role("button", name=f"Approve the {UNSURE} held back").click()
    page.get_by_role("dialog").get_by_role("button", name="Approve").click()
    expect(page.get_by_role("status").filter(has_text=f"{UNSURE} masks are approved")).to_be_visible()
    expect(group.get_by_role("button", name=f"Withdraw {UNSURE} approvals")).to_be_visible()
    assert len(ledger[0].approved_masks(PROJECT)) == UNSURE
    group.get_by_role("button", name="Withdraw", exact=True).first.press("Enter")
    expect(group.get_by_role("button", name="Approve", exact=True)).to_be_focused()
    expect(group.get_by_role("button", name=f"Withdraw {UNSURE - 1} approvals")).to_be_visible()
    assert len(ledger[0].approved_masks(PROJECT)) == UNSURE - 1
    group.get_by_role("button", name="Approve the pair, always").click()
    page.get_by_role("dialog").get_by_role("button", name="Approve").click()
    expect(page.get_by_role("row", name="Sky → Road").get_by_text("approved")).to_be_visible()
    expect(group.get_by_role("button", name="Withdraw the approval of the pair")).to_be_visible()
    harmless(page)


def test_without_label_studio_nothing_makes_one_wait_and_no_link_leads_there(page: Page, server: Server) -> None:
    expect(page.get_by_role("status").filter(has_text="Label Studio does not answer")).to_be_visible()
    expect(page.locator("#links a")).to_have_text(["Review page"])
    begun = time.monotonic()
    page.get_by_role("button", name="Settings").click()
    dialog = page.get_by_role("dialog", name="Settings of Streets")
    expect(dialog.get_by_role("alert")).to_contain_text("Label Studio does not answer at http://127.0.0.1:9")
    expect(dialog.get_by_role("row", name="Budget – 40")).to_be_visible()
    assert time.monotonic() - begun < 10
    expect(dialog.get_by_role("button", name="Try again")).to_be_visible()
    harmless(page)
    dialog.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Next round").click()
    dry_run = page.get_by_role("dialog", name="Round 2")
    expect(dry_run.get_by_role("alert")).to_contain_text("Label Studio does not answer", timeout=10_000)
    page.keyboard.press("Escape")


def test_the_review_begins_at_once_without_label_studio(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, label_studio_url="http://127.0.0.1:9", label_studio_api_key="f" * 40)  # type: ignore[arg-type]
    service = Service(settings)
    StoredProject(service.ledger, service.artifacts)
    with TestClient(create_app(service), headers=OWN_TOKEN) as client:
        begun = time.monotonic()
        for _ in range(2):
            said = client.get(f"/api/projects/{PROJECT}/review")
            assert [one["name"] for one in said.json()["classes"]] == ["Sky", "Road", "Car"]
            refused = client.get(f"/api/projects/{PROJECT}/settings")
            assert (refused.status_code, "LABEL_STUDIO_URL" in refused.json()["detail"]) == (502, True)
        assert time.monotonic() - begun < 10


def test_the_list_of_reviews_leads_to_each(opened: Page, server: Server) -> None:
    opened.goto("about:blank")
    opened.unroute_all()
    opened.route(
        "**/api/review/projects", lambda route: route.fulfill(status=502, json={"detail": "the store is away"})
    )
    opened.goto(f"{server.url}/review/")
    expect(opened.get_by_role("alert")).to_contain_text("the store is away")
    opened.unroute_all()
    opened.get_by_role("button", name="Try again").click()
    expect(opened.get_by_role("link")).to_have_text(["Streets: 0 of 0 masks are left", "Rivers: 0 of 0 masks are left"])
    harmless(opened)
    opened.get_by_role("link", name="Rivers").click()
    opened.wait_for_url(f"{server.url}/review/{OTHER}")
    expect(opened.get_by_text("asks no questions; the next round will")).to_be_visible()


def test_times_are_told_as_exactly_as_one_wants_to_know(page: Page) -> None:
    said = page.evaluate(
        "import('./static/words.js').then(({ left }) => [0.2, 40, 59.5, 61, 200, 3599, 7500].map(left))"
    )
    assert said == [
        "1 s left", "40 s left", "60 s left", "about 1 min left", "about 3 min left", "about 1 h 0 min left",
        "about 2 h 5 min left",
    ]  # fmt: skip
