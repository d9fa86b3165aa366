"""The first phase of a round: what people did since the last look."""

from __future__ import annotations

from dataclasses import dataclass, replace

from a2lc_backend.masks import MaskSet
from a2lc_backend.rounds.context import Context, Items, Progress
from a2lc_backend.rounds.platform import AnnotationStamp, PlatformError, TaskError
from a2lc_backend.rounds.reading import Reading, Shown, read_annotation
from a2lc_backend.rounds.undo import labels_of
from a2lc_backend.rounds.workspace import Labels
from a2lc_backend.store import Correction, Project, SeenAnnotation, TaskState


@dataclass(frozen=True)
class _News:
    """What the platform holds that the ledger does not know, and the other way round."""

    gone: frozenset[int]
    tasks: tuple[TaskState, ...]
    forgotten: frozenset[int]
    changed: tuple[AnnotationStamp, ...]

    @property
    def any(self) -> bool:
        return bool(self.gone or self.tasks or self.forgotten or self.changed)


def collect(context: Context, _items: Items, progress: Progress) -> None:
    """The phase; see `take_over`."""
    take_over(context, progress)


def take_over(context: Context, progress: Progress) -> bool:
    """Take over tasks and human corrections from the platform: all that changed since the last look.

    Args:
        context: of the round that the corrections count in.
        progress: told of annotations.

    Returns:
        Whether tasks or annotations were new, changed or gone.

    Raises:
        PlatformError: if the platform cannot be used, or its classes are others than before.
    """
    ledger, project_id = context.ledger, context.project_id
    _take_over_project(context)
    last = ledger.last_done(project_id)
    if last is not None:
        context.platform.tidy(last.version)  # a request that was given up may have arrived after the version was shown
    news = _news(context)
    for task_id in sorted(news.gone):
        context.note("collect", task_id, f"task {task_id} was deleted in Label Studio; it is left out from now on")
    ledger.forget_tasks(project_id, news.gone)
    ledger.save_tasks(project_id, news.tasks)
    ledger.forget_annotations(project_id, news.forgotten)
    known = {state.task_id: state for state in ledger.tasks(project_id)}
    reader = _Reader(context)
    for done, stamp in enumerate(news.changed):
        progress(done, len(news.changed))
        reader.collect(stamp, known.get(stamp.task_id))
    progress(len(news.changed), len(news.changed))
    return news.any


def _news(context: Context) -> _News:
    ledger, platform, project_id = context.ledger, context.platform, context.project_id
    known = {state.task_id: state for state in ledger.tasks(project_id)}
    present = {task.id: task for task in platform.tasks()}
    tasks = [
        TaskState(task.id, task.image)  # of another image, what was known of the old one does not hold
        for task in present.values()
        if task.id not in known or known[task.id].image != task.image
    ]
    stamps = {stamp.id: stamp for stamp in platform.annotation_stamps() if stamp.task_id in present}
    seen = ledger.seen_annotations(project_id)
    changed = [
        stamp for stamp in stamps.values() if stamp.id not in seen or seen[stamp.id].updated_at != stamp.updated_at
    ]
    return _News(
        frozenset(known.keys() - present.keys()), tuple(tasks), frozenset(seen.keys() - stamps.keys()), tuple(changed)
    )


def _take_over_project(context: Context) -> None:
    info = context.platform.project()
    before = context.ledger.project(context.project_id)
    if before is not None and info.classes[: len(before.classes)] != before.classes:
        raise PlatformError(
            f"the label config of project {context.project_id} no longer starts with the classes "
            f"{', '.join(before.classes)}; put them back in that order and add new classes after them"
        )
    context.ledger.save_project(Project(context.project_id, info.title, info.classes))


class _Reader:
    """Reads annotations against what people were shown; what many annotations need is loaded once."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._classes = context.project().classes
        self._finished = [record.number for record in context.ledger.finished(context.project_id)]
        self._labels: dict[int, tuple[Labels, Labels]] = {}
        self._queues: dict[int, dict[int, set[str]]] = {}
        self._said: dict[int, dict[str, Correction]] = {}
        for item in context.ledger.corrections(context.project_id):
            self._said.setdefault(item.annotation_id, {})[item.region_id] = item

    def collect(self, stamp: AnnotationStamp, state: TaskState | None) -> None:
        context = self._context
        seen = SeenAnnotation(stamp.id, stamp.task_id, stamp.updated_at)
        if state is None or not state.ready:
            # It was there before the program proposed anything: `existing` proposals read it as first labels.
            context.ledger.save_annotation(context.project_id, seen, [])
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
        corrections = [self._stored(stamp, item, reading) for item in reading.corrections]
        context.ledger.save_annotation(context.project_id, seen, corrections)

    def _stored(self, stamp: AnnotationStamp, correction: Correction, reading: Reading) -> Correction:
        """Keep the pixels, and the round of what was said before: it is not taught anew."""
        earlier = self._said.get(stamp.id, {}).get(correction.region_id)
        if earlier is not None and earlier.label == correction.label:
            correction = replace(correction, round=earlier.round)
        shape = reading.shapes.get(correction.region_id)
        if shape is None:
            return correction
        return replace(correction, shape_key=self._context.workspace.write_shape(stamp.id, correction.region_id, shape))

    def _shown(self, state: TaskState, masks: MaskSet, number: int | None) -> Shown:
        """What a person who opened a task saw: a round's labels, or what was proposed when there was none yet."""
        # What a cancelled round had shown for a moment is gone; people then saw what the round before had left.
        shown = [done for done in self._finished if number is None or done <= number]
        if not shown:
            return Shown(masks, masks.first_labels, frozenset())
        number = shown[-1]
        if number not in self._labels:
            workspace, project_id = self._context.workspace, self._context.project_id
            undone = labels_of(self._context.ledger, workspace, project_id, number)
            self._labels[number] = (workspace.labels(number), undone)
            queue: dict[int, set[str]] = {}
            for query in self._context.ledger.queries(self._context.project_id, number):
                queue.setdefault(query.task_id, set()).add(query.region_id)
            self._queues[number] = queue
        labels, undone = self._labels[number]
        place = labels.find(state.task_id)
        if place is None:
            return Shown(masks, masks.first_labels, frozenset())
        key = labels.mask_keys[place]
        as_shown = masks if key == state.mask_key else self._context.workspace.masks(key)
        asked = frozenset(self._queues[number].get(state.task_id, ()))
        span = labels.span(place)
        return Shown(as_shown, labels.labels[span], asked, undone.labels[span])
