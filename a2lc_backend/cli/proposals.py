"""`a2lc proposals`: what the corrector proposed, held back or applied, and what a person approves of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

import typer

from a2lc_backend.cli.common import ProjectOption, ask_backend, fail, read_settings, tell_backend

if TYPE_CHECKING:
    from a2lc_backend.service import Service
    from a2lc_backend.settings import Settings

Found = TypeVar("Found")

proposals_app = typer.Typer(
    help="Look at what the corrector proposes, and approve or reject groups of it.", no_args_is_help=True
)

RoundOption = Annotated[int | None, typer.Option("--round", help="The last finished one if not given.")]
FromOption = Annotated[str, typer.Option("--from", help='Class the masks have; "none" for no label.')]
ToOption = Annotated[str, typer.Option("--to", help="Class that is proposed.")]

LeastOption = Annotated[float, typer.Option(min=0, max=1, help="The corrector's probability is at least this.")]
MostOption = Annotated[float, typer.Option(min=0, max=1, help="And below this; 1 includes 1.")]


class Group(NamedTuple):
    """A pair of classes, and how sure the corrector is."""

    before: str
    after: str
    least: float
    most: float


@proposals_app.command("list")
def list_groups(project: ProjectOption, number: RoundOption = None) -> None:
    """The proposals of a round by class, the largest group first."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table("From", "To")
    for heading in ("Proposed", "Ready", "Applied"):
        table.add_column(heading, justify="right")
    table.add_column("Approved")
    for group in _groups(read_settings(), project, number):
        counts = (str(group[name]) for name in ("proposed", "ready", "applied"))
        table.add_row(group["before"], group["after"], *counts, "yes" if group["approved"] else "")
    Console().print(table)


@proposals_app.command("masks")
def list_masks(
    project: ProjectOption,
    before: FromOption,
    after: ToOption,
    number: RoundOption = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Masks to print.")] = 20,
) -> None:
    """The masks of one group, with the address of each image in Label Studio."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    settings = read_settings()
    table = Table("Region", "Probability", "Now", "Look at it")
    for item in _masks(settings, project, number, before, after, limit):
        address = f"{settings.label_studio_browser_url}/projects/{project}/data?task={item['task_id']}"
        table.add_row(item["region_id"], f"{item['belief']:.2f}", item["state"], address)
    Console(soft_wrap=True).print(table)


@proposals_app.command("approve")
def approve(project: ProjectOption, before: FromOption, after: ToOption) -> None:
    """Let the rounds from the next on apply a group: under `manual` what audits do not hold back, else all of it."""
    _approve(project, before, after, approved=True)
    typer.echo(f"{before} → {after}: approved from the next round on")


@proposals_app.command("withdraw")
def withdraw(project: ProjectOption, before: FromOption, after: ToOption) -> None:
    """Take an approval back; the next round restores the labels that only it had changed."""
    _approve(project, before, after, approved=False)
    typer.echo(f"{before} → {after}: no longer approved; the next round restores the labels")


@proposals_app.command("reject")
def reject(
    project: ProjectOption,
    before: FromOption,
    after: ToOption,
    number: RoundOption = None,
    least: LeastOption = 0.0,
    most: MostOption = 1.0,
) -> None:
    """Take the applied corrections of a group back, and publish the labels again; no later round gives them anew."""
    count = _take_back(project, number, "reject", Group(before, after, least, most))
    typer.echo(f"{before} → {after}: {count} corrections are taken back, and the labels are being published")


@proposals_app.command("restore")
def restore(
    project: ProjectOption,
    before: FromOption,
    after: ToOption,
    number: RoundOption = None,
    least: LeastOption = 0.0,
    most: MostOption = 1.0,
) -> None:
    """Let the corrections of a group hold again that were taken back."""
    count = _take_back(project, number, "restore", Group(before, after, least, most))
    typer.echo(f"{before} → {after}: {count} corrections hold again")


def _take_back(project: int, number: int | None, what: str, group: Group) -> int:
    settings = read_settings()
    if number is None:
        rounds = tell_backend(settings, f"{project}/rounds", method="GET")
        number = max((item["number"] for item in rounds if item["status"] == "done"), default=0)
    return int(tell_backend(settings, f"{project}/rounds/{number}/{what}", group._asdict())["corrections"])


def _groups(settings: Settings, project: int, number: int | None) -> list[dict[str, Any]]:
    answer = ask_backend(settings, f"{project}/proposals", round=number)
    if answer is not None:
        return list(answer)
    from a2lc_backend.rounds.report import group_reports  # noqa: PLC0415

    return _here(settings, lambda service: [asdict(group) for group in group_reports(service.ledger, project, number)])


def _masks(
    settings: Settings, project: int, number: int | None, before: str, after: str, limit: int
) -> list[dict[str, Any]]:
    path = f"{project}/proposals/masks"
    answer = ask_backend(settings, path, round=number, before=before, after=after, limit=limit)
    if answer is not None:
        return list(answer)

    def read(service: Service) -> list[dict[str, Any]]:
        from a2lc_backend.actions import proposals  # noqa: PLC0415

        mine = (item for item in proposals(service, project, number) if (item.before, item.after) == (before, after))
        return [asdict(item) | {"state": item.state} for item in islice(mine, limit)]

    return _here(settings, read)


def _approve(project: int, before: str, after: str, approved: bool) -> None:
    settings = read_settings()
    said = {"before": before, "after": after, "approved": approved}
    if ask_backend(settings, f"{project}/proposals/approval", "PUT", said) is None:
        from a2lc_backend.actions import approve_pair  # noqa: PLC0415

        _here(settings, lambda service: approve_pair(service, project, before, after, approved))


def _here(settings: Settings, read: Callable[[Service], Found]) -> Found:
    """Ask the store of this machine, where no backend runs."""
    from a2lc_backend.rounds.report import NotThereError  # noqa: PLC0415
    from a2lc_backend.service import Service  # noqa: PLC0415

    service = Service(settings)
    try:
        return read(service)
    except NotThereError as error:
        fail(str(error))
    finally:
        service.close()
