"""What an admin does between rounds: a dry run of the next, and a word on what the corrector did or would do."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.groups import Selection, select_masks
from a2lc_backend.rounds.heartbeat import held_lock, own_name
from a2lc_backend.rounds.preview import Preview, Tell, preview_round
from a2lc_backend.rounds.report import NotThereError, ProposalReport, ProposalState, proposal_reports, with_words
from a2lc_backend.rounds.undo import MaskName, redo_round, undo_round
from a2lc_backend.rounds.workspace import Workspace
from a2lc_backend.service import Service


def preview(service: Service, project_id: int, tell: Tell) -> Preview:
    """Take over what people did, and find out what the next round would change by itself.

    Args:
        service: of the installation.
        project_id: of the project.
        tell: told of progress; what it raises ends the work.

    Raises:
        RoundBusyError: while another process has the project.
        PlatformError: if Label Studio cannot be used.
        SettingsError: if the project's extra params are wrong.
    """
    service.pulse.require()  # somebody waits for it
    context = service.catch_up(project_id, lambda done, total: tell("answers", done, total))
    # From here on nothing is written that counts, so that a round may begin meanwhile.
    return preview_round(context, tell)


def take_back(
    service: Service, project_id: int, number: int, redo: bool = False, masks: Collection[MaskName] | None = None
) -> int:
    """Take automatic corrections of a round, or of some masks, back, or let them hold again; see `undo_round`."""
    with held_lock(service.ledger, project_id, own_name()):
        change = redo_round if redo else undo_round
        return change(service.ledger, Workspace(service.artifacts, project_id), project_id, number, masks)


def proposals(service: Service, project_id: int, number: int | None = None) -> Iterator[ProposalReport]:
    """Every proposal of a round, applied or held back, and what people said of it since; see `proposal_reports`."""
    found = proposal_reports(service.ledger, Workspace(service.artifacts, project_id), project_id, number)
    return with_words(service.ledger, project_id, found)


def selected(
    service: Service, project_id: int, number: int, chosen: Selection, state: ProposalState
) -> dict[MaskName, ProposalReport]:
    """The proposals of a round that are meant and of which that has become.

    Raises:
        NotThereError: if there are none, or there is no such round.
    """
    found = select_masks(proposals(service, project_id, number), chosen, state)
    if not found:
        raise NotThereError(f"round {number} of project {project_id} has no such proposal that is {state}")
    return found


def approve_pair(service: Service, project_id: int, before: str, after: str, approved: bool) -> None:
    """Let the rounds from the next on apply all proposals of a pair of classes, or no longer.

    Under the policy `manual` these are still held back where audits speak against them; under the others they are
    applied whatever audits say.

    Raises:
        NotThereError: for an unknown project or class.
    """
    ids = _class_ids(service, project_id)
    _see_class(project_id, before, ids)
    _see_class(project_id, after, {name: label for name, label in ids.items() if label != IGNORE})
    service.ledger.approve(project_id, ids[before], ids[after], approved)


def approve_masks(service: Service, project_id: int, number: int, chosen: Selection, approved: bool) -> int:
    """Let the rounds from the next on apply what was held back of some masks, where it is proposed again.

    Args:
        service: of the installation.
        project_id: of the project.
        number: of the round that proposed it.
        chosen: the masks.
        approved: False takes the approval back.

    Returns:
        How many masks that were.

    Raises:
        NotThereError: if nothing that is meant was held back.
    """
    found, ids = selected(service, project_id, number, chosen, "held back"), _class_ids(service, project_id)
    labels = {name: ids[item.after] for name, item in found.items()}
    service.ledger.approve_masks(project_id, labels, approved)
    return len(labels)


def _class_ids(service: Service, project_id: int) -> dict[str, int]:
    project = service.ledger.project(project_id)
    if project is None:
        raise NotThereError(f"project {project_id} is not known; start its first round")
    return {name: index for index, name in enumerate(project.classes)} | {"none": IGNORE}


def _see_class(project_id: int, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise NotThereError(f"project {project_id} has no class {name!r}; choose from {', '.join(known)}")
