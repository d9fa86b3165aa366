"""The admin's page in a real browser, on the real backend and the real Label Studio."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect, sync_playwright

from a2lc_backend.bench.scenes import draw_world
from a2lc_backend.demo.run import Loop
from a2lc_backend.demo.servers import Server, backend
from a2lc_backend.images import decode_image
from a2lc_backend.pictures import mask_picture
from scripts.screenshots import CHROMIUM, FLAGS
from tests.conftest import REPOSITORY, Studio
from tests.rig import SHORT

BUDGET = 80
ROUND_MS = 120_000


@pytest.fixture(scope="module")
def loop(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """A project that no round has been begun for, on a backend that knows none."""
    folder = tmp_path_factory.mktemp("room")
    world = draw_world(folder / "street", images=12, val_images=1)
    settings = {"A2LC_WORLD": str(world.root), "A2LC_PROPOSALS": "world", "PYTHONPATH": str(REPOSITORY)}
    server = backend(folder / "data", studio.url, studio.account.token, settings)
    server.command = [sys.executable, *SHORT, "serve"]
    made = Loop(studio.server, server.start(), studio.account, world, BUDGET)
    try:
        made.create_project(lambda done, total: None)
        yield made
    finally:
        made.close()
        server.stop()


@pytest.fixture(scope="module")
def page(loop: Loop) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        opened = browser.new_page(viewport={"width": 1280, "height": 720})
        faults: list[str] = []
        opened.on("pageerror", lambda error: faults.append(str(error)))
        opened.goto(loop.server.url)
        yield opened
        browser.close()
        assert faults == []


def harmless(page: Page) -> None:
    """The page has no serious accessibility problem, and nothing sticks out sideways."""
    found = [item for item in Axe().run(page).response["violations"] if item["impact"] in ("serious", "critical")]
    assert found == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_an_admin_runs_rounds_looks_at_corrections_and_takes_them_back(loop: Loop, page: Page) -> None:
    expect(page.get_by_role("heading", name="No project yet")).to_be_visible()
    expect(page.get_by_text("a2lc rounds next --project N")).to_be_visible()
    harmless(page)

    loop.start_training()
    expect(page.get_by_role("heading", name="Round 0: done")).to_be_visible(timeout=ROUND_MS)
    loop.annotator().work()
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
    expect(page.get_by_role("link", name="Review queue")).to_have_attribute("href", re.compile("labeling=1"))

    page.get_by_role("row", name=re.compile("^1 done")).get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="No, go back").click()
    expect(page.get_by_role("heading", name="Round 1: done")).to_be_visible()
    page.get_by_role("row", name=re.compile("^1 done")).get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Take them back").click()
    expect(page.get_by_role("button", name="Let them hold again")).to_be_visible(timeout=ROUND_MS)
    report = httpx.get(f"{loop.server.url}/api/projects/{loop.project_id}/rounds/1").json()
    assert report["round"]["summary"]["undone"] > 0
    assert report["round"]["summary"]["changed_by_corrector"] == 0


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
