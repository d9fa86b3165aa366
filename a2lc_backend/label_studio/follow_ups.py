"""Second tasks for images that come back into the queue."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from label_studio_sdk.client import LabelStudio
from label_studio_sdk.core.api_error import ApiError

from a2lc_backend.label_studio.client import LabelStudioError, every, unless_gone
from a2lc_backend.label_studio.patience import Patience, passes
from a2lc_backend.rounds.platform import Target, TaskProblem

FOLLOWS = "a2lc_follows"
"""Key in a task's data: the task repeats the image of the task named there.

Label Studio never serves a task again to a person who has annotated it, so an image that comes back into the queue
comes back as a second task."""

_BATCH = 100


@dataclass
class _Tasks:
    """The tasks of a project as they are now.

    Attributes:
        data: of each task.
        used: somebody has submitted or skipped it.
        repeats: of an image's first task, oldest first.
    """

    data: dict[int, dict[str, Any]] = field(default_factory=dict)
    used: set[int] = field(default_factory=set)
    repeats: dict[int, list[int]] = field(default_factory=dict)

    def add(self, task_id: int, data: dict[str, Any]) -> None:
        """Put in a task that nobody has used."""
        self.data[task_id] = data
        if FOLLOWS in data:
            self.repeats.setdefault(int(data[FOLLOWS]), []).append(task_id)

    def serving(self, source_id: int) -> int | None:
        """The oldest task of an image that nobody has used yet."""
        copies = [source_id, *self.repeats.get(source_id, ())]
        return next((task_id for task_id in copies if task_id not in self.used), None)

    def unserved(self, source_id: int) -> bool:
        """Whether an image that is still there needs another task."""
        return source_id in self.data and self.serving(source_id) is None


def prepare_targets(
    client: LabelStudio, project_id: int, tasks: Sequence[int], queued: Collection[int], repeats: bool
) -> tuple[list[Target], list[TaskProblem]]:
    """See `Platform.prepare`. A repeat that is done with keeps what it showed; only the one that serves is a target.

    Args:
        client: of the SDK.
        project_id: of the project.
        tasks: first tasks of all images that have masks.
        queued: those with queued masks.
        repeats: make a second task of an image where its others are used; else it is not asked about again.

    Raises:
        LabelStudioError: if Label Studio does not make the repeats.
        ApiError: if it refuses.
        httpx.HTTPError: if it does not answer.
    """
    found, patience = _look(client, project_id), Patience()
    asked = queued if repeats else ()
    while wanting := [task_id for task_id in tasks if task_id in asked and found.unserved(task_id)][:_BATCH]:
        rows = [{"data": found.data[task_id] | {FOLLOWS: task_id}} for task_id in wanting]
        try:
            made = client.projects.import_tasks(id=project_id, request=rows, return_task_ids=True).task_ids or []
        except (ApiError, httpx.HTTPError) as error:
            if not passes(error) or not patience.wait():
                raise
            found = _look(client, project_id)  # the reply may have been lost after the tasks were made
            continue
        if len(made) != len(rows):
            raise LabelStudioError(f"Label Studio made {len(made)} of {len(rows)} tasks; run the round again")
        patience = Patience()
        for task_id, row in zip(made, rows, strict=True):
            found.add(task_id, row["data"])
    _remove_doubles(client, found)
    present = [task_id for task_id in tasks if task_id in found.data]
    problems = [
        TaskProblem(task_id, f"task {task_id} was deleted in Label Studio during the round; it is left out")
        for task_id in tasks
        if task_id not in found.data
    ]
    serving = {task_id: found.serving(task_id) if task_id in queued else None for task_id in present}
    targets = [
        Target(copy, task_id, serving[task_id] == copy)
        for task_id in present
        for copy in dict.fromkeys([task_id, serving[task_id] or task_id])
    ]
    return targets, problems


def remove_bare_repeats(client: LabelStudio, project_id: int) -> None:
    """Delete second tasks that show nothing and that nobody has used: they were made for a round that was given up.

    Args:
        client: of the SDK.
        project_id: of the project.

    Raises:
        ApiError: if Label Studio refuses.
        httpx.HTTPError: if it does not answer.
    """
    found = _look(client, project_id)
    for repeats in found.repeats.values():
        _delete_bare(client, [task_id for task_id in repeats if task_id not in found.used])


def _look(client: LabelStudio, project_id: int) -> _Tasks:
    include = "id,data,total_annotations,cancelled_annotations"
    tasks = every(lambda: client.tasks.list(project=project_id, include=include, resolve_uri=False, page_size=500))
    found = _Tasks()
    for task in sorted(tasks, key=lambda task: int(task.id)):
        found.add(task.id, dict(task.data or {}))
        if (task.total_annotations or 0) + (task.cancelled_annotations or 0):
            found.used.add(task.id)
    return found


def _remove_doubles(client: LabelStudio, found: _Tasks) -> None:
    """Delete repeats that were made twice: nothing was written to them, so nobody was ever led to them."""
    for repeats in found.repeats.values():
        unused = [task_id for task_id in repeats if task_id not in found.used]
        _delete_bare(client, unused[1:])


def _delete_bare(client: LabelStudio, task_ids: Sequence[int]) -> None:
    """Delete those without predictions; Label Studio's own count of them lags behind."""
    for task_id in task_ids:
        with unless_gone():
            if client.predictions.list(task=task_id):
                continue
            now = client.tasks.get(id=str(task_id))
            if not (now.drafts or now.total_annotations):
                client.tasks.delete(id=str(task_id))
