"""Runs a round from wherever it stands to its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby

import structlog

from a2lc_backend.rounds.context import Context
from a2lc_backend.rounds.heartbeat import Heartbeat, RoundBusyError, RoundStoppedError, take_lock
from a2lc_backend.rounds.phases import PHASES, PhaseKind, divide
from a2lc_backend.rounds.platform import PlatformError
from a2lc_backend.rounds.shards import STALE_SECONDS, work_shard
from a2lc_backend.rounds.undo import labels_of
from a2lc_backend.rounds.workspace import SOURCES, Labels
from a2lc_backend.store import ArtifactError, AutoCorrection, Phase, Round, Shard

_BEAT_SECONDS = 0.5
_BEATS_A_RENEWAL = 10
_PROGRESS_SECONDS = 0.3
_CANCEL_POLL_SECONDS = 0.2
_CANCEL_SECONDS = 600.0
"""How long shards that still speak are waited for; each gives itself back at its next progress."""

log = structlog.get_logger()


class RoundFailedError(RuntimeError):
    """A round failed; the message names the phase, why, and the mend."""


Report = Callable[[str], None]
"""Writes how far the phase is, with what it waits for ("" for nothing); raises if the round has to be given back."""

Dispatch = Callable[[Context, PhaseKind, Report], None]
"""Has the shards of a phase done that are not done yet; returns when all are done or one has failed."""


def run_round(
    context: Context,
    owner: str,
    watch: Callable[[Phase], None] | None = None,
    stop: threading.Event | None = None,
    dispatch: Dispatch | None = None,
) -> Round:
    """Run the phases of a round that are not done yet, or finish its cancelling.

    Args:
        context: of the round.
        owner: names this process for the project's lock.
        watch: called with a phase whenever its progress is written.
        stop: ends the round at its next progress when set; it stays unfinished and is taken up again later.
        dispatch: who does the work; this thread if not given.

    Returns:
        The round: done, or cancelled.

    Raises:
        RoundBusyError: if another process holds the project's lock, or takes it over.
        RoundStoppedError: if `stop` was set, or the round was paused.
        RoundFailedError: if a phase fails; the round can be taken up again.
    """
    ledger, project_id, number = context.ledger, context.project_id, context.number
    if not take_lock(ledger, project_id, owner):
        raise RoundBusyError(f"a round of project {project_id} is being run by another process")
    keeper = _Keeper(context, owner, stop)
    try:
        with Heartbeat(keeper.beat, _BEAT_SECONDS) as heart:
            try:
                keeper.see_status()
                _run_phases(context, dispatch or _in_process(owner, stop), watch, heart.check)
                _summarise(context)
                if not ledger.change_status(project_id, number, ["running"], "done"):
                    keeper.see_status()
                ledger.forget_shards(project_id, number)
            except RoundStoppedError:
                if context.current().status != "cancelling":
                    raise
                _cancel(context)
    finally:
        ledger.release_lock(project_id, owner)
    return context.current()


class _Keeper:
    """Keeps the project's lock, and sees whether somebody paused or cancelled the round."""

    def __init__(self, context: Context, owner: str, stop: threading.Event | None) -> None:
        self._context, self._owner, self._stop = context, owner, stop
        self._beats = 0

    def beat(self) -> Exception | None:
        """See `Heartbeat`."""
        self._beats += 1
        ledger, project_id = self._context.ledger, self._context.project_id
        if self._beats % _BEATS_A_RENEWAL == 0 and not take_lock(ledger, project_id, self._owner):
            return RoundBusyError(f"another process took over the round of project {project_id}")
        try:
            self.see_status()
        except RoundStoppedError as error:
            return error
        return None

    def see_status(self) -> None:
        """Raise RoundStoppedError if the round is not to go on."""
        number, status = self._context.number, self._context.current().status
        if self._stop is not None and self._stop.is_set():
            raise RoundStoppedError(f"round {number} of project {self._context.project_id} is given back")
        if status in ("paused", "cancelling"):
            raise RoundStoppedError(f"round {number} of project {self._context.project_id} is {status}")


def _run_phases(
    context: Context, dispatch: Dispatch, watch: Callable[[Phase], None] | None, check: Callable[[], None]
) -> None:
    ledger, project_id, number = context.ledger, context.project_id, context.number
    phases = ledger.phases(project_id, number)
    finished = {phase.name for phase in phases if phase.status == "done"}
    if any(phase.name == "propose" and phase.status == "failed" for phase in phases):
        finished.discard("collect")  # images may have been imported or mended since
        for name in ("collect", "propose"):
            ledger.plan_shards(project_id, number, name, [])
    if any(phase.status == "failed" for phase in phases):
        _forget_lost(context, finished)
    for kind in PHASES:
        if kind.name not in finished:
            _PhaseRun(context, kind, watch, check).run(dispatch)


def _forget_lost(context: Context, finished: set[str]) -> None:
    """Take the first phase whose artifacts cannot be read, and all that build on it, out of those that are finished."""
    lost = False
    for kind in PHASES:
        if not lost and kind.name in finished and kind.sound is not None and not kind.sound(context):
            lost = True
            log.warning(
                "artifacts are lost; they are made again",
                project=context.project_id, round=context.number, phase=kind.name,
            )  # fmt: skip
        if lost and kind.name in finished:
            finished.discard(kind.name)
            context.ledger.save_phase(
                context.project_id, context.number, Phase(kind.name, "running", started=time.time())
            )
        if lost:
            context.ledger.plan_shards(context.project_id, context.number, kind.name, [])


class _PhaseRun:
    """One phase from wherever it stands to its end."""

    def __init__(
        self, context: Context, kind: PhaseKind, watch: Callable[[Phase], None] | None, check: Callable[[], None]
    ) -> None:
        self._context, self._kind, self._watch, self._check = context, kind, watch, check
        self._phase = Phase(kind.name, "running", started=time.time())
        self._began: tuple[float, int] | None = None
        self._written = 0.0
        self._log = log.bind(project=context.project_id, round=context.number, phase=kind.name)

    def run(self, dispatch: Dispatch) -> None:
        begun = [
            phase for phase in self._context.ledger.phases(self._context.project_id, self._context.number)
            if phase.name == self._kind.name and phase.status == "running"
        ]  # fmt: skip
        self._phase = replace(self._phase, started=begun[0].started) if begun else self._phase
        self._write()
        self._log.info("phase begins")
        try:
            self._check()
            if not self._shards():
                items = self._kind.plan(self._context) if self._kind.plan else None
                parts = [[]] if items is None else divide(items)
                self._context.ledger.plan_shards(self._context.project_id, self._context.number, self._kind.name, parts)
            dispatch(self._context, self._kind, self.report)
            failed = [shard for shard in self._shards() if shard.status == "failed"]
            if failed:
                raise PlatformError(failed[0].error)
            if any(shard.status != "done" for shard in self._shards()):
                raise RoundBusyError(f"another process works on {self._kind.name} of round {self._context.number}")
            if self._kind.finish:
                self._finish(self._kind.finish)
        except (RoundBusyError, RoundStoppedError):
            self._log.info("phase is given back")
            raise
        except Exception as error:
            self._fail(error)
        self._count("")
        self._write(replace(self._phase, status="done", ended=time.time(), eta=0.0, note=""))
        self._log.info("phase ends", seconds=round(time.time() - self._phase.started, 2))

    def _finish(self, finish: Callable[[Context], None]) -> None:
        try:
            finish(self._context)
        except Exception:
            # What the shards had made may be gone: when the round is taken up again, they look once more.
            self._context.ledger.plan_shards(self._context.project_id, self._context.number, self._kind.name, [])
            raise

    def report(self, note: str) -> None:
        """See `Report`."""
        self._check()
        if time.monotonic() - self._written >= _PROGRESS_SECONDS:
            self._count(note)
            self._write()

    def _fail(self, error: Exception) -> None:
        self._write(replace(self._phase, status="failed", ended=time.time()))
        expected = isinstance(error, PlatformError | ArtifactError | ValueError)
        message = f"{self._kind.name}: {error}" if expected else f"{self._kind.name}: {type(error).__name__}: {error}"
        number = self._context.number
        self._context.ledger.change_status(self._context.project_id, number, ["running"], "failed", message)
        self._log.error("phase failed", error=message, exc_info=not expected)
        raise RoundFailedError(message) from error

    def _shards(self) -> list[Shard]:
        return self._context.ledger.shards(self._context.project_id, self._context.number, self._kind.name)

    def _count(self, note: str) -> None:
        shards = self._shards()
        done = sum(shard.total if shard.status == "done" else shard.done for shard in shards)
        total = sum(shard.total for shard in shards)
        if self._began is None:
            self._began = (time.monotonic(), done)
        seconds, units = time.monotonic() - self._began[0], done - self._began[1]
        rate = units / seconds if seconds > 0 and units > 0 else 0.0
        eta = (total - done) / rate if rate else 0.0
        self._phase = replace(self._phase, done=done, total=total, rate=rate, eta=eta, note=note)

    def _write(self, phase: Phase | None = None) -> None:
        self._phase = phase or self._phase
        self._written = time.monotonic()
        self._context.ledger.save_phase(self._context.project_id, self._context.number, self._phase)
        if self._watch:
            self._watch(self._phase)


def _in_process(owner: str, stop: threading.Event | None) -> Dispatch:
    """Do the shards one after another on this thread."""

    def dispatch(context: Context, kind: PhaseKind, report: Report) -> None:
        for shard in context.ledger.shards(context.project_id, context.number, kind.name):
            if shard.status == "done":
                continue
            # Whoever holds the project's lock is alone: a claim of another process is a dead one's.
            if shard.status == "failed" or work_shard(context, kind, shard.index, owner, 0.0, stop, report) != "done":
                return
            report("")

    return dispatch


def _cancel(context: Context) -> None:
    """Finish the cancelling of a round: of its labels, queue and predictions nothing stays.

    Raises:
        RoundFailedError: if the platform refuses; the round can be cancelled again.
    """
    ledger, project_id, number = context.ledger, context.project_id, context.number
    end = time.monotonic() + _CANCEL_SECONDS
    while time.monotonic() < end and any(shard.status == "running" for shard in _alive(context)):
        time.sleep(_CANCEL_POLL_SECONDS)
    version = context.current().version
    try:
        if version:
            context.platform.drop(version, context.previous.version if context.previous else "")
    except PlatformError as error:
        ledger.change_status(project_id, number, ["cancelling"], "failed", f"cancelling: {error}")
        raise RoundFailedError(f"round {number} could not be cancelled: {error}") from error
    ledger.forget_round(project_id, number)
    context.workspace.forget_round(number)
    ledger.change_status(project_id, number, ["cancelling"], "cancelled")
    log.info("round is cancelled", project=project_id, round=number)


def _alive(context: Context) -> list[Shard]:
    """Shards of the round whose owners still speak."""
    return [
        shard for shard in context.ledger.open_shards()
        if (shard.project_id, shard.round) == (context.project_id, context.number)
        and shard.beat > time.time() - STALE_SECONDS
    ]  # fmt: skip


def _summarise(context: Context) -> None:
    """Count what the round did, for its report; a label goes back when the corrector no longer stands by another."""
    ledger, project_id, number = context.ledger, context.project_id, context.number
    labels = labels_of(ledger, context.workspace, project_id, number)
    last = context.previous.number if context.previous else -1
    new = [item for item in ledger.corrections(project_id) if last < item.round <= number]
    answers = {(item.task_id, item.region_id) for item in new}
    changed = {(item.task_id, item.region_id) for item in new if item.changes}
    changes = ledger.auto_corrections(project_id, number)
    by_corrector = _count_by_corrector(context, labels, changes)
    undone = sum(item.round == number for item in ledger.undone(project_id))
    current = context.current()
    states = ledger.tasks(project_id)
    summary: dict[str, float] = {
        "tasks": len(states),
        "tasks_left_out": sum(not state.ready for state in states),
        "masks": len(labels.labels),
        "answered": len(answers),
        "changed_by_people": len(changed),
        "changed_by_corrector": by_corrector,
        "changed_back": len(changes) - by_corrector - undone,
        "undone": undone,
        "problems": len(ledger.problems(project_id, number)),
    }
    ledger.save_round(replace(current, summary=current.summary | summary))


def _count_by_corrector(context: Context, labels: Labels, changes: Sequence[AutoCorrection]) -> int:
    """Changes, by task, whose mask now holds a label of the corrector; the others went back to a base label."""
    count, corrector = 0, SOURCES.index("corrector")
    for task_id, mine in groupby(changes, key=lambda change: change.task_id):
        place = labels.find(task_id)
        if place is None:
            continue
        names = context.workspace.catalog(labels.mask_keys[place]).region_ids
        span = labels.span(place)
        held = dict(zip(names, zip(labels.labels[span], labels.sources[span], strict=True), strict=True))
        count += sum(held[change.region_id] == (change.after, corrector) for change in mine)
    return count
