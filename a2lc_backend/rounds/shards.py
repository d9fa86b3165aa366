"""Does one shard of a phase, in whatever process it was handed to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Literal

import structlog

from a2lc_backend.rounds.context import Context
from a2lc_backend.rounds.heartbeat import Heartbeat, RoundBusyError, RoundStoppedError
from a2lc_backend.rounds.phases import PhaseKind
from a2lc_backend.rounds.platform import PlatformError
from a2lc_backend.store import ArtifactError, Shard

STALE_SECONDS = 12.0
"""A shard whose owner has been silent for so long is another's to take."""

_BEAT_SECONDS = 1.0
_PROGRESS_SECONDS = 0.3
_ATTEMPTS = 8

Outcome = Literal["done", "failed", "taken"]

log = structlog.get_logger()


def work_shard(
    context: Context,
    kind: PhaseKind,
    index: int,
    owner: str,
    stale_after: float,
    stop: threading.Event | None = None,
    report: Callable[[str], None] | None = None,
) -> Outcome:
    """Claim a shard, do it, and write down how that ended.

    Args:
        context: of the round.
        kind: the phase.
        index: of the shard.
        owner: names this process.
        stale_after: seconds after which a silent owner's claim is free.
        stop: gives the shard back at its next progress when set.
        report: called after progress is written; may raise what `Progress` may.

    Returns:
        `done`, `failed`, as the ledger says then too, or `taken`: it is another's, or was done before.

    Raises:
        RoundStoppedError: if the shard was given back.
        RoundBusyError: if another process took it over.
    """
    ledger = context.ledger
    shard = ledger.claim_shard(context.project_id, context.number, kind.name, index, owner, stale_after)
    if shard is None:
        return "taken"
    logger = log.bind(project=context.project_id, round=context.number, phase=kind.name, shard=index)
    if shard.attempts > _ATTEMPTS:
        ledger.end_shard(
            shard,
            f"shard {index} was begun {_ATTEMPTS} times and never finished: its process was killed each time; see "
            "whether the machine ran out of memory, then start the round again",
        )
        return "failed"
    work = _Work(context, shard, stop, report)
    try:
        with Heartbeat(work.beat, _BEAT_SECONDS) as heart:
            work.check = heart.check
            kind.work(context, shard.items, work.progress)
    except RoundStoppedError:
        ledger.give_back_shard(shard)
        logger.info("shard is given back")
        raise
    except RoundBusyError:
        logger.warning("another process took the shard over")
        raise
    except Exception as error:
        expected = isinstance(error, PlatformError | ArtifactError | ValueError)
        message = str(error) if expected else f"{type(error).__name__}: {error}"
        ledger.end_shard(shard, message or type(error).__name__)
        logger.error("shard failed", error=message, exc_info=not expected)
        return "failed"
    return "done" if ledger.end_shard(shard) else "taken"


class _Work:
    """What a shard's owner says of it while it works."""

    def __init__(
        self, context: Context, shard: Shard, stop: threading.Event | None, report: Callable[[str], None] | None
    ) -> None:
        self._context, self._shard, self._stop, self._report = context, shard, stop, report
        self._done, self._total = 0, shard.total
        self._written = 0.0
        self.check: Callable[[], None] = lambda: None

    def beat(self) -> Exception | None:
        """Renew the claim."""
        if not self._context.ledger.renew_shard(self._shard, self._done, self._total):
            return RoundBusyError(f"another process took over shard {self._shard.index} of {self._shard.phase}")
        status = self._context.current().status
        return None if status == "running" else RoundStoppedError(f"round {self._shard.round} is {status}")

    def progress(self, done: int, total: int) -> None:
        """See `Progress`."""
        if self._stop is not None and self._stop.is_set():
            raise RoundStoppedError(f"round {self._shard.round} is given back")
        self.check()
        self._done, self._total = done, total
        if time.monotonic() - self._written >= _PROGRESS_SECONDS:
            self._written = time.monotonic()
            self._context.ledger.renew_shard(self._shard, done, total)
            if self._report:
                self._report("")
