"""`a2lc rounds`: list, start and inspect the rounds of a project."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from a2lc_backend.cli.common import ProjectOption, ask_backend, fail, read_settings, tell_backend
from a2lc_backend.cli.trust import print_trust

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from a2lc_backend.rounds.report import RoundReport
    from a2lc_backend.settings import Settings
    from a2lc_backend.store import Phase, Round

_FOLLOW_SECONDS = 0.5

rounds_app = typer.Typer(help="List, start and inspect the rounds of a project.", no_args_is_help=True)


@rounds_app.command("list")
def list_rounds(project: ProjectOption) -> None:
    """Every round of a project.

    Asks the backend at A2LC_URL; where none runs, reads the local ledger:
    A2LC_DATABASE_URL, or ledger.db in A2LC_DATA_DIR if that is not set.
    """
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    rounds = _rounds(read_settings(), project)
    table = Table()
    for heading in ("Round", "Status", "Queued", "Answered", "By people", "By corrector", "Version"):
        table.add_column(heading, no_wrap=heading in ("Status", "Version"))
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
    """Start the next round, or go on with the one that is unfinished, and follow it to its end."""
    from rich.console import Console  # noqa: PLC0415

    from a2lc_backend.rounds.heartbeat import RoundBusyError  # noqa: PLC0415
    from a2lc_backend.rounds.platform import PlatformError  # noqa: PLC0415
    from a2lc_backend.rounds.runner import RoundFailedError  # noqa: PLC0415
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
    """What a round did, and what went wrong in it.

    Asks the backend at A2LC_URL; where none runs, reads the local ledger:
    A2LC_DATABASE_URL, or ledger.db in A2LC_DATA_DIR if that is not set.
    """
    from rich.console import Console  # noqa: PLC0415

    settings = read_settings()
    if number is None:
        number = _rounds(settings, project)[-1].number
    _show(Console(), settings, project, number)


@rounds_app.command("watch")
def watch_round(project: ProjectOption) -> None:
    """Follow the unfinished round of a project until it ends.

    Asks the backend at A2LC_URL; where none runs, reads the local ledger:
    A2LC_DATABASE_URL, or ledger.db in A2LC_DATA_DIR if that is not set.
    """
    from rich.console import Console  # noqa: PLC0415

    settings = read_settings()
    record = _open_round(settings, project)
    if record.status in ("running", "cancelling"):
        _follow(settings, project, record.number)
    else:
        typer.echo(f"no round of project {project} is running; this is the last one")
    _show(Console(), settings, project, record.number)


@rounds_app.command("pause")
def pause_round(project: ProjectOption) -> None:
    """Stop the running round where it is; `resume` goes on with it."""
    record = tell_backend(read_settings(), f"{project}/rounds/pause")
    typer.echo(f"round {record['number']} is paused; go on with: a2lc rounds resume --project {project}")


@rounds_app.command("resume")
def resume_round(project: ProjectOption) -> None:
    """Go on with a round that is paused or failed."""
    settings = read_settings()
    last = _open_round(settings, project)
    if last.status == "running":
        fail(f"round {last.number} is running: follow it with: a2lc rounds watch --project {project}")
    if last.status not in ("paused", "failed"):
        fail(f"round {last.number} is {last.status}: nothing to resume; a2lc rounds next begins the next round")
    tell_backend(settings, f"{project}/rounds", {})
    typer.echo(f"round {last.number} goes on; follow it with: a2lc rounds watch --project {project}")


@rounds_app.command("cancel")
def cancel_round(project: ProjectOption) -> None:
    """Give the unfinished round up: labels and queue of the round before stay, and so does what people answered."""
    settings = read_settings()
    number = int(tell_backend(settings, f"{project}/rounds/cancel")["number"])
    _follow(settings, project, number)
    typer.echo(f"round {number} is cancelled")


@rounds_app.command("undo")
def undo_round(
    project: ProjectOption, number: Annotated[int, typer.Argument(help="The last finished round, or an older one.")]
) -> None:
    """Take the automatic corrections of a round back, and publish the labels again."""
    _take_back(project, number, "undo", "taken back")


@rounds_app.command("redo")
def redo_round(
    project: ProjectOption, number: Annotated[int, typer.Argument(help="A round whose corrections were taken back.")]
) -> None:
    """Let the automatic corrections of a round hold again, and publish the labels again."""
    _take_back(project, number, "redo", "in force again")


def _take_back(project: int, number: int, what: str, done: str) -> None:
    settings = read_settings()
    count = tell_backend(settings, f"{project}/rounds/{number}/{what}")["corrections"]
    if count:
        _follow(settings, project, _open_round(settings, project).number)
        typer.echo(f"{count} automatic corrections of round {number} are {done}")
    else:
        typer.echo(f"nothing changes: no automatic correction of round {number} is left that could be {done}")


def _run_here(settings: Settings, project: int, budget: int | None) -> int:
    from rich.live import Live  # noqa: PLC0415

    from a2lc_backend.logs import configure_logs  # noqa: PLC0415
    from a2lc_backend.service import Service  # noqa: PLC0415

    configure_logs("warning", settings.secrets)
    service = Service(settings)
    phases: dict[str, Phase] = {}
    number = service.begin_round(project, budget).number
    with Live(_progress(number, []), refresh_per_second=4) as live:

        def watch(phase: Phase) -> None:
            phases[phase.name] = phase
            live.update(_progress(number, list(phases.values())))

        service.run(project, watch)
    return number


def _run_there(settings: Settings, project: int, budget: int | None) -> int:
    number = int(tell_backend(settings, f"{project}/rounds", {"budget": budget})["number"])
    _follow(settings, project, number)
    return number


def _follow(settings: Settings, project: int, number: int) -> None:
    """Show a round's progress until it ends or is paused; ends the command where it fails."""
    from rich.live import Live  # noqa: PLC0415

    with Live(_progress(number, []), refresh_per_second=4) as live:
        report = _report(settings, project, number)
        while report.round.status in ("running", "cancelling"):
            live.update(_progress(number, report.phases))
            time.sleep(_FOLLOW_SECONDS)
            report = _report(settings, project, number)
        live.update(_progress(number, report.phases))
    if not live.console.is_terminal:
        live.console.print()  # rich ends the table without one there
    if report.round.status == "failed":
        fail(report.round.error)


def _progress(number: int, phases: Sequence[Phase]) -> Table:
    """How far each phase of a round is."""
    from rich.progress_bar import ProgressBar  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(title=f"Round {number}", title_justify="left", box=None)
    for heading in ("Phase", "", "Done", "Rate", "Left", ""):
        table.add_column(heading, justify="right" if heading in ("Done", "Rate", "Left") else "left")
    for phase in phases:
        ended = phase.status == "done"
        bar = ProgressBar(total=max(phase.total, 1), completed=max(phase.total, 1) if ended else phase.done, width=30)
        note = Text(phase.note, style="yellow") if phase.note else Text("" if ended else phase.status)
        seconds = f"{phase.ended - phase.started:.1f} s" if ended else ""
        left = seconds or (f"{phase.eta:.0f} s" if phase.eta else "")
        rate = f"{phase.rate:.1f}/s" if phase.rate and not ended else ""
        table.add_row(phase.name, bar, f"{phase.done}/{phase.total}", rate, left, Text("done") if ended else note)
    return table


def _rounds(settings: Settings, project: int) -> list[Round]:
    """The rounds of a project, from the running backend, else from the ledger."""
    from a2lc_backend.store import Ledger, Round  # noqa: PLC0415

    answer = ask_backend(settings, f"{project}/rounds")
    where = f"the backend at {settings.own_url}" if answer is not None else settings.ledger_url.split("@")[-1]
    if answer is not None:
        rounds = [Round(**item) for item in answer]
    else:
        with closing(Ledger(settings.ledger_url)) as ledger:
            rounds = ledger.rounds(project)
    if not rounds:
        fail(f"project {project} has no rounds yet ({where}); start round 0 with: a2lc rounds next --project {project}")
    return rounds


def _open_round(settings: Settings, project: int) -> Round:
    from a2lc_backend.store import open_round  # noqa: PLC0415

    return open_round(_rounds(settings, project))


def _report(settings: Settings, project: int, number: int) -> RoundReport:
    from a2lc_backend.rounds.report import NotThereError, report_from_json, round_report  # noqa: PLC0415
    from a2lc_backend.store import Ledger  # noqa: PLC0415

    answer = ask_backend(settings, f"{project}/rounds/{number}")
    try:
        if answer:
            return report_from_json(answer)
        with closing(Ledger(settings.ledger_url)) as ledger:
            return round_report(ledger, project, number)
    except NotThereError as error:
        fail(str(error))


def _show(console: Console, settings: Settings, project: int, number: int) -> None:
    report = _report(settings, project, number)
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
        if not name.startswith(("still_wrong", "next_fixes", "queued_")):
            console.print(f"  {name.replace('_', ' ')}: {value:g}")
    table = Table("Phase", "Status", "Done", "Seconds")
    for phase in report.phases:
        seconds = f"{phase.ended - phase.started:.1f}" if phase.ended else ""
        table.add_row(phase.name, phase.status, f"{phase.done}/{phase.total}", seconds)
    console.print(table)
    for phase in report.phases:
        if phase.note:
            console.print(f"{phase.name}: {phase.note}", style="yellow", markup=False, soft_wrap=True)
    if report.class_changes:
        changes = Table("From", "To", "Masks", title="Changed without a person")
        for before, after, count in report.class_changes[:20]:
            changes.add_row(before, after, str(count))
        console.print(changes)
    print_trust(console, report)
    for problem in report.problems:
        console.print(f"  {problem.phase}: {problem.message}", style="yellow", markup=False)


def _print_link(settings: Settings, project: int) -> None:
    from a2lc_backend.label_studio import LabelStudioError, LabelStudioProject, connected  # noqa: PLC0415

    try:
        with connected(settings.label_studio_url, settings.label_studio_api_key.get_secret_value()) as client:
            platform = LabelStudioProject(client, settings.label_studio_url, project)
            links = platform.queue_links(settings.label_studio_browser_url)
    except LabelStudioError as error:
        typer.secho(str(error), fg="yellow", err=True)
        return
    for who, link in sorted(links.items()):
        typer.echo(f"review queue{' of ' if who else ''}{who}: {link}")
