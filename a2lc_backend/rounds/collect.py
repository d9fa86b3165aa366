"""The first phase of a round: what people did since the last look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.images import pixels_digest
from a2lc_backend.masks import MaskSet
from a2lc_backend.rounds.context import Context, Items, Progress
from a2lc_backend.rounds.cut import left_out, most_shown
from a2lc_backend.rounds.platform import AnnotationStamp, PlatformError, Reply, Task, TaskError
from a2lc_backend.rounds.reading import Shown, read_annotation
from a2lc_backend.rounds.undo import labels_of
from a2lc_backend.rounds.workspace import Catalog, Labels
from a2lc_backend.store import Correction, Project, SeenAnnotation, TaskState

Item = TypeVar("Item")


@dataclass(frozen=True)
class _News:
    """What the platform holds that the ledger does not know, and the other way round.

    Attributes:
        gone: tasks that were deleted.
        replaced: tasks that show another picture now.
        tasks: those that are new, replaced, or have another address.
        forgotten: annotations that were deleted or skipped.
        changed: annotations that are new or were submitted again.
    """

    gone: frozenset[int]
    replaced: frozenset[int]
    tasks: tuple[TaskState, ...]
    forgotten: frozenset[int]
    changed: tuple[AnnotationStamp, ...]

    @property
    def any(self) -> bool:
        return bool(self.gone or self.tasks or self.forgotten or self.changed)


def collect(context: Context, _items: Items, progress: Progress) -> None:
    """The phase: `take_over`, and this round begins with it.

    Raises:
        PlatformError: if the platform cannot be used, its classes are others than before, or it has no images.
    """
    take_over(context, progress)
    if not context.ledger.tasks(context.project_id):
        raise PlatformError(
            f"project {context.project_id} has no images; import some in Label Studio, then go on with the round"
        )
    context.ledger.save_project(replace(context.project(), news=False))


def take_over(context: Context, progress: Progress) -> None:
    """Take over tasks and human corrections from the platform: all that changed since the last look.

    That there was something is kept with the project, until a round begins with it.

    Args:
        context: of the round that the corrections count in.
        progress: told of annotations.

    Raises:
        PlatformError: if the platform cannot be used, or its classes are others than before.
    """
    ledger, project_id = context.ledger, context.project_id
    _take_over_project(context)
    last = ledger.last_done(project_id)
    if last is not None:
        context.platform.tidy(last.version)  # a request that was given up may have arrived after the version was shown
    news = _news(context, progress)
    if news.any:
        ledger.save_project(replace(context.project(), news=True))
    for task_id in sorted(news.gone):
        context.note("collect", task_id, f"task {task_id} was deleted in Label Studio; it is left out from now on")
    for task_id in sorted(news.replaced):
        context.note(
            "collect", task_id, f"task {task_id} shows another picture now; what people said of the old one is left out"
        )
    ledger.forget_tasks(project_id, news.gone | news.replaced)
    ledger.save_tasks(project_id, news.tasks)
    ledger.forget_annotations(project_id, news.forgotten)
    known = {state.task_id: state for state in ledger.tasks(project_id)}
    reader = _Reader(context)
    for done, stamp in enumerate(news.changed):
        progress(done, len(news.changed))
        reader.collect(stamp, known.get(stamp.task_id))
    progress(len(news.changed), len(news.changed))


def _news(context: Context, progress: Progress) -> _News:
    """Compare the platform with the ledger; what a listing lacks is asked for by itself before it counts as gone."""
    ledger, platform, project_id = context.ledger, context.platform, context.project_id
    known = {state.task_id: state for state in ledger.tasks(project_id)}
    present = {task.id: task for task in platform.tasks()}
    absent = [task_id for task_id in known if task_id not in present]
    gone = {task_id for task_id in _told(absent, progress) if not platform.has_task(task_id)}
    moved = [known[task.id] for task in present.values() if task.id in known and known[task.id].image != task.image]
    followed = [_follow(context, state, present[state.task_id]) for state in _told(moved, progress)]
    replaced = {state.task_id for state in followed if not state.pixels and known[state.task_id].pixels}
    tasks = [TaskState(task.id, task.image) for task in present.values() if task.id not in known]
    tasks += [state for state in followed if state != known[state.task_id]]
    there = (present.keys() | known.keys()) - gone
    stamps = {stamp.id: stamp for stamp in platform.annotation_stamps() if stamp.task_id in there}
    seen = {
        number: item for number, item in ledger.seen_annotations(project_id).items() if item.task_id not in replaced
    }
    missing = [number for number, item in seen.items() if number not in stamps and item.task_id not in gone]
    forgotten = {number for number in _told(missing, progress) if not platform.is_submitted(number)}
    changed = [
        stamp for stamp in stamps.values() if stamp.id not in seen or seen[stamp.id].updated_at != stamp.updated_at
    ]
    return _News(frozenset(gone), frozenset(replaced), tuple(tasks), frozenset(forgotten), tuple(changed))


def _told(items: list[Item], progress: Progress) -> Iterator[Item]:
    """Each of some items; progress is told, so that asking for thousands can be stopped and does not look dead."""
    for done, item in enumerate(items):
        progress(done, len(items))
        yield item


def _follow(context: Context, state: TaskState, task: Task) -> TaskState:
    """What is known of a task whose image has another address now.

    The same picture keeps all that people said of it. Of another picture nothing is known. One that cannot be read is
    looked at again the next time.
    """
    if not state.mask_key:
        return replace(state, image=task.image)
    try:
        image = context.platform.image(task)
    except TaskError as error:
        context.note("collect", task.id, f"{error}; until then the picture at the former address stays")
        return state
    same = state.pixels in ("", pixels_digest(image))  # "": it was read by a version that kept no digest
    return replace(state, image=task.image) if same else TaskState(task.id, task.image)


def _take_over_project(context: Context) -> None:
    info = context.platform.project()
    before = context.ledger.project(context.project_id)
    if before is not None and info.classes[: len(before.classes)] != before.classes:
        raise PlatformError(
            f"the label config of project {context.project_id} no longer starts with the classes "
            f"{', '.join(before.classes)}; put them back in that order and add new classes after them"
        )
    news = before is not None and before.news
    context.ledger.save_project(Project(context.project_id, info.title, info.classes, news))


class _Reader:
    """Reads annotations against what people were shown; what many annotations need is loaded once."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._classes = context.project().classes
        self._finished = {record.number: record for record in context.ledger.finished(context.project_id)}
        self._labels: dict[int, tuple[Labels, Labels]] = {}
        self._queues: dict[int, dict[int, set[str]]] = {}
        self._catalogs: dict[str, Catalog] = {}
        self._said: dict[int, dict[str, Correction]] = {}
        for item in context.ledger.corrections(context.project_id):
            self._said.setdefault(item.annotation_id, {})[item.region_id] = item

    def collect(self, stamp: AnnotationStamp, state: TaskState | None) -> None:
        context = self._context
        seen = SeenAnnotation(stamp.id, stamp.task_id, stamp.updated_at)
        if state is None:
            return
        if not state.ready:
            if not state.mask_key and not state.error:
                # It was there before the program proposed anything: `existing` proposals read it as first labels.
                context.ledger.save_annotation(context.project_id, seen, [])
            return  # else it is read as soon as the image has masks (again); what it said before holds meanwhile
        if stamp.reply is not None:
            context.ledger.save_annotation(context.project_id, seen, self._replied(stamp, stamp.reply, state))
            return
        try:
            masks = context.workspace.masks(state.mask_key)
            annotation = context.platform.annotation(stamp, masks.size)
            if annotation is None:
                return
            if any(item.kind == "deleted" for item in self._said.get(stamp.id, {}).values()):
                # It was made from a prediction, though that may have been pruned since.
                annotation = replace(annotation, whole=True)
            shown = self._shown(state, masks, annotation.shown_round)
            reading = read_annotation(
                annotation, shown, self._classes, context.number, context.platform.shown_mask,
                context.settings.whole_image,
            )  # fmt: skip
        except TaskError as error:
            context.note("collect", stamp.task_id, str(error))
            return
        for message in reading.problems:
            context.note("collect", stamp.task_id, message)
        if annotation.unreadable:
            seen = replace(seen, updated_at="")  # to be read again when what is wrong has been mended
        corrections = [self._stored(stamp, item, reading.shapes) for item in reading.corrections]
        context.ledger.save_annotation(context.project_id, seen, corrections)

    def _replied(self, stamp: AnnotationStamp, reply: Reply, state: TaskState) -> list[Correction]:
        """What an answer to a single question says."""
        if reply.label is None:
            return []
        if reply.label not in self._classes:
            self._context.note("collect", stamp.task_id, f"answer {stamp.id} names no class: {reply.label!r}")
            return []
        before = self._held(reply.mask.round, state, reply.mask.region_id)
        if before is None:
            self._context.note("collect", stamp.task_id, f"answer {stamp.id} is about a mask that is gone")
            return []
        label = self._classes.index(reply.label)
        said = Correction(
            stamp.id, stamp.task_id, reply.mask.region_id, "label", label, before, reply.annotator, reply.made_at,
            self._context.number,
        )  # fmt: skip
        return [self._stored(stamp, said, {})]

    def _held(self, number: int, state: TaskState, region_id: str) -> int | None:
        """The label that a mask had when a round asked about it; None for one that was not there."""
        shown = self._finished_by(number)
        place = None if shown is None else self._labels[shown][0].find(state.task_id)
        key = state.mask_key if shown is None or place is None else self._labels[shown][0].mask_keys[place]
        if key not in self._catalogs:
            self._catalogs[key] = self._context.workspace.catalog(key)
        catalog = self._catalogs[key]
        if region_id not in catalog.region_ids:
            return None
        index = catalog.region_ids.index(region_id)
        if shown is None or place is None:
            return int(catalog.first_labels[index])
        labels = self._labels[shown][0]
        return int(labels.labels[labels.span(place)][index])

    def _stored(
        self, stamp: AnnotationStamp, correction: Correction, shapes: Mapping[str, NDArray[np.bool_]]
    ) -> Correction:
        """Keep the pixels, and the round of what was said before: it is not taught anew."""
        earlier = self._said.get(stamp.id, {}).get(correction.region_id)
        if earlier is not None and earlier.label == correction.label:
            correction = replace(correction, round=earlier.round)
        shape = shapes.get(correction.region_id)
        if shape is None:
            return correction
        return replace(correction, shape_key=self._context.workspace.write_shape(stamp.id, correction.region_id, shape))

    def _shown(self, state: TaskState, masks: MaskSet, number: int | None) -> Shown:
        """What a person who opened a task saw: a round's labels, or what was proposed when there was none yet."""
        number = self._finished_by(number)
        if number is None:
            # Of rounds from before a rebuild nobody knows any more what they kept off the page.
            hidden = frozenset(masks.region_ids) if self._finished else frozenset()
            return Shown(masks, masks.first_labels, frozenset(), hidden=hidden)
        labels, undone = self._labels[number]
        place = labels.find(state.task_id)
        if place is None:
            return Shown(masks, masks.first_labels, frozenset())
        key = labels.mask_keys[place]
        as_shown = masks if key == state.mask_key else self._context.workspace.masks(key)
        asked = frozenset(self._queues[number].get(state.task_id, ()))
        span = labels.span(place)
        record = self._finished[number]
        hidden = left_out(as_shown, asked, most_shown(record))
        if hidden and "rebuilt" in record.summary and self._context.platform.single_ring:
            hidden = frozenset(as_shown.region_ids)  # rebuilt from polygons, masks may lie a pixel nearer or farther
        return Shown(as_shown, labels.labels[span], asked, undone.labels[span], hidden)

    def _finished_by(self, number: int | None) -> int | None:
        """The finished round that people saw when a round was the newest, its labels loaded; None for none."""
        # What a cancelled round had shown for a moment is gone; people then saw what the round before had left.
        shown = [done for done in self._finished if number is None or done <= number]
        if not shown:
            return None
        number = shown[-1]
        if number not in self._labels:
            workspace, project_id = self._context.workspace, self._context.project_id
            undone = labels_of(self._context.ledger, workspace, project_id, number)
            self._labels[number] = (workspace.labels(number), undone)
            queue: dict[int, set[str]] = {}
            for query in self._context.ledger.queries(self._context.project_id, number):
                queue.setdefault(query.task_id, set()).add(query.region_id)
            self._queues[number] = queue
        return number
