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


def ask_backend(
    settings: Settings, path: str, method: str = "GET", body: dict[str, Any] | None = None, **query: Any
) -> Any:
    """What the running backend answers; None if none runs at A2LC_URL. Ends the command where it refuses.

    Args:
        settings: where the backend runs.
        path: below `/api/projects/`.
        method: of HTTP.
        body: what to send as JSON.
        query: parameters; those that are None are left out.
    """
    import httpx  # noqa: PLC0415

    address = f"{settings.own_url}/api/projects/{path}"
    given = {name: value for name, value in query.items() if value is not None}
    key = settings.label_studio_api_key.get_secret_value()
    headers = {"Authorization": f"Token {key}"} if key else {}
    try:
        reply = httpx.request(method, address, params=given, json=body, headers=headers, timeout=60)
    except httpx.ConnectError:
        return None
    except httpx.HTTPError as error:
        fail(f"the backend at {settings.own_url} does not answer ({error}); look at its log, then try again")
    if not reply.is_success:
        fail(_detail_of(reply))
    return reply.json()


def tell_backend(settings: Settings, path: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
    """What the running backend answers; ends the command where none runs at A2LC_URL, or it refuses."""
    answer = ask_backend(settings, path, method, body)
    if answer is None:
        fail(f"no backend runs at {settings.own_url}; start it with `a2lc serve`, or set A2LC_URL to its address")
    return answer


def _detail_of(reply: httpx.Response) -> str:
    """Why the backend refused."""
    try:
        return str(reply.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"the backend answered {reply.status_code}; look at its log"
