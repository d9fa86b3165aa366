"""`a2lc rounds`: list, start and inspect the rounds of a project."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from a2lc_backend.cli.common import ProjectOption, ask_backend, fail, read_settings
from a2lc_backend.cli.trust import print_trust

if TYPE_CHECKING:
    from rich.console import Console

    from a2lc_backend.rounds.report import RoundReport
    from a2lc_backend.settings import Settings
    from a2lc_backend.store import Phase, Round

rounds_app = typer.Typer(help="List, start and inspect the rounds of a project.", no_args_is_help=True)


@rounds_app.command("list")
def list_rounds(project: ProjectOption) -> None:
    """Every round of a project."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    rounds = _rounds(read_settings(), project)
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

    settings = read_settings()
    try:
        number = _run_here(settings, project, budget) if here else _run_there(settings, project, budget)
    except (PlatformError, RoundBusyError, RoundFailedError, SettingsError) as error:
        fail(str(error))
    _show(Console(), settings, project, number)


@rounds_app.command("show")
def show_round(
    project: ProjectOption,
    number: Annotated[int | None, typer.Argument(help="The last round if not given.")] = None,
) -> None:
    """What a round did, and what went wrong in it."""
    from rich.console import Console  # noqa: PLC0415

    settings = read_settings()
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
        fail(
            f"no answer from the backend at {settings.own_url} ({error}); start it with `a2lc serve`, set A2LC_URL to "
            "its address, or run the round in this process with --here"
        )


def _rounds(settings: Settings, project: int) -> list[Round]:
    """The rounds of a project, from the running backend, else from the ledger."""
    from a2lc_backend.store import Ledger, Round  # noqa: PLC0415

    answer = ask_backend(settings, f"{project}/rounds")
    where = f"the backend at {settings.own_url}" if answer is not None else settings.ledger_url.split("@")[-1]
    rounds = [Round(**item) for item in answer] if answer else Ledger(settings.ledger_url).rounds(project)
    if not rounds:
        fail(f"project {project} has no rounds yet ({where}); start round 0 with: a2lc rounds next --project {project}")
    return rounds


def _show(console: Console, settings: Settings, project: int, number: int) -> None:
    from a2lc_backend.rounds.report import NotThereError, report_from_json, round_report  # noqa: PLC0415
    from a2lc_backend.store import Ledger  # noqa: PLC0415

    answer = ask_backend(settings, f"{project}/rounds/{number}")
    try:
        report = report_from_json(answer) if answer else round_report(Ledger(settings.ledger_url), project, number)
    except NotThereError as error:
        fail(str(error))
    _print_report(console, report)
    if report.round.status == "done":
        _print_link(settings, project)


def _print_report(console: Console, report: RoundReport) -> None:
    from rich.table import Table  # noqa: PLC0415

    record = report.round
    console.print(
        f"[bold]Round {record.number}[/bold] of project {record.project_id}: {record.status} {record.version}"
    )
    if record.error:
        console.print(record.error, style="red", markup=False)
    for name, value in record.summary.items():
        if not name.startswith(("still_wrong", "next_fixes")):
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
    print_trust(console, report)
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
