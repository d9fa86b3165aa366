"""Runs a round from wherever it stands to its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby

import structlog
from sqlalchemy.exc import SQLAlchemyError

from a2lc_backend.rounds.collect import collect
from a2lc_backend.rounds.context import Context, Progress
from a2lc_backend.rounds.correct import correct
from a2lc_backend.rounds.platform import PlatformError
from a2lc_backend.rounds.propose import propose
from a2lc_backend.rounds.publish import publish
from a2lc_backend.rounds.rank import rank
from a2lc_backend.rounds.train import score, train
from a2lc_backend.rounds.workspace import SOURCES, Labels
from a2lc_backend.store import ArtifactError, AutoCorrection, Ledger, Phase, Round

PHASES: tuple[tuple[str, Callable[[Context, Progress], None]], ...] = (
    ("collect", collect),
    ("propose", propose),
    ("correct", correct),
    ("train", train),
    ("score", score),
    ("rank", rank),
    ("publish", publish),
)
"""The phases in order. Publishing comes last, because a prediction also carries the queue."""

LOCK_SECONDS = 30.0
_BEATS_A_LOCK = 5
_PROGRESS_SECONDS = 0.3

log = structlog.get_logger()


class RoundBusyError(RuntimeError):
    """Another process runs a round of the same project."""


class RoundStoppedError(RuntimeError):
    """This process ends; the round goes on in the next one."""


class RoundFailedError(RuntimeError):
    """A round failed; the message names the phase, why, and the mend."""


def run_round(
    context: Context,
    owner: str,
    watch: Callable[[Phase], None] | None = None,
    stop: threading.Event | None = None,
) -> Round:
    """Run the phases of a round that are not done yet.

    Args:
        context: of the round.
        owner: names this process for the project's lock.
        watch: called with a phase whenever its progress is written.
        stop: ends the round at its next progress when set; it stays unfinished and is taken up again later.

    Returns:
        The finished round.

    Raises:
        RoundBusyError: if another process holds the project's lock, or takes it over.
        RoundStoppedError: if `stop` was set.
        RoundFailedError: if a phase fails; the round can be taken up again.
    """
    ledger, project_id, number = context.ledger, context.project_id, context.number
    if not ledger.take_lock(project_id, owner, LOCK_SECONDS):
        raise RoundBusyError(f"a round of project {project_id} is being run by another process")
    ended, lost = threading.Event(), threading.Event()
    beat = threading.Thread(target=_keep_lock, args=(ledger, project_id, owner, ended, lost), daemon=True)
    beat.start()

    def check() -> None:
        if lost.is_set():
            raise RoundBusyError(f"another process took over the round of project {project_id}")
        if stop is not None and stop.is_set():
            raise RoundStoppedError(f"round {number} of project {project_id} is given back")

    try:
        finished = {phase.name for phase in ledger.phases(project_id, number) if phase.status == "done"}
        if "propose" not in finished:
            finished.discard("collect")  # images may have been imported or mended since it failed
        for name, run in PHASES:
            if name not in finished:
                _run_phase(context, name, run, watch, check)
        _summarise(context)
        ledger.end_round(project_id, number, "done")
    finally:
        ended.set()
        beat.join()
        ledger.release_lock(project_id, owner)
    return context.current()


def _run_phase(
    context: Context,
    name: str,
    run: Callable[[Context, Progress], None],
    watch: Callable[[Phase], None] | None,
    check: Callable[[], None],
) -> None:
    ledger, project_id, number = context.ledger, context.project_id, context.number
    logger = log.bind(project=project_id, round=number, phase=name)
    phase = Phase(name, "running", started=time.time())
    written = 0.0

    def write(now: Phase) -> None:
        ledger.save_phase(project_id, number, now)
        if watch:
            watch(now)

    def progress(done: int, total: int) -> None:
        nonlocal phase, written
        check()
        phase = replace(phase, done=done, total=total)
        if time.monotonic() - written >= _PROGRESS_SECONDS:
            written = time.monotonic()
            write(phase)

    write(phase)
    logger.info("phase begins")
    try:
        check()
        run(context, progress)
    except (RoundBusyError, RoundStoppedError):
        logger.info("phase is given back")
        raise
    except Exception as error:
        write(replace(phase, status="failed", ended=time.time()))
        expected = isinstance(error, PlatformError | ArtifactError | ValueError)
        message = f"{name}: {error}" if expected else f"{name}: {type(error).__name__}: {error}"
        ledger.end_round(project_id, number, "failed", message)
        logger.error("phase failed", error=message, exc_info=not expected)
        raise RoundFailedError(message) from error
    write(replace(phase, status="done", ended=time.time()))
    logger.info("phase ends", seconds=round(time.time() - phase.started, 2))


def _keep_lock(ledger: Ledger, project_id: int, owner: str, ended: threading.Event, lost: threading.Event) -> None:
    while not ended.wait(LOCK_SECONDS / _BEATS_A_LOCK):
        try:
            if not ledger.take_lock(project_id, owner, LOCK_SECONDS):
                lost.set()
                return
        except SQLAlchemyError as error:
            log.warning("the lock could not be renewed; it is tried again", project=project_id, error=str(error))


def _summarise(context: Context) -> None:
    """Count what the round did, for its report; a label goes back when the corrector no longer stands by another."""
    labels = context.workspace.labels(context.number)
    ledger, project_id, number = context.ledger, context.project_id, context.number
    answers = {(item.task_id, item.region_id) for item in ledger.corrections(project_id) if item.round == number}
    changed = {
        (item.task_id, item.region_id)
        for item in ledger.corrections(project_id)
        if item.round == number and item.changes
    }
    changes = ledger.auto_corrections(project_id, number)
    by_corrector = _count_by_corrector(context, labels, changes)
    current = context.current()
    states = ledger.tasks(project_id)
    summary: dict[str, float] = {
        "tasks": len(states),
        "tasks_left_out": sum(not state.ready for state in states),
        "masks": len(labels.labels),
        "answered": len(answers),
        "changed_by_people": len(changed),
        "changed_by_corrector": by_corrector,
        "changed_back": len(changes) - by_corrector,
        "problems": len(ledger.problems(project_id, number)),
    }
    ledger.save_round(replace(current, summary=summary | current.summary))


def _count_by_corrector(context: Context, labels: Labels, changes: Sequence[AutoCorrection]) -> int:
    """Changes, by task, whose mask now holds a label of the corrector; the others went back to a base label."""
    count, corrector = 0, SOURCES.index("corrector")
    for task_id, mine in groupby(changes, key=lambda change: change.task_id):
        place = labels.find(task_id)
        if place is None:
            continue
        names = context.workspace.catalog(labels.mask_keys[place]).region_ids
        sources = dict(zip(names, labels.sources[labels.span(place)].tolist(), strict=True))
        count += sum(sources[change.region_id] == corrector for change in mine)
    return count
