"""What the commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from a2lc_backend.settings import Settings

ProjectOption = Annotated[int, typer.Option("--project", "-p", help="Id of the project in Label Studio.")]


def fail(message: str) -> NoReturn:
    """End with a message and the exit status 1."""
    typer.secho(message, fg="red", err=True)
    raise typer.Exit(1)


def read_settings() -> Settings:
    """The settings of the environment; ends the command where they are wrong."""
    from a2lc_backend.settings import SettingsError, load_settings  # noqa: PLC0415

    try:
        return load_settings()
    except SettingsError as error:
        fail(str(error))


def ask_backend(settings: Settings, path: str, **query: Any) -> Any:
    """What the running backend answers; None if none runs at A2LC_URL, or it knows no such thing.

    Args:
        settings: where the backend runs.
        path: below `/api/projects/`.
        query: parameters; those that are None are left out.
    """
    import httpx  # noqa: PLC0415

    given = {name: value for name, value in query.items() if value is not None}
    try:
        reply = httpx.get(f"{settings.own_url}/api/projects/{path}", params=given, timeout=10)
    except httpx.HTTPError:
        return None
    return reply.json() if reply.status_code == 200 else None
