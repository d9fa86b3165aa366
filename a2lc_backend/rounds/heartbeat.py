"""Claims: who owns a lock or a shard, and a thread that keeps a claim alive while its owner works."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import structlog

from a2lc_backend.store import Ledger

_LOCK_SECONDS = 30.0
_RENEWAL_SECONDS = 5.0

log = structlog.get_logger()


class RoundBusyError(RuntimeError):
    """Another process has the round, or the shard."""


class RoundStoppedError(RuntimeError):
    """The work is given back: this process ends, or somebody paused or cancelled the round."""


def own_name() -> str:
    """A name for this process as an owner of locks and shards; see `is_gone`."""
    return f"{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def is_here(owner: str) -> bool:
    """Whether an owner is a process of this machine."""
    return owner.startswith(f"{_host()}-")


def is_gone(owner: str) -> bool:
    """Whether an owner is a process of this machine that has ended.

    Of another machine's processes nothing can be said but by their silence.
    """
    host, _, rest = owner.rpartition("-")[0].rpartition("-")
    if host != _host() or not rest.isdecimal():
        return False
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def _host() -> str:
    """This machine, or this container: process ids mean the same within it only."""
    space = Path("/proc/self/ns/pid")
    number = space.stat().st_ino if space.exists() else 0
    return (
        hashlib.sha256(f"{socket.gethostname()} {number}".encode()).hexdigest()[:12] + "." + socket.gethostname()[:20]
    )


def take_lock(ledger: Ledger, project_id: int, owner: str) -> bool:
    """Take or renew the lock of a project; that of a process which has ended, or is silent for 30 s, is free."""
    holder = ledger.lock_owner(project_id)
    if holder and holder != owner and is_gone(holder):
        ledger.release_lock(project_id, holder)
    return ledger.take_lock(project_id, owner, _LOCK_SECONDS)


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
                self._reason = self._beat() or self._reason  # the claim is kept until the work has been given back
            except Exception as error:  # what keeps a claim alive must outlive a ledger that is away
                log.warning("a claim could not be renewed; it is tried again", error=str(error))


@contextmanager
def held_lock(ledger: Ledger, project_id: int, owner: str) -> Iterator[Callable[[], None]]:
    """Hold the lock of a project while something short is done to it outside a round.

    Args:
        ledger: keeps the lock.
        project_id: of the project.
        owner: of the lock.

    Yields:
        A check to call now and then; it raises RoundBusyError once another process has taken the lock over.

    Raises:
        RoundBusyError: if another process has the project.
    """

    def renew() -> Exception | None:
        if take_lock(ledger, project_id, owner):
            return None
        return RoundBusyError(f"a round of project {project_id} is being run by another process; wait for its end")

    busy = renew()
    if busy is not None:
        raise busy
    try:
        with Heartbeat(renew, _RENEWAL_SECONDS) as heart:
            yield heart.check
    finally:
        ledger.release_lock(project_id, owner)
