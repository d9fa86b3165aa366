"""The second phase of a round: masks and first labels for new images, edited masks for others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.foundation import FoundationError, ModelUnusableError
from a2lc_backend.images import pixels_digest
from a2lc_backend.masks import split_pieces
from a2lc_backend.proposals import Picture
from a2lc_backend.rounds.context import Context, Items, Progress
from a2lc_backend.rounds.platform import PlatformError, Task, TaskError
from a2lc_backend.rounds.reading import Verdict, edit_masks, verdicts
from a2lc_backend.segmenter import Segmenter
from a2lc_backend.store import ArtifactError, TaskState


def plan_proposals(context: Context) -> list[int]:
    """Images that have no masks yet, and those whose masks people edited."""
    edits = _edits(context)
    return [
        state.task_id
        for state in context.ledger.tasks(context.project_id)
        if not state.ready or state.mask_key != _edited_key(context, state, edits.get(state.task_id, []))
    ]


def propose(context: Context, items: Items, progress: Progress) -> None:
    """Give some images their masks and first labels, or redo them as people edited them.

    Args:
        context: of the round.
        items: from `plan_proposals`.
        progress: told of every image.
    """
    classes = context.project().classes
    edits = _edits(context, items)
    segmenter = context.once("preparing θ", lambda: context.make_segmenter(len(classes)))
    for done, task_id in enumerate(items):
        progress(done, len(items))
        state = context.ledger.task(context.project_id, task_id)
        if state is None:
            continue  # it was deleted during the round
        try:
            ready = propose_task(context, state, edits.get(task_id, []), classes, segmenter)
            context.ledger.save_tasks(context.project_id, [ready])
        except ModelUnusableError as error:
            raise PlatformError(str(error)) from error  # without it no image gets masks
        except (TaskError, FoundationError, ValueError, MemoryError) as error:
            message = f"task {state.task_id}: {str(error) or 'the machine has too little memory for this image'}"
            context.note("propose", state.task_id, message)
            context.ledger.save_tasks(context.project_id, [replace(state, error=message)])
    progress(len(items), len(items))


def finish_proposals(context: Context) -> None:
    """See that there is something to label.

    Raises:
        PlatformError: if no image can be used.
    """
    if not any(state.ready for state in context.ledger.tasks(context.project_id)):
        raise PlatformError(
            f"no image of project {context.project_id} could be used; `a2lc rounds show` lists why, "
            "then start the round again"
        )


def sound_proposals(context: Context) -> bool:
    """Whether all masks can be read; an image whose masks cannot gets new ones."""
    lost = []
    for state in context.ledger.tasks(context.project_id):
        if state.ready:
            try:
                context.workspace.masks(state.mask_key)
                context.workspace.catalog(state.mask_key)
            except ArtifactError:
                context.workspace.forget_masks(state.mask_key)
                context.workspace.forget_masks(context.workspace.mask_key(state.task_id, state.image))
                lost.append(replace(state, ready=False))
    context.ledger.save_tasks(context.project_id, lost)
    return not lost


def _edits(context: Context, task_ids: Sequence[int] | None = None) -> dict[int, list[tuple[str, Verdict]]]:
    """Edited, new and deleted masks by task, in a stable order; of all tasks if none are named."""
    found: dict[int, list[tuple[str, Verdict]]] = {}
    said = context.ledger.corrections(context.project_id, task_ids)
    for (task_id, region_id), verdict in verdicts(said).items():
        if verdict.shape_key or (verdict.kind == "deleted" and not verdict.disputed):
            found.setdefault(task_id, []).append((region_id, verdict))
    return found


def _edited_key(context: Context, state: TaskState, edits: Sequence[tuple[str, Verdict]]) -> str:
    spelled = ";".join(f"{region_id}={verdict.kind}:{verdict.shape_key}" for region_id, verdict in edits)
    return context.workspace.mask_key(state.task_id, state.image, spelled)


def propose_task(
    context: Context,
    state: TaskState,
    edits: Sequence[tuple[str, Verdict]],
    classes: tuple[str, ...],
    segmenter: Segmenter,
) -> TaskState:
    """Store what rounds need of one image: its masks, their features and what θ reads.

    Args:
        context: of the round.
        state: the image.
        edits: people's edits of its masks, by region id.
        classes: names in id order.
        segmenter: θ, trained or not.

    Returns:
        The image with the masks that hold.

    Raises:
        TaskError: if the image cannot be had.
        ValueError: if it cannot get masks.
    """
    workspace, platform = context.workspace, context.platform
    task = Task(state.task_id, state.image)
    image = platform.image(task)
    proposed_key = workspace.mask_key(state.task_id, state.image)
    if not workspace.has_masks(proposed_key):
        regions, messages = platform.regions(task, (image.shape[0], image.shape[1]))
        for message in messages:
            context.note("propose", state.task_id, message)
        masks = context.proposals.propose(
            Picture(
                picture_key(state.image), state.task_id, image, regions, classes, _prompts(context, classes),
                workspace.image_key(state.task_id, state.image),
            )
        )  # fmt: skip
        if platform.single_ring:
            masks = split_pieces(masks)
        imported = bool({region.id for region in regions} & set(masks.region_ids))
        workspace.write_masks(proposed_key, masks, context.describe(task, image, masks), imported, context.seen_by)
    if not workspace.has_input(state.task_id, state.image, segmenter.fingerprint):
        workspace.write_input(state.task_id, state.image, segmenter.fingerprint, segmenter.prepare(image))
    key = _write_edited(context, state, edits, image)
    return replace(state, ready=True, mask_key=key, error="", pixels=pixels_digest(image))


def _write_edited(
    context: Context, state: TaskState, edits: Sequence[tuple[str, Verdict]], image: NDArray[np.uint8]
) -> str:
    """Store an image's masks as people edited them, unless they are; returns their key."""
    workspace = context.workspace
    key, proposed_key = _edited_key(context, state, edits), workspace.mask_key(state.task_id, state.image)
    if not workspace.has_masks(key):
        shapes = {verdict.shape_key: workspace.shape(verdict.shape_key) for _, verdict in edits if verdict.shape_key}
        masks = edit_masks(workspace.masks(proposed_key), edits, shapes)
        if context.platform.single_ring:
            masks = split_pieces(masks)
        imported = workspace.catalog(proposed_key).imported
        described = context.describe(Task(state.task_id, state.image), image, masks)
        workspace.write_masks(key, masks, described, imported, context.seen_by)
    return key


def edited_states(context: Context, progress: Progress) -> tuple[TaskState, ...]:
    """The images that have masks, with those masks as people have edited them by now.

    This is what the phase would make of them, but for the ledger, which is not told.

    Args:
        context: of the round.
        progress: told of every image.
    """
    edits, found = _edits(context), []
    states = [state for state in context.ledger.tasks(context.project_id) if state.ready]
    for done, state in enumerate(states):
        progress(done, len(states))
        said = edits.get(state.task_id, [])
        if state.mask_key == _edited_key(context, state, said):
            found.append(state)
            continue
        try:
            image = context.platform.image(Task(state.task_id, state.image))
            found.append(replace(state, mask_key=_write_edited(context, state, said, image)))
        except ModelUnusableError as error:
            raise PlatformError(str(error)) from error
        except (TaskError, FoundationError, ValueError, MemoryError):
            found.append(state)  # the round says why, and leaves its masks as they are
    return tuple(found)


def _prompts(context: Context, classes: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Phrases of each class, in the order of the project as it is known."""
    info = context.once("project", context.platform.project)
    said = dict(zip(info.classes, info.prompts, strict=False))
    return tuple(said.get(name, (name,)) for name in classes)


def picture_key(address: str) -> str:
    """The stem of an image's file name, from its address in a task."""
    return address.rsplit("?d=", maxsplit=1)[-1].split("?", maxsplit=1)[0].rsplit("/", 1)[-1].rsplit(".", 1)[0]
