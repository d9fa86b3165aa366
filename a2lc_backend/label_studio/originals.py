"""Tasks and annotations as Label Studio has them, for those who want them whole."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from label_studio_sdk.client import LabelStudio

from a2lc_backend.label_studio.client import SPOKEN_OF, every, explained
from a2lc_backend.label_studio.follow_ups import FOLLOWS

_KEPT = (
    "id", "completed_by", "result", "was_cancelled", "ground_truth", "lead_time", "created_at", "updated_at",
)  # fmt: skip
_AHEAD = 16
"""Tasks read at a time: a task alone takes as long, and their annotations are held."""


@dataclass(frozen=True)
class Original:
    """What Label Studio holds of an image.

    Attributes:
        data: of its first task.
        annotations: of all its tasks, skipped ones too, the oldest first, without what only this Label Studio
            understands.
    """

    data: dict[str, Any]
    annotations: list[dict[str, Any]]


class Originals:
    """What a project in Label Studio holds of its images; quick where they are asked for by rising task.

    Args:
        client: of the SDK.
        url: of Label Studio.
        project_id: of the project.
    """

    def __init__(self, client: LabelStudio, url: str, project_id: int) -> None:
        self._client, self._url, self._project_id = client, url, project_id
        self._read = range(0)
        self._ahead: dict[int, Original] = {}
        self._repeats = self._annotated_repeats()

    def of(self, first: int) -> Original | None:
        """What there is of an image by its first task; None if that was deleted.

        Raises:
            LabelStudioError: if Label Studio cannot be used.
        """
        if first not in self._read:
            self._ahead = self._page(first, _AHEAD)
            self._read = range(first, max(self._ahead, default=first) + 1)
        found = self._ahead.get(first)
        if found is None:
            return None
        said = [found, *(self._page(task, 1).get(task) for task in self._repeats.get(first, ()))]
        annotations = [item for original in said if original for item in original.annotations]
        return Original(found.data, sorted(annotations, key=lambda item: int(item["id"])))

    def _annotated_repeats(self) -> dict[int, list[int]]:
        """Second tasks that somebody annotated or skipped, by the first task of their image."""
        with explained(self._url, f"listing the tasks of project {self._project_id}"):
            found = every(
                lambda: self._client.tasks.list(
                    project=self._project_id,
                    query=json.dumps({"filters": SPOKEN_OF}),
                    include="id,data",
                    resolve_uri=False,
                    page_size=500,
                )
            )
        repeats: dict[int, list[int]] = defaultdict(list)
        for task in found:
            if FOLLOWS in (task.data or {}):
                repeats[int(task.data[FOLLOWS])].append(task.id)
        return repeats

    def _page(self, first: int, count: int) -> dict[int, Original]:
        """What tasks hold by themselves: one, if it is there, and those that come after it."""
        after = {"filter": "filter:tasks:id", "operator": "greater", "type": "Number", "value": first - 1}
        query = {"filters": {"conjunction": "and", "items": [after]}, "ordering": ["tasks:id"]}
        with explained(self._url, f"reading the annotations of project {self._project_id}"):
            page = self._client.tasks.list(
                project=self._project_id, query=json.dumps(query), include=",".join(("data", "annotations", *_KEPT)),
                resolve_uri=False, page_size=count,
            ).items or []  # fmt: skip
        return {
            task.id: Original(
                dict(task.data or {}), [{name: item.get(name) for name in _KEPT} for item in task.annotations or []]
            )
            for task in page
        }
