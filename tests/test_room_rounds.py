"""The control room in a real browser, on the real Label Studio: rounds that are held up, and what lies around them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from a2lc_backend.demo.run import Loop
from a2lc_backend.label_studio import attach
from scripts.screenshots import enter
from tests.browser import faultless_page, harmless, held_back
from tests.conftest import Studio
from tests.prefix_proxy import served_below
from tests.rig import drawn_project

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

BUDGET = 40
ROUND_MS = 120_000
NEXT_LOOK_MS = 20_000


@dataclass
class Room:
    """A project that no round has been begun for, the page, and a folder that names phases to be held."""

    loop: Loop
    page: Page
    holds: Path

    def hold(self, phase: str) -> None:
        self.holds.mkdir(exist_ok=True)
        (self.holds / phase).touch()

    def let_go(self, phase: str) -> None:
        (self.holds / phase).unlink()
        (self.holds / f"{phase}.held").unlink(missing_ok=True)

    def looks_again(self) -> None:
        """Wait until the page has looked at the backend twice."""
        for _ in range(2):
            with self.page.expect_response(re.compile(r"/api/projects/\d+/rounds/\d+$"), timeout=NEXT_LOOK_MS):
                pass


@pytest.fixture(scope="module")
def room(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    folder = tmp_path_factory.mktemp("rounds")
    more = {"A2LC_TEST_HOLDS": str(folder / "holds")}
    with (
        drawn_project(studio, folder, 4, BUDGET, first_round=False, more=more) as loop,
        faultless_page() as page,
    ):
        enter(page, loop.server.url, loop.account)
        yield Room(loop, page, folder / "holds")


def test_a_round_is_paused_and_gone_on_with_and_what_one_holds_stays(room: Room) -> None:
    page = room.page
    room.hold("propose")
    room.loop.start_training()
    expect(page.get_by_role("heading", name="Round 0: running")).to_be_visible(timeout=ROUND_MS)
    expect(page.get_by_role("progressbar", name="propose")).to_be_visible(timeout=ROUND_MS)
    pause = page.get_by_role("button", name="Pause")
    pause.focus()
    page.evaluate("document.activeElement.dataset.same = 'yes'")
    page.evaluate("document.querySelector('progress[aria-label=propose]').dataset.same = 'yes'")
    room.looks_again()
    assert page.evaluate("document.activeElement.dataset.same") == "yes", "a press of the keyboard would be lost"
    expect(page.locator("progress[data-same]")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Round 0: paused")).to_be_visible(timeout=ROUND_MS)
    harmless(page)
    room.let_go("propose")
    page.get_by_role("button", name="Go on with round 0").click()
    expect(page.get_by_role("heading", name="Round 0: done")).to_be_visible(timeout=ROUND_MS)


ASK = """async () => {
  const { ask } = await import(new URL("static/api.js", document.baseURI));
  ask("me").catch(() => {});
}"""


def test_below_a_prefix_every_address_is_relative(room: Room) -> None:
    loop = room.loop
    with served_below("/a2lc/", loop.server.url) as root:
        context = room.page.context.browser.new_context(viewport={"width": 1280, "height": 720}, bypass_csp=True)
        page = context.new_page()
        replies: list[tuple[int, str]] = []
        page.on("response", lambda reply: replies.append((reply.status, reply.url)))
        enter(page, root, loop.account)
        expect(page.get_by_role("heading", name="Round 0: done")).to_be_visible()
        expect(page.get_by_role("heading", name="Classes after round 0")).to_be_visible()
        page.get_by_role("button", name="Settings").click()
        expect(page.get_by_label("Budget")).to_be_visible()
        page.keyboard.press("Escape")
        page.get_by_role("link", name="Review page").click()
        page.wait_for_url(f"{root}review/{loop.project_id}")
        expect(page.locator("#crop img")).to_be_visible(timeout=30_000)
        page.goto(f"{root}review/")
        page.wait_for_url(f"{root}review/{loop.project_id}")
        page.goto(f"{root}#/{loop.project_id}")
        page.route("**/api/logout", lambda route: route.abort())
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_text("You are still logged in")).to_be_visible()
        page.unroute("**/api/logout")
        # What was asked before is refused when one is on the way out.
        with (
            held_back(page, f"{root}login"),
            page.expect_response(lambda reply: reply.status == 401),
            held_back(page, "**/api/me"),
            page.expect_request(f"{root}login"),
        ):
            page.evaluate(ASK)
            page.get_by_role("button", name="Log out").click()
        page.wait_for_url(f"{root}login")
        page.goto(f"{root}review/{loop.project_id}")
        page.wait_for_url(f"{root}login?next=review/{loop.project_id}")
        context.close()
    # A look at the room that comes after the log-out is refused.
    failed = [(status, url) for status, url in replies if status >= 400 and status != 401]
    outside = [url for _, url in replies if not url.startswith((root, "blob:", "data:"))]
    assert failed + outside == []


def test_a_round_is_cancelled_when_one_is_sure(room: Room) -> None:
    page = room.page
    room.loop.annotator().work()
    room.hold("score")
    room.loop.start_training()
    expect(page.get_by_role("heading", name="Round 1: running")).to_be_visible(timeout=ROUND_MS)
    page.get_by_role("button", name="Cancel the round").click()
    page.get_by_role("button", name="No, go back").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("heading", name="Round 1: running")).to_be_visible()
    page.get_by_role("button", name="Cancel the round").click()
    page.get_by_role("dialog", name="Cancel round 1?").get_by_role("button", name="Cancel it").click()
    expect(page.get_by_role("row", name=re.compile("^1 cancelled"))).to_be_visible(timeout=ROUND_MS)
    room.let_go("score")
    expect(page.get_by_role("heading", name="Round 1: cancelled")).to_be_visible()
    expect(page.get_by_role("button", name="Next round")).to_be_enabled()


def test_settings_that_cannot_be_read_are_not_sent_and_what_is_not_saved_stays(room: Room) -> None:
    page = room.page
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "PUT" else None)
    page.get_by_role("button", name="Settings").click()
    dialog = page.get_by_role("dialog", name=re.compile("^Settings of "))
    budget = dialog.get_by_label("Budget")
    for text in ("", "e"):
        budget.fill("")
        budget.press_sequentially(text)
        dialog.get_by_role("button", name="Save").click()
        expect(dialog.get_by_text("This is not a number.")).to_be_visible()
        expect(budget).to_be_focused()
    harmless(page)
    assert sent == []
    dialog.get_by_role("button", name=re.compile(r"^Use \d+ again$")).click()
    expect(dialog.get_by_text("This is not a number.")).to_have_count(0)
    explore = dialog.get_by_label("Explore")
    explore.fill("0.3")
    room.looks_again()
    expect(explore).to_have_value("0.3")
    expect(dialog.get_by_text("Given back when you save")).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("dialog", name="Leave without saving?").get_by_role("button", name="No, go back").click()
    expect(explore).to_have_value("0.3")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_text("Saved: they hold from the next round on.")).to_be_visible()
    assert room.loop.client.ml.list(project=room.loop.project_id)[0].extra_params == {"explore": 0.3}
    dialog.get_by_role("button", name="Close").click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_project_without_tasks_says_what_to_do(room: Room, studio: Studio) -> None:
    loop, page = room.loop, room.page
    config = loop.client.projects.get(id=loop.project_id).label_config or ""
    empty = loop.client.projects.create(title="No images yet", label_config=config)
    attach(loop.client, loop.studio.url, int(empty.id or 0), loop.server.url)
    assert loop.server.ask(f"/api/projects/{empty.id}/rounds", "POST", {}).status_code == 202
    page.goto(f"{loop.server.url}/#/{empty.id}")
    expect(page.get_by_role("heading", name="Round 0: failed")).to_be_visible(timeout=ROUND_MS)
    expect(page.get_by_text("has no images; import some in Label Studio")).to_be_visible()
    harmless(page)
    image = loop.world.image_path(loop.world.names[0])
    reply = httpx.post(
        f"{loop.studio.url}/api/projects/{empty.id}/import", files={"file": (image.name, image.read_bytes())},
        headers={"Authorization": f"Token {loop.account.token}"}, timeout=60,
    )  # fmt: skip
    reply.raise_for_status()
    page.get_by_role("button", name="Go on with round 0").click()
    expect(page.get_by_role("heading", name="Round 0: done")).to_be_visible(timeout=ROUND_MS)
    page.goto(f"{loop.server.url}/#/{loop.project_id}")
    expect(page.get_by_role("heading", name="Round 1: cancelled")).to_be_visible()


def test_label_studio_that_goes_away_takes_its_links_with_it_until_it_is_back(room: Room) -> None:
    page, links = room.page, room.page.locator("#links a")
    expect(links).to_have_text(["Review page", "Review queue", "Open in Label Studio"])
    room.loop.studio.stop()
    try:
        expect(page.locator("#studio")).to_contain_text("does not answer", timeout=NEXT_LOOK_MS)
        expect(links).to_have_text(["Review page"])
        expect(page.get_by_role("heading", name="Classes after round 0")).to_be_visible()
        page.get_by_role("button", name="Settings").click()
        dialog = page.get_by_role("dialog", name=re.compile("^Settings of "))
        expect(dialog.get_by_role("alert")).to_contain_text("does not answer", timeout=10_000)
        expect(dialog.get_by_role("row", name="Explore – 0.3")).to_be_visible()
    finally:
        room.loop.studio.start()
    expect(dialog.get_by_label("Explore")).to_have_value("0.3", timeout=NEXT_LOOK_MS)
    page.keyboard.press("Escape")
    expect(page.locator("#studio")).to_be_hidden(timeout=NEXT_LOOK_MS)
    expect(links).to_have_text(["Review page", "Review queue", "Open in Label Studio"], timeout=NEXT_LOOK_MS)
