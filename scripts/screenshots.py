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


def main() -> None:
    """Take every picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--label-studio", type=Path, default=Path(".venv-label-studio/bin/label-studio"))
    parser.add_argument("--out", type=Path, default=Path("docs/img"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    folder, account = Path(tempfile.mkdtemp(prefix="a2lc-screenshots-")), Account()
    world = draw_world(folder / "street", images=8, val_images=1, size=(360, 480))
    studio = label_studio(options.label_studio, folder / "label-studio", account)
    settings = {"A2LC_WORLD": str(world.root), "A2LC_PROPOSALS": "world"}
    server = backend(folder / "backend", studio.url, account.token, settings)
    try:
        studio.start()
        server.start()
        loop = Loop(studio, server, account, world, budget=40)
        loop.create_project(lambda done, total: None)
        for number in (0, 1):  # after round 1 the corrector has guesses to show
            if number > 0:
                loop.annotator().work()
            loop.start_training()
            loop.wait_round(number)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page(viewport={"width": 1500, "height": 860})
            log_in(page, studio.url, account)
            _review_queue(page, loop, options.out / "review-queue.png")
            _control_room(page, loop, options.out / "control-room.png")
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


def _control_room(page: Page, loop: Loop, path: Path) -> None:
    """The admin's page, with the masks of one pair of classes."""
    page.goto(f"{loop.server.url}/#/{loop.project_id}")
    page.get_by_role("button", name="→").first.click()
    page.wait_for_function("[...document.querySelectorAll('.masks img')].every((one) => one.naturalWidth > 0)")
    page.screenshot(path=path)


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
