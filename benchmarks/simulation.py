"""Rounds without the segmenter: thousands of them in minutes.

θ is trained once, in round 0 of the product's own rounds; what follows (corrector, audits, decisions, queue, answers)
runs on arrays, by the functions that the rounds call. Levels are lower than in whole rounds, where θ learns too;
differences between ways to correct and to ask are what it is for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.audit import (
    STRATA,
    Estimate,
    Evidence,
    Statement,
    Survey,
    decide,
    in_strata,
    still_wrong,
    stratify,
)
from a2lc_backend.bench.oracle import ImageTruth, OraclePlatform, image_truth
from a2lc_backend.bench.world import load_world
from a2lc_backend.correction import Corrector, LabelProposals, MaskTable, make_corrector
from a2lc_backend.masks import IGNORE, Purpose
from a2lc_backend.metrics import mean_iou
from a2lc_backend.proposals import make_proposals
from a2lc_backend.rounds.context import Context
from a2lc_backend.rounds.queue import QueueTable, build_queue
from a2lc_backend.rounds.runner import run_round
from a2lc_backend.rounds.trust import BUDGETS, next_fixes_of
from a2lc_backend.rounds.workspace import Workspace
from a2lc_backend.segmenter import make_segmenter
from a2lc_backend.settings import ProjectSettings
from a2lc_backend.store import Artifacts, Ledger


@dataclass(frozen=True)
class MaskPool:
    """Every mask of a world after round 0, with its truth.

    Attributes:
        images: (N,) int64 number of the image.
        features: (N, F) float32.
        soft_labels: (N, C) float64.
        rows: (N, C) float64 acquisition rows.
        dominant: (N,) int64.
        first: (N,) int64 first labels.
        truth: (N,) int64 commonest true class, which is what an annotator says.
        areas: (N,) int64 pixels.
        pixels: (N, C) int64 pixels of each true class.
        outside: (I, C) int64 pixels of each true class that lie in no mask of an image.
    """

    images: NDArray[np.int64]
    features: NDArray[np.float32]
    soft_labels: NDArray[np.float64]
    rows: NDArray[np.float64]
    dominant: NDArray[np.int64]
    first: NDArray[np.int64]
    truth: NDArray[np.int64]
    areas: NDArray[np.int64]
    pixels: NDArray[np.int64]
    outside: NDArray[np.int64]

    def part(self, share: float, seed: int) -> MaskPool:
        """A random share of the images."""
        count = len(self.outside)
        return self.select(np.sort(np.random.default_rng(seed).choice(count, round(share * count), replace=False)))

    def select(self, kept: NDArray[np.int64]) -> MaskPool:
        """Some images, by ascending number."""
        rows = np.isin(self.images, kept)
        arrays = {item.name: getattr(self, item.name)[rows] for item in fields(self) if item.name != "outside"}
        return MaskPool(**(arrays | {"images": np.searchsorted(kept, arrays["images"]), "outside": self.outside[kept]}))

    def data_miou(self, labels: NDArray[np.int64]) -> float:
        """Data mIoU of labels (N,), in percent."""
        pixels = np.concatenate([self.outside.sum(0, keepdims=True), self.pixels])
        return 100 * mean_iou(ImageTruth((), self.first, pixels, self.truth).confusion(labels))


def load_pool(world: Path, cache: Path) -> MaskPool:
    """Round 0 of a world folder, run once and kept in a file; masks whose truth is void are left out."""
    if not cache.is_file():
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            found = _round_zero(world, Path(scratch))
        np.savez(cache, **found)  # type: ignore[arg-type]  # its stubs take names for `allow_pickle`
    with np.load(cache) as file:
        known = file["truth"] != IGNORE
        arrays: dict[str, Any] = {item.name: file[item.name] for item in fields(MaskPool)}
        return MaskPool(**{name: array if name == "outside" else array[known] for name, array in arrays.items()})


@dataclass
class Step:
    """What one simulated round did, and what it stated.

    Attributes:
        data_miou: of the labels, percent.
        applied: masks that hold a label of the corrector.
        right: of those, right by the truth.
        broken: of those, wrong now and right before.
        wrong: unanswered masks that hold a wrong label, by the truth.
        fixes: queued masks that hold a wrong label, by the truth.
        taken: strata whose proposals were applied.
        decided: the deciding answers in those strata.
        statement: of the round before, from its stating audit.
        pooled: of all rounds before.
        still: estimate of `wrong`.
        expected: by share of the budget, the estimate of what its queue mends, and the truth.
    """

    data_miou: float
    applied: int
    right: int
    broken: int
    wrong: int
    fixes: int
    taken: tuple[bool, ...]
    decided: Evidence
    statement: Statement | None = None
    pooled: Statement | None = None
    still: tuple[float, float, float] | None = None
    expected: dict[float, tuple[Estimate, int]] = field(default_factory=dict)


@dataclass
class _Asked:
    """The queue of one round and what was known of it."""

    masks: NDArray[np.int64]
    held: NDArray[np.int64]
    proposals: NDArray[np.int64]
    strata: NDArray[np.int64]
    samples: dict[int, Purpose]
    automatic: NDArray[np.bool_]
    unanswered: NDArray[np.bool_]

    def sample(self, purpose: Purpose) -> NDArray[np.int64]:
        return np.array([index for index, drawn in self.samples.items() if drawn == purpose], np.int64)


@dataclass
class Simulation:
    """One run over a pool.

    Attributes:
        pool: of masks.
        settings: of the project.
        rounds: R.
        corrector: ψ; the one the settings name if None.
    """

    pool: MaskPool
    settings: ProjectSettings
    rounds: int = 5
    corrector: Corrector | None = None
    asked: list[_Asked] = field(default_factory=list)

    def run(self) -> list[Step]:
        """Run rounds 0 to R."""
        return list(self._steps())

    def _steps(self) -> Iterator[Step]:
        pool, settings = self.pool, self.settings
        count, classes = pool.rows.shape
        human: NDArray[np.bool_] = np.zeros(count, np.bool_)
        fresh: NDArray[np.bool_] = np.zeros(count, np.bool_)
        corrector = self.corrector or make_corrector(settings.corrector)
        held = pool.first.copy()
        for number in range(self.rounds + 1):
            given = np.where(human, pool.truth, IGNORE)
            base = np.where(human, pool.truth, pool.first)
            proposals = LabelProposals.none(base, "")
            if human.any():
                table = MaskTable(pool.features, pool.soft_labels, pool.first, held, given, fresh)
                proposals = corrector.propose(table, classes, number, settings.seed + number)
            strata = stratify(proposals.proposed, proposals.margin, proposals.seconded)
            evidence = self._deciding()
            taken = decide(evidence, settings.policy, settings.precision)
            decided = sum((found for found, use in zip(evidence, taken, strict=True) if use), Evidence())
            ready = in_strata(strata, taken)
            if settings.policy == "manual":
                ready &= self._approved(proposals)
            held = np.where(ready, proposals.labels, proposals.base)
            automatic = ~human & (held != pool.first)
            queue_table = QueueTable(
                pool.rows, pool.soft_labels, pool.dominant, pool.areas, held, proposals.labels, proposals.doubt,
                strata, automatic, ~human, np.zeros(count, np.bool_), ~human,
            )  # fmt: skip
            seed = settings.seed * 1_000_003 + number
            queue = build_queue(queue_table, settings, settings.budget, seed)
            step = self._measure(held, automatic, human, queue.masks, (taken, decided))
            alike = number > 1 or settings.ranking != "doubt"
            if number:
                self._expect(step, queue_table, queue.masks, alike, seed)
            yield step
            unanswered = ~human
            self.asked.append(_Asked(queue.masks, held, proposals.labels, strata, queue.samples, automatic, unanswered))
            fresh = np.zeros(count, np.bool_)
            fresh[queue.masks] = True
            human = human | fresh

    def _evidence(self, masks: NDArray[np.int64], after: NDArray[np.int64]) -> Evidence:
        return Evidence.count(self.pool.first[masks], after[masks], self.pool.truth[masks])

    def _deciding(self) -> tuple[Evidence, ...]:
        found = [Evidence()] * len(STRATA)
        for asked in self.asked:
            masks = asked.sample("deciding")
            for index in range(len(STRATA)):
                found[index] = found[index] + self._evidence(masks[asked.strata[masks] == index], asked.proposals)
        return tuple(found)

    def _approved(self, proposals: LabelProposals) -> NDArray[np.bool_]:
        """What a person would approve who approves a class pair once audits found more right than broken in it."""
        pool = self.pool
        gains: dict[tuple[int, int], int] = {}
        for asked in self.asked:
            for mask in asked.sample("deciding"):
                pair = (int(pool.first[mask]), int(asked.proposals[mask]))
                answer = int(pool.truth[mask])
                gains[pair] = gains.get(pair, 0) + (answer == pair[1]) - (answer == pair[0])
        pairs = zip(proposals.base.tolist(), proposals.labels.tolist(), strict=True)
        return np.array([gains.get(pair, 0) > 0 for pair in pairs], np.bool_)

    def _measure(
        self,
        held: NDArray[np.int64],
        automatic: NDArray[np.bool_],
        human: NDArray[np.bool_],
        queue: NDArray[np.int64],
        decision: tuple[tuple[bool, ...], Evidence],
    ) -> Step:
        answers = self.pool.truth
        wrong = held != answers
        step = Step(
            self.pool.data_miou(held), int(automatic.sum()), int((automatic & ~wrong).sum()),
            int((automatic & (self.pool.first == answers)).sum()), int((wrong & ~human).sum()),
            int(wrong[queue].sum()), *decision,
        )  # fmt: skip
        if not self.asked:
            return step
        stating = [self._evidence(asked.sample("stating"), asked.held) for asked in self.asked]
        step.statement = Statement.of(stating[-1])
        step.pooled = Statement.of(sum(stating, Evidence()))
        surveys = []
        for asked, evidence in zip(self.asked, stating, strict=True):
            looked = asked.sample("random")
            since = asked.unanswered & human
            wrong_first = self.pool.first != answers
            surveys.append(
                Survey(
                    int(asked.automatic.sum()), evidence, int((asked.unanswered & ~asked.automatic).sum()), len(looked),
                    int(wrong_first[looked].sum()), int((wrong_first & since).sum()), int(since.sum()),
                )
            )  # fmt: skip
        still = still_wrong(surveys, int(automatic.sum()), int((~human).sum()))
        step.still = (still.value, still.low, still.high) if still else None
        return step

    def _expect(self, step: Step, table: QueueTable, queue: NDArray[np.int64], alike: bool, seed: int) -> None:
        hits, answered = 0, 0
        wrong = table.labels != self.pool.truth
        if alike and self.asked:
            last = self.asked[-1]
            hits, answered = int((last.held != self.pool.truth)[last.masks].sum()), len(last.masks)
        still = Estimate(*step.still) if step.still else None
        for share in BUDGETS:
            size = round(share * self.settings.budget)
            other = queue if share == 1 else build_queue(table, self.settings, size, seed).masks
            found = next_fixes_of(table, queue, other, (hits, answered), still)
            step.expected[share] = found, int(wrong[other].sum())


def _round_zero(world: Path, scratch: Path) -> dict[str, NDArray[np.generic]]:
    opened = load_world(world)
    classes = len(opened.classes)
    workspace = Workspace(Artifacts(f"file://{scratch}"), 1)
    backbone = opened.backbone_path
    with closing(Ledger(f"sqlite:///{scratch / 'ledger.db'}")) as ledger:
        context = Context(
            ledger.begin_round(1, 1), ProjectSettings(proposals="world", budget=1), ledger, workspace,
            OraclePlatform(opened), make_proposals("world", world=world),
            lambda count: make_segmenter("head" if backbone else "unet", classes=count, backbone=backbone),
        )  # fmt: skip
        run_round(context, "simulation")
    labels = workspace.labels(0)
    found: dict[str, list[NDArray[np.generic]]] = {item.name: [] for item in fields(MaskPool)}
    for place, task_id in enumerate(labels.task_ids.tolist()):
        key = labels.mask_keys[place]
        catalog, scores = workspace.catalog(key), workspace.scores(0, task_id, key)
        truth = image_truth(workspace.masks(key), opened.truth(opened.names[place]), classes)
        if scores is None:
            continue
        for name, value in (
            ("images", np.full(len(catalog.areas), place)), ("features", catalog.features),
            ("soft_labels", scores.soft_labels), ("rows", scores.rows), ("dominant", scores.dominant),
            ("first", catalog.first_labels), ("truth", truth.true), ("areas", catalog.areas),
            ("pixels", truth.pixels[1:]), ("outside", truth.pixels[:1]),
        ):  # fmt: skip
            found[name].append(np.asarray(value))
    return {name: np.concatenate(parts) for name, parts in found.items()}
