"""Whole label-correction experiments: the product's own rounds on a world, an oracle annotator, every round measured.

A run lives in `OUT/runs/METHOD-seedS/`: `run.json` says what it is, `round-N.json` what a round measured, `result.json`
all of it once it is finished; from its ledger and artifacts a run that was killed goes on where it stood. What all runs
read alike (masks, their features, frozen backbone features) lies once in `OUT/cache/`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from a2lc_backend.bench.bars import Bars
from a2lc_backend.bench.dataset import open_data
from a2lc_backend.bench.findings import Findings, RoundResult, RunResult
from a2lc_backend.bench.ground import POOL, Ground, choose_proposals
from a2lc_backend.bench.measure import measure_round
from a2lc_backend.bench.methods import BenchError, Method, find_method
from a2lc_backend.bench.oracle import OraclePlatform, PixelOracle
from a2lc_backend.bench.report import read_json, write_json, write_report
from a2lc_backend.rounds.context import Context
from a2lc_backend.rounds.publish import RoundView
from a2lc_backend.rounds.runner import run_round
from a2lc_backend.rounds.workspace import Workspace
from a2lc_backend.segmenter import Segmenter
from a2lc_backend.settings import ProjectSettings
from a2lc_backend.store import Artifacts, Ledger, Phase

_FORMAT = 2
"""Of what a run's files hold; runs of another format are not read."""

_OWNER = "bench"
"""One name for every process, so that a run which was killed need not wait for its lock to go stale."""


def run_bench(
    data: Path,
    methods: Sequence[str],
    budget: int | None,
    rounds: int,
    seeds: Sequence[int],
    out: Path,
    console: Console,
    *,
    proposals: str | None = None,
    backbone: Path | None = None,
    split: str | None = None,
) -> Path:
    """Run every method with every seed on a data set, and write the report.

    Runs that are finished in `out` are taken as they are; one that was killed goes on where it stood.

    Args:
        data: folder of a data set, see `dataset.open_data`.
        methods: names from `methods.METHODS`.
        budget: masks queried a round; where fewer are left, all of them are asked. The data set's if None.
        rounds: R, rounds of correction after round 0.
        seeds: of everything random in a run, 0 or more.
        out: folder of the report and the runs; made if it is not there.
        console: for the progress bars.
        proposals: where masks and first labels come from, a name for `make_proposals`; the data set's if None.
        backbone: frozen features of θ; those in the data set's folder if None, and a U-Net where it has none.
        split: of the data set, see `dataset.open_data`.

    Returns:
        Path of report.json.

    Raises:
        BenchError: for an unknown method, a number out of range, masks that cannot be had, or a folder that holds other
            runs or is in use.
        DataSetError: for a data set that cannot be used.
        RoundFailedError: if a round stops; running the benchmark again takes it up.
    """
    chosen = [find_method(name) for name in dict.fromkeys(methods)]
    if not chosen or not seeds or min(seeds) < 0 or rounds < 1:
        raise BenchError("there is nothing to run; give a method, a seed from 0 on, and at least 1 round")
    images = open_data(data, split)
    budget = images.budget if budget is None else budget
    plans = [(method, method.project_settings(budget, seed)) for method in chosen for seed in dict.fromkeys(seeds)]
    source = choose_proposals(images, proposals)
    with _alone_in(out), Bars(console, len(plans) * (rounds + 1)) as bars:
        ground = Ground(images, source, backbone or images.backbone_path, out / "cache", bars)
        runs = tuple(_Run(ground, method, settings, rounds, out).result() for method, settings in plans)
    findings = Findings(
        images.name, images.classes, ground.true_masks, len(images.names), len(images.val_names), source.name, budget,
        rounds, {method.name: method.meaning for method in chosen}, tuple(dict.fromkeys(seeds)),
        ground.initial_data_miou, ground.ceiling_data_miou, runs,
    )  # fmt: skip
    return write_report(findings, out)


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Keep other benchmarks out of a folder while one writes there; the system takes a dead process's lock away."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = (out / ".lock").open("w")
    except OSError as error:
        raise BenchError(f"{out} cannot be written ({error}); give another --out") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BenchError(f"another benchmark is writing to {out}; wait for it or give another --out") from error
        yield


class _Run:
    """One method with one seed, in its own folder.

    Args:
        ground: what it shares with the other runs.
        method: to run.
        settings: of its project.
        rounds: R.
        out: folder of the benchmark.
    """

    def __init__(self, ground: Ground, method: Method, settings: ProjectSettings, rounds: int, out: Path) -> None:
        self._ground, self._method, self._settings, self._rounds = ground, method, settings, rounds
        self._name = f"{method.name} seed {settings.seed}"
        self._folder = out / "runs" / f"{method.name}-seed{settings.seed}"
        self._artifacts = self._folder / "artifacts"
        self._workspace = Workspace(Artifacts(f"file://{self._artifacts.absolute()}"), POOL)

    def result(self) -> RunResult:
        """Run what is left of it.

        Raises:
            BenchError: if the folder holds another run.
            RoundFailedError: if a round stops.
        """
        key = self._claim()
        finished = read_json(self._folder / "result.json")
        if finished is None or finished["key"] != key:
            started = time.monotonic()
            measured = self._run()
            write_json(self._folder / "result.json", {"key": key, "rounds": [asdict(item) for item in measured]})
            seconds = f"{time.monotonic() - started:.0f} s"
        else:
            measured = [RoundResult.read(item) for item in finished["rounds"]]
            self._ground.bars.advance(len(measured))
            seconds = "found finished"
        shutil.rmtree(self._artifacts, ignore_errors=True)
        self._ground.forget_edits()
        for path in self._folder.glob("round-*.json"):
            path.unlink()
        first, last = measured[0].data_miou, measured[-1].data_miou
        self._ground.bars.say(f"{self._name}: data mIoU {first:.1f} → {last:.1f} ({seconds})")
        return RunResult(self._method.name, self._settings.seed, tuple(measured))

    def _claim(self) -> str:
        """Hash of all that decides the run; the folder must be empty or hold this very run."""
        about = {
            "format": _FORMAT, **self._settings.model_dump(), "rounds": self._rounds,
            "one_pixel": self._method.one_pixel, **self._ground.about(),
        }  # fmt: skip
        path = self._folder / "run.json"
        found = read_json(path)
        if found is not None and found != about:
            other = [
                f"{name} {found.get(name)}, now {value}" for name, value in about.items() if found.get(name) != value
            ]
            raise BenchError(
                f"{self._folder} holds a run with other settings ({'; '.join(other) or 'of another version'}); give "
                "another --out or delete that folder"
            )
        write_json(path, about)
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    def _run(self) -> list[RoundResult]:
        ground = self._ground
        ground.prepare(ground.segmenter(self._settings))
        ground.share(self._artifacts)
        measured = []
        with closing(Ledger(f"sqlite:///{(self._folder / 'ledger.db').absolute()}")) as ledger:
            platform = self._platform()
            self._answer_again(platform, ledger)
            for number in range(self._rounds + 1):
                path = self._folder / f"round-{number}.json"
                found = read_json(path)
                if found is None:
                    if all(item.number != number or item.status != "done" for item in ledger.rounds(POOL)):
                        self._run_round(platform, ledger)
                    found = asdict(measure_round(ground, self._workspace, ledger, number, self._segmenter))
                    write_json(path, found)
                measured.append(RoundResult.read(found))
                ground.bars.advance()
        return measured

    def _platform(self) -> OraclePlatform:
        if not self._method.one_pixel:
            return OraclePlatform(self._ground.data)
        images = {task.id: task.image for task in OraclePlatform(self._ground.data).tasks()}
        segmenter = lru_cache(1)(self._segmenter)

        def soft_labels(number: int, task_id: int) -> NDArray[np.float32]:
            model = segmenter(number)
            return model.soft_labels(self._workspace.input(task_id, images[task_id], model.fingerprint))

        return PixelOracle(self._ground.data, soft_labels)

    def _segmenter(self, number: int) -> Segmenter:
        """θ of a round."""
        segmenter = self._ground.segmenter(self._settings)
        segmenter.load(self._workspace.segmenter(number))
        return segmenter

    def _answer_again(self, platform: OraclePlatform, ledger: Ledger) -> None:
        """Give an annotator who was killed with the process the answers back: the same questions, the same truth."""
        for record in ledger.rounds(POOL):
            phases = {phase.name: phase.status for phase in ledger.phases(POOL, record.number)}
            if phases.get("publish") == "done":
                view = RoundView(ledger, self._workspace, POOL, record.number)
                targets, _ = platform.prepare(sorted(view.queued), view.queued)
                platform.write(record.version, targets, view.prediction, lambda done, total: None)
                platform.show(record.version, targets)

    def _run_round(self, platform: OraclePlatform, ledger: Ledger) -> None:
        record = ledger.begin_round(POOL, self._settings.budget)

        def watch(phase: Phase) -> None:
            self._ground.bars.step(f"{self._name}, round {record.number}: {phase.name}", phase.done, phase.total)

        context = Context(
            record,
            self._settings,
            ledger,
            self._workspace,
            platform,
            self._ground.proposals,
            lambda _: self._ground.segmenter(self._settings),
        )
        done = run_round(context, _OWNER, watch)
        if done.summary["tasks_left_out"]:
            problem = next((item.message for item in ledger.problems(POOL, record.number) if item.task_id), "")
            raise BenchError(f"{done.summary['tasks_left_out']:.0f} images could not be used: {problem}")
