"""`a2lc demo`: three rounds in a real Label Studio, from an empty folder to a table."""

from __future__ import annotations

import shlex
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import requests
from label_studio_sdk.client import LabelStudio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from a2lc_backend.bench.scenes import draw_world
from a2lc_backend.bench.world import World, load_world
from a2lc_backend.callers import CallerSecrets
from a2lc_backend.cli.trust import print_trust
from a2lc_backend.demo.annotator import Published, SimulatedAnnotator
from a2lc_backend.demo.servers import Account, Server, ServerError, backend, label_studio
from a2lc_backend.label_studio import LabelStudioProject, attach, close_client, open_client
from a2lc_backend.rounds.phases import PHASES
from a2lc_backend.rounds.report import report_from_json

CONFIG_FOLDER = Path(__file__).parents[2] / "label_studio_config"
_UPLOAD_BATCH = 20

Result = TypeVar("Result")
_ROUND_SECONDS = 900


@dataclass(frozen=True)
class DemoOptions:
    """What to run.

    Attributes:
        label_studio: the `label-studio` command of its own environment.
        data: a world folder; None draws scenes.
        images: how many images of it.
        rounds: rounds after round 0.
        budget: masks queued a round.
        keep: leave the servers running until Ctrl-C.
        folder: where everything is kept; a temporary folder if None.
    """

    label_studio: Path
    data: Path | None = None
    images: int = 48
    rounds: int = 3
    budget: int = 150
    keep: bool = False
    folder: Path | None = None


@dataclass(frozen=True)
class DemoRound:
    """A row of the table; `right` counts the corrector's changes that agree with the truth."""

    number: int
    queried: int
    changed_by_people: int
    changed_by_corrector: int
    right: int
    data_miou: float


def run_demo(options: DemoOptions, console: Console) -> list[DemoRound]:
    """Run the loop and print the table.

    Raises:
        ServerError: if a server does not start or a round fails.
    """
    if not options.label_studio.exists():
        raise ServerError(f"there is no {options.label_studio}; `make demo` installs Label Studio and passes its place")
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda *_: _interrupt())
    folder = options.folder or Path(tempfile.mkdtemp(prefix="a2lc-demo-"))
    account = Account()
    with ExitStack() as stack:
        if options.folder is None:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        with _bars(console) as bars:
            world = _world(options, folder, bars)
            studio = label_studio(options.label_studio, folder / "label-studio", account)
            stack.callback(studio.stop)
            _start(bars, "Label Studio starts (first start: about 45 s)", studio)
            settings = {"A2LC_WORLD": str(world.root.absolute()), "A2LC_PROPOSALS": "world"}
            if world.backbone_path is not None:
                settings["A2LC_BACKBONE"] = str(world.backbone_path.absolute())
            server = backend(folder / "backend", studio.url, account.token, settings)
            stack.callback(server.stop)
            _start(bars, "Backend starts", server)
            loop = Loop(studio, server, account, world, options.budget)
            stack.callback(loop.close)
            _bar(bars, "Images are uploaded", loop.create_project)
            if options.keep:
                _say_where(console, loop, folder)
            rows = [_round_zero(bars, loop)]
            rows += [_next_round(bars, loop, number) for number in range(1, options.rounds + 1)]
            report = report_from_json(loop.wait_round(options.rounds))
        console.print(_table(rows, world, options))
        console.print("\nAnd what the program can say without the truth, from blind audits in the queues:\n")
        print_trust(console, report)
        if options.keep:
            _wait(console, loop)
        else:
            console.print(
                f"Project: {loop.project_link()} (the servers have ended; "
                "`make demo KEEP=1` leaves them running for a look)"
            )
    return rows


class Loop:
    """A project in a running Label Studio, the backend beside it, and an annotator.

    Args:
        studio: Label Studio.
        server: the backend.
        account: of Label Studio's admin.
        world: images and truth.
        budget: masks queued a round.
        config: name of a file in `label_studio_config/`; by the world's classes if not given.
    """

    def __init__(
        self, studio: Server, server: Server, account: Account, world: World, budget: int, config: str = ""
    ) -> None:
        self.studio, self.server, self.account, self.world, self.budget = studio, server, account, world, budget
        self.client: LabelStudio = open_client(studio.url, account.token)
        self._config = config
        self.project_id = 0
        self.backend_id = 0
        self._before: Published | None = None

    def close(self) -> None:
        """Give back the connections to Label Studio."""
        close_client(self.client)

    def create_project(self, progress: Callable[[int, int], None]) -> None:
        """Create the project, upload the images and connect the backend as an admin would."""
        config = self._config or ("camvid.xml" if "Bicyclist" in self.world.classes else "street.xml")
        label_config = (CONFIG_FOLDER / config).read_text()
        project = self.client.projects.create(title=f"A²LC demo: {self.world.root.name}", label_config=label_config)
        self.project_id = int(project.id or 0)
        paths = [self.world.image_path(name) for name in self.world.names]
        for start in range(0, len(paths), _UPLOAD_BATCH):
            batch = paths[start : start + _UPLOAD_BATCH]
            files = {path.name: (path.name, path.read_bytes()) for path in batch}
            reply = requests.post(
                f"{self.studio.url}/api/projects/{self.project_id}/import", files=files, timeout=120,
                headers={"Authorization": f"Token {self.account.token}"},
            )  # fmt: skip
            reply.raise_for_status()
            progress(start + len(batch), len(paths))
        extra = {"budget": self.budget}
        told = self.server.environment
        callers = CallerSecrets(
            told.get("A2LC_BASIC_AUTH_USER", ""), told.get("A2LC_BASIC_AUTH_PASSWORD", ""),
            told.get("A2LC_WEBHOOK_SECRET", ""),
        )  # fmt: skip
        attached = attach(
            self.client, self.studio.url, self.project_id, self.server.url, extra, callers=callers
        )  # fmt: skip
        self.backend_id = attached.backend_id

    def annotator(self) -> SimulatedAnnotator:
        """Someone who knows the truth."""
        config = LabelStudioProject(self.client, self.studio.url, self.project_id).config
        return SimulatedAnnotator(self.client, self.project_id, config, self._truth)

    def _truth(self, name: str) -> Any:
        return self.world.truth(name)

    def start_training(self) -> None:
        """Press "Start Training" in Label Studio."""
        self.client.ml.train(id=self.backend_id)

    def wait_round(self, number: int, watch: Callable[[dict[str, Any]], None] = lambda report: None) -> dict[str, Any]:
        """Wait until a round is done.

        Raises:
            ServerError: if it fails or takes too long.
        """
        end = time.monotonic() + _ROUND_SECONDS
        while time.monotonic() < end:
            reply = self.server.ask(f"/api/projects/{self.project_id}/rounds/{number}")
            if reply.status_code == 200:
                report: dict[str, Any] = reply.json()
                watch(report)
                if report["round"]["status"] == "done":
                    return report
                if report["round"]["status"] == "failed":
                    raise ServerError(f"round {number} failed: {report['round']['error']}")
            time.sleep(0.25)
        raise ServerError(f"round {number} is not done after {_ROUND_SECONDS} s; see {self.server.log}")

    def measure(self, number: int, queried: int, changed: int, progress: Callable[[int, int], None]) -> DemoRound:
        """Read Label Studio back and make the table's row."""
        now = self.annotator().read_back(progress)
        by_corrector, right = now.changed_by_corrector(self._before) if self._before else (0, 0)
        self._before = now
        return DemoRound(number, queried, changed, by_corrector, right, now.data_miou)

    def project_link(self) -> str:
        """Address of the project's review queue."""
        project = LabelStudioProject(self.client, self.studio.url, self.project_id)
        return project.queue_link().replace("&labeling=1", "")


def _round_zero(bars: Progress, loop: Loop) -> DemoRound:
    loop.start_training()
    _watch_round(bars, loop, 0)
    return _bar(bars, "Labels are read back", lambda progress: loop.measure(0, 0, 0, progress))


def _next_round(bars: Progress, loop: Loop, number: int) -> DemoRound:
    work = _bar(bars, f"Round {number}: the annotator works", loop.annotator().work)
    loop.start_training()
    _watch_round(bars, loop, number)
    return _bar(
        bars, "Labels are read back", lambda progress: loop.measure(number, work.looked_at, work.changed, progress)
    )


def _watch_round(bars: Progress, loop: Loop, number: int) -> None:
    task = bars.add_task(f"Round {number}", total=len(PHASES))

    def watch(report: dict[str, Any]) -> None:
        phases = report["phases"]
        if phases:
            last = phases[-1]
            share = last["done"] / last["total"] if last["total"] else 0.0
            done = sum(phase["status"] == "done" for phase in phases)
            running = last["status"] != "done"
            bars.update(task, completed=done + (share if running else 0), description=f"Round {number}: {last['name']}")

    loop.wait_round(number, watch)
    bars.update(task, completed=len(PHASES), description=f"Round {number}: done")
    _tell(bars, f"Round {number}")


def _world(options: DemoOptions, folder: Path, bars: Progress) -> World:
    if options.data is not None:
        return load_world(options.data, limit=options.images)
    return _bar(
        bars,
        "Scenes are drawn",
        lambda progress: draw_world(folder / "street", images=options.images, val_images=1, progress=progress),
    )


def _start(bars: Progress, what: str, server: Server) -> None:
    task = bars.add_task(what, total=None)
    server.start(bars.refresh)
    bars.update(task, total=1, completed=1)
    _tell(bars, what)


def _bar(bars: Progress, what: str, work: Callable[[Callable[[int, int], None]], Result]) -> Result:
    task = bars.add_task(what, total=None)
    result = work(lambda done, total: bars.update(task, completed=done, total=total))
    total = bars.tasks[task].total or 1
    bars.update(task, completed=total, total=total)
    _tell(bars, what)
    return result


def _tell(bars: Progress, what: str) -> None:
    """A plain line for each stage where bars cannot be drawn."""
    if not bars.console.is_terminal:
        bars.console.print(f"{what}: done")


@contextmanager
def _bars(console: Console) -> Iterator[Progress]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bars:
        yield bars


def _table(rows: list[DemoRound], world: World, options: DemoOptions) -> Table:
    kind = "drawn scenes" if options.data is None else world.root.name
    table = Table(title=f"A²LC on {len(world.names)} images ({kind}), {options.budget} masks a round")
    for heading in (
        "Round",
        "Masks queried",
        "Changed by people",
        "Changed by corrector",
        "… of those right",
        "Data mIoU",
    ):
        table.add_column(heading, justify="right")
    for row in rows:
        share = f" ({row.right / row.changed_by_corrector:.0%})" if row.changed_by_corrector else ""
        table.add_row(
            str(row.number), str(row.queried), str(row.changed_by_people), str(row.changed_by_corrector),
            f"{row.right}{share}", f"{100 * row.data_miou:.1f}",
        )  # fmt: skip
    return table


def _interrupt() -> None:
    """End the servers on SIGTERM and a closed terminal as on Ctrl-C."""
    raise KeyboardInterrupt


def _say_where(console: Console, loop: Loop, folder: Path) -> None:
    """Print how to look on, and write what the command line needs."""
    names = ("LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY", "A2LC_DATA_DIR", "A2LC_URL")
    script = folder / "env.sh"
    script.touch(mode=0o600)
    script.write_text("".join(f"export {name}={shlex.quote(loop.server.environment[name])}\n" for name in names))
    console.print(f"Log in:       {loop.studio.url}/projects/{loop.project_id}/data", soft_wrap=True)
    console.print(f"              {loop.account.email} / {loop.account.password}")
    console.print(f"Control room: {loop.server.url}/#/{loop.project_id}, with the same account", soft_wrap=True)
    console.print(f"Review page:  {loop.server.url}/review/{loop.project_id}", soft_wrap=True)
    console.print(f"Command line: source {script} && .venv/bin/a2lc doctor -p {loop.project_id}", soft_wrap=True)


def _wait(console: Console, loop: Loop) -> None:
    console.print(f"Review queue: {loop.project_link()}", soft_wrap=True)
    console.print(f"Log in with:  {loop.account.email} / {loop.account.password}")
    console.print("The servers run until Ctrl-C.")
    try:
        signal.pause()
    except KeyboardInterrupt:
        console.print("Servers end.")
