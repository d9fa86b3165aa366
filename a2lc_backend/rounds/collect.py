"""The first phase of a round: what people did since the last look."""

from __future__ import annotations

from dataclasses import replace

from a2lc_backend.rounds.context import Context, Progress
from a2lc_backend.rounds.platform import AnnotationStamp, PlatformError, TaskError
from a2lc_backend.rounds.reading import Shown, read_annotation
from a2lc_backend.store import Correction, Project, SeenAnnotation, TaskState


def collect(context: Context, progress: Progress) -> None:
    """Take over tasks and human corrections from the platform: all that changed since the last look."""
    ledger, platform, project_id = context.ledger, context.platform, context.project_id
    _take_over_project(context)
    known = {state.task_id: state for state in ledger.tasks(project_id)}
    present = {task.id: task for task in platform.tasks()}
    for task_id in known.keys() - present.keys():
        context.note("collect", task_id, f"task {task_id} was deleted in Label Studio; it is left out from now on")
    ledger.forget_tasks(project_id, known.keys() - present.keys())
    new = [TaskState(task.id, task.image) for task in present.values() if task.id not in known]
    moved = [
        replace(known[task.id], image=task.image)
        for task in present.values()
        if task.id in known and known[task.id].image != task.image
    ]
    ledger.save_tasks(project_id, new + moved)
    stamps = {stamp.id: stamp for stamp in platform.annotation_stamps() if stamp.task_id in present}
    seen = ledger.seen_annotations(project_id)
    ledger.forget_annotations(project_id, seen.keys() - stamps.keys())
    changed = [
        stamp for stamp in stamps.values() if stamp.id not in seen or seen[stamp.id].updated_at != stamp.updated_at
    ]
    for done, stamp in enumerate(changed):
        progress(done, len(changed))
        _collect_annotation(context, stamp, known.get(stamp.task_id))
    progress(len(changed), len(changed))


def _take_over_project(context: Context) -> None:
    info = context.platform.project()
    before = context.ledger.project(context.project_id)
    if before is not None and info.classes[: len(before.classes)] != before.classes:
        raise PlatformError(
            f"the label config of project {context.project_id} no longer starts with the classes "
            f"{', '.join(before.classes)}; put them back in that order and add new classes after them"
        )
    context.ledger.save_project(Project(context.project_id, info.title, info.classes))


def _collect_annotation(context: Context, stamp: AnnotationStamp, state: TaskState | None) -> None:
    seen = SeenAnnotation(stamp.id, stamp.task_id, stamp.updated_at)
    last = context.ledger.last_done(context.project_id)
    if last is None or state is None or not state.ready:
        # It was there before the program proposed anything: `existing` proposals read it as first labels.
        context.ledger.save_annotation(context.project_id, seen, [])
        return
    try:
        annotation = context.platform.annotation(stamp, context.workspace.masks(state.mask_key).size)
        if annotation is None:
            return
        number = annotation.shown_round if annotation.shown_round is not None else last.number
        shown = _shown(context, stamp.task_id, min(number, last.number))
        if shown is None:
            context.ledger.save_annotation(context.project_id, seen, [])
            return
        reading = read_annotation(
            annotation, shown, context.project().classes, context.number, context.platform.shown_mask,
            context.settings.whole_image,
        )  # fmt: skip
    except TaskError as error:
        context.note("collect", stamp.task_id, str(error))
        return
    for message in reading.problems:
        context.note("collect", stamp.task_id, message)
    corrections = [
        replace(
            correction,
            shape_key=context.workspace.write_shape(
                stamp.id, correction.region_id, reading.shapes[correction.region_id]
            )
            if correction.region_id in reading.shapes
            else "",
        )
        for correction in reading.corrections
    ]
    context.ledger.save_annotation(context.project_id, seen, _keep_rounds(context, stamp, corrections))


def _keep_rounds(context: Context, stamp: AnnotationStamp, corrections: list[Correction]) -> list[Correction]:
    """An annotation saved again teaches anew only what it says anew."""
    earlier = {
        item.region_id: item
        for item in context.ledger.corrections(context.project_id)
        if item.annotation_id == stamp.id
    }
    return [
        replace(item, round=earlier[item.region_id].round)
        if item.region_id in earlier and earlier[item.region_id].label == item.label
        else item
        for item in corrections
    ]


def _shown(context: Context, task_id: int, number: int) -> Shown | None:
    """What a person who opened a task after round `number` saw."""
    labels = context.workspace.labels(number)
    place = labels.find(task_id)
    if place is None:
        return None
    queued = [
        query.region_id for query in context.ledger.queries(context.project_id, number) if query.task_id == task_id
    ]
    masks = context.workspace.masks(labels.mask_keys[place])
    return Shown(masks, labels.labels[labels.span(place)], frozenset(queued))
