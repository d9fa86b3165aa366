"""The last phase of a round: what people see."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.masks import IGNORE, Region
from a2lc_backend.rounds.context import Context, Items, Progress
from a2lc_backend.rounds.cut import left_out, most_shown
from a2lc_backend.rounds.platform import Prediction, Target, TaskProblem
from a2lc_backend.rounds.questions import ask
from a2lc_backend.rounds.undo import labels_of
from a2lc_backend.rounds.workspace import SOURCES, Labels, Workspace
from a2lc_backend.store import Ledger, Query

_NOTE = re.compile(r"; (?:looks like|may be) (?P<guess>.+?)(?:, (?P<certainty>[01]\.\d\d))?(?:; checked because: .*)?$")
_WHY = re.compile(r"; checked because: (?P<why>[^;]*)$")


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
        record = ledger.round(project_id, number)
        self._most_shown = most_shown(record) if record else 0
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

        Of a queued image with many regions some are kept off the page, see `left_out`. A queued region carries neither
        score nor proposal: nothing tells those that are audited from the others.

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
        certainty = certainty_of(self._workspace, self.labels, self._number, place)
        queries = {query.region_id: query for query in self._queries.get(task_id, [])}
        in_order = sorted(queries.values(), key=lambda query: query.rank)
        place_in_image = {query.region_id: number for number, query in enumerate(in_order, start=1)}
        areas = masks.areas()
        hidden = left_out(masks, queries.keys(), self._most_shown)

        def order(index: int) -> tuple[float, float]:
            query = queries.get(masks.region_ids[index])
            return (query.rank if query else np.inf, certainty[index])

        regions: list[Region] = []
        rest: list[Region] = []
        for index in sorted(np.flatnonzero(areas > 0), key=order):
            region_id = masks.region_ids[index]
            query = queries.get(region_id)
            (rest if region_id in hidden else regions).append(
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
        return Prediction(tuple(regions), self._scores.get(task_id, 0.0), tuple(rest))

    def _name(self, label: int) -> str | None:
        return None if label == IGNORE else self._classes[label]

    def _note(self, query: Query, label: int, place: int, count: int) -> str:
        held = self._name(label)  # not the query's: it may have been taken back since
        said = f"labelled {held}" if held else "no label yet"
        said = f"Please check ({place} of {count} in this image): {said}"
        if query.guess not in (label, IGNORE):
            sure = f", {query.certainty:.2f}" if query.certainty else ""
            said += f"; looks like {self._name(query.guess)}{sure}"
        return f"{said}; checked because: {query.why}" if query.why else said


def certainty_of(workspace: Workspace, found: Labels, number: int, place: int) -> NDArray[np.float64]:
    """How sure the program is of each label of an image: a person's is 1, else ψ's word, else θ's.

    Args:
        workspace: the project's artifacts.
        found: labels of the round.
        number: of the round.
        place: of the image in `found`.
    """
    span = found.span(place)
    labels, confidence = found.labels[span], found.confidence[span]
    scores = workspace.scores(number, int(found.task_ids[place]), found.mask_keys[place])
    if scores is None:
        return confidence
    known = labels < scores.soft_labels.shape[1]
    columns = np.where(known, labels, 0)[:, None]
    from_segmenter = np.where(known, np.take_along_axis(scores.soft_labels, columns, 1)[:, 0], 0.0)
    spoken = np.isin(found.sources[span], [SOURCES.index("human"), SOURCES.index("corrector")])
    return np.clip(np.where(spoken, confidence, from_segmenter), 0.0, 1.0)


@dataclass(frozen=True)
class Note:
    """What a queued region's note says: a class that the mask may be, "" for none, how likely that is, and why."""

    guess: str = ""
    certainty: float = 0.0
    why: str = ""


def read_note(text: str) -> Note:
    """Take apart what a queued region was shown with, in this version's words or an older one's."""
    hint, why = _NOTE.search(text), _WHY.search(text)
    guess, certainty = (hint["guess"], float(hint["certainty"] or 0)) if hint else ("", 0.0)
    return Note(guess, certainty, why["why"] if why else "")


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
    context.platform.share(targets, context.settings.annotator_addresses)
    ask(context, _view(context).labels)
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
