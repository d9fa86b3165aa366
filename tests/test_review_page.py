"""The review page in a real browser, on the real backend and the real Label Studio."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator
from urllib.parse import unquote

import pytest
from playwright.sync_api import Browser, Route, expect, sync_playwright

from a2lc_backend.demo.run import Loop
from scripts.screenshots import CHROMIUM, FLAGS, SEEN, log_in
from tests.browser import harmless
from tests.conftest import Studio, wait_until
from tests.people import new_person
from tests.reviewer import Reviewer, address, as_said, held, mask_of, people_at_the_page, status
from tests.rig import drawn_project

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.timed]

BUDGET, SHARED_OUT, IN_LABEL_STUDIO = 160, 100, 5
ROUND_MS = 120_000
MEDIAN_MS, P95_MS = 80, 150

NEXT_PICTURE = """(old) => {
  const image = document.querySelector(".a2lc img");
  if (!image || image.src === old || !image.complete || !image.naturalWidth) return false;
  return { src: image.src, after: performance.now() - window.pressed };
}"""

LEASED = """async ([project]) => {
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify({ count: 30 });
  const reply = await fetch(`api/projects/${project}/review/lease`, { method: "POST", headers, body });
  return (await reply.json()).questions.map((mask) => [mask.task, mask.region]);
}"""

GUARDED = """async () => {
  const press = (key, more = {}) =>
    document.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...more }));
  const shown = () => document.querySelector("#crop img")?.src;
  const seen = () => performance.getEntriesByName("a2lc-seen").at(-1);
  const until = async (true_) => { while (!true_()) await new Promise((resolve) => setTimeout(resolve, 5)); };
  const first = shown();
  press("1", { repeat: true });
  press("1", { ctrlKey: true });
  press("1", { altKey: true });
  const ignored = shown() === first;
  press("1");
  const second = shown();
  press("1"); // before it is painted
  await until(seen);
  press("1"); // as soon as it is
  const early = { same: shown() === second, after: performance.now() - seen().startTime };
  await until(() => performance.now() > seen().startTime + 160);
  press("1");
  return { ignored, moved: second !== first, early, late: shown() !== second };
}"""


@pytest.fixture(scope="module")
def loop(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """A project whose first queue waits."""
    with drawn_project(studio, tmp_path_factory.mktemp("review-page"), 16, BUDGET) as made:
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def reviewers(studio: Studio, loop: Loop, browser: Browser) -> Iterator[list[Reviewer]]:
    with people_at_the_page(studio, loop, browser, ("Ann", "Bob")) as made:
        yield made


@pytest.fixture
def ann(reviewers: list[Reviewer]) -> Reviewer:
    return reviewers[0]


def test_a_key_counts_when_the_mask_was_seen_and_undo_takes_it_back(loop: Loop, ann: Reviewer) -> None:
    ann.page.wait_for_function(SEEN)
    first = ann.mask()
    tried = ann.page.evaluate(GUARDED)
    assert tried["ignored"]
    assert tried["moved"]
    assert tried["early"]["after"] < 150, "the browser was too slow to try"
    assert tried["early"]["same"]
    assert tried["late"]
    for _ in range(2):
        ann.press("Backspace")
    assert ann.mask() == first
    expect(ann.page.locator("#undo")).to_be_disabled()
    as_said(loop, [ann])
    harmless(ann.page)


def test_the_next_eight_are_here_before_they_are_asked(loop: Loop, ann: Reviewer) -> None:
    page = ann.page
    page.wait_for_function("performance.getEntriesByType('resource').at(-1).responseEnd + 500 < performance.now()")
    page.route("**/masks/**", lambda route: route.abort())
    for _ in range(8):
        ann.say("1")
        expect(page.locator("#crop img")).to_be_visible(timeout=1000)
    page.unroute("**/masks/**")
    as_said(loop, [ann])


def test_a_screen_of_masks_is_answered_at_once_and_the_odd_one_alone(
    loop: Loop, reviewers: list[Reviewer], ann: Reviewer
) -> None:
    page = ann.page
    ann.press("g")
    tiles = page.locator("#tiles button")
    ann.page.wait_for_function(SEEN)
    count = tiles.count()
    assert count > 2, "there are masks of one confusion"
    masks = [mask_of(tile.locator("img").get_attribute("src")) for tile in tiles.all()]
    guess = re.fullmatch(r"All of these look like (.+) \(now .+\)\.", page.locator("#suspected").inner_text())
    assert guess
    page.keyboard.press("n")
    expect(page.locator("#tiles [aria-pressed='true']")).to_have_count(count)
    page.keyboard.press("n")
    page.keyboard.press("w")
    expect(page.locator("#tiles [aria-pressed='true']")).to_have_count(1)
    harmless(page)

    page.keyboard.press("Space")
    expect(page.locator("#single")).to_be_visible()
    ann.press("Backspace")
    expect(page.locator("#tiles [aria-pressed='true']")).to_have_count(1)
    assert [mask_of(tile.locator("img").get_attribute("src")) for tile in tiles.all()] == masks
    as_said(loop, reviewers)

    ann.press("Space")
    expect(page.locator("#single")).to_be_visible()
    ann.given |= {mask: guess[1] for place, mask in enumerate(masks) if place != 1}
    assert ann.say("1") == masks[1]
    expect(page.locator("#grid")).to_be_visible()  # with the next screen
    ann.press("g")
    expect(page.locator("#crop img")).to_be_visible()
    as_said(loop, reviewers)


def test_two_people_review_a_hundred_masks_between_them(
    loop: Loop, reviewers: list[Reviewer], capsys: pytest.CaptureFixture[str]
) -> None:
    ann, bob = reviewers
    before = len(ann.given)
    for reviewer in reviewers:
        reviewer.page.evaluate("performance.clearMeasures('a2lc-next')")
    for number in range(SHARED_OUT):
        reviewers[number % 2].say(("1", "2", "3", "r")[number // 2 % 4])
    assert not set(ann.given) & set(bob.given)
    assert len(ann.given) + len(bob.given) == before + SHARED_OUT
    as_said(loop, reviewers)
    assert status(loop)["left"] == BUDGET - SHARED_OUT - before
    expect(bob.page.locator("#progress")).to_contain_text(f"{SHARED_OUT // 2} by you")
    for reviewer in reviewers:
        reviewer.page.wait_for_function(SEEN)
    times = sorted(ann.latencies() + bob.latencies())
    assert len(times) == SHARED_OUT, "every answer was followed by a mask, and each was measured"
    median, p95 = statistics.median(times), times[int(0.95 * len(times))]
    with capsys.disabled():
        print(f"\nreview page: key to next mask painted {median:.0f} ms median, {p95:.0f} ms p95, {len(times)} answers")
    assert median < MEDIAN_MS
    assert p95 < P95_MS


def test_skip_wrong_and_undo_after_label_studio_has_the_answer(
    loop: Loop, reviewers: list[Reviewer], ann: Reviewer
) -> None:
    ann.say("Space")
    with ann.page.context.expect_page() as opened:
        task, _ = ann.say("0")
    opened.value.wait_for_url(re.compile("/user/login/"))  # Ann is not logged in to Label Studio in this browser
    assert re.search(f"/projects/{loop.project_id}/data.*[?&]task={task}$", unquote(opened.value.url))
    opened.value.close()
    taken = ann.say("2")
    as_said(loop, reviewers)
    ann.press("u")
    expect(ann.page.locator("#said")).to_contain_text("Taken back")
    assert ann.mask() == taken
    del ann.given[taken]
    as_said(loop, reviewers)
    assert ann.say("1") == taken
    as_said(loop, reviewers)


def test_answers_outlive_the_backend_and_the_tab(loop: Loop, reviewers: list[Reviewer]) -> None:
    bob = reviewers[1]
    bob.say("1")
    bob.all_sent()
    bob.page.wait_for_function("performance.getEntriesByType('resource').at(-1).responseEnd + 500 < performance.now()")
    loop.server.kill()
    for key in "2r1":
        bob.say(key)
    expect(bob.page.locator("#sent")).to_have_text("Offline: 3 kept in this browser")
    expect(bob.page.get_by_role("alert")).to_contain_text("a2lc serve")
    context = bob.page.context
    bob.page.close()
    loop.server.start()
    bob.page = context.new_page()
    bob.page.goto(address(loop))
    as_said(loop, reviewers)
    expect(bob.page.locator("#crop img")).to_be_visible()
    assert bob.mask() not in bob.given


def test_an_answer_that_is_refused_is_told_and_its_mask_is_asked_again(loop: Loop, reviewers: list[Reviewer]) -> None:
    ann = reviewers[0]
    ann.page.wait_for_function(SEEN)
    answers = "**/review/answers"

    def refuse(route: Route) -> None:
        said = route.request.post_data_json["answers"]
        why = "project 1 has no class 99; load the page anew"
        route.fulfill(json={"accepted": [], "refused": [{"id": item["id"], "why": why} for item in said]})

    ann.page.route(answers, refuse)
    mask = ann.mask()
    ann.page.keyboard.press("1")
    alert = ann.page.get_by_role("alert")
    expect(alert).to_contain_text("An answer was not kept: project 1 has no class 99")
    ann.page.unroute(answers)
    alert.get_by_role("button", name="I see").click()
    expect(alert).to_be_hidden()
    leases = ann.page.evaluate(LEASED, [loop.project_id])
    assert list(mask) in leases  # held again, and shown when the page comes to it
    while ann.mask() != mask:
        ann.say("1")
    ann.say("1")
    as_said(loop, reviewers)


def test_a_page_does_not_speak_for_who_logs_in_beside_it(loop: Loop, studio: Studio, reviewers: list[Reviewer]) -> None:
    bob = reviewers[1]
    bob.all_sent()
    bob.page.wait_for_function(SEEN)
    eve = new_person(studio, "Eve")
    other = bob.page.context.new_page()
    reply = other.request.post(f"{loop.server.url}/api/login", data={"email": eve.email, "password": eve.password})
    assert reply.ok
    bob.say("2")
    expect(bob.page.get_by_role("alert")).to_contain_text("Eve is logged in in this browser now")
    expect(bob.page.locator("#sent")).to_contain_text("1 kept in this browser")
    login = {"email": bob.person.email, "password": bob.person.password}
    assert other.request.post(f"{loop.server.url}/api/login", data=login).ok
    other.close()
    as_said(loop, reviewers)
    expect(bob.page.get_by_role("alert")).to_be_hidden(timeout=40_000)


def test_label_studios_own_page_beside_it(
    loop: Loop, studio: Studio, browser: Browser, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same questions where Label Studio asks them; the backend hears those answers too."""
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    log_in(page, studio.url, studio.account)
    before, left = held(loop), status(loop)["left"]
    page.goto(status(loop)["review_link"] + "?labeling=1")
    page.evaluate("addEventListener('keydown', (event) => (window.pressed = event.timeStamp), true)")
    shown, times = "", []
    for _ in range(IN_LABEL_STUDIO + 1):
        picture = page.wait_for_function(NEXT_PICTURE, arg=shown, timeout=60_000).json_value()
        times.append(picture["after"])
        shown = picture["src"]
        if len(times) <= IN_LABEL_STUDIO:
            while not page.locator("input[type=radio]:checked").count():  # keys pressed too early are lost there
                page.keyboard.press("1")
            page.keyboard.press("Control+Enter")
    page.close()
    wait_until(lambda: status(loop)["left"] == left - IN_LABEL_STUDIO, 60, 0.2)
    assert (held(loop) - before).total() == IN_LABEL_STUDIO
    with capsys.disabled():
        print(f"\nLabel Studio's own page: submit to next picture {statistics.median(times[1:]):.0f} ms median")


def test_the_last_masks_and_what_is_said_then(loop: Loop, reviewers: list[Reviewer], ann: Reviewer) -> None:
    reviewers[1].all_sent()
    reviewers[1].page.goto("about:blank")  # Bob goes home: what he held is Ann's
    ann.page.reload()  # what was answered in Label Studio is asked no more
    ann.say("Space")
    rest = ann.page.locator("#rest")
    while True:
        ann.page.wait_for_function(f"!document.querySelector('#rest').hidden || {SEEN}")
        if rest.is_visible():
            break
        ann.say("1")
    expect(rest).to_contain_text("One is left: on somebody else's screen, or you skipped it.")
    ann.all_sent()
    wait_until(lambda: status(loop)["left"] == 1, 60, 0.2)
    harmless(ann.page)


def test_the_page_suits_a_phone_and_the_dark(loop: Loop, ann: Reviewer) -> None:
    page = ann.page
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme="dark")
    page.keyboard.press("Backspace")  # no mask is on the screen that it could hit by mistake
    expect(page.locator("#crop img")).to_be_visible()
    harmless(page)
    ann.page.wait_for_function(SEEN)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")  # to the last classes
    crop = page.locator("#crop").bounding_box()
    assert crop is not None
    assert 0 <= crop["y"] < 1, "the mask stays in sight"
    page.locator("#palette button").last.click()
    expect(page.locator("#rest")).to_be_visible()


def test_a_project_that_is_not_known_is_said(loop: Loop, ann: Reviewer) -> None:
    ann.page.goto(f"{loop.server.url}/review/9999")
    expect(ann.page.get_by_role("heading", name="There is no such project")).to_be_visible()
    expect(ann.page.get_by_role("link", name="All projects to review")).to_be_visible()
