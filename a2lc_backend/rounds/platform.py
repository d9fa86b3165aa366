"""The labelling platform as rounds see it: Label Studio in production, an oracle in the benchmark."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.masks import Region
from a2lc_backend.store import MaskKey, ReviewProject


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
    """A project's title, and its class names in the order of its label config.

    Attributes:
        title: of the project.
        classes: names in id order.
        prompts: phrases by class that describe it to a model that takes text; none where nothing is said.
    """

    title: str
    classes: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Reply:
    """What an annotation says that answers a single question about a mask.

    Attributes:
        mask: asked about.
        annotator: the person's user id.
        label: class name; None for one who skipped, or who said that the mask itself is wrong.
        skipped: the person left the question to others.
        made_at: when it was last saved.
        answer_id: the id of the answer on the review page that it stands for, "" if it was given on the platform.
    """

    mask: MaskKey
    annotator: int
    label: str | None
    skipped: bool
    made_at: datetime
    answer_id: str = ""


@dataclass(frozen=True)
class AnnotationStamp:
    """Which annotation there is and when it was last saved, without its content; a `reply` is all of it."""

    id: int
    task_id: int
    updated_at: str
    reply: Reply | None = None


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
    """What one image is shown with.

    Attributes:
        regions: in the order they are listed.
        score: the task's priority, 0 to 1.
        rest: regions that are kept, but not put on the page.
    """

    regions: tuple[Region, ...]
    score: float
    rest: tuple[Region, ...] = ()


@dataclass(frozen=True)
class Question:
    """A queued mask as one question.

    Attributes:
        mask: asked about.
        label: class id held, `IGNORE` if none.
        guesses: class ids of what it may be instead, best first, at most three.
        why: it is asked about, in words; "" for what was drawn.
    """

    mask: MaskKey
    label: int
    guesses: tuple[int, ...]
    why: str = ""


@dataclass(frozen=True)
class Asked:
    """The questions that a platform puts before people.

    Attributes:
        review: where they stand; None if the platform has no such place.
        tasks: of the platform, by mask: those of this round, and older ones that people answered.
        problems: what went wrong.
    """

    review: ReviewProject | None
    tasks: dict[MaskKey, int]
    problems: tuple[TaskProblem, ...] = ()


@dataclass(frozen=True)
class TaskProblem:
    """What went wrong for one task, with the mend."""

    task_id: int
    message: str


@dataclass(frozen=True)
class Target:
    """A task to write a prediction to.

    Attributes:
        task_id: of the task.
        source_id: the image's first task; the same, unless the task repeats an image for a second look.
        serves_queue: people find it in the review queue.
    """

    task_id: int
    source_id: int
    serves_queue: bool


class Platform(Protocol):
    """Where images come from, where people correct masks and where new labels go."""

    def project(self) -> ProjectInfo:
        """Title and classes; raises PlatformError."""
        ...

    def tasks(self) -> list[Task]:
        """Every image of the project, by id; raises PlatformError."""
        ...

    def has_task(self, task_id: int) -> bool:
        """Whether a task is there, though a listing that changed meanwhile may have lacked it; raises PlatformError."""
        ...

    def is_submitted(self, annotation_id: int) -> bool:
        """Whether an annotation is there and not skipped, as `has_task`; raises PlatformError."""
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

    def prepare(
        self, tasks: Sequence[int], queued: Collection[int], repeats: bool = True
    ) -> tuple[list[Target], list[TaskProblem]]:
        """Make ready what predictions are written to; called again after a crash, it makes nothing twice.

        Args:
            tasks: every image that has masks.
            queued: those with queued masks.
            repeats: an image that everybody has seen may be put before people again.

        Returns:
            What to write to, by image, and what was wrong with the tasks left out.

        Raises:
            PlatformError: if the platform refuses.
        """
        ...

    def write(
        self,
        version: str,
        targets: Sequence[Target],
        predict: Callable[[int], Prediction],
        progress: Callable[[int, int], None],
    ) -> list[TaskProblem]:
        """Write the predictions of a version that are missing among these targets; nobody is shown them yet.

        May run in several processes at once, for other targets or for the same ones.

        Args:
            version: name of the round's predictions.
            targets: all that `prepare` gave, or a part of it.
            predict: makes the prediction of an image, by its first task.
            progress: called with predictions written and their number.

        Returns:
            What was refused; the problem's task is the target's.

        Raises:
            PlatformError: if the platform refuses.
        """
        ...

    def show(self, version: str, targets: Sequence[Target]) -> list[TaskProblem]:
        """Make a version what people see: exactly one prediction a target, then the version, then the review queue.

        Args:
            version: written by `write`.
            targets: all that must hold it: those for which `write` named no problem.

        Returns:
            Tasks that have been deleted meanwhile.

        Raises:
            PlatformError: if a target lacks its prediction, or the platform refuses.
        """
        ...

    def share(self, targets: Sequence[Target], annotators: Sequence[str]) -> None:
        """Give each annotator a part of the review queue that no other one has, and nobody else one.

        Args:
            targets: all that the shown version is held by.
            annotators: e-mail addresses; none for the one queue of all.

        Raises:
            PlatformError: if the platform refuses.
        """
        ...

    def ask(self, number: int, questions: Sequence[Question]) -> Asked:
        """Put a round's queue before people one mask at a time, in this order, in place of other rounds' open ones.

        Called again after a crash, it asks nothing twice.

        Raises:
            PlatformError: if the platform refuses.
        """
        ...

    def tidy(self, version: str) -> int:
        """Remove second predictions of a version, left by a request that arrived after it was given up; their number.

        Costs little when there is none.
        """
        ...

    def prune(self, keep: int) -> None:
        """Delete the predictions of all rounds but the newest and `keep` before it that are held, and the one shown.

        Of a round that is kept, versions that were undone stay too: people may have them open.
        """
        ...

    def drop(self, version: str, instead: str) -> None:
        """Delete the predictions of a version that was given up.

        Args:
            version: to be deleted.
            instead: what is shown from then on if that version was; "" for none.
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
        rest: regions that were kept off the page.
    """

    round: int
    made_at: datetime
    regions: tuple[Region, ...]
    score: float
    problems: tuple[str, ...] = ()
    rest: tuple[Region, ...] = ()


class History(Protocol):
    """A platform that can tell what this program published there; what `rebuild` needs besides `Platform`."""

    def shown(self) -> tuple[str, int]:
        """The version people see, and its round; raises PlatformError if it is none of this program's."""
        ...

    def published(self, task: Task) -> Iterator[Published]:
        """What an image was shown with up to that version, the newest round first; raises TaskError."""
        ...
