"""Connects this program to a project the way an admin does in Settings > Model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from label_studio_sdk.client import LabelStudio
from label_studio_sdk.core.api_error import ApiError

from a2lc_backend.label_studio.client import LabelStudioError, explained, status_of


@dataclass(frozen=True)
class Attached:
    """The ML backend row in Label Studio that stands for this program."""

    backend_id: int
    created: bool


def attach(
    client: LabelStudio,
    url: str,
    project_id: int,
    backend_url: str,
    extra_params: dict[str, Any] | None = None,
    interactive: bool = False,
) -> Attached:
    """Connect the program at `backend_url` to a project, once.

    Args:
        client: of the SDK.
        url: address of Label Studio.
        project_id: of the project.
        backend_url: this program as Label Studio reaches it.
        extra_params: settings of the project; see `ProjectSettings`.
        interactive: the program answers smart tools.

    Raises:
        LabelStudioError: if Label Studio refuses the address or cannot reach it.
    """
    with explained(url, f"connecting {backend_url} to project {project_id}"):
        for backend in client.ml.list(project=project_id):
            if (backend.url or "").rstrip("/") == backend_url:
                if interactive and not backend.is_interactive:
                    # Without the address Label Studio 1.23.2 answers 500.
                    client.ml.update(str(backend.id), project=project_id, url=backend_url, is_interactive=True)
                return Attached(int(backend.id or 0), created=False)
    try:
        with explained(url, f"connecting {backend_url} to project {project_id}"):
            shown = client.projects.get(id=project_id).model_version or ""
            made = client.ml.create(
                project=project_id, url=backend_url, title="A²LC", is_interactive=interactive,
                extra_params=extra_params or {},
            )  # fmt: skip
            if shown.startswith("a2lc-"):  # creating a backend makes its title the version that is shown
                client.projects.update(id=project_id, model_version=shown)
    except LabelStudioError as error:
        if isinstance(error.__cause__, ApiError) and status_of(error.__cause__) == 403:
            raise LabelStudioError(
                f"{error}; Label Studio refuses private addresses: start it with USE_DEFAULT_BANNED_SUBNETS=false, "
                "or give the backend a public address (A2LC_URL)"
            ) from error
        raise
    return Attached(int(made.id or 0), created=True)
