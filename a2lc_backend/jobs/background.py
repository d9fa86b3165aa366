"""Conducts the rounds of all projects, and takes up what an earlier process left."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Collection

import structlog
from sqlalchemy.exc import SQLAlchemyError

from a2lc_backend.actions import take_back
from a2lc_backend.jobs.courier import Courier
from a2lc_backend.jobs.events import Events
from a2lc_backend.label_studio import LabelStudioError, LabelStudioUnreachableError
from a2lc_backend.rounds.heartbeat import RoundBusyError, RoundStoppedError
from a2lc_backend.rounds.runner import Dispatch, RoundFailedError
from a2lc_backend.rounds.undo import MaskName
from a2lc_backend.service import Service
from a2lc_backend.store import Round, RoundStatus, open_round

_RETRY_SECONDS = 2.0
_STOP_SECONDS = 20.0
_PATIENCE_SECONDS = 300.0
"""How long after its start the program, with rounds to take up, waits for a Label Studio that starts more slowly."""

_CONDUCTORS = 8
"""Rounds of different projects conducted at once where workers do the work."""

log = structlog.get_logger()


class NoWorkersError(RuntimeError):
    """Nobody would do the work; the message names the queue and the command."""


class NotPossibleError(RuntimeError):
    """The round is in no state for what is asked; the message names the state and what to do."""


class Jobs:
    """Runs rounds: their phases on a thread of this process, or, where a Redis is set, in workers.

    Args:
        service: does the work.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._dispatch = _redis_dispatch(service)
        self._projects: queue.Queue[int | None] = queue.Queue()
        self._begin = threading.Lock()
        self._active: set[int] = set()
        count = _CONDUCTORS if self._dispatch else 1
        self._threads = [
            threading.Thread(target=self._work, name=f"a2lc-rounds-{index}", daemon=True) for index in range(count)
        ]
        self._stopping = threading.Event()
        self._resumed: set[int] = set()
        self._patient_until = 0.0
        self._events = Events(service, self._begin_if_new)
        self.courier = Courier(service)

    def start(self) -> None:
        """Start the threads with what was unfinished when the last process ended."""
        self._patient_until = time.monotonic() + _PATIENCE_SECONDS
        for record in self._service.ledger.unfinished():
            log.info("round taken up again", project=record.project_id, round=record.number)
            self._resumed.add(record.project_id)
            self._projects.put(record.project_id)
        for thread in self._threads:
            thread.start()
        self._events.start()
        self.courier.start()

    def stop(self) -> bool:
        """Give the present rounds back, to be taken up by the next process; whether the threads have ended."""
        self._stopping.set()
        self._events.stop()
        self.courier.stop()
        for _ in self._threads:
            self._projects.put(None)
        end = time.monotonic() + _STOP_SECONDS
        for thread in self._threads:
            thread.join(max(end - time.monotonic(), 0.0))
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def alive(self) -> bool:
        """Whether rounds that are begun will be run."""
        return all(thread.is_alive() for thread in self._threads)

    def next_round(self, project_id: int, budget: int | None = None) -> Round:
        """Begin the next round of a project, or go on with one that failed or is paused.

        A round that is running is returned instead.

        Raises:
            NoWorkersError: if nobody would do the work.
        """
        with self._begin:
            running = [item for item in self._service.ledger.unfinished() if item.project_id == project_id]
            if not running:
                self._see_workers()
            record = running[0] if running else self._service.begin_round(project_id, budget)
        self._projects.put(project_id)
        return record

    def pause(self, project_id: int) -> Round:
        """Stop the running round of a project; what is done stays done, and `next_round` goes on with it.

        Raises:
            NotPossibleError: if none is running.
        """
        last = self._last(project_id)
        if not self._service.ledger.change_status(project_id, last.number, ["running"], "paused"):
            raise NotPossibleError(f"round {last.number} of project {project_id} is {last.status}: nothing to pause")
        return self._last(project_id)

    def cancel(self, project_id: int) -> Round:
        """Give up the unfinished round of a project: labels and queue of the round before stay.

        What people answered is kept and counts in the next round.

        Raises:
            NotPossibleError: if there is none, or it is only published again.
        """
        last = self._last(project_id)
        if last.status != "done" and last.summary.keys() & {"tasks", "rebuilt"}:
            raise NotPossibleError(
                f"round {last.number} of project {project_id} is what people see and only ended again; let it end"
            )
        before: list[RoundStatus] = ["running", "paused", "failed"]
        if not self._service.ledger.change_status(project_id, last.number, before, "cancelling"):
            raise NotPossibleError(f"round {last.number} of project {project_id} is {last.status}: nothing to cancel")
        self._projects.put(project_id)
        return self._last(project_id)

    def undo(self, project_id: int, number: int, redo: bool = False, masks: Collection[MaskName] | None = None) -> int:
        """Take a round's automatic corrections back, or let them hold again, and publish the labels anew.

        Args:
            project_id: of the project.
            number: of the finished round.
            redo: let those hold again that were taken back.
            masks: of these alone; see `undo_round`.

        Returns:
            How many corrections that were.

        Raises:
            NotPossibleError: while a round is unfinished.
            NotThereError: if there is no such finished round.
            NoWorkersError: if nobody would publish.
        """
        with self._begin:
            self.see_ended(project_id)
            self._see_workers()
            count = take_back(self._service, project_id, number, redo, masks)
        if count:
            self._projects.put(project_id)
        return count

    def see_ended(self, project_id: int) -> None:
        """See that no round of a project is unfinished.

        Raises:
            NotPossibleError: if one is, or there is none yet.
        """
        last = self._last(project_id)
        if not last.has_ended:
            raise NotPossibleError(
                f"round {last.number} of project {project_id} has the status {last.status}; cancel it, or let it "
                "end first (`a2lc rounds resume` goes on with one that is paused or failed)"
            )

    def handle_events(self) -> None:
        """Act on persisted webhooks soon, on a thread."""
        self._events.wake()

    def _last(self, project_id: int) -> Round:
        rounds = self._service.ledger.rounds(project_id)
        if not rounds:
            raise NotPossibleError(f"project {project_id} has no rounds yet; start round 0 first")
        return open_round(rounds)

    def _see_workers(self) -> None:
        if self._dispatch is None:
            return
        from a2lc_backend.jobs.redis_queue import missing_workers  # noqa: PLC0415

        if missing := missing_workers(self._service.ledger):
            raise NoWorkersError(f"nothing was begun: {missing} (a worker that waits for Redis does not listen)")

    def _begin_if_new(self, project_id: int) -> None:
        try:
            self.next_round(project_id)
        except NoWorkersError as error:
            log.error("round is not begun", project=project_id, error=str(error))

    def _work(self) -> None:
        while not self._stopping.is_set():
            project_id = self._projects.get()
            if project_id is None:
                return
            with self._begin:
                if project_id in self._active:
                    continue
                self._active.add(project_id)
            try:
                self._run(project_id)
            except RoundStoppedError as error:
                log.info("round stops", project=project_id, reason=str(error))
            except (RoundFailedError, LabelStudioError, ValueError) as error:
                log.error("round failed", project=project_id, error=str(error))
            except Exception:  # the thread must outlive any round
                log.exception("round failed", project=project_id)
            finally:
                with self._begin:
                    self._active.discard(project_id)
            if not self._stopping.is_set():
                self._look_again(project_id)

    def _look_again(self, project_id: int) -> None:
        """A round may have been asked for, or cancelled, while the last was given back."""
        try:
            unfinished = any(item.project_id == project_id for item in self._service.ledger.unfinished())
        except SQLAlchemyError as error:
            log.warning("the ledger does not answer; it is asked again", project=project_id, error=str(error))
            unfinished = True
        if unfinished:
            self._again(project_id)

    def _run(self, project_id: int) -> None:
        if not any(item.project_id == project_id for item in self._service.ledger.unfinished()):
            return  # it was asked for twice, or another process has finished it
        patient = project_id in self._resumed and time.monotonic() < self._patient_until
        try:
            self._service.run(project_id, stop=self._stopping, patient=patient, dispatch=self._dispatch)
        except RoundBusyError:
            # Another process runs it, or was killed and holds the lock until that goes stale.
            log.info("another process has the round; it is looked at again", project=project_id)
        except LabelStudioUnreachableError as error:
            if not patient:
                raise
            log.warning("Label Studio does not answer yet", project=project_id, error=str(error))

    def _again(self, project_id: int) -> None:
        timer = threading.Timer(_RETRY_SECONDS, self._projects.put, [project_id])
        timer.daemon = True
        timer.start()


def _redis_dispatch(service: Service) -> Dispatch | None:
    url = service.settings.redis_url.get_secret_value()
    if not url:
        return None
    from a2lc_backend.jobs.redis_queue import RedisDispatch  # noqa: PLC0415

    return RedisDispatch(url, service.settings.job_seconds)
