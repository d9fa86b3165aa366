"""Tasks and annotations as Label Studio has them, for those who want them whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from label_studio_sdk.client import LabelStudio

from a2lc_backend.label_studio.client import every
from a2lc_backend.label_studio.follow_ups import FOLLOWS

_KEPT = (
    "id", "completed_by", "result", "was_cancelled", "ground_truth", "lead_time", "created_at", "updated_at",
)  # fmt: skip


@dataclass(frozen=True)
class Original:
    """What Label Studio holds of an image.

    Attributes:
        data: of its first task.
        annotated: those of its tasks, repeats too, that somebody annotated or skipped.
    """

    data: dict[str, Any]
    annotated: tuple[int, ...]


def read_originals(client: LabelStudio, project_id: int) -> dict[int, Original]:
    """What a project holds of every image, by the image's first task.

    Args:
        client: of the SDK.
        project_id: of the project.
    """
    include = "id,data,total_annotations,cancelled_annotations"
    found = every(lambda: client.tasks.list(project=project_id, include=include, resolve_uri=False, page_size=500))
    data: dict[int, dict[str, Any]] = {}
    annotated: dict[int, list[int]] = {}
    for task in sorted(found, key=lambda task: task.id):
        held = dict(task.data or {})
        first = int(held.get(FOLLOWS, task.id))
        if first == task.id:
            data[first] = held
        if task.total_annotations or task.cancelled_annotations:
            annotated.setdefault(first, []).append(task.id)
    return {first: Original(held, tuple(annotated.get(first, ()))) for first, held in data.items()}


def read_annotations(client: LabelStudio, original: Original) -> list[dict[str, Any]]:
    """The annotations of an image, the oldest first, without what only this Label Studio understands.

    Args:
        client: of the SDK.
        original: the image.
    """
    found = [item.model_dump(mode="json") for task in original.annotated for item in client.annotations.list(id=task)]
    return [{name: item.get(name) for name in _KEPT} for item in sorted(found, key=lambda item: item["id"])]
