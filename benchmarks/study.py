"""What was tried for the default method, and what each choice is worth: the tables of docs/method.md.

    .venv/bin/python -m benchmarks.study --data ../shared/camvid --half choose
    .venv/bin/python -m benchmarks.study --data ../shared/camvid --half rest --tables bars

Every variant differs from the default in what its name says. Choices are made on every second image and reported on the
others. Each seed is a project on a random 80 % of them, with θ of round 0 throughout (see `simulation`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from a2lc_backend.acquisition import adaptive_class_weights, rank_masks
from a2lc_backend.correction import LabelProposals, MaskTable, of_label
from a2lc_backend.correction.boosted import BoostedCorrector, corrector_inputs
from a2lc_backend.correction.paper import PaperCorrector
from a2lc_backend.settings import ProjectSettings
from benchmarks.simulation import MaskPool, Simulation, load_pool

SHARE = 0.8
"""Of the images in each project."""


@dataclass(frozen=True)
class SingleModel:
    """One model alone proposes, and all it proposes is applied.

    Attributes:
        build: an unfitted scikit-learn classifier from a seed.
        margin: least P(new) − P(base).
        prior: multiply the probabilities by the class shares of the pool over those of the answers.
        anchors: weak examples a class, as `BoostedCorrector`; models that take no weights get them at full weight.
    """

    build: Callable[[int], Any]
    margin: float = 0.1
    prior: bool = False
    anchors: int = 20

    def propose(self, table: MaskTable, classes: int, round_number: int, seed: int) -> LabelProposals:
        """Propose, and second all of it."""
        base, rows = table.base_labels, np.flatnonzero(table.human)
        anchors = BoostedCorrector(anchors=self.anchors).anchor_rows(table, classes)
        train = np.concatenate([rows, anchors])
        model, inputs = self.build(seed), corrector_inputs(table, classes)
        model.fit(inputs[train], base[train])
        probabilities = np.zeros((len(inputs), classes))
        probabilities[:, model.classes_] = model.predict_proba(inputs)
        if self.prior:
            given = np.bincount(base[train], minlength=classes)
            pool = np.bincount(table.soft_labels.argmax(1), minlength=classes)
            probabilities *= (pool + 1) / pool.sum() / ((given + 1) / given.sum())
            probabilities /= probabilities.sum(1, keepdims=True)
        guess = probabilities.argmax(1).astype(np.int64)
        gain = of_label(probabilities, guess) - of_label(probabilities, base)
        proposed = ~table.human & (guess != base) & (gain >= self.margin)
        labels = np.where(proposed, guess, base)
        beliefs = [np.where(table.human, 1.0, of_label(probabilities, held)) for held in (labels, base)]
        return LabelProposals(base, labels, guess, beliefs[0], beliefs[1], probabilities.max(1), seconded=proposed)


@dataclass(frozen=True)
class BoostingAlone(BoostedCorrector):
    """All that boosting proposes is applied."""

    def propose(self, table: MaskTable, classes: int, round_number: int, seed: int) -> LabelProposals:
        """Second all that boosting proposes."""
        found = super().propose(table, classes, round_number, seed)
        return replace(found, seconded=found.proposed)


@dataclass(frozen=True)
class Variant:
    """One line of the tables.

    Attributes:
        settings: what differs from `ProjectSettings()`.
        corrector: ψ, where no setting names it.
        patches: what else differs, by the name of what is replaced.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    corrector: Any = None
    patches: Mapping[str, Any] = field(default_factory=dict)


def scaled(build: Callable[[int], Any]) -> Callable[[int], Any]:
    """A model that sees every input with mean 0 and variance 1."""
    return lambda seed: make_pipeline(StandardScaler(), build(seed))


def extra_trees(seed: int) -> ExtraTreesClassifier:
    """300 randomised trees."""
    return ExtraTreesClassifier(300, min_samples_leaf=2, random_state=seed)


def mlp(seed: int) -> MLPClassifier:
    """One hidden layer of 64."""
    return MLPClassifier((64,), alpha=1e-2, max_iter=300, tol=1e-3, random_state=seed)


def few_an_image(most: int, images: NDArray[np.int64]) -> Callable[..., NDArray[np.int64]]:
    """`rank_masks` that passes over an image once so many of its masks are chosen."""

    def rank(values: NDArray[np.float64], askable: NDArray[np.bool_], budget: int) -> NDArray[np.int64]:
        order = rank_masks(values, askable, len(values))
        place = np.empty(len(order), np.int64)
        for image in np.unique(images[order]):
            mine = np.flatnonzero(images[order] == image)
            place[mine] = np.arange(len(mine))
        return np.concatenate([order[place < most], order[place >= most]])[:budget]

    return rank


def with_void(outside: int) -> Callable[..., NDArray[np.float64]]:
    """Class weights as the published code counts them: unlabelled pixels are one more class."""
    return lambda counts: adaptive_class_weights(np.append(counts, outside))[: len(counts)]


PAPER = {"ranking": "abc", "explore": 0.0, "audit": 0.0}

CORRECTORS: dict[str, Variant] = {
    "default": Variant(),
    "no corrector": Variant({"corrector": "none"}),
    "no corrector, no random share": Variant({"corrector": "none", "ranking": "cil", "explore": 0.0, "audit": 0.0}),
    "boosting alone": Variant(corrector=BoostingAlone()),
    "boosting alone, no anchors": Variant(corrector=BoostingAlone(anchors=0)),
    "logistic regression alone": Variant(
        corrector=SingleModel(scaled(lambda _: LogisticRegression(C=0.1, max_iter=200)))
    ),
    "extra trees alone": Variant(corrector=SingleModel(extra_trees)),
    "MLP alone, prior corrected": Variant(corrector=SingleModel(scaled(mlp), prior=True)),
    "15 nearest neighbours alone": Variant(corrector=SingleModel(scaled(lambda _: KNeighborsClassifier(15)))),
    "margins 0.05": Variant(corrector=BoostedCorrector(margin=0.05, second_margin=0.05)),
    "margins 0.3": Variant(corrector=BoostedCorrector(margin=0.3, second_margin=0.3)),
    "no anchors": Variant(corrector=BoostedCorrector(anchors=0)),
    "anchors at full weight": Variant(corrector=BoostedCorrector(anchor_weight=1.0)),
}

QUEUES: dict[str, Variant] = {
    "ABC alone": Variant({"ranking": "abc"}),
    "CIL · SIM alone": Variant({"ranking": "cil"}),
    "no random share": Variant({"explore": 0.0}),
    "5 % random": Variant({"explore": 0.05}),
    "30 % random": Variant({"explore": 0.3}),
    "at most 3 an image": Variant(patches={"images": 3}),
    "no audits": Variant({"audit": 0.0}),
    "audits of 10 %": Variant({"audit": 0.1}),
    "audits decide nothing": Variant(patches={"audit.HARM": 0.0, "audit.RELEASE": 2.0}),
    "released at P(gain) 0.95": Variant(patches={"audit.RELEASE": 0.95}),
}

DEPARTURES: dict[str, Variant] = {
    "a2lc-paper": Variant(PAPER | {"corrector": "paper"}),
    "a2lc-paper, softmax before cross-entropy": Variant(PAPER, PaperCorrector(softmax_twice=True)),
    "abc": Variant(PAPER | {"corrector": "none"}),
    "abc, 255 counted as a class": Variant(PAPER | {"corrector": "none"}, patches={"void": True}),
}

BARS: dict[str, Variant] = {
    "mask": CORRECTORS["no corrector, no random share"],
    "a2lc-paper": DEPARTURES["a2lc-paper"],
    "a2lc": CORRECTORS["default"],
}

TABLES = {"bars": BARS, "correctors": CORRECTORS, "queues": QUEUES, "departures": DEPARTURES}


@contextmanager
def applied(patches: Mapping[str, Any], pool: MaskPool) -> Iterator[None]:
    """Put a variant's replacements in place."""
    if not patches:
        yield
        return
    (name, value), *others = patches.items()
    target = f"a2lc_backend.{name}"
    if name == "images":
        target, value = "a2lc_backend.rounds.queue.rank_masks", few_an_image(value, pool.images)
    elif name == "void":
        target, value = "a2lc_backend.rounds.queue.adaptive_class_weights", with_void(int(pool.outside.sum()))
    with patch(target, value), applied(dict(others), pool):
        yield


def curve(pool: MaskPool, budget: int, table: str, name: str, seed: int) -> list[float]:
    """Data mIoU of rounds 0 to 5."""
    variant, part = TABLES[table][name], pool.part(SHARE, 100 + seed)
    with applied(variant.patches, part):
        settings = ProjectSettings(**{**variant.settings, "budget": budget, "seed": seed})
        return [step.data_miou for step in Simulation(part, settings, corrector=variant.corrector).run()]


def main(
    data: Annotated[Path, typer.Option(help="A world folder.")],
    tables: Annotated[str, typer.Option(help="Commas between: bars, correctors, queues, departures.")] = ",".join(
        TABLES
    ),
    half: Annotated[str, typer.Option(help="Of the images: choose, rest, or all.")] = "all",
    budgets: Annotated[str, typer.Option(help="Commas between.")] = "100,200,400",
    seeds: Annotated[int, typer.Option(min=1)] = 3,
    cache: Annotated[Path, typer.Option(help="Where round 0 is kept.")] = Path(".cache/simulation.npz"),
    jobs: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Print the tables as Markdown: data mIoU after 5 rounds, and its mean over the rounds, by budget."""
    pool, console = load_pool(data, cache), Console(width=160)
    if half != "all":
        pool = pool.select(np.arange(0 if half == "choose" else 1, len(pool.outside), 2))
    sizes = [int(part) for part in budgets.split(",")]
    with ProcessPoolExecutor(jobs) as workers:
        for table in tables.split(","):
            heading = " | ".join(f"B {size}: 5R | 1R–5R" for size in sizes)
            console.print(f"\n| {table} | {heading} |\n| :--- |{' ---: | ---: |' * len(sizes)}", markup=False)
            for name in track(TABLES[table], table, console=console, transient=True):
                cells = []
                for size in sizes:
                    runs = np.array(list(workers.map(partial(curve, pool, size, table, name), range(seeds))))
                    spread = f" ± {runs[:, -1].std(ddof=1):.1f}" if seeds > 1 else ""
                    cells += [f"{runs[:, -1].mean():.1f}{spread}", f"{runs[:, 1:].mean():.1f}"]
                console.print(f"| {name} | {' | '.join(cells)} |", markup=False)


if __name__ == "__main__":
    typer.run(main)
