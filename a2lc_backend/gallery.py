"""Pictures of a project's masks, for web pages; what many pictures need is kept for a while."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.pictures import image_picture, mask_picture
from a2lc_backend.rounds.platform import Platform, Task
from a2lc_backend.rounds.report import NotThereError, find_round
from a2lc_backend.rounds.workspace import Labels, Workspace
from a2lc_backend.store import Artifacts, Ledger, TaskState

_IMAGES_BYTES = 256 * 2**20
_LABELS_BYTES = 128 * 2**20

Kept = TypeVar("Kept")


class Gallery:
    """Makes pictures of masks.

    Args:
        ledger: knows the tasks.
        artifacts: hold the masks.
        platform: gives the gateway to a project, which has the images.
    """

    def __init__(self, ledger: Ledger, artifacts: Artifacts, platform: Callable[[int], Platform]) -> None:
        self._ledger, self._artifacts, self._platform = ledger, artifacts, platform
        self._images: Shelf[NDArray[np.uint8]] = Shelf(_IMAGES_BYTES, lambda image: image.nbytes)
        self._labels: Shelf[Labels] = Shelf(_LABELS_BYTES, _bytes_of)

    def picture(
        self, project_id: int, number: int, task_id: int, region_id: str, side: int = 320, whole: bool = False
    ) -> bytes:
        """A mask as it was in a round, as a JPEG.

        Args:
            project_id: of the project.
            number: of the round.
            task_id: the image.
            region_id: the mask.
            side: longer side in pixels, at most.
            whole: the whole image with the mask marked, instead of the mask in its surroundings.

        Raises:
            NotThereError: if the project has no such round, or the round no such mask.
            PlatformError: if Label Studio cannot be used.
            TaskError: if the image cannot be had.
        """
        find_round(self._ledger, project_id, number)
        workspace, state = Workspace(self._artifacts, project_id), self._ledger.task(project_id, task_id)
        labels = self._labels_of(workspace, project_id, number)
        place = labels.find(task_id) if labels else None
        if state is None or labels is None or place is None:
            raise NotThereError(f"round {number} of project {project_id} has no masks of task {task_id}")
        masks = workspace.masks(labels.mask_keys[place])
        if region_id not in masks.region_ids:
            raise NotThereError(f"task {task_id} has no mask {region_id} in round {number}")
        mask = masks.mask(masks.region_ids.index(region_id))
        if not mask.any():
            raise NotThereError(f"mask {region_id} of task {task_id} has no pixels any more")
        draw = image_picture if whole else mask_picture
        return draw(self._image(project_id, state), mask, side)

    def _labels_of(self, workspace: Workspace, project_id: int, number: int) -> Labels | None:
        if not workspace.has_labels(number):
            return None
        # Masks of a finished round stay; its labels may be taken back, which no picture shows.
        return self._labels.get((project_id, number), lambda: workspace.labels(number))

    def _image(self, project_id: int, state: TaskState) -> NDArray[np.uint8]:
        key = (project_id, state.task_id, state.image)
        return self._images.get(key, lambda: self._platform(project_id).image(Task(state.task_id, state.image)))


class Shelf(Generic[Kept]):
    """Things used lately, up to so many bytes of them."""

    def __init__(self, most: int, size: Callable[[Kept], int]) -> None:
        self._most, self._size = most, size
        self._held: OrderedDict[Hashable, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Kept]) -> Kept:
        """What stands under a key, made if it is not there; two may make it at once, which does no harm."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        made = make()
        with self._lock:
            self._held[key] = made
            while len(self._held) > 1 and sum(map(self._size, self._held.values())) > self._most:
                self._held.popitem(last=False)
        return made


def _bytes_of(labels: Labels) -> int:
    arrays: list[Any] = [value for value in vars(labels).values() if isinstance(value, np.ndarray)]
    return sum(array.nbytes for array in arrays)
