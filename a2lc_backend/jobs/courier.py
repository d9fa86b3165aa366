"""Brings answers of the review page to Label Studio, and hears there what was answered in Label Studio's own page."""

from __future__ import annotations

import threading
import time

import structlog

from a2lc_backend.label_studio import deliver_answers, hear_answers
from a2lc_backend.rounds.platform import PlatformError
from a2lc_backend.service import Service

_HEAR_SECONDS = 10.0
_IN_USE_SECONDS = 120.0
"""How long after the last question Label Studio's own page is listened to."""

_FIRST_RETRY, _LONGEST_RETRY = 1.0, 30.0
_REFUSED_SECONDS = 60.0
"""Until an answer that Label Studio refused is tried again; the others do not wait for it."""

log = structlog.get_logger()


class Courier:
    """A thread between the ledger and Label Studio. Answers wait in the ledger, whoever of the two is killed or away.

    Args:
        service: knows both.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._wanted, self._stopping = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._used: dict[int, float] = {}
        self._heard: dict[int, tuple[float, str]] = {}
        self._retry: dict[int, tuple[float, float]] = {}
        self._refused: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name="a2lc-courier", daemon=True)

    def start(self) -> None:
        """Start the thread, with what the last process had not brought."""
        self._wanted.set()
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what it has not brought stays in the ledger."""
        self._stopping.set()
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def wake(self) -> None:
        """There are answers to bring."""
        self._wanted.set()

    def use(self, project_id: int) -> None:
        """Somebody reviews a project; whether its second project has not been listened to for a while."""
        with self._lock:
            new = time.monotonic() - self._used.get(project_id, -_IN_USE_SECONDS) >= _IN_USE_SECONDS
            self._used[project_id] = time.monotonic()
        if new:
            self._wanted.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wanted.wait(self._pause())
            self._wanted.clear()
            if self._stopping.is_set():
                return
            try:
                for project_id in self._service.ledger.projects_with_unsent_answers():
                    self._deliver(project_id)
                for project_id in self._listening():
                    self._hear(project_id)
            except Exception:  # the thread must outlive any answer
                log.exception("answers could not be brought; they are kept")
                self._stopping.wait(_FIRST_RETRY)

    def _pause(self) -> float | None:
        """Seconds until something may have to be done; None for when there is nothing."""
        now = time.monotonic()
        waits = [moment - now for moment in (*(moment for moment, _ in self._retry.values()), *self._refused.values())]
        waits += [self._heard.get(project_id, (now, ""))[0] + _HEAR_SECONDS - now for project_id in self._in_use()]
        return max(min(waits), 0.05) if waits else None

    def _in_use(self) -> list[int]:
        now = time.monotonic()
        with self._lock:
            return [project_id for project_id, used in self._used.items() if now - used < _IN_USE_SECONDS]

    def _listening(self) -> list[int]:
        now = time.monotonic()
        due = [item for item in self._in_use() if now - self._heard.get(item, (-_HEAR_SECONDS, ""))[0] >= _HEAR_SECONDS]
        return [project_id for project_id in due if not self._stopping.is_set()]

    def _deliver(self, project_id: int) -> None:
        moment, pause = self._retry.get(project_id, (0.0, _FIRST_RETRY / 2))
        now = time.monotonic()
        if now < moment:
            return
        self._refused = {answer: until for answer, until in self._refused.items() if until > now}
        try:
            refused = deliver_answers(
                self._service.ledger, self._service.platform(project_id), project_id, self._refused.keys()
            )
        except PlatformError as error:
            pause = min(2 * pause, _LONGEST_RETRY)
            log.warning("answers wait for Label Studio", project=project_id, error=str(error), again_in=pause)
            self._retry[project_id] = (time.monotonic() + pause, pause)
            return
        self._retry.pop(project_id, None)
        self._refused |= dict.fromkeys(refused, time.monotonic() + _REFUSED_SECONDS)

    def _hear(self, project_id: int) -> None:
        since = self._heard.get(project_id, (0.0, ""))[1]
        try:
            since = hear_answers(self._service.ledger, self._service.platform(project_id), project_id, since)
        except PlatformError as error:
            log.info("Label Studio's own answers are not heard", project=project_id, error=str(error))
        self._heard[project_id] = (time.monotonic(), since)
