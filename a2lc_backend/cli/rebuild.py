"""`a2lc rebuild`: a new store from Label Studio, where the old one is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from a2lc_backend.cli.common import ProjectOption, ask_backend, fail, read_settings

if TYPE_CHECKING:
    from a2lc_backend.rounds.rebuild import Rebuilt
    from a2lc_backend.settings import Settings

_PROBLEMS_SHOWN = 20


def rebuild_store(
    project: ProjectOption,
    replace: Annotated[
        bool, typer.Option(help="Throw away the rounds, reports, audits and approvals that the store holds.")
    ] = False,
) -> None:
    """Make the store of a project anew from what Label Studio holds; nothing in Label Studio is changed."""
    from a2lc_backend.rounds.heartbeat import RoundBusyError  # noqa: PLC0415
    from a2lc_backend.rounds.platform import PlatformError  # noqa: PLC0415
    from a2lc_backend.rounds.rebuild import RebuildRefusedError  # noqa: PLC0415
    from a2lc_backend.settings import SettingsError  # noqa: PLC0415

    settings = read_settings()
    _refuse_while_running(settings, project)
    try:
        rebuilt = _rebuild(settings, project, replace)
    except (PlatformError, RebuildRefusedError, RoundBusyError, SettingsError) as error:
        fail(str(error))
    for problem in rebuilt.problems[:_PROBLEMS_SHOWN]:
        typer.secho(f"  {problem}", fg="yellow", err=True)
    if len(rebuilt.problems) > _PROBLEMS_SHOWN:
        typer.secho(f"  and {len(rebuilt.problems) - _PROBLEMS_SHOWN} more problems", fg="yellow", err=True)
    typer.echo(_told(rebuilt, project))


def _refuse_while_running(settings: Settings, project: int) -> None:
    """A backend may keep another ledger, whose lock says nothing here."""
    for record in ask_backend(settings, f"{project}/rounds") or []:
        if record["status"] == "running":
            fail(
                f"the backend at {settings.own_url} runs round {record['number']} of project {project}; "
                "wait for its end, or stop the backend"
            )


def _rebuild(settings: Settings, project: int, replace: bool) -> Rebuilt:
    from rich.progress import Progress  # noqa: PLC0415

    from a2lc_backend.logs import configure_logs  # noqa: PLC0415
    from a2lc_backend.service import Service  # noqa: PLC0415

    configure_logs("warning", settings.secrets)
    service = Service(settings)
    try:
        held = [record.number for record in service.ledger.rounds(project)]
        if replace and held:
            typer.echo(
                f"thrown away: the stored rounds {', '.join(map(str, held))} of project {project} with their labels, "
                "reports, audits and approvals"
            )
        with Progress() as bars:
            task = bars.add_task("images", total=None)
            return service.rebuild(
                project, replace, lambda done, total: bars.update(task, completed=done, total=total or None)
            )
    finally:
        service.close()


def _told(rebuilt: Rebuilt, project: int) -> str:
    new = f", {rebuilt.new_images} new images" if rebuilt.new_images else ""
    return (
        f"rebuilt round {rebuilt.number} ({rebuilt.version}): {rebuilt.images} images with {rebuilt.masks} masks{new}, "
        f"{rebuilt.human} human labels, {rebuilt.corrections} decisions of people, {rebuilt.queries} queued masks\n"
        "lost: the reports of earlier rounds, what audits have found (the corrector starts as if it had never been "
        "audited), approvals, which corrections were taken back by `a2lc rounds undo` (they may be proposed again)\n"
        f"go on: (re)start a2lc serve and the workers; the backend then ends round {rebuilt.number} by itself (the "
        f"segmenter is trained again, nothing is published). Follow it with: a2lc rounds watch --project {project} - "
        f"and begin the next one with: a2lc rounds next --project {project}"
    )
