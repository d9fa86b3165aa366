"""Hands the shards of a phase to workers, by RQ on Redis.

Redis only carries the jobs. Who does what, and what is done, stands in the ledger: a job that is lost is offered again,
one that comes twice finds its shard taken.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING

import structlog
from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.serializers import JSONSerializer

from a2lc_backend.rounds.heartbeat import is_gone
from a2lc_backend.rounds.phases import QUEUES
from a2lc_backend.rounds.shards import STALE_SECONDS
from a2lc_backend.store import ALIVE_SECONDS, Ledger, Shard

if TYPE_CHECKING:
    from a2lc_backend.rounds.context import Context
    from a2lc_backend.rounds.phases import PhaseKind, QueueName
    from a2lc_backend.rounds.runner import Report

WORK = "a2lc_backend.jobs.worker.work"
"""What a job calls in the worker."""

_POLL_SECONDS = 0.15
_OFFER_AGAIN_SECONDS = 3.0
_WARN_AGAIN_SECONDS = 30.0
_JOBS_A_WORKER = 4

log = structlog.get_logger()


def queue_name(queue: QueueName) -> str:
    """Name of a queue in Redis."""
    return f"a2lc-{queue}"


def open_redis(url: str) -> Redis:
    """A connection that is made when it is first used, and gives up on a server that does not answer."""
    return Redis.from_url(url, socket_connect_timeout=3, socket_timeout=30)


class RedisDispatch:
    """A `rounds.runner.Dispatch` that has shards done by workers.

    Args:
        url: address of Redis.
        job_seconds: longest time a shard may take.
    """

    def __init__(self, url: str, job_seconds: int) -> None:
        self._redis = open_redis(url)
        self._job_seconds = job_seconds

    def __call__(self, context: Context, kind: PhaseKind, report: Report) -> None:
        """See `Dispatch`."""
        offers = _Offers(self._redis, context, kind, self._job_seconds)
        while True:
            started = time.monotonic()
            shards = context.ledger.shards(context.project_id, context.number, kind.name)
            open_shards = [shard for shard in shards if shard.status in ("waiting", "running")]
            if not open_shards or any(shard.status == "failed" for shard in shards):
                return
            report(offers.make(open_shards))
            # A phase of very many shards is not asked for all of them all the time.
            time.sleep(max(_POLL_SECONDS, 5 * (time.monotonic() - started)))


class _Offers:
    """The jobs of one phase."""

    def __init__(self, redis: Redis, context: Context, kind: PhaseKind, job_seconds: int) -> None:
        self._context, self._kind = context, kind
        self._queue = Queue(queue_name(kind.queue), connection=redis, serializer=JSONSerializer)
        self._job_seconds = job_seconds
        self._offered: dict[int, float] = {}
        self._warned = -_WARN_AGAIN_SECONDS
        self._prefix = f"a2lc-{context.project_id}-{context.number}-{kind.name}-"

    def make(self, shards: list[Shard]) -> str:
        """Offer the shards that nobody works on; returns what hinders that, "" for nothing."""
        workers = listening(self._context.ledger).get(self._queue.name, 0)
        if not workers:
            return f"no worker listens on {self._queue.name}; start one with: a2lc worker --queues {self._queue.name}"
        now = time.time()
        for shard in shards:
            if shard.status == "running" and is_gone(shard.owner):
                self._context.ledger.free_shard(shard)
        free = [shard for shard in shards if shard.status == "waiting" or shard.beat <= now - STALE_SECONDS]
        try:
            queued = self._queued()
            for shard in free:
                if len(queued) >= _JOBS_A_WORKER * workers:
                    break
                last = self._offered.get(shard.index, 0.0)
                if shard.index not in queued and time.monotonic() - last > _OFFER_AGAIN_SECONDS:
                    self._offer(shard.index)
                    queued.add(shard.index)
        except RedisError as error:
            if time.monotonic() - self._warned > _WARN_AGAIN_SECONDS:
                self._warned = time.monotonic()
                log.warning("Redis does not answer; it is asked again", error=str(error))
            return f"Redis does not answer ({type(error).__name__}); see that it runs at A2LC_REDIS_URL"
        return ""

    def _queued(self) -> set[int]:
        jobs = [name for name in self._queue.get_job_ids() if name.startswith(self._prefix)]
        return {int(name.removeprefix(self._prefix).split("-")[0]) for name in jobs}

    def _offer(self, index: int) -> None:
        self._queue.enqueue_call(
            WORK,
            args=(self._context.project_id, self._context.number, self._kind.name, index),
            timeout=self._job_seconds, result_ttl=0, failure_ttl=3600,
            job_id=f"{self._prefix}{index}-{uuid.uuid4().hex[:8]}",
        )  # fmt: skip
        self._offered[index] = time.monotonic()


def listening(ledger: Ledger) -> Counter[str]:
    """How many live workers listen on each queue, by its name in Redis."""
    return Counter(queue for worker in ledger.workers(ALIVE_SECONDS) for queue in worker.queues)


def missing_workers(ledger: Ledger) -> str:
    """Which queues have no live worker, with the command that starts one; "" if all have."""
    there = listening(ledger)
    missing = [queue_name(name) for name in QUEUES if not there[queue_name(name)]]
    if not missing:
        return ""
    return f"no worker listens on {' and '.join(missing)}; start one with: a2lc worker --queues {','.join(missing)}"
