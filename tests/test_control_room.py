"""The admin's page in a real browser, on the real backend and the real Label Studio."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from a2lc_backend.demo.run import Loop
from a2lc_backend.demo.servers import Server
from a2lc_backend.images import decode_image
from a2lc_backend.pictures import image_picture, mask_picture
from scripts.screenshots import enter
from tests.browser import faultless_page, harmless
from tests.conftest import Studio
from tests.rig import drawn_project

BUDGET = 80
ROUND_MS = 120_000


@pytest.fixture(scope="module")
def loop(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """A project that no round has been begun for, on a backend that knows none."""
    with drawn_project(studio, tmp_path_factory.mktemp("room"), 12, BUDGET, first_round=False) as made:
        yield made


@pytest.fixture(scope="module")
def page(loop: Loop) -> Iterator[Page]:
    with faultless_page() as opened:
        enter(opened, loop.server.url, loop.account)
        yield opened


def dry_run(page: Page) -> int:
    """Open the dialog before a next round and see what it would change; how many masks that are."""
    page.get_by_role("button", name="Next round").click()
    dialog = page.get_by_role("dialog", name="Round 1: what it would change by itself")
    said = dialog.get_by_text("masks would change without a person")
    expect(said).to_be_visible(timeout=ROUND_MS)
    found = re.match(r"\d+", said.inner_text())
    assert found
    listed = [re.findall(r"(\d+) masks?", item) for item in dialog.get_by_role("listitem").all_inner_texts()]
    assert sum(int(count) for (count,) in listed) == int(found[0])
    page.wait_for_function(
        "[...document.querySelectorAll('#dryrun img')].some((one) => one.naturalWidth > 0)", timeout=30_000
    )
    harmless(page)
    return int(found[0])


def reject_and_let_hold_again(page: Page) -> None:
    """Reject one mask; then a whole group, take that back by the toast, and reject it again."""
    group = page.locator("#masks")
    expect(group.get_by_role("button", name=re.compile("^all: "))).to_have_attribute("aria-pressed", "true")
    every = group.get_by_role("button", name=re.compile(r"Reject the \d+ applied"))
    before = int(re.sub(r"\D", "", every.inner_text()))
    assert before > 1
    group.get_by_role("button", name="Reject", exact=True).first.click()
    expect(page.get_by_role("heading", name="Reject 1 automatic correction:")).to_be_visible()
    page.get_by_role("button", name="Reject it").click()
    expect(page.get_by_role("status").filter(has_text="Taken back: 1 automatic correction,")).to_be_visible()
    expect(page.get_by_role("heading", name="Round 1: done")).to_be_visible(timeout=ROUND_MS)
    expect(every).to_have_text(f"Reject the {before - 1} applied")

    every.click()
    page.get_by_role("button", name=f"Reject the {before - 1}", exact=True).click()
    told = page.get_by_role("status").filter(has_text=f"Taken back: {before - 1} automatic corrections")
    expect(told).to_be_visible(timeout=ROUND_MS)
    expect(every).to_have_count(0)
    told.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("status").filter(has_text="In force again")).to_be_visible(timeout=ROUND_MS)
    expect(every).to_have_text(f"Reject the {before - 1} applied", timeout=ROUND_MS)
    expect(page.get_by_role("heading", name="Round 1: done")).to_be_visible(timeout=ROUND_MS)


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_an_admin_runs_rounds_looks_at_corrections_and_takes_them_back(loop: Loop, page: Page) -> None:
    expect(page.get_by_role("heading", name="No project yet")).to_be_visible()
    expect(page.get_by_text("a2lc rounds next --project N")).to_be_visible()
    harmless(page)

    loop.start_training()
    expect(page.get_by_role("heading", name="Round 0: done")).to_be_visible(timeout=ROUND_MS)
    expect(page.get_by_text("The corrector begins when people have answered.")).to_be_visible()
    expect(page.get_by_text("Cannot be said before a review queue was answered.")).to_be_visible()
    expect(page.get_by_role("heading", name="Classes after round 0")).to_be_visible()
    loop.annotator().work()
    would_change = dry_run(page)
    page.get_by_role("button", name="Begin round 1").click()
    expect(page.get_by_role("heading", name="Round 1: running")).to_be_visible()
    expect(page.get_by_role("progressbar").first).to_be_visible()
    expect(page.get_by_role("heading", name="Round 1: done")).to_be_visible(timeout=ROUND_MS)

    group = page.locator("section", has=page.get_by_role("heading", name="Automatic corrections of round 1"))
    group.get_by_role("button", name="→").first.click()
    picture = group.locator("li img").first
    picture.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('.masks img')?.naturalWidth > 0")
    harmless(page)
    group.locator("li button").first.click()
    teachers = page.get_by_role("dialog").locator(".teachers img")
    teachers.first.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('.teachers img')?.naturalWidth > 0")
    harmless(page)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    for heading in ("What the next answers buy", "What people do", "Classes after round 1"):
        expect(page.get_by_role("heading", name=heading)).to_be_visible()
    changed = loop.server.ask(f"/api/projects/{loop.project_id}/rounds/1").json()["class_changes"]
    assert sum(count for *_, count in changed) == would_change
    reject_and_let_hold_again(page)
    expect(page.get_by_role("link", name="Review queue")).to_have_attribute("href", re.compile("labeling=1"))

    page.get_by_role("row", name=re.compile("^1 done")).get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="No, go back").click()
    expect(page.get_by_role("heading", name="Round 1: done")).to_be_visible()
    page.get_by_role("row", name=re.compile("^1 done")).get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Take them back").click()
    row = page.get_by_role("row", name=re.compile(r"^1 done \d+ \d+ \d+ 0 "))
    expect(row.get_by_role("button", name="Let them hold again")).to_be_visible(timeout=ROUND_MS)
    expect(row.get_by_role("button", name="Undo")).to_have_count(0)
    report = loop.server.ask(f"/api/projects/{loop.project_id}/rounds/1").json()
    assert report["round"]["summary"]["undone"] > 0
    assert report["round"]["summary"]["changed_by_corrector"] == 0


@pytest.mark.e2e
def test_settings_are_changed_on_the_page(loop: Loop, page: Page) -> None:
    page.get_by_role("button", name="Settings").click()
    dialog = page.get_by_role("dialog", name=re.compile("^Settings of "))
    budget = dialog.get_by_label("Budget")
    expect(budget).to_have_value(str(BUDGET))
    harmless(page)
    budget.fill("0")
    dialog.get_by_label("Policy").select_option("precision")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_text("greater than or equal to 1")).to_be_visible()
    expect(budget).to_be_focused()
    harmless(page)
    budget.fill("33")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_text("Saved: they hold from the next round on.")).to_be_visible()
    expect(dialog.get_by_role("row", name=re.compile(r"^Budget 80 33 \w"))).to_be_visible()
    expect(dialog.get_by_label("Policy")).to_have_value("precision")
    dialog.get_by_role("button", name='Use "gain" again').click()
    expect(dialog.get_by_label("Policy")).to_have_value("gain")
    expect(dialog.get_by_text("Given back when you save")).to_be_visible()
    budget.fill("34")
    assert loop.client.ml.list(project=loop.project_id)[0].extra_params == {"budget": 33, "policy": "precision"}
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("row", name=re.compile(r"^Budget 33 34 \w"))).to_be_visible()
    expect(dialog.get_by_label("Policy")).to_have_value("gain")
    assert loop.client.ml.list(project=loop.project_id)[0].extra_params == {"budget": 34}
    dialog.get_by_role("button", name="Close").click()


@pytest.mark.e2e
def test_the_page_suits_a_phone_and_the_dark(loop: Loop, page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme="dark")
    expect(page.get_by_role("heading", name="Rounds", exact=True)).to_be_visible()
    harmless(page)
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1280, "height": 720})


@pytest.mark.e2e
def test_a_backend_that_is_away_is_said_and_waited_for(loop: Loop, page: Page) -> None:
    server: Server = loop.server
    server.stop()
    expect(page.get_by_role("alert")).to_contain_text("a2lc serve", timeout=30_000)
    server.start()
    expect(page.get_by_role("alert")).to_be_hidden(timeout=30_000)


@pytest.mark.e2e
def test_a_project_that_is_not_known_is_said(loop: Loop, page: Page) -> None:
    page.goto(f"{loop.server.url}/#/9999")
    expect(page.get_by_role("heading", name="Project 9999 is not known here")).to_be_visible()


def test_a_picture_shows_the_mask_in_its_surroundings() -> None:
    image = np.full((200, 300, 3), 120, np.uint8)
    mask = np.zeros((200, 300), bool)
    mask[80:120, 100:180] = True
    shown = decode_image(mask_picture(image, mask), 10**6)
    assert max(shown.shape) == 320
    assert shown.min() < 60
    assert shown.max() > 200, "a white line on black"
    corner = decode_image(mask_picture(image, np.pad(np.ones((2, 2), bool), ((0, 198), (0, 298)))), 10**6)
    assert corner.shape[0] == corner.shape[1], "a mask in a corner is shown with what there is around it"
    with pytest.raises(ValueError, match="0 pixels"):
        mask_picture(image, np.zeros((200, 300), bool))


def test_the_whole_image_shows_where_the_picture_of_a_mask_is() -> None:
    image = np.full((200, 300, 3), 120, np.uint8)
    mask = np.zeros((200, 300), bool)
    mask[100:104, 150:154] = True
    shown = decode_image(image_picture(image, mask, 300), 10**6)
    assert shown.shape == image.shape
    for edge in (shown[68:73, 160], shown[131:136, 160], shown[80, 118:123], shown[80, 181:186]):
        assert edge.max() > 200, "a frame around 64 pixels each way"
    assert shown[98:106, 148:156].max() > 200, "the mask's own outline"
    assert abs(int(shown[40, 160].max()) - 120) < 10


def test_no_page_breaks_its_own_policy(loop: Loop, page: Page) -> None:
    """Elsewhere the tests' browsers ignore the policy, as Playwright's waiting runs scripts in the page."""
    assert page.context.browser is not None
    strict = page.context.browser.new_page(viewport={"width": 1280, "height": 720})
    broken: list[str] = []
    strict.on("console", lambda said: broken.append(said.text) if "Content Security Policy" in said.text else None)
    url = loop.server.url
    enter(strict, url, loop.account)
    strict.goto(f"{url}/#/{loop.project_id}")
    expect(strict.locator("canvas").first).to_be_visible(timeout=30_000)
    for path, there in (
        ("/review/", "#crop img, #rest h2"), (f"/review/{loop.project_id}", "#crop img, #rest h2"),
        ("/login", "#account"), ("/docs", ".opblock"),
    ):  # fmt: skip
        strict.goto(f"{url}{path}")
        expect(strict.locator(there).first).to_be_visible(timeout=30_000)
    assert broken == []
    strict.goto(f"{url}/login")
    strict.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.slipped = true";
          document.head.append(script);
        }"""
    )
    assert strict.evaluate("window.slipped") is None
    strict.close()
