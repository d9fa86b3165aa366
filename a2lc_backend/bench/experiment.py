"""Whole label-correction experiments: the product's own rounds on a world, an oracle annotator, every round measured.

A run lives in `OUT/runs/METHOD-seedS/`: `run.json` says what it is, `round-N.json` what a round measured, `result.json`
all of it once it is finished; from its ledger and artifacts a run that was killed goes on where it stood. What all runs
read alike (masks, their features, frozen backbone features) lies once in `OUT/cache/`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
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
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from a2lc_backend.bench.methods import (
    BenchError,
    ImageTruth,
    Method,
    PixelOracle,
    find_method,
    image_truth,
    world_digest,
)
from a2lc_backend.bench.oracle import OraclePlatform
from a2lc_backend.bench.report import (
    BINS,
    Changes,
    Findings,
    RoundResult,
    RunResult,
    read_json,
    write_json,
    write_report,
)
from a2lc_backend.bench.world import World, load_world
from a2lc_backend.masks import IGNORE
from a2lc_backend.metrics import confusion_matrix, iou, mean_iou
from a2lc_backend.proposals import make_proposals
from a2lc_backend.rounds.context import Context
from a2lc_backend.rounds.publish import RoundView
from a2lc_backend.rounds.runner import run_round
from a2lc_backend.rounds.workspace import SOURCES, Workspace
from a2lc_backend.segmenter import Segmenter, enlarge, make_segmenter
from a2lc_backend.settings import ProjectSettings
from a2lc_backend.store import Artifacts, Ledger, Phase

_POOL, _VAL = 1, 2
"""Project ids: of the runs, and of the validation images in the cache."""

_OWNER = "bench"
"""One name for every process, so that a run which was killed need not wait for its lock to go stale."""


def run_bench(
    data: Path, methods: Sequence[str], budget: int, rounds: int, seeds: Sequence[int], out: Path, console: Console
) -> Path:
    """Run every method with every seed on a world, and write the report.

    Runs that are finished in `out` are taken as they are; one that was killed goes on where it stood.

    Args:
        data: a world folder.
        methods: names from `methods.METHODS`.
        budget: masks queried a round; where fewer are left, all of them are asked.
        rounds: R, rounds of correction after round 0.
        seeds: of everything random in a run, 0 or more.
        out: folder of the report and the runs; made if it is not there.
        console: for the progress bars.

    Returns:
        Path of report.json.

    Raises:
        BenchError: for an unknown method, a number out of range, or a folder that holds other runs or is in use.
        WorldError: for a world folder that cannot be used.
        RoundFailedError: if a round stops; running the benchmark again takes it up.
    """
    chosen = [find_method(name) for name in dict.fromkeys(methods)]
    if not chosen or not seeds or min(seeds) < 0 or rounds < 1:
        raise BenchError("there is nothing to run; give a method, a seed from 0 on, and at least 1 round")
    plans = [(method, method.project_settings(budget, seed)) for method in chosen for seed in dict.fromkeys(seeds)]
    world = load_world(data)
    with _alone_in(out), _Bars(console, len(plans) * (rounds + 1)) as bars:
        ground = _Ground(world, out / "cache" / world_digest(world), bars)
        runs = tuple(_Run(ground, method, settings, rounds, out).result() for method, settings in plans)
    findings = Findings(
        world.root.resolve().name, world.classes, ground.true_masks, len(world.names), len(world.val_names), budget,
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


class _Bars:
    """Two progress bars: rounds of all runs, and the step at hand."""

    def __init__(self, console: Console, rounds: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console)
        self._all = self._progress.add_task("rounds", total=rounds)
        self._step = self._progress.add_task("", total=None)

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, what: str, done: int, total: int) -> None:
        """Show how far the step at hand is."""
        self._progress.update(self._step, description=what, completed=done, total=total or None)

    def advance(self, rounds: int = 1) -> None:
        """Count finished rounds."""
        self._progress.advance(self._all, rounds)

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(text, markup=False, highlight=False)


class _Ground:
    """What all runs on a world share; the whole world is read, and so checked, before the first run.

    Args:
        world: to run on.
        cache: folder for what is computed once.
        bars: told of the progress.

    Raises:
        WorldError: for a file that cannot be used.
    """

    def __init__(self, world: World, cache: Path, bars: _Bars) -> None:
        self.world, self.cache, self.bars = world, cache, bars
        self._store = Artifacts(f"file://{cache.absolute()}")
        self._images: dict[str, ImageTruth] = {}
        classes = len(world.classes)
        first, best = np.zeros((classes, classes + 1), np.int64), np.zeros((classes, classes + 1), np.int64)
        true: list[NDArray[np.int64]] = []
        for done, name in enumerate(world.names):
            bars.step("reading the world", done, len(world.names))
            image = image_truth(world.mask_set(name), world.truth(name), classes)
            first += image.confusion(image.first)
            best += image.confusion(image.true)
            true.append(image.true[image.true != IGNORE])
        for name in world.val_names:
            world.val_truth(name)
        self.initial_data_miou = 100 * mean_iou(first)
        self.ceiling_data_miou = 100 * mean_iou(best)
        self.true_masks = tuple(np.bincount(np.concatenate(true), minlength=classes).tolist())

    def segmenter(self, settings: ProjectSettings) -> Segmenter:
        """An untrained θ, as the service builds it."""
        classes = len(self.world.classes)
        backbone = self.world.backbone_path
        name = settings.segmenter if settings.segmenter != "auto" else "unet" if backbone is None else "head"
        return make_segmenter(name, classes=classes, backbone=backbone, seed=settings.seed)

    def prepare(self, segmenter: Segmenter) -> None:
        """Compute what θ reads of every image, where it is not in the cache yet."""
        world, pool, val = self.world, Workspace(self._store, _POOL), Workspace(self._store, _VAL)
        tasks = OraclePlatform(world).tasks()
        wanted = [
            *((pool, task.id, task.image, world.image, name) for task, name in zip(tasks, world.names, strict=True)),
            *((val, number, name, world.val_image, name) for number, name in enumerate(world.val_names, 1)),
        ]
        kind = segmenter.fingerprint
        for done, (workspace, number, address, read, name) in enumerate(wanted):
            self.bars.step("frozen features", done, len(wanted))
            if not workspace.has_input(number, address, kind):
                workspace.write_input(number, address, kind, segmenter.prepare(read(name)))

    def share(self, artifacts: Path) -> None:
        """Let a run's artifacts of its images be those of the cache: no run changes them."""
        tasks = self.cache / f"project-{_POOL}" / "tasks"
        place = artifacts / f"project-{_POOL}" / "tasks"
        if not place.is_symlink():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(os.path.relpath(tasks.resolve(), place.parent.resolve()), target_is_directory=True)

    def image_truth(self, workspace: Workspace, task_id: int, mask_key: str) -> ImageTruth:
        """The truth of the masks that a run works on."""
        if mask_key not in self._images:
            truth = self.world.truth(self.world.names[task_id - 1])
            self._images[mask_key] = image_truth(workspace.masks(mask_key), truth, len(self.world.classes))
        return self._images[mask_key]

    def model_confusion(self, segmenter: Segmenter) -> NDArray[np.int64]:
        """Confusion matrix of θ over the validation images, (C, C + 1)."""
        classes, names = len(self.world.classes), self.world.val_names
        total, workspace = np.zeros((classes, classes + 1), np.int64), Workspace(self._store, _VAL)
        for number, name in enumerate(names, 1):
            self.bars.step("validation", number, len(names))
            truth = self.world.val_truth(name)
            soft = segmenter.soft_labels(workspace.input(number, name, segmenter.fingerprint))
            total += confusion_matrix(truth, enlarge(soft, (truth.shape[0], truth.shape[1])).argmax(0), classes)
        return total


class _Run:
    """One method with one seed, in its own folder.

    Args:
        ground: what it shares with the other runs.
        method: to run.
        settings: of its project.
        rounds: R.
        out: folder of the benchmark.
    """

    def __init__(self, ground: _Ground, method: Method, settings: ProjectSettings, rounds: int, out: Path) -> None:
        self._ground, self._method, self._settings, self._rounds = ground, method, settings, rounds
        self._name = f"{method.name} seed {settings.seed}"
        self._folder = out / "runs" / f"{method.name}-seed{settings.seed}"
        self._artifacts = self._folder / "artifacts"
        self._workspace = Workspace(Artifacts(f"file://{self._artifacts.absolute()}"), _POOL)

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
        for path in self._folder.glob("round-*.json"):
            path.unlink()
        first, last = measured[0].data_miou, measured[-1].data_miou
        self._ground.bars.say(f"{self._name}: data mIoU {first:.1f} → {last:.1f} ({seconds})")
        return RunResult(self._method.name, self._settings.seed, tuple(measured))

    def _claim(self) -> str:
        """Hash of all that decides the run; the folder must be empty or hold this very run."""
        about = {
            **self._settings.model_dump(), "rounds": self._rounds, "one_pixel": self._method.one_pixel,
            "world": self._ground.cache.name,
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
                    if all(item.number != number or item.status != "done" for item in ledger.rounds(_POOL)):
                        self._run_round(platform, ledger)
                    found = asdict(self._measure(ledger, number))
                    write_json(path, found)
                measured.append(RoundResult.read(found))
                ground.bars.advance()
        return measured

    def _platform(self) -> OraclePlatform:
        if not self._method.one_pixel:
            return OraclePlatform(self._ground.world)
        images = {task.id: task.image for task in OraclePlatform(self._ground.world).tasks()}
        segmenter = lru_cache(1)(self._segmenter)

        def soft_labels(number: int, task_id: int) -> NDArray[np.float32]:
            model = segmenter(number)
            return model.soft_labels(self._workspace.input(task_id, images[task_id], model.fingerprint))

        return PixelOracle(self._ground.world, soft_labels)

    def _segmenter(self, number: int) -> Segmenter:
        """θ of a round."""
        segmenter = self._ground.segmenter(self._settings)
        segmenter.load(self._workspace.segmenter(number))
        return segmenter

    def _answer_again(self, platform: OraclePlatform, ledger: Ledger) -> None:
        """Give an annotator who was killed with the process the answers back: the same questions, the same truth."""
        for record in ledger.rounds(_POOL):
            phases = {phase.name: phase.status for phase in ledger.phases(_POOL, record.number)}
            if phases.get("publish") == "done":
                view = RoundView(ledger, self._workspace, _POOL, record.number)
                platform.publish(record.version, [], view.queued, view.prediction, lambda done, total: None)

    def _run_round(self, platform: OraclePlatform, ledger: Ledger) -> None:
        record = ledger.begin_round(_POOL, self._settings.budget)
        proposals = make_proposals("world", world=self._ground.world.root)

        def watch(phase: Phase) -> None:
            self._ground.bars.step(f"{self._name}, round {record.number}: {phase.name}", phase.done, phase.total)

        context = Context(
            record,
            self._settings,
            ledger,
            self._workspace,
            platform,
            proposals,
            lambda _: self._ground.segmenter(self._settings),
        )
        done = run_round(context, _OWNER, watch)
        if done.summary["tasks_left_out"]:
            problem = next((item.message for item in ledger.problems(_POOL, record.number) if item.task_id), "")
            raise BenchError(f"{done.summary['tasks_left_out']:.0f} images could not be used: {problem}")

    def _measure(self, ledger: Ledger, number: int) -> RoundResult:
        """Hold one finished round against the truth."""
        classes = len(self._ground.world.classes)
        labels = self._workspace.labels(number)
        confusion, standing = np.zeros((classes, classes + 1), np.int64), Changes()
        reliability = np.zeros((BINS, 3))
        true: dict[tuple[int, str], int] = {}
        for place, task_id in enumerate(labels.task_ids):
            image = self._ground.image_truth(self._workspace, int(task_id), labels.mask_keys[place])
            span = labels.span(place)
            held = labels.labels[span]
            confusion += image.confusion(held)
            true.update(
                {(int(task_id), name): int(label) for name, label in zip(image.region_ids, image.true, strict=True)}
            )
            automatic = labels.sources[span] == SOURCES.index("corrector")
            standing += Changes.count(image.first[automatic], held[automatic], image.true[automatic])
            known = automatic & (image.true != IGNORE)
            confidence = labels.confidence[span][known]
            rows = np.stack([np.ones(len(confidence)), confidence, held[known] == image.true[known]], axis=1)
            np.add.at(reliability, np.minimum(confidence * BINS, BINS - 1).astype(np.int64), rows)
        changes = ledger.auto_corrections(_POOL, number)
        changed = np.array(
            [(item.before, item.after, true[item.task_id, item.region_id]) for item in changes], np.int64
        )
        given = [item.label for item in ledger.corrections(_POOL) if item.round == number]
        model = self._ground.model_confusion(self._segmenter(number)) if self._ground.world.val_names else None
        return RoundResult(
            data_miou=100 * mean_iou(confusion),
            data_iou=_percents(iou(confusion)),
            model_miou=None if model is None else 100 * mean_iou(model),
            model_iou=() if model is None else _percents(iou(model)),
            queries=tuple(np.bincount(np.array(given, np.int64), minlength=classes)[:classes].tolist()),
            changes=Changes.count(*changed.reshape(-1, 3).T),
            standing=standing,
            seconds={phase.name: phase.ended - phase.started for phase in ledger.phases(_POOL, number)},
            reliability=tuple((int(masks), float(total), int(right)) for masks, total, right in reliability),
        )


def _percents(shares: NDArray[np.float64]) -> tuple[float | None, ...]:
    return tuple(None if np.isnan(share) else 100 * float(share) for share in shares)
