"""The `a2lc` command. Heavy imports wait until a command needs them, so that `--help` is quick."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from a2lc_backend.rounds.report import RoundReport
    from a2lc_backend.settings import Settings
    from a2lc_backend.store import Phase, Round

app = typer.Typer(
    help="Active and automated label correction for Label Studio.", no_args_is_help=True, add_completion=False
)
rounds_app = typer.Typer(help="List, start and inspect the rounds of a project.", no_args_is_help=True)
app.add_typer(rounds_app, name="rounds")

ProjectOption = Annotated[int, typer.Option("--project", "-p", help="Id of the project in Label Studio.")]


def main() -> None:
    """Run the command line."""
    app()


def _fail(message: str) -> NoReturn:
    typer.secho(message, fg="red", err=True)
    raise typer.Exit(1)


def _settings() -> Settings:
    from a2lc_backend.settings import SettingsError, load_settings  # noqa: PLC0415

    try:
        return load_settings()
    except SettingsError as error:
        _fail(str(error))


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (A2LC_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (A2LC_PORT).")] = None,
) -> None:
    """Serve Label Studio: predictions, webhooks and rounds."""
    import uvicorn  # noqa: PLC0415

    from a2lc_backend.app import create_app  # noqa: PLC0415
    from a2lc_backend.logs import configure_logs  # noqa: PLC0415
    from a2lc_backend.service import Service  # noqa: PLC0415

    settings = _settings()
    configure_logs(settings.log_level)
    service = Service(settings)
    uvicorn.run(
        create_app(service), host=host or settings.host, port=port or settings.port, log_level=settings.log_level,
        access_log=False,
    )  # fmt: skip


@app.command()
def demo(
    label_studio: Annotated[Path, typer.Option(help="The label-studio command of its own environment.")] = Path(
        ".venv-label-studio/bin/label-studio"
    ),
    data: Annotated[Path | None, typer.Option(help="A world folder; scenes are drawn if not given.")] = None,
    images: Annotated[int, typer.Option(min=4, help="Images to use.")] = 48,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds with the simulated annotator.")] = 3,
    budget: Annotated[int, typer.Option(min=1, help="Masks queued a round.")] = 150,
    keep: Annotated[bool, typer.Option(help="Leave the servers running.")] = False,
) -> None:
    """Run three rounds in a real Label Studio with a simulated annotator."""
    from rich.console import Console  # noqa: PLC0415

    from a2lc_backend.bench.files import DataSetError  # noqa: PLC0415
    from a2lc_backend.demo.run import DemoOptions, run_demo  # noqa: PLC0415
    from a2lc_backend.demo.servers import ServerError  # noqa: PLC0415

    try:
        run_demo(DemoOptions(label_studio, data, images, rounds, budget, keep), Console())
    except (ServerError, DataSetError) as error:
        _fail(str(error))


@app.command()
def bench(
    data: Annotated[
        Path, typer.Option(help="Folder of a world, of Cityscapes or of PASCAL VOC 2012; which it is is seen.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the report; runs that stand there already are taken up.")],
    methods: Annotated[
        str, typer.Option(help="Commas between: alc, alc-unique, mask, lcm, abc, a2lc-paper, a2lc.")
    ] = "mask,a2lc-paper,a2lc",
    budget: Annotated[
        int | None,
        typer.Option(min=1, help="Masks queried a round; if not given 400, Cityscapes 10,000, VOC 1,000."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of correction.")] = 5,
    seeds: Annotated[str, typer.Option(help="How many (3 means 0, 1, 2), or a list such as 0,2,5.")] = "1",
    proposals: Annotated[
        str | None,
        typer.Option(help="Where masks and first labels come from; if not given world for a world, else superpixels."),
    ] = None,
    backbone: Annotated[
        Path | None, typer.Option(help="Frozen features for the model, a .pt2 or .pth file; else a U-Net is trained.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Whose labels are corrected: train if not given, or trainaug of VOC.")
    ] = None,
) -> None:
    """Compare methods with an oracle annotator; writes report.json, report.md and pictures."""
    from rich.console import Console  # noqa: PLC0415

    from a2lc_backend.bench.experiment import run_bench  # noqa: PLC0415
    from a2lc_backend.bench.files import DataSetError  # noqa: PLC0415
    from a2lc_backend.bench.methods import BenchError, parse_methods, parse_seeds  # noqa: PLC0415
    from a2lc_backend.logs import configure_logs  # noqa: PLC0415
    from a2lc_backend.rounds.runner import RoundFailedError  # noqa: PLC0415

    configure_logs("error")
    try:
        report = run_bench(
            data, parse_methods(methods), budget, rounds, parse_seeds(seeds), out, Console(),
            proposals=proposals, backbone=backbone, split=split,
        )  # fmt: skip
    except (BenchError, DataSetError, RoundFailedError) as error:
        _fail(str(error))
    typer.echo(f"report: {report.with_suffix('.md')}")


@app.command()
def connect(project: ProjectOption) -> None:
    """Connect the running backend to a project, as Settings > Model > Connect does."""
    from a2lc_backend.label_studio import LabelStudioError, attach, open_client  # noqa: PLC0415

    settings = _settings()
    try:
        client = open_client(settings.label_studio_url, settings.label_studio_api_key.get_secret_value())
        attached = attach(client, settings.label_studio_url, project, settings.own_url)
    except LabelStudioError as error:
        _fail(str(error))
    typer.echo(f"{'connected' if attached.created else 'was connected already'}: ML backend {attached.backend_id}")
    typer.echo(f"start round 0 with: a2lc rounds next --project {project}")


@app.command()
def doctor(
    project: Annotated[int | None, typer.Option("--project", "-p", help="Check this project too.")] = None,
) -> None:
    """Check every connection and name the mend of what is broken."""
    from a2lc_backend.doctor import examine  # noqa: PLC0415

    healthy = True
    for finding in examine(_settings(), project):
        healthy &= finding.healthy
        mark = typer.style("ok  " if finding.healthy else "FAIL", fg="green" if finding.healthy else "red")
        typer.echo(f"{mark} {finding.what}: {finding.message}")
    if not healthy:
        raise typer.Exit(1)


@rounds_app.command("list")
def list_rounds(project: ProjectOption) -> None:
    """Every round of a project."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    rounds = _rounds(_settings(), project)
    table = Table()
    for heading in ("Round", "Status", "Queued", "Answered", "By people", "By corrector", "Version"):
        table.add_column(heading, no_wrap=heading == "Version")
    for record in rounds:
        counts = [
            str(int(record.summary.get(name, 0)))
            for name in ("queued", "answered", "changed_by_people", "changed_by_corrector")
        ]
        table.add_row(str(record.number), record.status, *counts, record.version)
    Console().print(table)


@rounds_app.command("next")
def next_round(
    project: ProjectOption,
    budget: Annotated[int | None, typer.Option(min=1, help="Masks to queue.")] = None,
    here: Annotated[bool, typer.Option(help="Run it in this process instead of the running backend.")] = False,
) -> None:
    """Start the next round, or go on with the one that is unfinished, and wait for its end."""
    from rich.console import Console  # noqa: PLC0415

    from a2lc_backend.rounds.platform import PlatformError  # noqa: PLC0415
    from a2lc_backend.rounds.runner import RoundBusyError, RoundFailedError  # noqa: PLC0415
    from a2lc_backend.settings import SettingsError  # noqa: PLC0415

    settings = _settings()
    try:
        number = _run_here(settings, project, budget) if here else _run_there(settings, project, budget)
    except (PlatformError, RoundBusyError, RoundFailedError, SettingsError) as error:
        _fail(str(error))
    _show(Console(), settings, project, number)


@rounds_app.command("show")
def show_round(
    project: ProjectOption,
    number: Annotated[int | None, typer.Argument(help="The last round if not given.")] = None,
) -> None:
    """What a round did, and what went wrong in it."""
    from rich.console import Console  # noqa: PLC0415

    settings = _settings()
    if number is None:
        number = _rounds(settings, project)[-1].number
    _show(Console(), settings, project, number)


def _run_here(settings: Settings, project: int, budget: int | None) -> int:
    from rich.progress import Progress  # noqa: PLC0415

    from a2lc_backend.logs import configure_logs  # noqa: PLC0415
    from a2lc_backend.service import Service  # noqa: PLC0415

    configure_logs("warning")
    service = Service(settings)
    with Progress() as bars:
        tasks: dict[str, Any] = {}

        def watch(phase: Phase) -> None:
            if phase.name not in tasks:
                tasks[phase.name] = bars.add_task(phase.name, total=None)
            total = max(phase.total, 1) if phase.status == "done" else phase.total or None
            completed = total if phase.status == "done" else phase.done
            bars.update(tasks[phase.name], completed=completed or 0, total=total)

        service.begin_round(project, budget)
        record = service.run(project, watch)
    return record.number


def _run_there(settings: Settings, project: int, budget: int | None) -> int:
    import httpx  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    from a2lc_backend.rounds.runner import PHASES, RoundFailedError  # noqa: PLC0415

    address = f"{settings.own_url}/api/projects/{project}/rounds"
    try:
        reply = httpx.post(address, json={"budget": budget}, timeout=30)
        reply.raise_for_status()
        number = int(reply.json()["number"])
        with Progress() as bars:
            task = bars.add_task(f"round {number}", total=len(PHASES))
            while True:
                report = httpx.get(f"{address}/{number}", timeout=30).raise_for_status().json()
                done = sum(phase["status"] == "done" for phase in report["phases"])
                name = report["phases"][-1]["name"] if report["phases"] else "waiting"
                bars.update(task, completed=done, description=f"round {number}: {name}")
                if report["round"]["status"] == "failed":
                    raise RoundFailedError(report["round"]["error"])
                if report["round"]["status"] == "done":
                    return number
                time.sleep(0.5)
    except httpx.HTTPError as error:
        _fail(
            f"no answer from the backend at {settings.own_url} ({error}); start it with `a2lc serve`, set A2LC_URL to "
            "its address, or run the round in this process with --here"
        )


def _ask_backend(settings: Settings, path: str) -> Any:
    """What the running backend answers; None if none runs at A2LC_URL, or it knows no such thing."""
    import httpx  # noqa: PLC0415

    try:
        reply = httpx.get(f"{settings.own_url}/api/projects/{path}", timeout=10)
    except httpx.HTTPError:
        return None
    return reply.json() if reply.status_code == 200 else None


def _rounds(settings: Settings, project: int) -> list[Round]:
    """The rounds of a project, from the running backend, else from the ledger."""
    from a2lc_backend.store import Ledger, Round  # noqa: PLC0415

    answer = _ask_backend(settings, f"{project}/rounds")
    where = f"the backend at {settings.own_url}" if answer is not None else settings.ledger_url.split("@")[-1]
    rounds = [Round(**item) for item in answer] if answer else Ledger(settings.ledger_url).rounds(project)
    if not rounds:
        _fail(
            f"project {project} has no rounds yet ({where}); start round 0 with: a2lc rounds next --project {project}"
        )
    return rounds


def _show(console: Any, settings: Settings, project: int, number: int) -> None:
    from a2lc_backend.rounds.report import report_from_json, round_report  # noqa: PLC0415
    from a2lc_backend.store import Ledger  # noqa: PLC0415

    answer = _ask_backend(settings, f"{project}/rounds/{number}")
    try:
        report = report_from_json(answer) if answer else round_report(Ledger(settings.ledger_url), project, number)
    except LookupError as error:
        _fail(str(error))
    _print_report(console, report)
    if report.round.status == "done":
        _print_link(settings, project)


def _print_report(console: Any, report: RoundReport) -> None:
    from rich.table import Table  # noqa: PLC0415

    record = report.round
    console.print(
        f"[bold]Round {record.number}[/bold] of project {record.project_id}: {record.status} {record.version}"
    )
    if record.error:
        console.print(record.error, style="red", markup=False)
    for name, value in record.summary.items():
        console.print(f"  {name.replace('_', ' ')}: {value:g}")
    table = Table("Phase", "Status", "Done", "Seconds")
    for phase in report.phases:
        seconds = f"{phase.ended - phase.started:.1f}" if phase.ended else ""
        table.add_row(phase.name, phase.status, f"{phase.done}/{phase.total}", seconds)
    console.print(table)
    if report.class_changes:
        changes = Table("From", "To", "Masks", title="Changed without a person")
        for before, after, count in report.class_changes[:20]:
            changes.add_row(before, after, str(count))
        console.print(changes)
    for problem in report.problems:
        console.print(f"  {problem.phase}: {problem.message}", style="yellow", markup=False)


def _print_link(settings: Settings, project: int) -> None:
    from a2lc_backend.label_studio import LabelStudioError, LabelStudioProject, open_client  # noqa: PLC0415

    try:
        client = open_client(settings.label_studio_url, settings.label_studio_api_key.get_secret_value())
        link = LabelStudioProject(client, settings.label_studio_url, project).queue_link()
    except LabelStudioError as error:
        typer.secho(str(error), fg="yellow", err=True)
        return
    typer.echo(f"review queue: {link}")
