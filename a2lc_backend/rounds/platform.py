"""The labelling platform as rounds see it: Label Studio in production, an oracle in the benchmark."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.masks import Region


class TaskError(RuntimeError):
    """One task cannot be used; the message says why and names the mend. Other tasks go on."""


class PlatformError(RuntimeError):
    """The platform cannot be used at all; the message says why and names the mend."""


@dataclass(frozen=True)
class Task:
    """An image to label: its id on the platform and the address of its image."""

    id: int
    image: str


@dataclass(frozen=True)
class ProjectInfo:
    """A project's title and class names, in the order of its label config."""

    title: str
    classes: tuple[str, ...]


@dataclass(frozen=True)
class AnnotationStamp:
    """Which annotation there is and when it was last saved, without its content."""

    id: int
    task_id: int
    updated_at: str


@dataclass(frozen=True)
class Annotation:
    """What a person submitted for one image.

    Attributes:
        id: on the platform.
        task_id: the image.
        annotator: the person's user id.
        made_at: when it was last saved.
        regions: what it holds.
        unreadable: ids of regions that are there but could not be read, so that they do not pass for deleted.
        whole: it was made from a prediction in the labelling page, so a region that is absent was deleted.
        shown_round: the round of that prediction, None if unknown.
        problems: what was wrong with its regions, in words that name the mend.
    """

    id: int
    task_id: int
    annotator: int
    made_at: datetime
    regions: tuple[Region, ...]
    unreadable: tuple[str, ...] = ()
    whole: bool = False
    shown_round: int | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prediction:
    """What one image is shown with: regions in the order they are listed, and the task's priority, 0 to 1."""

    regions: tuple[Region, ...]
    score: float


@dataclass(frozen=True)
class TaskProblem:
    """What went wrong for one task, with the mend."""

    task_id: int
    message: str


class Platform(Protocol):
    """Where images come from, where people correct masks and where new labels go."""

    def project(self) -> ProjectInfo:
        """Title and classes; raises PlatformError."""
        ...

    def tasks(self) -> list[Task]:
        """Every image of the project, by id; raises PlatformError."""
        ...

    def image(self, task: Task) -> NDArray[np.uint8]:
        """The image, (H, W, 3) uint8 RGB; raises TaskError."""
        ...

    def regions(self, task: Task, size: tuple[int, int]) -> tuple[tuple[Region, ...], tuple[str, ...]]:
        """Regions the platform already holds for a task, and what was wrong with the others; raises TaskError."""
        ...

    def annotation_stamps(self) -> list[AnnotationStamp]:
        """Every submitted annotation, skipped tasks left out; raises PlatformError."""
        ...

    def annotation(self, stamp: AnnotationStamp, size: tuple[int, int]) -> Annotation | None:
        """The content of an annotation of an image of that height and width; None if it is gone."""
        ...

    def shown_mask(self, mask: NDArray[np.bool_], ring: NDArray[np.float64] | None) -> NDArray[np.bool_]:
        """The pixels a person is shown for a mask: the platform may know polygons only."""
        ...

    @property
    def single_ring(self) -> bool:
        """Whether a mask must be one connected piece, as a polygon is."""
        ...

    def publish(
        self,
        version: str,
        tasks: Sequence[int],
        queued: Collection[int],
        predict: Callable[[int], Prediction],
        progress: Callable[[int, int], None],
    ) -> list[TaskProblem]:
        """Make `version` what people see: exactly one prediction a task, then the review queue.

        Called again after a crash, it writes what is missing and removes what is doubled.

        Args:
            version: name of the round's predictions.
            tasks: every image that has masks.
            queued: those with queued masks.
            predict: makes the prediction of a task.
            progress: called with predictions written and their number.

        Raises:
            PlatformError: if the platform refuses.
        """
        ...


@dataclass(frozen=True)
class Published:
    """What one image was shown with in one round, as the platform still holds it.

    Attributes:
        round: that published it.
        made_at: when it was written.
        regions: as they were shown; those that could not be read are left out.
        score: the task's priority, 0 to 1.
        problems: what was wrong with the other regions, in words that name the mend.
    """

    round: int
    made_at: datetime
    regions: tuple[Region, ...]
    score: float
    problems: tuple[str, ...] = ()


class History(Protocol):
    """A platform that can tell what this program published there; what `rebuild` needs besides `Platform`."""

    def shown(self) -> tuple[str, int]:
        """The version people see, and its round; raises PlatformError if it is none of this program's."""
        ...

    def published(self, task: Task) -> Iterator[Published]:
        """What an image was shown with up to that version, the newest round first; raises TaskError."""
        ...
