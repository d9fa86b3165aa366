"""The labels of an installation's project, and the way to their images."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from a2lc_backend.export.filters import Filters
from a2lc_backend.export.label_set import LabelSet
from a2lc_backend.label_studio import LabelStudioProject, close_client, open_client
from a2lc_backend.rounds.platform import Task
from a2lc_backend.settings import Settings, load_settings
from a2lc_backend.store import Artifacts, Ledger


class Gateway:
    """A project in Label Studio, connected to when something is first asked; in each process anew.

    Args:
        settings: of the installation.
        project_id: of the project.
    """

    def __init__(self, settings: Settings, project_id: int) -> None:
        self._settings, self._project_id = settings, project_id
        self._opened: tuple[int, LabelStudioProject] | None = None

    def platform(self) -> LabelStudioProject:
        """The project; raises LabelStudioUnauthorizedError without a token."""
        if self._opened is None or self._opened[0] != os.getpid():
            settings = self._settings
            url = settings.label_studio_url
            client = open_client(url, settings.label_studio_api_key.get_secret_value())
            weakref.finalize(self, close_client, client)
            self._opened = os.getpid(), LabelStudioProject(client, url, self._project_id, settings.image_limits)
        return self._opened[1]

    def __call__(self, task_id: int, address: str) -> bytes:
        """The file of an image; raises TaskError or PlatformError."""
        return self.platform().image_file(Task(task_id, address))

    def __getstate__(self) -> dict[str, Any]:
        """Without the connection, so that a data loader's workers may be given it."""
        return self.__dict__ | {"_opened": None}


def open_labels(
    gateway: Gateway, settings: Settings, project_id: int, number: int | None, filters: Filters
) -> LabelSet:
    """The labels of a project in an installation's store; see `LabelSet` for what it raises.

    Args:
        gateway: reads images.
        settings: of the installation.
        project_id: of the project.
        number: of a finished round; the last one if None.
        filters: what labels must be.
    """
    with closing(Ledger(settings.ledger_url)) as ledger:
        return LabelSet(ledger, Artifacts(settings.artifact_url), project_id, number, filters, gateway)


def load_labels(
    project: int,
    round: int | None = None,
    *,
    sources: Sequence[str] = (),
    classes: Sequence[str] = (),
    audited: bool = False,
    precision: float = 0.0,
    finished: bool = False,
    settings: Settings | None = None,
) -> LabelSet:
    """The labels of a project as arrays: a sequence of images, each read when it is asked for.

    Args:
        project: id in Label Studio.
        round: number of a finished round; the last one if None.
        sources: of `human`, `corrector`, `foundation`, `imported`; all if empty.
        classes: names of classes; all if empty.
        audited: only masks that a blind audit drew and people answered.
        precision: least share right that audits assure, see `Filters`.
        finished: only images of which people have answered all that they were asked.
        settings: of the installation; of the environment, as for the commands, if None.

    Raises:
        NotThereError: for a project, round, class or source that is not there, or a round that is not finished.
        SettingsError: where the environment is wrong.
    """
    settings = settings or load_settings()
    filters = Filters(tuple(sources), tuple(classes), audited, precision, finished)
    return open_labels(Gateway(settings, project), settings, project, round, filters)
