"""`a2lc export`: the labels of a project as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from a2lc_backend.cli.common import ProjectOption, fail, read_settings

FormatName = Literal["png", "coco-panoptic", "coco-instances", "cityscapes", "voc", "parquet", "label-studio"]


def export_project(
    project: ProjectOption,
    name: Annotated[FormatName, typer.Option("--format", "-f", help="What the files are.")],
    out: Annotated[Path, typer.Option(help="Folder to make; one that is there must be empty.")],
    number: Annotated[
        int | None, typer.Option("--round", help="Labels of that round; the last one if not given.")
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(help="Only labels of human, corrector, foundation or imported; may be given again."),
    ] = None,
    class_name: Annotated[
        list[str] | None, typer.Option("--class", help="Only labels of that class; may be given again.")
    ] = None,
    audited: Annotated[
        bool, typer.Option("--audited", help="Only masks that a blind audit drew and people answered.")
    ] = False,
    precision: Annotated[
        float,
        typer.Option("--min-precision", min=0, max=0.999, help="Least share right that audits assure of a class."),
    ] = 0.0,
    finished: Annotated[
        bool, typer.Option("--finished", help="Only images of which people answered all that they were asked.")
    ] = False,
    images: Annotated[
        bool | None,
        typer.Option("--images/--no-images", help="With the images' files; by default for cityscapes and voc."),
    ] = None,
    role: Annotated[
        Literal["predictions", "annotations"],
        typer.Option("--as", help="What the labels are where label-studio files are imported."),
    ] = "predictions",
) -> None:
    """Write the labels of a round: people's over the corrector's over the first ones. See docs/export.md."""
    from rich.progress import Progress  # noqa: PLC0415

    from a2lc_backend.export import ExportError, Filters, Gateway, export_labels, open_labels  # noqa: PLC0415
    from a2lc_backend.logs import configure_logs  # noqa: PLC0415
    from a2lc_backend.rounds.platform import PlatformError  # noqa: PLC0415
    from a2lc_backend.rounds.report import NotThereError  # noqa: PLC0415
    from a2lc_backend.store import ArtifactError  # noqa: PLC0415

    settings = read_settings()
    configure_logs("warning", settings.secrets)
    gateway = Gateway(settings, project)
    filters = Filters(tuple(source or ()), tuple(class_name or ()), audited, precision, finished)
    try:
        labels = open_labels(gateway, settings, project, number, filters)
        if not len(labels):
            fail(f"no label of round {labels.round.number} passes these filters; {_why_none(precision)}")
        with Progress(transient=True) as bars:
            bar = bars.add_task("images", total=len(labels))
            written = export_labels(
                labels, name, out, gateway.platform, images, role,
                lambda done, _total: bars.update(bar, completed=done),
            )  # fmt: skip
    except (ExportError, PlatformError, NotThereError, ArtifactError, ValueError) as error:
        fail(str(error))
    if not written:
        typer.echo(f"{out} holds this export already, unchanged")
        return
    typer.echo(f"{len(labels)} images of round {labels.round.number} ({labels.round.version}) in {out}")


def _why_none(precision: float) -> str:
    if precision:
        return "audits have not found so much of any class: ask for less, or see `a2lc rounds show`"
    return "ask for less"
