"""Rounds in the background: one thread in the process, which takes up what an earlier process left."""

from __future__ import annotations

import queue
import threading
import time

import structlog

from a2lc_backend.label_studio import LabelStudioError, LabelStudioUnreachableError
from a2lc_backend.rounds.runner import RoundBusyError, RoundFailedError, RoundStoppedError
from a2lc_backend.service import Service
from a2lc_backend.store import Round

_RETRY_SECONDS = 2.0
_STOP_SECONDS = 20.0
_PATIENCE_SECONDS = 300.0
"""How long after its start the program, with rounds to take up, waits for a Label Studio that starts more slowly."""

log = structlog.get_logger()


class ThreadJobs:
    """Runs the rounds of all projects one after another on a thread.

    Args:
        service: does the work.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._projects: queue.Queue[int | None] = queue.Queue()
        self._begin = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="a2lc-rounds", daemon=True)
        self._stopping = threading.Event()
        self._resumed: set[int] = set()
        self._patient_until = 0.0

    def start(self) -> None:
        """Start the thread with what was unfinished when the last process ended."""
        self._patient_until = time.monotonic() + _PATIENCE_SECONDS
        for record in self._service.ledger.unfinished():
            log.info("round taken up again", project=record.project_id, round=record.number)
            self._resumed.add(record.project_id)
            self._projects.put(record.project_id)
        self._thread.start()
        self.handle_events()

    def stop(self) -> bool:
        """Give the present round back, to be taken up by the next process; whether the thread has ended."""
        self._stopping.set()
        self._projects.put(None)
        self._thread.join(_STOP_SECONDS)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether rounds that are begun will be run."""
        return self._thread.is_alive()

    def next_round(self, project_id: int, budget: int | None = None) -> Round:
        """Begin the next round of a project; a round that is unfinished is returned instead, and run if nobody does."""
        with self._begin:
            running = [item for item in self._service.ledger.rounds(project_id) if item.status == "running"]
            record = running[0] if running else self._service.begin_round(project_id, budget)
        self._projects.put(project_id)
        return record

    def handle_events(self) -> None:
        """Act on persisted webhooks. All but Start Training are hints: `collect` asks Label Studio itself."""
        for event in self._service.ledger.open_events():
            if event.action == "START_TRAINING":
                self.next_round(event.project_id)
            self._service.ledger.close_event(event.id)

    def _work(self) -> None:
        while not self._stopping.is_set():
            project_id = self._projects.get()
            if project_id is None:
                return
            try:
                self._run(project_id)
            except RoundStoppedError:
                return
            except (RoundFailedError, LabelStudioError, ValueError) as error:
                log.error("round failed", project=project_id, error=str(error))
            except Exception:  # the thread must outlive any round
                log.exception("round failed", project=project_id)

    def _run(self, project_id: int) -> None:
        if not any(item.status == "running" for item in self._service.ledger.rounds(project_id)):
            return  # it was asked for twice, or another process has finished it
        patient = project_id in self._resumed and time.monotonic() < self._patient_until
        try:
            self._service.run(project_id, stop=self._stopping, patient=patient)
        except RoundBusyError:
            # Another process runs it, or was killed and holds the lock until that goes stale.
            self._again(project_id)
        except LabelStudioUnreachableError as error:
            if not patient:
                raise
            log.warning("Label Studio does not answer yet", project=project_id, error=str(error))
            self._again(project_id)

    def _again(self, project_id: int) -> None:
        timer = threading.Timer(_RETRY_SECONDS, self._projects.put, [project_id])
        timer.daemon = True
        timer.start()
