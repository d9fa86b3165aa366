"""Taking a round's automatic corrections back, and letting them hold again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from a2lc_backend.masks import Source
from a2lc_backend.rounds.report import NotThereError, find_round
from a2lc_backend.rounds.workspace import SOURCES, Labels, Workspace, digest
from a2lc_backend.store import AutoCorrection, Ledger, Round, Undone

MaskName = tuple[int, str]
"""Task id and region id."""


def labels_of(ledger: Ledger, workspace: Workspace, project_id: int, number: int) -> Labels:
    """The labels of a round as they hold: without the automatic corrections that people took back since."""
    return without(workspace, workspace.labels(number), number, ledger.undone(project_id))


def without(workspace: Workspace, found: Labels, number: int, undone: Sequence[Undone]) -> Labels:
    """A round's labels without some automatic corrections; those of later rounds are passed over."""
    taken_back = [item for item in undone if item.round <= number]
    if not taken_back:
        return found
    by_task: dict[int, list[Undone]] = {}
    for item in taken_back:
        by_task.setdefault(item.task_id, []).append(item)
    labels, sources, proposals = found.labels.copy(), found.sources.copy(), found.proposals.copy()
    corrector = SOURCES.index("corrector")
    for task_id, items in by_task.items():
        place = found.find(task_id)
        if place is None:
            continue
        span = found.span(place)
        names = {
            name: span.start + index for index, name in enumerate(workspace.catalog(found.mask_keys[place]).region_ids)
        }
        for item in sorted(items, key=lambda item: -item.round):  # the newest first: it stands on the older
            row = names.get(item.region_id)
            if row is not None and sources[row] == corrector and labels[row] == item.after:
                labels[row], sources[row] = item.before, SOURCES.index(item.source)
                proposals[row] = item.before
    return replace(found, labels=labels, sources=sources, proposals=proposals)


def undo_round(
    ledger: Ledger, workspace: Workspace, project_id: int, number: int, masks: Collection[MaskName] | None = None
) -> int:
    """Take back the automatic corrections that a round made and that still hold.

    The labels they had replaced hold again, and no later round gives a mask the label that was taken back from it. The
    last finished round is reopened, so that it is published again; it has to be run.

    Args:
        ledger: what the program remembers.
        workspace: the project's artifacts.
        project_id: of the project.
        number: of the round, the last finished one or an older one.
        masks: those whose last correction by that round, or an older one, is taken back; if not given, all that the
            round itself changed.

    Returns:
        How many corrections were taken back; with 0 nothing was reopened.

    Raises:
        NotThereError: if the project has no such finished round.
    """
    last = _last_done(ledger, project_id, number)
    labels = labels_of(ledger, workspace, project_id, last.number)
    gone = {(item.round, item.task_id, item.region_id) for item in ledger.undone(project_id)}
    newest: dict[MaskName, AutoCorrection] = {}  # what a later round changed again, it does not hold any more
    for record in ledger.finished(project_id):
        for item in ledger.auto_corrections(project_id, record.number):
            if (item.round, item.task_id, item.region_id) not in gone:
                newest[item.task_id, item.region_id] = item
    if masks is None:
        mine = [item for item in newest.values() if item.round == number]
    else:
        mine = [item for item in map(newest.get, masks) if item is not None and item.round <= number]
    rows: list[Undone] = []
    corrector = SOURCES.index("corrector")
    by_task: dict[int, list[int]] = {}
    for index, correction in enumerate(mine):
        by_task.setdefault(correction.task_id, []).append(index)
    for task_id, indices in by_task.items():
        place = labels.find(task_id)
        if place is None:
            continue
        catalog, span = workspace.catalog(labels.mask_keys[place]), labels.span(place)
        names = {name: index for index, name in enumerate(catalog.region_ids)}
        held, sources = labels.labels[span], labels.sources[span]
        for correction in (mine[index] for index in indices):
            row = names.get(correction.region_id)
            if row is None or sources[row] != corrector or held[row] != correction.after:
                continue
            first = int(catalog.first_labels[row]) == correction.before
            origin: Source = "imported" if catalog.imported else "foundation"
            rows.append(
                Undone(
                    correction.round, task_id, correction.region_id, correction.before, correction.after,
                    origin if first else "corrector",
                )
            )  # fmt: skip
    if rows:
        undone = [*ledger.undone(project_id), *rows]
        ledger.undo(project_id, rows, last.number, _version(ledger, workspace, last, undone))
    return len(rows)


def redo_round(
    ledger: Ledger, workspace: Workspace, project_id: int, number: int, masks: Collection[MaskName] | None = None
) -> int:
    """Let the automatic corrections of a round, or of some masks, that were taken back hold again; see `undo_round`.

    Returns:
        How many labels change by that: those of later rounds have come without them.
    """
    last = _last_done(ledger, project_id, number)
    undone = ledger.undone(project_id)
    if masks is None:
        mine = [item for item in undone if item.round == number]
    else:
        newest = {(item.task_id, item.region_id): item for item in undone if item.round <= number}  # undone is by round
        mine = [newest[name] for name in set(masks) if name in newest]
    if not mine:
        return 0
    dropped = set(mine)
    remaining = [item for item in undone if item not in dropped]
    raw = workspace.labels(last.number)
    before = without(workspace, raw, last.number, undone).labels
    after = without(workspace, raw, last.number, remaining).labels
    count = int((before != after).sum())
    ledger.redo(project_id, mine, last.number if count else None, _version(ledger, workspace, last, remaining))
    return count


def _last_done(ledger: Ledger, project_id: int, number: int) -> Round:
    last = find_round(ledger, project_id, None)
    asked = find_round(ledger, project_id, number)
    if asked.status != "done":
        raise NotThereError(
            f"round {number} of project {project_id} is {asked.status}; only a finished one can be undone"
        )
    return last


def _version(ledger: Ledger, workspace: Workspace, last: Round, undone: Sequence[Undone]) -> str:
    labels = without(workspace, workspace.labels(last.number), last.number, undone)
    return f"a2lc-r{last.number}-{digest(labels, ledger.queries(last.project_id, last.number))}"


def veto(ledger: Ledger, project_id: int) -> dict[tuple[int, str], set[int]]:
    """Labels that people took back, by task id and region id."""
    found: dict[tuple[int, str], set[int]] = {}
    for item in ledger.undone(project_id):
        found.setdefault((item.task_id, item.region_id), set()).add(item.after)
    return found
