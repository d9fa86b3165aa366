"""Rounds in the background: one thread in the process, which takes up what an earlier process left."""

from __future__ import annotations

import queue
import threading
import time

import structlog

from a2lc_backend.label_studio import LabelStudioError
from a2lc_backend.rounds.runner import LOCK_SECONDS, RoundBusyError, RoundFailedError
from a2lc_backend.service import Service
from a2lc_backend.store import Round

_RETRY_SECONDS = 2.0

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

    def start(self) -> None:
        """Start the thread with what was unfinished when the last process ended."""
        for record in self._service.ledger.unfinished():
            log.info("round taken up again", project=record.project_id, round=record.number)
            self._projects.put(record.project_id)
        self._thread.start()
        self.handle_events()

    def stop(self) -> None:
        """Ask the thread to end after the present round; a process that ends sooner loses nothing."""
        self._stopping.set()
        self._projects.put(None)

    @property
    def alive(self) -> bool:
        """Whether rounds that are begun will be run."""
        return self._thread.is_alive()

    def next_round(self, project_id: int, budget: int | None = None) -> Round:
        """Begin the next round of a project; a round that is being run is returned instead."""
        with self._begin:
            running = [item for item in self._service.ledger.rounds(project_id) if item.status == "running"]
            if running:
                return running[0]
            record = self._service.begin_round(project_id, budget)
        self._projects.put(project_id)
        return record

    def handle_events(self) -> None:
        """Act on persisted webhooks. All but Start Training are hints: `collect` asks Label Studio itself."""
        for action, project_id in self._service.ledger.take_events():
            if action == "START_TRAINING":
                self.next_round(project_id)

    def _work(self) -> None:
        while not self._stopping.is_set():
            project_id = self._projects.get()
            if project_id is None:
                return
            try:
                self._run(project_id)
            except (RoundFailedError, LabelStudioError, ValueError) as error:
                log.error("round failed", project=project_id, error=str(error))
            except Exception:  # the thread must outlive any round
                log.exception("round failed", project=project_id)

    def _run(self, project_id: int) -> None:
        # A process that was killed holds its lock until it goes stale.
        end = time.monotonic() + LOCK_SECONDS + _RETRY_SECONDS
        while True:
            try:
                self._service.run(project_id)
                return
            except RoundBusyError:
                if time.monotonic() > end:
                    raise RoundFailedError("another process runs it; it goes on there") from None
                if self._stopping.wait(_RETRY_SECONDS):
                    return
