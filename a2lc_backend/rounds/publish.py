"""The last phase of a round: what people see."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import astuple

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.masks import IGNORE, Region
from a2lc_backend.rounds.context import Context, Items, Progress
from a2lc_backend.rounds.platform import Prediction, Target, TaskProblem
from a2lc_backend.rounds.undo import labels_of
from a2lc_backend.rounds.workspace import SOURCES, Labels, Workspace
from a2lc_backend.store import Ledger, Query

_HINT = "; may be "


class RoundView:
    """A finished or ranked round, image by image, as predictions.

    Args:
        ledger: what the program remembers.
        workspace: the project's artifacts.
        project_id: of the project.
        number: of the round.
    """

    def __init__(self, ledger: Ledger, workspace: Workspace, project_id: int, number: int) -> None:
        project = ledger.project(project_id)
        self._classes = project.classes if project else ()
        self._workspace = workspace
        self._number = number
        self.labels: Labels = labels_of(ledger, workspace, project_id, number)
        self._queries: dict[int, list[Query]] = defaultdict(list)
        for query in ledger.queries(project_id, number):
            self._queries[query.task_id].append(query)
        priorities = {task_id: sum(query.acquisition for query in mine) for task_id, mine in self._queries.items()}
        highest = max(priorities.values(), default=0.0)
        # Label Studio takes scores from 0 to 1 only; a queued task stays above 0, where the review queue begins.
        self._scores = {
            task_id: round(max(value / highest if highest > 0 else 1.0, 1e-6), 6)
            for task_id, value in priorities.items()
        }

    @property
    def queued(self) -> frozenset[int]:
        """Images with queued masks."""
        return frozenset(self._queries)

    def prediction(self, task_id: int) -> Prediction:
        """What an image is shown with: queued regions first, by rank, then the least certain.

        A queued region carries neither score nor proposal: nothing tells those that are audited from the others.

        Raises:
            KeyError: for an image that has no masks in this round.
        """
        place = self.labels.find(task_id)
        if place is None:
            raise KeyError(f"task {task_id} has no masks in round {self._number}")
        masks = self._workspace.masks(self.labels.mask_keys[place])
        span = self.labels.span(place)
        labels, sources = self.labels.labels[span], self.labels.sources[span]
        proposals = self.labels.proposals[span]
        held_back = proposals != labels
        certainty = self._certainty(
            task_id, self.labels.mask_keys[place], labels, self.labels.confidence[span], sources
        )
        queries = {query.region_id: query for query in self._queries.get(task_id, [])}
        in_order = sorted(queries.values(), key=lambda query: query.rank)
        place_in_image = {query.region_id: number for number, query in enumerate(in_order, start=1)}
        areas = masks.areas()

        def order(index: int) -> tuple[float, float]:
            query = queries.get(masks.region_ids[index])
            return (query.rank if query else np.inf, certainty[index])

        regions = []
        for index in sorted(np.flatnonzero(areas > 0), key=order):
            region_id = masks.region_ids[index]
            query = queries.get(region_id)
            regions.append(
                Region(
                    region_id,
                    self._name(int(labels[index])),
                    masks.mask(index),
                    score=None if query else round(float(certainty[index]), 4),
                    source=SOURCES[sources[index]],
                    round=self._number,
                    rank=query.rank if query else None,
                    note=self._note(query, int(labels[index]), place_in_image[region_id], len(queries))
                    if query
                    else "",
                    proposal=self._name(int(proposals[index])) if held_back[index] and not query else None,
                    first=self._name(int(masks.first_labels[index])),
                    ring=masks.rings.get(region_id),
                )
            )
        return Prediction(tuple(regions), self._scores.get(task_id, 0.0))

    def _certainty(
        self,
        task_id: int,
        mask_key: str,
        labels: NDArray[np.int64],
        confidence: NDArray[np.float64],
        sources: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """How sure the program is of each label: a person's is 1, else ψ's word, else θ's."""
        scores = self._workspace.scores(self._number, task_id, mask_key)
        if scores is None:
            return confidence
        known = labels < scores.soft_labels.shape[1]
        columns = np.where(known, labels, 0)[:, None]
        from_segmenter = np.where(known, np.take_along_axis(scores.soft_labels, columns, 1)[:, 0], 0.0)
        spoken = np.isin(sources, [SOURCES.index("human"), SOURCES.index("corrector")])
        return np.clip(np.where(spoken, confidence, from_segmenter), 0.0, 1.0)

    def _name(self, label: int) -> str | None:
        return None if label == IGNORE else self._classes[label]

    def _note(self, query: Query, label: int, place: int, count: int) -> str:
        held = self._name(label)  # not the query's: it may have been taken back since
        said = f"labelled {held}" if held else "no label yet"
        doubt = f"{_HINT}{self._name(query.guess)}" if query.guess not in (label, IGNORE) else ""
        return f"Please check ({place} of {count} in this image): {said}{doubt}"


def hinted_class(note: str) -> str:
    """The class that a queued region's note suggests, "" if it suggests none."""
    return note.rpartition(_HINT)[2] if _HINT in note else ""


def plan_publish(context: Context) -> list[tuple[int, int, bool]]:
    """The tasks to write, as the fields of `Target`; tasks for second looks are made."""
    view = _view(context)
    # Published again after an undo, a queue that people have worked on is not put before them a second time.
    first_time = "tasks" not in context.current().summary
    context.ledger.forget_problems(context.project_id, context.number, "publish")
    tasks = [int(task_id) for task_id in view.labels.task_ids]
    targets, problems = context.platform.prepare(tasks, view.queued, repeats=first_time)
    _note(context, problems)
    return [astuple(target) for target in targets]


def publish(context: Context, items: Items, progress: Progress) -> None:
    """Write the predictions of some tasks; nobody is shown them yet.

    Args:
        context: of the round.
        items: from `plan_publish`.
        progress: told of what is written.
    """
    targets = [Target(*item) for item in items]
    _note(context, context.platform.write(context.current().version, targets, _view(context).prediction, progress))


def finish_publish(context: Context) -> None:
    """Show the version, with its queue, once every prediction is there; delete old ones."""
    ledger, project_id, number = context.ledger, context.project_id, context.number
    refused = {problem.task_id for problem in ledger.problems(project_id, number) if problem.phase == "publish"}
    items = [Target(*item) for item in ledger.shard_items(project_id, number, "publish")]
    targets = [target for target in items if target.task_id not in refused]
    _note(context, context.platform.show(context.current().version, targets))
    context.platform.prune(context.settings.keep_versions)


def _view(context: Context) -> RoundView:
    version = context.current().version
    return context.once(
        f"view of {version}",
        lambda: RoundView(context.ledger, context.workspace, context.project_id, context.number),
    )


def _note(context: Context, problems: Sequence[TaskProblem]) -> None:
    for problem in problems:
        context.note("publish", problem.task_id, problem.message)
