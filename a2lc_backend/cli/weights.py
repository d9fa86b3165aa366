"""`a2lc weights`: the weights of foundation models, listed, fetched and checked."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from a2lc_backend.cli.common import fail, read_settings

if TYPE_CHECKING:
    from a2lc_backend.weights import Entry, Weights

weights_app = typer.Typer(help="Get the weights of foundation models into A2LC_WEIGHTS_DIR.", no_args_is_help=True)


@weights_app.command("list")
def list_weights(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """All weights that can be fetched, and whether they are there."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    from a2lc_backend import weights as room  # noqa: PLC0415

    weights = _open()
    if as_json:
        rows = [
            asdict(item) | {"address": item.address, "present": _present(weights, item) == "yes"}
            for item in room.CATALOG
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("Name", "Size", "Commercial", "Present"):
        table.add_column(heading, no_wrap=True)
    for heading in ("Licence", "For"):
        table.add_column(heading, overflow="fold")
    for item in room.CATALOG:
        size, present = item.files[0].size, _present(weights, item)
        megabytes = f"{size / 1e6:,.0f} MB" if size else ""
        table.add_row(item.name, megabytes, item.commercial, present, item.licence, item.use)
    Console().print(table)


def _present(weights: Weights, item: Entry) -> str:
    """Whether weights are there, by their size: reading gigabytes for a checksum is for `check`."""
    if not weights.has(item.name):
        return "no"
    return "yes" if weights.right_size(item.name) else "damaged"


@weights_app.command("fetch")
def fetch(
    names: Annotated[list[str], typer.Argument(help="Of weights, as `a2lc weights list` names them.")],
    accept_licence: Annotated[
        list[str] | None, typer.Option(help="Name of weights whose own licence you have read and accept.")
    ] = None,
) -> None:
    """Get weights; an attempt that was cut off is taken up."""
    from a2lc_backend.weights import WeightsError  # noqa: PLC0415

    weights = _open(accept_licence or ())
    failed = []
    for name in names:
        try:
            _fetch(weights, name)
        except WeightsError as error:
            failed.append(f"{name}: {error}")
    if failed:
        fail("\n".join(failed))


def _fetch(weights: Weights, name: str) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn  # noqa: PLC0415

    from a2lc_backend.weights import entry  # noqa: PLC0415

    item = entry(name)
    if weights.has(name) and not list(weights.check(name)):
        typer.echo(f"{name} is there already: {weights.path(name)}")
        return
    typer.echo(f"{name}: {item.address}; licence {item.licence} {item.terms}".rstrip())
    with Progress(
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(stderr=True),
        disable=bool(item.repository),
    ) as bars:
        bar = bars.add_task(name, total=item.files[0].size)
        path = weights.fetch(name, lambda there, total: bars.update(bar, completed=there, total=total or None))
    typer.echo(f"{name} is there: {path}")


@weights_app.command("check")
def check(
    names: Annotated[list[str] | None, typer.Argument(help="Of weights; all that are there if none is given.")] = None,
) -> None:
    """Compare files with what was published or fetched; the exit status is 1 if any is missing or altered."""
    from a2lc_backend import weights as room  # noqa: PLC0415

    weights = _open()
    chosen = names or [item.name for item in room.CATALOG if weights.has(item.name)]
    if not chosen:
        fail(f"there are no weights in {weights.folder}; get some, such as with: a2lc weights fetch sam-vit-b")
    healthy = True
    for name in chosen:
        try:
            problems = list(weights.check(name))
            unknown = weights.unverified(name)
        except room.WeightsError as error:
            problems, unknown = [str(error)], []
        healthy &= not problems
        for problem in problems:
            typer.secho(f"{name}: {problem}", fg="red", err=True)
        if not problems:
            typer.echo(f"{name}: " + (f"nothing says what should be in {', '.join(unknown)}" if unknown else "whole"))
    if not healthy:
        raise typer.Exit(1)


def _open(accepted: list[str] | tuple[str, ...] = ()) -> Weights:
    from a2lc_backend.weights import Weights  # noqa: PLC0415

    settings = read_settings()
    return Weights(settings.weights_folder, {*settings.accepted_licences, *accepted})
