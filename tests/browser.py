"""What tests in a real browser share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, sync_playwright

from scripts.screenshots import CHROMIUM, FLAGS


@contextmanager
def faultless_page() -> Iterator[Page]:
    """A page whose scripts have thrown nothing in the end.

    It ignores the page's policy on scripts: Playwright's waiting evaluates code there.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 720}, bypass_csp=True)
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        yield page
        browser.close()
        assert faults == []


@contextmanager
def held_back(page: Page, address: str) -> Iterator[None]:
    """What the page asks for at an address waits until this ends."""
    waiting: list[Route] = []

    def hold(route: Route) -> None:
        waiting.append(route)

    page.route(address, hold)
    yield
    for route in waiting:
        route.continue_()
    page.unroute(address, hold)


def harmless(page: Page) -> None:
    """The page has no serious accessibility problem, and nothing sticks out sideways."""
    found = [item for item in Axe().run(page).response["violations"] if item["impact"] in ("serious", "critical")]
    assert found == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
