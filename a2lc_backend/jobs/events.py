"""Acts on persisted webhooks, and on the number of corrections that a project waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from a2lc_backend.label_studio import LabelStudioUnreachableError
from a2lc_backend.proposals import ProposalError
from a2lc_backend.rounds.heartbeat import RoundBusyError
from a2lc_backend.rounds.platform import PlatformError
from a2lc_backend.service import Service
from a2lc_backend.settings import SettingsError
from a2lc_backend.store import ArtifactError

_GATHER_SECONDS = 1.0
"""Webhooks that come within so long are looked at together."""

_AGAIN_SECONDS = 5.0
_POLL_SECONDS = 60.0
"""Label Studio does not send a webhook twice, so projects that wait for corrections are looked at now and then."""

log = structlog.get_logger()


class Events:
    """A thread that looks at Label Studio when a webhook says that something happened there.

    A webhook is a hint and proves nothing: it may be lost, doubled, late or forged. Start Training begins a round only
    if Label Studio holds something that no round has begun with yet, or the last one failed.

    Args:
        service: does the work.
        begin: begins the next round of a project.
    """

    def __init__(self, service: Service, begin: Callable[[int], None]) -> None:
        self._service, self._begin = service, begin
        self._wanted, self._stopping = threading.Event(), threading.Event()
        self._waiting: set[int] = set()
        self._later: set[int] = set()
        self._thread = threading.Thread(target=self._run, name="a2lc-events", daemon=True)

    def start(self) -> None:
        """Start the thread with the webhooks that the last process had not acted on."""
        self._waiting = {project.id for project in self._service.ledger.projects()}
        self._wanted.set()
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what it has not acted on is left to the next process."""
        self._stopping.set()
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join(_GATHER_SECONDS)  # what it looks at is looked at again by the next process

    def wake(self) -> None:
        """Look at the persisted webhooks soon."""
        self._wanted.set()

    def _run(self) -> None:
        next_poll = time.monotonic() + _POLL_SECONDS
        while True:
            heard = self._wanted.wait(_AGAIN_SECONDS if self._later else max(next_poll - time.monotonic(), 0.0))
            if self._stopping.is_set():
                return
            if heard:
                self._stopping.wait(_GATHER_SECONDS)
                self._wanted.clear()
            polls = time.monotonic() >= next_poll  # also while the webhooks of a busy project keep coming
            if polls:
                next_poll = time.monotonic() + _POLL_SECONDS
            try:
                self._handle(self._waiting if polls else set())
            except Exception:  # the thread must outlive any event
                log.exception("webhooks could not be handled; they are kept")

    def _handle(self, projects: set[int]) -> None:
        events = self._service.ledger.open_events()
        training = {event.project_id for event in events if event.action == "START_TRAINING"}
        for project_id in sorted(projects | {event.project_id for event in events}):
            if self._stopping.is_set():
                return
            known = project_id in training or self._service.ledger.project(project_id) is not None
            if known and not self._settle(project_id, project_id in training):
                self._later.add(project_id)  # its webhooks are kept until Label Studio can be looked at
                continue
            self._later.discard(project_id)
            mine = [event.id for event in events if event.project_id == project_id]
            self._service.ledger.close_events(mine)

    def _settle(self, project_id: int, training: bool) -> bool:
        """Look at a project and begin a round if it is time; False if that has to be tried again."""
        try:
            found = self._service.look(project_id, training)
            if found is None:
                return True  # a round is unfinished: it collects by itself, or a person decides
            (self._waiting.add if found.wanted else self._waiting.discard)(project_id)
            if training and found.new:
                self._begin(project_id)
            elif training:
                log.info("Start Training: nothing new since the last round", project=project_id)
            elif found.wanted and found.answers >= found.wanted:
                log.info("enough masks are corrected", project=project_id, answers=found.answers)
                self._begin(project_id)
        except LabelStudioUnreachableError as error:
            log.warning("Label Studio does not answer; it is looked at again", project=project_id, error=str(error))
            return False
        except RoundBusyError:
            return False  # another process has the project for a moment
        except (PlatformError, SettingsError, ArtifactError, ProposalError) as error:
            log.error("nothing is begun", project=project_id, error=str(error))
        except Exception:  # another project's webhooks do not wait for this one
            log.exception("a project could not be looked at; its webhooks are kept", project=project_id)
            return False
        return True
