"""What every phase of a round works with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.features import Appearance, mask_features
from a2lc_backend.masks import MaskSet
from a2lc_backend.proposals import Proposals
from a2lc_backend.rounds.platform import Platform, PlatformError, Task
from a2lc_backend.rounds.workspace import Workspace
from a2lc_backend.segmenter import Segmenter
from a2lc_backend.settings import ProjectSettings
from a2lc_backend.store import Ledger, Problem, Project, Round

Progress = Callable[[int, int], None]
"""Called with units done and their number; what it raises ends the work, which is given back."""

Items = Sequence[Any]
"""What a shard of a phase is about, as JSON values; empty for a phase that is one job."""

Made = TypeVar("Made")


@dataclass(frozen=True)
class Context:
    """What every phase of one round works with.

    Attributes:
        round: the round as it was begun; its project and number are the key of all that is written.
        settings: of the project, as they were when the round was begun.
        ledger: what the program remembers.
        workspace: the project's artifacts.
        platform: where people work.
        proposals: where masks come from.
        make_segmenter: builds an untrained θ for a number of classes.
        appearance: the model that tells the corrector how masks look; None where none is asked.
        kept: see `once`.
    """

    round: Round
    settings: ProjectSettings
    ledger: Ledger
    workspace: Workspace
    platform: Platform
    proposals: Proposals
    make_segmenter: Callable[[int], Segmenter]
    appearance: Appearance | None = None
    kept: dict[str, object] = field(default_factory=dict, repr=False, compare=False)

    @property
    def project_id(self) -> int:
        """Id of the project on the platform."""
        return self.round.project_id

    @property
    def number(self) -> int:
        """Number of the round."""
        return self.round.number

    @cached_property
    def previous(self) -> Round | None:
        """The last finished round before this one, whose labels people saw; a cancelled one is passed over."""
        done = [item for item in self.ledger.rounds(self.project_id) if item.status == "done"]
        return max((item for item in done if item.number < self.number), key=lambda item: item.number, default=None)

    def once(self, name: str, make: Callable[[], Made]) -> Made:
        """What several shards need, such as a loaded θ: made when it is first asked for, then kept."""
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]  # type: ignore[return-value]

    def current(self) -> Round:
        """The round as the ledger has it by now."""
        return self.ledger.round(self.project_id, self.number) or self.round

    def project(self) -> Project:
        """The project as the ledger knows it."""
        project = self.ledger.project(self.project_id)
        if project is None:
            raise PlatformError(f"project {self.project_id} is not known; start its first round")
        return project

    @property
    def seen_by(self) -> str:
        """Name of the model that tells how masks look, "" for none."""
        return self.appearance.name if self.appearance else ""

    def describe(self, task: Task, image: NDArray[np.uint8], masks: MaskSet) -> NDArray[np.float32]:
        """What the corrector sees of an image's masks; see `mask_features`."""
        dense = None
        if self.appearance is not None:
            dense = self.appearance.see(self.workspace.image_key(task.id, task.image), image)
        return mask_features(image, masks, dense)

    def note(self, phase: str, task_id: int, message: str) -> None:
        """Put a problem into the round's report."""
        self.ledger.add_problems(self.project_id, [Problem(self.number, phase, task_id, message)])
