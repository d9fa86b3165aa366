"""Dry runs of the next round, on threads of the web server; one that is cut off is gone, and is asked for again."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import Literal

import structlog

from a2lc_backend.actions import preview
from a2lc_backend.foundation import FoundationError
from a2lc_backend.jobs.background import Jobs, NotPossibleError
from a2lc_backend.rounds.heartbeat import RoundBusyError
from a2lc_backend.rounds.platform import PlatformError
from a2lc_backend.rounds.preview import Preview, Tell
from a2lc_backend.service import Service
from a2lc_backend.settings import SettingsError
from a2lc_backend.store import ArtifactError

_BUSY_SECONDS = 20.0
_AGAIN_SECONDS = 0.5
_LOOK_SECONDS = 0.5

log = structlog.get_logger()


@dataclass(frozen=True)
class PreviewState:
    """How far a dry run is.

    Attributes:
        status: `none` was asked for.
        phase: what is being done: `answers` are taken over, `masks` that people edited are read, the
            `corrector` learns.
        done: units of the phase.
        total: units there are; 0 while they are not known.
        eta: seconds left of the phase, 0 while that is not known.
        error: why it failed, with the mend.
        result: what was found.
    """

    status: Literal["none", "running", "done", "failed"]
    phase: str = ""
    done: int = 0
    total: int = 0
    eta: float = 0.0
    error: str = ""
    result: Preview | None = None


class _OvertakenError(RuntimeError):
    """A round was begun meanwhile."""


class Previews:
    """Runs dry runs, one a project at a time, and keeps the last of each.

    Args:
        service: of the installation.
        jobs: knows whether a round is unfinished.
    """

    def __init__(self, service: Service, jobs: Jobs) -> None:
        self._service, self._jobs = service, jobs
        self._states: dict[int, PreviewState] = {}
        self._lock = threading.Lock()

    def state(self, project_id: int) -> PreviewState:
        """How far the dry run of a project is, or what it found; it is forgotten once a round has begun since."""
        found = self._states.get(project_id, PreviewState("none"))
        if found.result is not None and self._newest(project_id) >= found.result.round:
            return PreviewState("none")
        return found

    def start(self, project_id: int) -> PreviewState:
        """Begin a dry run, unless one is running.

        Raises:
            NotPossibleError: while a round is unfinished, or before there are masks.
        """
        self._jobs.see_ended(project_id)
        if self._service.ledger.last_done(project_id) is None:
            raise NotPossibleError(
                f"project {project_id} has no masks yet, so that nothing can be previewed; begin round 0"
            )
        with self._lock:
            found = self._states.get(project_id)
            if found is None or found.status != "running":
                self._states[project_id] = found = PreviewState("running", "answers")
                threading.Thread(
                    target=self._run, args=[project_id], name=f"a2lc-preview-{project_id}", daemon=True
                ).start()
        return found

    def _run(self, project_id: int) -> None:
        newest, looked = self._newest(project_id), time.monotonic()
        begun: dict[str, float] = {}

        def tell(phase: str, done: int, total: int) -> None:
            nonlocal looked
            now = time.monotonic()
            if now - looked > _LOOK_SECONDS:
                looked = now
                if self._newest(project_id) != newest:
                    raise _OvertakenError("a round was begun meanwhile; its report says what it changes")
            eta = (now - begun.setdefault(phase, now)) / done * (total - done) if done else 0.0
            self._states[project_id] = PreviewState("running", phase, done, total, eta)

        try:
            result = self._patiently(project_id, tell)
            self._states[project_id] = PreviewState("done", result=result)
        except (PlatformError, SettingsError, ArtifactError, FoundationError, RoundBusyError, _OvertakenError) as error:
            self._fail(project_id, str(error))
        except Exception as error:  # a state of "running" that nobody runs would wait for ever
            log.exception("dry run failed", project=project_id)
            self._fail(project_id, f"{type(error).__name__}: {error}; the log of the backend has more")

    def _patiently(self, project_id: int, tell: Tell) -> Preview:
        """A look at Label Studio, or the end of a round, may hold the project for a moment."""
        end = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                return preview(self._service, project_id, tell)
            except RoundBusyError:
                if time.monotonic() > end:
                    raise
                time.sleep(_AGAIN_SECONDS)

    def _fail(self, project_id: int, error: str) -> None:
        self._states[project_id] = replace(self._states[project_id], status="failed", error=error)

    def _newest(self, project_id: int) -> int:
        return max((item.number for item in self._service.ledger.rounds(project_id)), default=-1)
