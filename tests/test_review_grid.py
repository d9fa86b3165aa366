"""The grid of the review page, screen after screen, in a real browser; and masks that two people are asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from a2lc_backend.demo.run import Loop
from scripts.screenshots import CHROMIUM, FLAGS, SEEN
from tests.browser import held_back
from tests.conftest import Studio
from tests.reviewer import Mask, Reviewer, as_said, mask_of, people_at_the_page, status
from tests.rig import drawn_project

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SCREEN = 12
AT_ONCE_MS = 300

SHOWN = """() => [...document.querySelectorAll("#tiles .seen")].map((seen) => seen.querySelector("img")?.src ?? "")"""


@pytest.fixture(scope="module")
def loop(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """A project whose every question is asked of two people."""
    folder = tmp_path_factory.mktemp("review-grid")
    with drawn_project(studio, folder, 24, 900, more={"A2LC_SECOND_OPINION": "1"}) as made:
        yield made


@pytest.fixture(scope="module")
def reviewers(studio: Studio, loop: Loop) -> Iterator[list[Reviewer]]:
    with sync_playwright() as playwright:
        browser: Browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        with people_at_the_page(studio, loop, browser, ("Ann", "Bob", "Eve")) as made:
            yield made
        browser.close()


def screen(page: Page) -> list[Mask]:
    """The masks on the screen, when all can be seen."""
    page.wait_for_function(f"document.querySelector('#grid').hidden === false && {SEEN}")
    return [mask_of(address) for address in page.evaluate(SHOWN)]


@pytest.fixture(scope="module")
def suspicion(loop: Loop) -> tuple[str, int]:
    """A pair of classes that does not come by itself, as the page writes it, and how many masks it has."""
    found = status(loop)
    names = {item["id"]: item["name"] for item in found["classes"]} | {None: "no label"}
    likely = max(found["suspicions"][1:], key=lambda item: item["count"])
    return f"{names[likely['label']]} → {names[likely['guess']]}", likely["count"]


def choose(page: Page, name: str) -> None:
    """Ask for the masks of one pair."""
    label = next(text for text in page.locator("#pair option").all_inner_texts() if text.startswith(f"{name} ("))
    page.locator("#pair").select_option(label=label)
    label, guess = name.split(" → ")
    expect(page.locator("#suspected")).to_have_text(f"All of these look like {guess} (now {label}).")


def answer_screen(reviewer: Reviewer, masks: list[Mask]) -> None:
    """Say that all of them are what is suspected."""
    suspected = reviewer.page.locator("#suspected").inner_text()
    guess = suspected.removeprefix("All of these look like ").split(" (now")[0]
    reviewer.given |= dict.fromkeys(masks, guess)
    reviewer.press(" ")


def test_a_chosen_suspicion_stays_until_it_has_no_masks_and_the_next_screen_is_here_at_once(
    loop: Loop, reviewers: list[Reviewer], suspicion: tuple[str, int]
) -> None:
    ann = reviewers[0]
    page = ann.page
    ann.press("g")
    screen(page)
    name, count = suspicion
    assert count > 2 * SCREEN, status(loop)["suspicions"]
    choose(page, name)
    seen: list[Mask] = []
    while True:
        masks = screen(page)
        if seen:
            fast = page.evaluate("performance.getEntriesByName('a2lc-next').at(-1).duration") < AT_ONCE_MS
        if not page.locator("#pair option:checked").inner_text().startswith(f"{name} ("):
            break
        assert not set(masks) & set(seen)
        if seen:
            assert fast, "it had come before it was asked for"
        seen += masks
        # The screen after this one has come when the network is quiet.
        page.wait_for_function("performance.getEntriesByType('resource').at(-1).responseEnd + 500 < performance.now()")
        answer_screen(ann, masks)
    assert len(seen) >= count
    as_said(loop, [ann])


def test_odd_masks_are_asked_once_and_what_is_said_of_them_stands(
    loop: Loop, reviewers: list[Reviewer], suspicion: tuple[str, int]
) -> None:
    bob = reviewers[1]
    page = bob.page
    bob.press("g")
    screen(page)
    choose(page, suspicion[0])
    masks = screen(page)
    task, region = masks[0]
    with held_back(page, f"**/masks/{task}/{region}.jpg?side=*"):
        for key in "qw":
            page.keyboard.press(key)
        answer_screen(bob, masks[2:])
        bob.all_sent()
        expect(page.locator("#crop")).to_have_text("The picture is on its way…")  # though others are here
    for mask in masks[:2]:
        assert bob.say("1") == mask
    after = screen(page)
    assert not set(after) & set(masks)
    answer_screen(bob, after)
    screen(page)
    as_said(loop, reviewers)


def test_keys_count_when_every_tile_is_there(loop: Loop, reviewers: list[Reviewer]) -> None:
    eve = reviewers[2]
    page = eve.page
    with held_back(page, "**/masks/**side=320"):
        page.keyboard.press("g")
        expect(page.locator("#grid")).to_be_visible()
        page.wait_for_function("document.querySelectorAll('#tiles button').length > 2")
        page.keyboard.press("n")
        page.keyboard.press("q")
        page.locator("#tiles button").first.click()
        page.keyboard.press(" ")
        expect(page.locator("#tiles [aria-pressed='true']")).to_have_count(0)
    masks = screen(page)
    page.keyboard.press("q")
    expect(page.locator("#tiles [aria-pressed='true']")).to_have_count(1)
    assert eve.given == {}
    assert len(masks) > 2
    page.keyboard.press("q")
    page.keyboard.press("g")
    eve.all_sent()


def test_every_mask_is_asked_of_two_where_the_project_wants_that(
    loop: Loop, reviewers: list[Reviewer], suspicion: tuple[str, int]
) -> None:
    ann, bob, eve = reviewers
    twice = set(ann.given) & set(bob.given)
    assert twice
    found = status(loop)
    disagreed = {mask for mask in twice if ann.given[mask] != bob.given[mask]}
    assert found["disagreements"] == len(disagreed) == 2  # those that Bob found odd: a third person is asked
    assert found["left"] == found["total"] - len(twice - disagreed)
    eve.page.reload()
    eve.page.wait_for_function(SEEN)
    eve.press("g")
    screen(eve.page)
    choose(eve.page, suspicion[0])
    asked = set(screen(eve.page))
    assert asked & set(ann.given)
    assert not asked & (twice - disagreed)
