"""Data Manager views that serve the review queue in order: one of all, and a part of it for each annotator.

Label Studio gives everybody who labels through one view the same task at every step (measured on 1.23.2), so
annotators who work side by side need views that share no task. A range of task ids parts them without writing anything
into the tasks.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

import httpx
from label_studio_sdk.client import LabelStudio
from label_studio_sdk.core.api_error import ApiError

from a2lc_backend.label_studio.client import unless_gone
from a2lc_backend.label_studio.follow_ups import FOLLOWS
from a2lc_backend.label_studio.patience import Patience, passes

VIEW_TITLE = "A²LC review queue"

_OWN_TITLE = f"{VIEW_TITLE} · "
"""How the titles of the annotators' views begin; the e-mail address follows."""

_NOBODY = (0, 0)
_HIDDEN = [
    f"tasks:{column}"
    for column in (
        "inner_id", "annotations_results", "predictions_results", "annotators", "annotations_ids", "avg_lead_time",
        "file_upload", "storage_filename", "created_at", "updated_at", "updated_by", "draft_exists", f"data.{FOLLOWS}",
        "cancelled_annotations", "completed_at",
    )
]  # fmt: skip


class QueueViews:
    """The views of one project.

    Args:
        client: of the SDK, without retries of its own.
        project_id: of the project.
    """

    def __init__(self, client: LabelStudio, project_id: int) -> None:
        self._client = client
        self._id = project_id

    def links(self, url: str) -> dict[str, str]:
        """Deep links into labelling, by annotator; that of the queue of all under "".

        Args:
            url: address of Label Studio.
        """
        first: dict[str, int] = {}
        for view in self._client.views.list(project=self._id):
            title = _title(view)
            if title == VIEW_TITLE or title.startswith(_OWN_TITLE):
                first.setdefault(title[len(_OWN_TITLE) :], int(view.id))
        return {who: f"{url}/projects/{self._id}/data?tab={view}&labeling=1" for who, view in first.items()}

    def keep(self) -> None:
        """Make the view of the whole queue, once, or put it right again."""
        self._keep(VIEW_TITLE)

    def share(self, task_ids: Collection[int], annotators: Sequence[str]) -> None:
        """Part the queue: views with as many tasks each, or one more; those of others are removed.

        Args:
            task_ids: of all tasks in the queue.
            annotators: e-mail addresses.
        """
        parts = dict(zip(annotators, _ranges(task_ids, len(annotators)), strict=True))
        for who, part in parts.items():
            self._keep(_OWN_TITLE + who, between(*part))
        for view in self._client.views.list(project=self._id):
            title = _title(view)
            if title.startswith(_OWN_TITLE) and title[len(_OWN_TITLE) :] not in parts:
                with unless_gone():
                    self._client.views.delete(id=str(view.id))

    def _keep(self, title: str, *more: dict[str, Any]) -> None:
        filters = [
            {"filter": "filter:tasks:predictions_score", "operator": "greater", "type": "Number", "value": 0},
            {"filter": "filter:tasks:total_annotations", "operator": "equal", "type": "Number", "value": 0},
        ]
        data: dict[str, Any] = {
            "title": title,
            "type": "list",
            "target": "tasks",
            "ordering": ["-tasks:predictions_score"],
            "hiddenColumns": {"explore": _HIDDEN, "labeling": _HIDDEN},
            **query_of(*filters, *more),
        }
        patience = Patience()
        while not (views := self._of(title)):
            try:
                self._client.views.create(project=self._id, data=data)
            except (ApiError, httpx.HTTPError) as error:
                if not passes(error) or not patience.wait():
                    raise
        for double in views[1:]:
            if double.data == views[0].data:
                with unless_gone():
                    self._client.views.delete(id=str(double.id))
        if any(views[0].data.get(key) != data[key] for key in ("ordering", "filters")):
            self._client.views.update(id=str(views[0].id), project=self._id, data=data)

    def _of(self, title: str) -> list[Any]:
        found = [view for view in self._client.views.list(project=self._id) if _title(view) == title]
        return sorted(found, key=lambda view: int(view.id))


def query_of(*filters: dict[str, Any]) -> dict[str, Any]:
    """A query of the Data Manager for tasks that pass all of some filters."""
    return {"filters": {"conjunction": "and", "items": list(filters)}}


def between(first: int, last: int) -> dict[str, Any]:
    """A filter of the Data Manager for task ids, both ends included."""
    return {"filter": "filter:tasks:id", "operator": "in", "type": "Number", "value": {"min": first, "max": last}}


def _ranges(task_ids: Collection[int], parts: int) -> list[tuple[int, int]]:
    """First and last id of each part; the first parts have one task more where it does not come out even."""
    ordered = sorted(task_ids)
    size, more = divmod(len(ordered), max(parts, 1))
    ends = [0]
    for part in range(parts):
        ends.append(ends[-1] + size + (part < more))
    return [(ordered[start], ordered[end - 1]) if end > start else _NOBODY for start, end in pairwise(ends)]


def _title(view: Any) -> str:
    return str(view.data.get("title", "")) if isinstance(view.data, dict) else ""
