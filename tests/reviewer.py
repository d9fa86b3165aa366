"""Somebody at the review page in a real browser, and what Label Studio holds of what they said."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import httpx
from playwright.sync_api import Browser, Page, expect

from a2lc_backend.demo.run import Loop
from a2lc_backend.demo.servers import Account
from a2lc_backend.label_studio.review import WRONG
from scripts.screenshots import SEEN, enter
from tests.conftest import Studio, wait_until
from tests.people import NewPerson, new_person

Mask = tuple[int, str]
"""Task and region."""

Said = Counter[tuple[Mask, int, str]]
"""What was said of masks by whom: a class name, `WRONG` or "skip"."""


@dataclass
class Reviewer:
    """Somebody at the page, and what they said of which mask."""

    person: NewPerson
    page: Page
    given: dict[Mask, str] = field(default_factory=dict)

    def mask(self) -> Mask:
        """The mask on the screen."""
        return mask_of(self.page.locator("#crop img").get_attribute("src"))

    def name_of(self, key: str) -> str:
        """The class that a key says of the mask on the screen."""
        part = "#choices" if key.isdigit() else "#palette"
        return self.page.locator(f"{part} button[aria-keyshortcuts='{key}'] .name").inner_text()

    def press(self, key: str) -> None:
        """Press a key as soon as it counts."""
        self.page.wait_for_function(SEEN)
        self.page.keyboard.press(key)

    def say(self, key: str) -> Mask:
        """Answer the mask on the screen, and wait until it is gone."""
        self.page.wait_for_function(SEEN)
        mask = self.mask()
        self.given[mask] = {"Space": "skip", "0": WRONG}.get(key) or self.name_of(key)
        shown = self.page.locator("#crop img").get_attribute("src")
        self.page.keyboard.press(key)
        gone = "(old) => document.querySelector('#single').hidden || !document.querySelector(`#crop img[src='${old}']`)"
        self.page.wait_for_function(gone, arg=shown)
        return mask

    def latencies(self) -> list[float]:
        """Milliseconds from each key to the next mask painted."""
        found: list[float] = self.page.evaluate("performance.getEntriesByName('a2lc-next').map((one) => one.duration)")
        return found

    def all_sent(self) -> None:
        expect(self.page.locator("#sent")).to_have_text("All sent", timeout=60_000)


def mask_of(address: str | None) -> Mask:
    found = re.search(r"/masks/(\d+)/([^/]+)\.jpg", address or "")
    assert found, address
    return int(found[1]), unquote(found[2])


@contextmanager
def people_at_the_page(studio: Studio, loop: Loop, browser: Browser, names: Sequence[str]) -> Iterator[list[Reviewer]]:
    """Annotators, each at the page in a browser of their own; no script may fail there."""
    made: list[Reviewer] = []
    faults: list[str] = []
    for name in names:
        person = new_person(studio, name)
        context = browser.new_context(viewport={"width": 1280, "height": 720}, bypass_csp=True)
        context.on("weberror", lambda fault: faults.append(str(fault.error)))
        page = context.new_page()
        enter(page, address(loop), Account(person.email, person.password))
        expect(page.locator("#crop img")).to_be_visible(timeout=30_000)
        made.append(Reviewer(person, page))
    yield made
    for reviewer in made:
        reviewer.page.context.close()
    assert faults == []


def address(loop: Loop) -> str:
    return f"{loop.server.url}/review/{loop.project_id}"


def status(loop: Loop) -> dict[str, Any]:
    headers = {"Authorization": f"Token {loop.account.token}"}
    found: dict[str, Any] = httpx.get(
        f"{loop.server.url}/api/projects/{loop.project_id}/review", headers=headers, timeout=30
    ).json()
    return found


def as_said(loop: Loop, reviewers: list[Reviewer], more: Said | None = None) -> None:
    """Label Studio holds what the reviewers said, each once and under their names, and nothing else."""
    for reviewer in reviewers:
        reviewer.all_sent()
    wait_until(lambda: status(loop)["unsent"] == 0, 60, 0.2)
    said = Counter((mask, one.person.id, text) for one in reviewers for mask, text in one.given.items())
    assert held(loop) == said + (more or Counter())


def held(loop: Loop) -> Said:
    """What Label Studio holds in the review project."""
    review_id = int(status(loop)["review_link"].split("/")[-2])
    tasks = loop.client.tasks.list(
        project=review_id, include="id,data,annotations,result,completed_by,was_cancelled", resolve_uri=False,
        page_size=500,
    )  # fmt: skip
    found: Said = Counter()
    for task in tasks:
        where = task.data["a2lc"]
        for item in task.annotations or []:
            text = "skip" if item["was_cancelled"] else item["result"][0]["value"]["choices"][0]
            found[(where["task"], where["region"]), int(item["completed_by"]), text] += 1
    return found
