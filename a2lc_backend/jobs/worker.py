"""`a2lc worker`: works on shards, with its models kept warm, until it is told to end."""

from __future__ import annotations

import faulthandler
import math
import os
import signal
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from contextvars import ContextVar
from types import FrameType
from typing import Any

import structlog
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker
from rq.exceptions import StopRequested
from rq.serializers import JSONSerializer
from rq.timeouts import UnixSignalDeathPenalty

from a2lc_backend.jobs.redis_queue import open_redis
from a2lc_backend.rounds.context import Context
from a2lc_backend.rounds.heartbeat import Heartbeat, RoundBusyError, RoundStoppedError, own_name
from a2lc_backend.rounds.phases import PHASES
from a2lc_backend.rounds.platform import PlatformError
from a2lc_backend.rounds.shards import STALE_SECONDS, work_shard
from a2lc_backend.service import Service
from a2lc_backend.settings import Settings
from a2lc_backend.store import ALIVE_SECONDS, ArtifactError, Worker

_BEAT_SECONDS = 3.0
_REDIS_AGAIN_SECONDS = 2.0
_CONTEXTS = 2
"""Rounds whose models a worker keeps; more would only fill its memory."""

_FORGET_SECONDS = 86_400.0
_GRACE_SECONDS = 30.0
"""A shard that does not end at its time limit hangs where Python cannot interrupt it; its worker ends so much later."""

_HUNG = 70
_ALARM_AGAIN_SECONDS = 5.0

log = structlog.get_logger()


_TOO_LONG = "a shard took longer than A2LC_JOB_SECONDS; set it higher, then start the round again"


class TimeLimitError(PlatformError):
    """A shard took longer than it may."""


class Workshop:
    """What a worker has at hand: its name, the store, and the rounds it has worked on lately.

    Args:
        service: of the installation.
        queues: names in Redis it listens on.
    """

    def __init__(self, service: Service, queues: Sequence[str]) -> None:
        self.service = service
        self.name = own_name()
        self.stopping = threading.Event()
        self._latest_end = math.inf
        self._queues = tuple(queues)
        self._started = time.time()
        self._doing = ""
        self._contexts: OrderedDict[tuple[int, int, float], Context] = OrderedDict()

    def beat(self) -> None:
        """Say in the ledger that this worker lives; end it if it hangs."""
        if time.monotonic() > self._latest_end:
            self._end_hung()
        self.service.ledger.beat_worker(Worker(self.name, self._queues, self._started, time.time(), self._doing))

    def limit(self, seconds: float) -> None:
        """Let the next shard take so long at most."""
        self._latest_end = time.monotonic() + seconds + _GRACE_SECONDS

    def free(self) -> None:
        """Nothing is being worked on."""
        self._latest_end = math.inf

    def _end_hung(self) -> None:
        log.error("the shard hangs; the worker ends", worker=self.name, doing=self._doing)
        faulthandler.dump_traceback()
        try:
            for shard in self.service.ledger.open_shards():
                if shard.owner == self.name:
                    self.service.ledger.end_shard(shard, f"worker {self.name} hung: {_TOO_LONG}")
            self.service.ledger.end_worker(self.name)
        finally:
            os._exit(_HUNG)

    def work(self, project_id: int, number: int, phase: str, index: int) -> None:
        """Do a shard, unless it is another's or its round does not go on."""
        kind = next(kind for kind in PHASES if kind.name == phase)
        self._doing = f"project {project_id}, round {number}, {phase} {index}"
        try:
            context = self._context(project_id, number)
            if context is None:
                return
            if work_shard(context, kind, index, self.name, STALE_SECONDS, self.stopping) == "failed":
                self._contexts.clear()  # what was read of Label Studio may be what has to be mended
        except (RoundStoppedError, RoundBusyError) as error:
            log.info("shard is not finished here", project=project_id, round=number, phase=phase, reason=str(error))
        except (PlatformError, ArtifactError, ValueError) as error:
            # This worker cannot even begin: it lacks a setting, or Label Studio refuses it.
            ledger = self.service.ledger
            shard = ledger.claim_shard(project_id, number, phase, index, self.name, STALE_SECONDS)
            if shard is not None:
                ledger.end_shard(shard, f"worker {self.name}: {error}")
        finally:
            self._doing = ""

    def _context(self, project_id: int, number: int) -> Context | None:
        """The round with what was loaded for it before; None if it does not go on."""
        record = self.service.ledger.round(project_id, number)
        if record is None or record.status != "running":
            return None
        trained = next(
            (item.ended for item in self.service.ledger.phases(project_id, number) if item.name == "train"), 0.0
        )
        key = (project_id, number, trained)  # a round may be trained again, and what was loaded for it is old then
        if key not in self._contexts:
            while len(self._contexts) >= _CONTEXTS:
                self._contexts.popitem(last=False)
            self._contexts[key] = self.service.context(record)
        self._contexts.move_to_end(key)
        return self._contexts[key]


_workshop: ContextVar[Workshop] = ContextVar("workshop")


def work(project_id: int, number: int, phase: str, index: int) -> None:
    """What a job calls: do one shard in the worker's own process."""
    _workshop.get().work(project_id, number, phase, index)


class _TimeLimit(UnixSignalDeathPenalty):
    """Ends a shard at its time limit, and tries again: what is raised in a destructor, Python swallows."""

    def setup_death_penalty(self) -> None:
        signal.signal(signal.SIGALRM, self.handle_death_penalty)
        signal.setitimer(signal.ITIMER_REAL, self._timeout, _ALARM_AGAIN_SECONDS)

    def handle_death_penalty(self, signum: int, frame: FrameType | None) -> None:
        raise TimeLimitError(f"{_TOO_LONG} ({self._timeout} s)")


class _ShardWorker(SimpleWorker):
    """RQ's worker without fork (CUDA does not survive one), which gives its shard back when it is told to end."""

    death_penalty_class = _TimeLimit
    max_connection_wait_time = 5.0
    workshop: Workshop

    def execute_job(self, job: Any, queue: Any) -> None:
        self._busy = True
        self.workshop.limit(job.timeout)
        try:
            super().execute_job(job, queue)
        finally:
            self.workshop.free()
            self._busy = False

    def check_for_suspension(self, burst: bool) -> None:
        if self.workshop.stopping.is_set():  # the signal came before RQ listened to it
            raise StopRequested
        super().check_for_suspension(burst)

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        self.workshop.stopping.set()
        self._stop_requested = True
        if not getattr(self, "_busy", False):
            raise StopRequested


def run_worker(settings: Settings, queues: Sequence[str]) -> None:
    """Work on shards until SIGTERM or SIGINT.

    Args:
        settings: of the installation; `redis_url` is set.
        queues: names in Redis to listen on.
    """
    service = Service(settings)
    workshop = Workshop(service, queues)
    _workshop.set(workshop)
    service.ledger.forget_workers(_FORGET_SECONDS)
    workshop.beat()
    log.info("worker is ready", worker=workshop.name, queues=" ".join(queues))

    try:
        with Heartbeat(workshop.beat, _BEAT_SECONDS):
            while not workshop.stopping.is_set():
                _listen(settings, workshop, queues)
    finally:
        service.ledger.end_worker(workshop.name)
        service.close()
        log.info("worker has ended", worker=workshop.name)


def _listen(settings: Settings, workshop: Workshop, queues: Sequence[str]) -> None:
    """Work on jobs until told to end, or until Redis is lost; then wait a little."""
    _stop_on_signals(workshop)
    redis = open_redis(settings.redis_url.get_secret_value())
    try:
        redis.ping()
        worker = _ShardWorker(
            [Queue(name, connection=redis, serializer=JSONSerializer) for name in queues],
            name=f"{workshop.name}-{uuid.uuid4().hex[:4]}", connection=redis, serializer=JSONSerializer,
            worker_ttl=int(2 * ALIVE_SECONDS), log_job_description=False,
        )  # fmt: skip
        worker.workshop = workshop
        worker.work(logging_level="WARNING")
    except RedisError as error:
        log.warning("Redis does not answer; it is tried again", error=str(error))
    finally:
        _stop_on_signals(workshop)
        redis.close()
    workshop.stopping.wait(_REDIS_AGAIN_SECONDS)


def _stop_on_signals(workshop: Workshop) -> None:
    """Listen to SIGTERM and SIGINT while RQ does not."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: workshop.stopping.set())
