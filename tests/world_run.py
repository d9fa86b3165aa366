"""A project on the oracle, round by round, on a few drawn scenes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from a2lc_backend.bench.oracle import OraclePlatform
from a2lc_backend.bench.world import World
from a2lc_backend.masks import label_map
from a2lc_backend.metrics import confusion_matrix, mean_iou
from a2lc_backend.proposals import make_proposals
from a2lc_backend.rounds.context import Context
from a2lc_backend.rounds.phases import PHASES, PhaseKind
from a2lc_backend.rounds.runner import run_round
from a2lc_backend.rounds.workspace import Workspace
from a2lc_backend.segmenter import make_segmenter
from a2lc_backend.settings import ProjectSettings
from a2lc_backend.store import Artifacts, Ledger, Round

BUDGET = 30


Work = Callable[..., None]


def phases_with(name: str, wrap: Callable[[Work], Work]) -> tuple[PhaseKind, ...]:
    """The phases, the work of one of them wrapped."""
    return tuple(replace(kind, work=wrap(kind.work)) if kind.name == name else kind for kind in PHASES)


@dataclass
class Run:
    """A project on the oracle, round by round."""

    world: World
    folder: Path
    settings: ProjectSettings = field(default_factory=lambda: ProjectSettings(budget=BUDGET, regions_shown=0))
    platform: OraclePlatform = field(init=False)

    def __post_init__(self) -> None:
        self.platform = OraclePlatform(self.world)
        self.ledger = Ledger(f"sqlite:///{self.folder / 'ledger.db'}")
        self.workspace = Workspace(Artifacts(f"file://{self.folder / 'artifacts'}"), 1)

    def begin(self, proposals: str = "world") -> Context:
        record = self.ledger.begin_round(1, self.settings.budget)
        self.ledger.save_round(record := replace(record, settings=self.settings.model_dump()))
        return self.context(record, proposals)

    def context(self, record: Round, proposals: str = "world") -> Context:
        return Context(
            record, self.settings, self.ledger, self.workspace, self.platform,
            make_proposals(proposals, world=self.world.root, superpixels=12),
            lambda classes: make_segmenter("unet", classes=classes),
        )  # fmt: skip

    def round(self) -> Round:
        return run_round(self.begin(), "test")

    def miou(self, number: int) -> float:
        labels, total = self.workspace.labels(number), 0
        for place, task_id in enumerate(labels.task_ids):
            masks = self.workspace.masks(labels.mask_keys[place])
            shown = label_map(masks.mask_ids, labels.labels[labels.span(place)])
            truth = self.world.truth(self.platform.name(int(task_id)))
            total = total + confusion_matrix(truth, shown, len(self.world.classes))
        return mean_iou(np.asarray(total))

    def problems(self, number: int) -> list[str]:
        return [problem.message for problem in self.ledger.problems(1, number) if problem.phase != "correct"]
