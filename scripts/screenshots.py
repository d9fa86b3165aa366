"""Takes the README's pictures in a real browser: `make screenshots`.

Needs Debian's chromium. Starts Label Studio and the backend on drawn scenes, runs two rounds, opens the review queue.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from rich.console import Console

from a2lc_backend.bench.scenes import draw_world
from a2lc_backend.demo.run import Loop
from a2lc_backend.demo.servers import Account, backend, label_studio

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
]  # fmt: skip

SEEN = "performance.getEntriesByName('a2lc-seen').some((mark) => performance.now() >= mark.startTime + 151)"
"""On the review page: the mask, or the screen of masks, has been visible so long that a key counts."""

_WHOLE = """(selector) => {
  const images = [...document.querySelectorAll(selector)];
  return images.length > 0 && images.every((one) => one.naturalWidth > 0);
}"""


def main() -> None:
    """Take every picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--label-studio", type=Path, default=Path(".venv-label-studio/bin/label-studio"))
    parser.add_argument("--out", type=Path, default=Path("docs/img"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    folder, account = Path(tempfile.mkdtemp(prefix="a2lc-screenshots-")), Account()
    world = draw_world(folder / "street", images=16, val_images=1, size=(360, 480))
    studio = label_studio(options.label_studio, folder / "label-studio", account)
    settings = {"A2LC_WORLD": str(world.root), "A2LC_PROPOSALS": "world"}
    server = backend(folder / "backend", studio.url, account.token, settings)
    try:
        studio.start()
        server.start()
        loop = Loop(studio, server, account, world, budget=100)
        loop.create_project(lambda done, total: None)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page(viewport={"width": 1500, "height": 860}, bypass_csp=True)
            log_in(page, studio.url, account)
            enter(page, server.url, account)
            for number in range(3):  # the corrector has guesses after round 1, its audits are answered after round 2
                if number > 0:
                    loop.annotator().work()
                loop.start_training()
                loop.wait_round(number)
                if number == 0:  # most masks of one confusion
                    _review_page(page, loop, options.out)
            _review_queue(page, loop, options.out / "review-queue.png")
            _control_room(page, loop, options.out)
            loop.annotator().work()
            _dry_run(page, loop, options.out / "dry-run.png")
            browser.close()
        loop.close()
    finally:
        server.stop()
        studio.stop()
    Console().print(f"pictures are in {options.out}")


def log_in(page: Page, url: str, account: Account) -> None:
    """Log in to Label Studio in the browser."""
    page.goto(f"{url}/user/login/")
    page.fill("input[name=email]", account.email)
    page.fill("input[name=password]", account.password)
    page.keyboard.press("Enter")
    page.wait_for_url(lambda address: "/user/login" not in address, timeout=60_000)


def enter(page: Page, url: str, account: Account) -> None:
    """Log in to the backend in the browser; one is then on the page that `url` names."""
    page.goto(url)
    page.get_by_label("E-mail address").fill(account.email)
    page.get_by_label("Password").fill(account.password)
    page.get_by_role("button", name="Log in").first.click()
    page.wait_for_url(lambda address: "/login" not in address)


def _control_room(page: Page, loop: Loop, folder: Path) -> None:
    """The admin's page with the masks of one pair of classes, and what happened to one of them."""
    page.goto(f"{loop.server.url}/#/{loop.project_id}")
    page.get_by_role("button", name="→").first.click()
    page.locator(".masks img").first.wait_for()
    page.wait_for_function(_WHOLE, arg=".masks img")
    page.screenshot(path=folder / "control-room.png")
    page.locator(".masks button").first.click()
    page.wait_for_function(_WHOLE, arg=".teachers img")
    page.wait_for_function(_WHOLE, arg="#lineage img")
    page.screenshot(path=folder / "mask-history.png")
    page.keyboard.press("Escape")


def _dry_run(page: Page, loop: Loop, path: Path) -> None:
    """What the next round would change, before it begins."""
    page.goto(f"{loop.server.url}/#/{loop.project_id}")
    page.get_by_role("button", name="Next round").click()
    page.get_by_text("masks would change without a person").wait_for(timeout=60_000)
    page.wait_for_function("[...document.querySelectorAll('#dryrun img')].some((one) => one.naturalWidth > 0)")
    page.wait_for_load_state("networkidle")
    page.screenshot(path=path)


def _review_page(page: Page, loop: Loop, folder: Path) -> None:
    """What annotators see: one mask, and a screen of masks suspected of one confusion."""
    page.set_viewport_size({"width": 1280, "height": 720})
    page.goto(f"{loop.server.url}/review/{loop.project_id}")
    page.locator("#whole img").wait_for()
    page.screenshot(path=folder / "review-page.png")
    for key in ("g", "q"):
        page.wait_for_function(SEEN)
        page.keyboard.press(key)
        page.locator("#tiles img").first.wait_for()
    page.locator("#tiles [aria-pressed='true']").wait_for()
    page.screenshot(path=folder / "review-grid.png")
    page.set_viewport_size({"width": 1500, "height": 860})


def _review_queue(page: Page, loop: Loop, target: Path) -> None:
    page.goto(loop.project_link() + "&labeling=1")
    region = page.locator(".lsf-outliner-item__title, .lsf-tree__node, .lsf-outliner-item").first
    region.wait_for(timeout=120_000)
    page.wait_for_timeout(6_000)  # Label Studio draws the masks after the list
    page.keyboard.press("Alt+.")
    page.wait_for_timeout(2_000)
    page.screenshot(path=target)


if __name__ == "__main__":
    main()
