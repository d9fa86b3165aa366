"""What the commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    import httpx

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


def ask_backend(settings: Settings, path: str, put: dict[str, Any] | None = None, **query: Any) -> Any:
    """What the running backend answers; None if none runs at A2LC_URL. Ends the command where it refuses.

    Args:
        settings: where the backend runs.
        path: below `/api/projects/`.
        put: what to put there; it is read if None.
        query: parameters; those that are None are left out.
    """
    import httpx  # noqa: PLC0415

    address = f"{settings.own_url}/api/projects/{path}"
    given = {name: value for name, value in query.items() if value is not None}
    try:
        reply = httpx.request("GET" if put is None else "PUT", address, params=given, json=put, timeout=60)
    except httpx.ConnectError:
        return None
    except httpx.HTTPError as error:
        fail(f"the backend at {settings.own_url} does not answer ({error}); look at its log, then try again")
    if reply.status_code != 200:
        fail(_detail_of(reply))
    return reply.json()


def _detail_of(reply: httpx.Response) -> str:
    """Why the backend refused."""
    try:
        return str(reply.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"the backend answered {reply.status_code}; look at its log"
