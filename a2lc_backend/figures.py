"""Figures for Prometheus: of this process, and of all rounds as the ledger has them."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from a2lc_backend.rounds.phases import QUEUES
from a2lc_backend.service import Service
from a2lc_backend.store import ALIVE_SECONDS, Project


class Figures:
    """Requests are counted as they are answered; the rest is read from the ledger when it is asked for.

    Args:
        service: whose ledger is read.
    """

    def __init__(self, service: Service) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter("a2lc_requests_total", "Requests answered", ["endpoint"], registry=self._registry)
        self.seconds = Histogram("a2lc_request_seconds", "Time to answer", ["endpoint"], registry=self._registry)
        self._registry.register(_FromLedger(service))

    def render(self) -> bytes:
        """The figures in Prometheus' text format."""
        return generate_latest(self._registry)


class _FromLedger(Collector):
    """What the ledger says at this moment; a project that is gone leaves no figure behind."""

    def __init__(self, service: Service) -> None:
        self._ledger = service.ledger

    def describe(self) -> list[Metric]:
        """Nothing is known before the ledger is asked."""
        return []

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        found = {
            "rounds": GaugeMetricFamily("a2lc_rounds", "Rounds of a project", labels=["project", "status"]),
            "queue": GaugeMetricFamily("a2lc_queued_masks", "Masks in the review queue", labels=["project"]),
            "human": GaugeMetricFamily("a2lc_human_corrections", "Answers of people that stand", labels=["project"]),
            "auto": GaugeMetricFamily("a2lc_auto_corrections", "Labels the last round changed", labels=["project"]),
            "phase": GaugeMetricFamily(
                "a2lc_phase_seconds", "Duration of the last round's phases", labels=["project", "phase"]
            ),
            "right": GaugeMetricFamily(
                "a2lc_audit_right_share", "Share right of the corrector's audited labels", labels=["project"]
            ),
            "audited": GaugeMetricFamily("a2lc_audited_masks", "Audited labels answered", labels=["project"]),
            "wrong": GaugeMetricFamily("a2lc_still_wrong_masks", "Masks estimated to be wrong", labels=["project"]),
            "refused": GaugeMetricFamily(
                "a2lc_refused_writes", "Predictions of the last round that Label Studio refused", labels=["project"]
            ),
        }
        for project in self._ledger.projects():
            self._of_project(project, found)
        yield from found.values()
        jobs = GaugeMetricFamily("a2lc_jobs", "Shards to do in running rounds", labels=["project", "phase", "status"])
        running = {(item.project_id, item.number) for item in self._ledger.unfinished() if item.status == "running"}
        waiting = Counts(
            (str(shard.project_id), shard.phase, shard.status)
            for shard in self._ledger.open_shards() if (shard.project_id, shard.round) in running
        )  # fmt: skip
        for key, count in waiting.items():
            jobs.add_metric(key, count)
        yield jobs
        workers = GaugeMetricFamily("a2lc_workers", "Live workers that listen on a queue", labels=["queue"])
        alive = Counts(queue for worker in self._ledger.workers(ALIVE_SECONDS) for queue in worker.queues)
        for queue in (f"a2lc-{name}" for name in QUEUES):
            workers.add_metric([queue], alive[queue])
        yield workers

    def _of_project(self, project: Project, found: dict[str, GaugeMetricFamily]) -> None:
        ledger, key = self._ledger, [str(project.id)]
        statuses = Counts(record.status for record in ledger.rounds(project.id))
        for status in ("running", "paused", "cancelling", "cancelled", "done", "failed"):
            found["rounds"].add_metric([*key, status], statuses[status])
        found["human"].add_metric(key, ledger.count_corrections(project.id))
        last = ledger.last_done(project.id)
        if last is None:
            return
        found["queue"].add_metric(key, last.summary.get("queued", 0.0))
        found["auto"].add_metric(key, last.summary.get("changed_by_corrector", 0.0))
        problems = ledger.problems(project.id, last.number)
        found["refused"].add_metric(key, sum(problem.phase == "publish" for problem in problems))
        if "still_wrong" in last.summary:
            found["wrong"].add_metric(key, last.summary["still_wrong"])
        for phase in ledger.phases(project.id, last.number):
            found["phase"].add_metric([*key, phase.name], max(phase.ended - phase.started, 0.0))
        pooled = next((item for item in ledger.audit_results(project.id, last.number) if item.about == -1), None)
        if pooled is not None and pooled.audited:
            found["audited"].add_metric(key, pooled.audited)
            found["right"].add_metric(key, pooled.right / pooled.audited)
