"""Projects written straight into the store, for tests of what is read from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from a2lc_backend.features import FEATURE_NAMES
from a2lc_backend.masks import IGNORE
from a2lc_backend.rounds.workspace import SOURCES, Labels, Scores, Workspace
from a2lc_backend.store import Artifacts, AutoCorrection, Ledger, Project, ProposalGroup, TaskState
from tests.conftest import grid_masks

PROJECT = 3
CLASSES = ("Sky", "Road", "Car")
SKY, ROAD, CAR = range(3)
HUMAN, CORRECTOR = SOURCES.index("human"), SOURCES.index("corrector")


class StoredProject:
    """A project of images that are all tiled alike, with rounds as a test wants them.

    Args:
        ledger: empty.
        artifacts: empty.
        images: tasks 1, 2, …
        grid: rows and columns of masks, 64 pixels each, named m1, m2, …
        first: class id of every mask at first.
        project_id: of the project.
        title: of the project.
    """

    def __init__(
        self, ledger: Ledger, artifacts: Artifacts, images: int = 2, grid: tuple[int, int] = (2, 2), first: int = SKY,
        project_id: int = PROJECT, title: str = "Streets",
    ) -> None:  # fmt: skip
        self.id, self.ledger, self.first = project_id, ledger, first
        self.workspace = Workspace(artifacts, project_id)
        self.task_ids = list(range(1, images + 1))
        self.masks = grid_masks(*grid, labels=[first] * (grid[0] * grid[1]))
        self.keys = {task_id: self.workspace.mask_key(task_id, f"/data/{task_id}.jpg") for task_id in self.task_ids}
        ledger.save_project(Project(self.id, title, CLASSES))
        for task_id, key in self.keys.items():
            # A mask looks like its number, and like nothing else.
            looks = np.zeros((len(self.masks), len(FEATURE_NAMES)), np.float32)
            looks[:, 0] = np.arange(len(self.masks)) + 100 * task_id
            self.workspace.write_masks(key, self.masks, looks, imported=False)
        ledger.save_tasks(
            self.id, [TaskState(task, f"/data/{task}.jpg", ready=True, mask_key=key) for task, key in self.keys.items()]
        )

    def place(self, task_id: int, mask: int) -> int:
        """Where mask m1, m2, … of a task stands in the arrays of a round."""
        return (task_id - 1) * len(self.masks) + mask - 1

    def labels(self) -> Labels:
        """First labels, nothing proposed."""
        counts = np.full(len(self.task_ids), len(self.masks), np.int64)
        total = int(counts.sum())
        held = np.full(total, self.first, np.int64)
        return Labels(
            np.array(self.task_ids, np.int64), tuple(self.keys.values()), counts, held, np.zeros(total, np.int64),
            np.full(total, 0.5), np.full(total, IGNORE, np.int64), held.copy(), np.full(total, np.nan),
            np.full(total, -1, np.int64), np.full(total, np.nan),
        )  # fmt: skip

    def finish_round(self, number: int, labels: Labels, summary: dict[str, float] | None = None) -> None:
        """Write a round as if it had been run; θ finds every class as likely as the others."""
        self.workspace.write_labels(number, labels)
        for task_id, key in self.keys.items():
            even = np.full((len(self.masks), len(CLASSES)), 1 / len(CLASSES))
            self.workspace.write_scores(number, task_id, Scores(key, even, even, np.zeros(len(even), np.int64)))
        record = self.ledger.begin_round(self.id, 4)
        self.ledger.save_round(replace(record, version=f"a2lc-r{number}-0000000{number}", summary=summary or {}))
        self.ledger.change_status(self.id, number, ["running"], "done")

    def apply(self, labels: Labels, places: list[int], label: int, number: int, held_back: int = 0) -> Labels:
        """Propose a label for masks, hold the last few back, and note that in the ledger; the round's labels."""
        taken = places[: len(places) - held_back]
        new = replace(
            labels, labels=labels.labels.copy(), sources=labels.sources.copy(), proposals=labels.proposals.copy(),
            doubt=labels.doubt.copy(), strata=labels.strata.copy(),
        )  # fmt: skip
        new.proposals[places], new.doubt[places], new.strata[places] = label, 0.1, 5
        new.labels[taken], new.sources[taken] = label, CORRECTOR
        owners = [divmod(place, len(self.masks)) for place in taken]
        rows = [AutoCorrection(number, task + 1, f"m{mask + 1}", self.first, label, 0.9) for task, mask in owners]
        self.ledger.save_auto_corrections(self.id, number, rows)
        group = ProposalGroup(number, self.first, label, len(places), len(taken), len(taken))
        self.ledger.save_decisions(self.id, number, [], [group])
        return new
