"""A new store from what the platform still holds: the shown predictions, the older ones, and people's annotations."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.features import FEATURE_NAMES
from a2lc_backend.masks import IGNORE, MaskSet
from a2lc_backend.rounds.context import Context, Progress
from a2lc_backend.rounds.platform import Annotation, AnnotationStamp, History, PlatformError, Reply, Task, TaskError
from a2lc_backend.rounds.reading import Reading, read_annotation
from a2lc_backend.rounds.versions import Version, held_by_round, read_versions, same_masks
from a2lc_backend.rounds.workspace import SOURCES, Labels
from a2lc_backend.store import AutoCorrection, Correction, Phase, Project, Query, SeenAnnotation, TaskState

REBUILT_PHASES = ("collect", "propose", "correct", "rank", "publish")
"""What is done in a rebuilt round; θ is lost, so `train` and `score` are left to be run."""

_HUMAN = SOURCES.index("human")


class RebuildRefusedError(RuntimeError):
    """A store that knows the project already is not overwritten; the message says what would be lost."""


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild found.

    Attributes:
        version: that the platform shows.
        number: its round.
        images: with masks.
        new_images: that were never shown with masks.
        masks: of all images.
        queries: in the round's queue.
        human: masks whose label is a person's.
        corrections: decisions of people taken over from annotations.
        problems: what could not be read, in words that name the mend.
    """

    version: str
    number: int
    images: int
    new_images: int
    masks: int
    queries: int
    human: int
    corrections: int
    problems: tuple[str, ...]


@dataclass
class _Rows:
    """The labels of one round, image after image, and its queue."""

    task_ids: list[int] = field(default_factory=list)
    mask_keys: list[str] = field(default_factory=list)
    versions: list[Version] = field(default_factory=list)
    queries: list[Query] = field(default_factory=list)

    def add(self, task_id: int, mask_key: str, version: Version) -> None:
        bare = replace(version, masks=replace(version.masks, mask_ids=np.empty((0, 0), np.uint16), rings={}))
        self.task_ids.append(task_id)
        self.mask_keys.append(mask_key)
        self.versions.append(bare)

    def labels(self) -> Labels:
        def join(name: str) -> NDArray[np.generic]:
            return np.concatenate([getattr(version, name) for version in self.versions])

        counts = np.array([len(version.labels) for version in self.versions], np.int64)
        total = int(counts.sum())
        return Labels(
            np.array(self.task_ids, np.int64), tuple(self.mask_keys), counts, join("labels").astype(np.int64),
            join("sources").astype(np.int64), join("confidence").astype(np.float64), np.full(total, IGNORE, np.int64),
            join("proposals").astype(np.int64), np.full(total, np.nan), np.full(total, -1, np.int64),
            np.full(total, np.nan),
        )  # fmt: skip


def make_room(context: Context, replace_store: bool) -> None:
    """Empty the store of a project before it is rebuilt; what a rebuild that was cut off has written stays.

    Args:
        context: of the round that is shown.
        replace_store: empty it even if it holds rounds.

    Raises:
        RebuildRefusedError: if it holds rounds and must not be replaced.
    """
    ledger, workspace, project_id = context.ledger, context.workspace, context.project_id
    known = [record.number for record in ledger.rounds(project_id)]
    begun = not known and workspace.rebuilt_from() == context.round.version
    held = known or [number for number in range(context.number + 1) if workspace.has_labels(number)]
    if held and not begun and not replace_store:
        what = f"rounds {held[0]} to {held[-1]}" if len(held) > 1 else f"round {held[0]}"
        where = "the store" if known else "the folder of artifacts (whose ledger is another one, or lost)"
        raise RebuildRefusedError(
            f"{where} holds {what} of project {project_id}; check A2LC_DATA_DIR, A2LC_DATABASE_URL and "
            "A2LC_ARTIFACTS_URL, or give --replace to throw them away with their reports, audits and approvals"
        )
    ledger.forget_project(project_id)
    workspace.begin_rebuild(context.round.version)


def rebuild(context: Context, history: History, progress: Progress) -> Rebuilt:
    """Write the tasks, masks, labels, queues and corrections of a project whose store is lost.

    The round that is shown becomes the project's only one, unfinished: `run_round` trains θ and lets it score, then the
    next round can be begun. Masks are those that are shown; the labels of older rounds are kept as far as the platform
    holds them, to read the annotations that were made from them. Annotations made from the shown version are left to
    the next round's `collect`. Nothing on the platform is changed. Whatever it wrote when it was cut off is written
    again.

    Args:
        context: of the round that is shown.
        history: the same platform as the context's.
        progress: told of images.

    Raises:
        PlatformError: if no image is shown with masks of this program, or the platform refuses.
    """
    ledger, workspace, project_id, number = context.ledger, context.workspace, context.project_id, context.number
    info = context.platform.project()
    ledger.save_project(Project(project_id, info.title, info.classes))
    tasks = context.platform.tasks()
    stamps: dict[int, list[AnnotationStamp]] = defaultdict(list)
    for stamp in context.platform.annotation_stamps():
        stamps[stamp.task_id].append(stamp)
    rounds = [_Rows() for _ in range(number + 1)]
    cut: list[int] = []
    changes: list[AutoCorrection] = []
    corrections = 0
    for done, task in enumerate(tasks):
        progress(done, len(tasks))
        versions = read_versions(context, history, task)
        if not versions:
            ledger.save_tasks(project_id, [TaskState(task.id, task.image)])
            continue
        keys = _write_masks(context, task, versions)
        ledger.save_tasks(project_id, [TaskState(task.id, task.image, ready=True, mask_key=keys[0])])
        for rows, index in zip(rounds, held_by_round(versions, number), strict=True):
            rows.add(task.id, keys[index], versions[index])
        for version in versions:
            rounds[version.round].queries += version.queries
        changes += _changes(task.id, versions, number)
        if versions[0].round == number and versions[0].hidden:
            cut.append(len(versions[0].masks) - len(versions[0].hidden))
        corrections += sum(
            _collect(context, stamp, versions)
            if stamp.reply is None
            else _collect_reply(context, stamp, stamp.reply, versions)
            for stamp in stamps[task.id]
        )
    progress(len(tasks), len(tasks))
    if not rounds[number].task_ids:
        workspace.end_rebuild()
        raise PlatformError(
            f"no image of project {project_id} has a prediction of this program; "
            f"start round 0 with: a2lc rounds next --project {project_id}"
        )
    for earlier, rows in enumerate(rounds):
        workspace.write_labels(earlier, rows.labels())
        by_rank = {query.rank: query for query in rows.queries}
        ledger.save_queries(project_id, earlier, list(by_rank.values()))
    ledger.save_auto_corrections(project_id, number, changes)
    _adopt(context, len(rounds[number].queries), min(cut, default=0))
    workspace.end_rebuild()
    labels = workspace.labels(number)
    problems = tuple(dict.fromkeys(problem.message for problem in ledger.problems(project_id, number)))
    return Rebuilt(
        context.round.version, number, len(labels.task_ids), len(tasks) - len(labels.task_ids), len(labels.labels),
        len(rounds[number].queries), int((labels.sources == _HUMAN).sum()), corrections, problems,
    )  # fmt: skip


def _adopt(context: Context, queries: int, most_shown: int) -> None:
    """Write the round itself, last: what has no round was not rebuilt to its end.

    Args:
        context: of the round.
        queries: in its queue.
        most_shown: the fewest regions of any image that was cut, 0 if none was. `cut.left_out` finds the same regions
            with it as with what the round was begun with: whoever showed more had more queued.
    """
    now = time.time()
    settings = context.settings.model_dump()
    if most_shown:
        settings |= {"regions_shown": most_shown, "whole_image": False}
    else:
        settings |= {"regions_shown": 0}
    record = replace(
        context.round, status="running", budget=queries or context.settings.budget, started=now,
        summary={"rebuilt": 1.0, "queued": float(queries)}, settings=settings,
    )  # fmt: skip
    phases = [
        Phase(name, "done", started=now + 1e-3 * place, ended=now + 1e-3 * place)
        for place, name in enumerate(REBUILT_PHASES)
    ]
    context.ledger.adopt_round(record, phases)


def _write_masks(context: Context, task: Task, versions: Sequence[Version]) -> list[str]:
    """Store the masks of every version; those shown now count as proposed, whatever edits led to them."""
    workspace = context.workspace
    imported = any((version.sources == SOURCES.index("imported")).any() for version in versions)
    keys = [workspace.mask_key(task.id, task.image)]
    for newer, version in pairwise(versions):
        same = same_masks(newer.masks, version.masks)
        keys.append(keys[-1] if same else workspace.mask_key(task.id, task.image, f"round {version.round}"))
    image: NDArray[np.uint8] | None = None
    for key, version in dict(zip(keys, versions, strict=True)).items():
        if _is_written(context, key, version.masks):
            continue
        try:
            image = context.platform.image(task) if image is None else image
            features = context.describe(task, image, version.masks)
        except (TaskError, ValueError) as error:
            # The labels of people outlive the image; θ cannot see it either, so nothing is learned from zeros.
            context.note("rebuild", task.id, f"task {task.id}: {error}; then rebuild again")
            features = np.zeros((len(version.masks), len(FEATURE_NAMES)), np.float32)
        workspace.write_masks(key, version.masks, features, imported, context.seen_by)
    return keys


def _is_written(context: Context, key: str, masks: MaskSet) -> bool:
    """Whether a rebuild that was cut off has stored these masks with their features."""
    workspace = context.workspace
    if not workspace.has_masks(key) or not same_masks(workspace.masks(key), masks):
        return False
    return bool(workspace.catalog(key).features.any())


def _changes(task_id: int, versions: Sequence[Version], number: int) -> list[AutoCorrection]:
    """Labels that the shown round changed without a person, where the round before is held too."""
    if len(versions) < 2 or (versions[0].round, versions[1].round) != (number, number - 1):
        return []
    now, before = versions[0], versions[1]
    held = dict(zip(before.masks.region_ids, before.labels.tolist(), strict=True))
    return [
        AutoCorrection(
            number, task_id, region_id, held[region_id], int(now.labels[index]), float(now.confidence[index])
        )
        for index, region_id in enumerate(now.masks.region_ids)
        if now.sources[index] != _HUMAN and held.get(region_id, now.labels[index]) != now.labels[index]
    ]  # fmt: skip


def _collect(context: Context, stamp: AnnotationStamp, versions: Sequence[Version]) -> int:
    """Take over what an annotation made before the shown version says; returns how many decisions that are.

    What the shown round had not heard of yet is left alone: the next round collects it.
    """
    last = versions[0]
    try:
        annotation = context.platform.annotation(stamp, last.masks.size)
    except TaskError as error:
        context.note("rebuild", stamp.task_id, str(error))
        return 0
    if annotation is None or (annotation.shown_round is not None and annotation.shown_round >= last.round):
        return 0
    made_from = next((version for version in versions if version.round == annotation.shown_round), None)
    if made_from is not None:
        reading = read_annotation(
            annotation, made_from.shown, context.project().classes, made_from.round + 1, context.platform.shown_mask,
            context.settings.whole_image,
        )  # fmt: skip
        if reading.corrections and not any(_is_shown(item, last) for item in reading.corrections):
            return 0
        corrections = [_stored(context, item, reading, last) for item in reading.corrections]
    else:
        corrections = _taken_at_its_word(annotation, last, context.project().classes)
        if not corrections and annotation.made_at >= versions[-1].made_at:
            return 0
    for message in annotation.problems:
        context.note("rebuild", stamp.task_id, message)
    updated_at = "" if annotation.unreadable else stamp.updated_at
    context.ledger.save_annotation(context.project_id, SeenAnnotation(stamp.id, stamp.task_id, updated_at), corrections)
    return len(corrections)


def _collect_reply(context: Context, stamp: AnnotationStamp, reply: Reply, versions: Sequence[Version]) -> int:
    """The same for an answer to a single question."""
    corrections = _replied(stamp, reply, versions, context.project().classes)
    if corrections is None:
        return 0
    seen = SeenAnnotation(stamp.id, stamp.task_id, stamp.updated_at)
    context.ledger.save_annotation(context.project_id, seen, corrections)
    return len(corrections)


def _replied(
    stamp: AnnotationStamp, reply: Reply, versions: Sequence[Version], classes: tuple[str, ...]
) -> list[Correction] | None:
    """What an answer to a single question says; None if the shown round had not heard of it."""
    last, region_id, asked_in = versions[0], reply.mask.region_id, reply.mask.round
    if reply.label not in classes:
        return []
    label = classes.index(reply.label)
    if asked_in >= last.round or (region_id in last.masks.region_ids and last.human.get(region_id) != label):
        return None
    shown = next((version for version in versions if version.round == asked_in), last)
    held = dict(zip(shown.masks.region_ids, shown.labels.tolist(), strict=True))
    if region_id not in held:
        return []
    return [
        Correction(
            stamp.id, stamp.task_id, region_id, "label", label, held[region_id], reply.annotator, reply.made_at,
            asked_in + 1,
        )
    ]  # fmt: skip


def _is_shown(correction: Correction, last: Version) -> bool:
    """Whether the shown version already has a decision."""
    if correction.kind == "deleted":
        return correction.region_id not in last.masks.region_ids
    return last.human.get(correction.region_id) == correction.label


def _stored(context: Context, correction: Correction, reading: Reading, last: Version) -> Correction:
    """Keep pixels that the masks shown do not have yet."""
    shape = reading.shapes.get(correction.region_id)
    if shape is None or _is_shown(correction, last):
        return correction
    key = context.workspace.write_shape(correction.annotation_id, correction.region_id, shape)
    return replace(correction, shape_key=key)


def _taken_at_its_word(annotation: Annotation, last: Version, classes: tuple[str, ...]) -> list[Correction]:
    """What an annotation says whose own round is gone: what the shown version calls human, and what it was asked."""
    class_ids = {name: index for index, name in enumerate(classes)}
    human = last.human
    held = dict(zip(last.masks.region_ids, last.labels.tolist(), strict=True))
    corrections = []
    for region in annotation.regions:
        if region.label is None or region.id not in held:
            continue
        label = class_ids[region.label]
        if human.get(region.id) == label or region.rank is not None:
            round_ = last.round if annotation.shown_round is None else annotation.shown_round + 1
            corrections.append(
                Correction(
                    annotation.id, annotation.task_id, region.id, "label", label, held[region.id],
                    annotation.annotator, annotation.made_at, round_,
                )
            )  # fmt: skip
    return corrections
