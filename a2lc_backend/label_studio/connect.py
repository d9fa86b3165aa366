"""Connects this program to a project the way an admin does in Settings > Model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from label_studio_sdk.client import LabelStudio
from label_studio_sdk.core.api_error import ApiError
from label_studio_sdk.types.ml_backend import MlBackend
from label_studio_sdk.types.webhook import Webhook

from a2lc_backend.callers import WEBHOOK_HEADER, CallerSecrets
from a2lc_backend.label_studio.client import LabelStudioError, explained, status_of


@dataclass(frozen=True)
class Attached:
    """The ML backend row in Label Studio that stands for this program.

    Attributes:
        backend_id: its id.
        created: it was not there before.
        mended: it was there, and was told other secrets, or that smart tools are answered.
    """

    backend_id: int
    created: bool
    mended: bool = False


def attach(
    client: LabelStudio,
    url: str,
    project_id: int,
    backend_url: str,
    extra_params: dict[str, Any] | None = None,
    interactive: bool = False,
    callers: CallerSecrets = CallerSecrets(),  # noqa: B008 - it is frozen
) -> Attached:
    """Connect the program at `backend_url` to a project, once, and tell Label Studio what to show when it calls.

    Args:
        client: of the SDK.
        url: address of Label Studio.
        project_id: of the project.
        backend_url: this program as Label Studio reaches it.
        extra_params: settings of the project; see `ProjectSettings`.
        interactive: the program answers smart tools.
        callers: what Label Studio is to show.

    Raises:
        LabelStudioError: if Label Studio refuses the address or cannot reach it.
    """
    with explained(url, f"connecting {backend_url} to project {project_id}"):
        for backend in client.ml.list(project=project_id):
            if (backend.url or "").rstrip("/") == backend_url:
                stale = interactive and not backend.is_interactive
                if stale or callers.user or not shows_nothing(backend):  # the password it has cannot be read
                    # Without the address Label Studio 1.23.2 answers 500.
                    client.ml.update(
                        int(backend.id or 0), project=project_id, url=backend_url,
                        is_interactive=interactive or bool(backend.is_interactive), **_basic_auth(callers),
                    )  # fmt: skip
                    stale = True
                told = _tell_webhooks(client, project_id, backend_url, callers)
                return Attached(int(backend.id or 0), created=False, mended=stale or told)
    try:
        with explained(url, f"connecting {backend_url} to project {project_id}"):
            shown = client.projects.get(id=project_id).model_version or ""
            made = client.ml.create(
                project=project_id, url=backend_url, title="A²LC", is_interactive=interactive,
                extra_params=extra_params or {}, **_basic_auth(callers),
            )  # fmt: skip
            if shown.startswith("a2lc-"):  # creating a backend makes its title the version that is shown
                client.projects.update(id=project_id, model_version=shown)
            _tell_webhooks(client, project_id, backend_url, callers)
    except LabelStudioError as error:
        if isinstance(error.__cause__, ApiError) and status_of(error.__cause__) == 403:
            raise LabelStudioError(
                f"{error}; Label Studio refuses private addresses: start it with USE_DEFAULT_BANNED_SUBNETS=false, "
                "or give the backend a public address (A2LC_URL)"
            ) from error
        raise
    return Attached(int(made.id or 0), created=True)


def shows_nothing(backend: MlBackend) -> bool:
    """Whether Label Studio calls a backend without HTTP basic authentication."""
    return not backend.basic_auth_user


def webhooks_of(client: LabelStudio, project_id: int, backend_url: str) -> list[Webhook]:
    """The webhooks of a project that this program hears; Label Studio makes one for each backend that is connected."""
    return [hook for hook in client.webhooks.list(project=project_id) if hook.url.startswith(f"{backend_url}/")]


def carries(hook: Webhook, secret: str) -> bool:
    """Whether a webhook shows the secret that this program asks for; any does where it asks for none."""
    headers = hook.headers if isinstance(hook.headers, dict) else {}
    return str({name.lower(): value for name, value in headers.items()}.get(WEBHOOK_HEADER, "")) == secret


def _basic_auth(callers: CallerSecrets) -> dict[str, Any]:
    if not callers.user:  # Label Studio 1.23.2 refuses a blank password where none is set, and keeps one that is
        return {"auth_method": "NONE", "basic_auth_user": ""}
    return {"auth_method": "BASIC_AUTH", "basic_auth_user": callers.user, "basic_auth_pass": callers.password}


def _tell_webhooks(client: LabelStudio, project_id: int, backend_url: str, callers: CallerSecrets) -> bool:
    """Have the webhooks of this program carry its secret; whether one did not."""
    stale = [hook for hook in webhooks_of(client, project_id, backend_url) if not carries(hook, callers.webhook)]
    for hook in stale:
        others = {name: value for name, value in dict(hook.headers or {}).items() if name.lower() != WEBHOOK_HEADER}
        secret = {"X-A2LC-Secret": callers.webhook} if callers.webhook else {}
        client.webhooks.update(hook.id, url=hook.url, headers=others | secret)
    return bool(stale)
