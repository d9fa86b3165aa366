"""A thread that keeps a claim alive while its owner works, and knows when the work has to be given back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

import structlog
from sqlalchemy.exc import SQLAlchemyError

log = structlog.get_logger()


class RoundBusyError(RuntimeError):
    """Another process has the round, or the shard."""


class RoundStoppedError(RuntimeError):
    """The work is given back: this process ends, or somebody paused or cancelled the round."""


class Heartbeat:
    """Calls `beat` every so many seconds on a thread; used as a context manager.

    Args:
        beat: renews the claim; returns why the work has to be given back, None while it may go on.
        seconds: between two beats.
    """

    def __init__(self, beat: Callable[[], Exception | None], seconds: float) -> None:
        self._beat, self._seconds = beat, seconds
        self._ended = threading.Event()
        self._reason: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="a2lc-heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def check(self) -> None:
        """Raise what the last beat found, if the work has to be given back."""
        if self._reason is not None:
            raise self._reason

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            try:
                self._reason = self._beat()
            except SQLAlchemyError as error:
                log.warning("the ledger does not answer; it is asked again", error=str(error))
            if self._reason is not None:
                return
