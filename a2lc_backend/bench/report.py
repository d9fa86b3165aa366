"""What a benchmark found, as report.json, details.json, report.md and pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.masks import IGNORE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 10
"""Equal bins of the corrector's confidence."""

LEAST_IN_BIN = 5
"""Fewer masks than this say nothing about a bin's share."""

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#7a5c3e", "#d55e00")
"""Of the methods: Okabe and Ito's, told apart by colour-blind people too; the last method gets the last one."""


@dataclass(frozen=True)
class Changes:
    """Labels that the corrector changed: a fixed one became right, a broken one had been right."""

    changed: int = 0
    fixed: int = 0
    broken: int = 0

    def __add__(self, other: Changes) -> Changes:
        return Changes(self.changed + other.changed, self.fixed + other.fixed, self.broken + other.broken)

    @classmethod
    def count(cls, before: NDArray[np.int64], after: NDArray[np.int64], true: NDArray[np.int64]) -> Changes:
        """Compare labels (N,) with the true ones, of which `IGNORE` says neither right nor wrong."""
        moved, known = before != after, true != IGNORE
        fixed, broken = moved & known & (after == true), moved & known & (before == true)
        return cls(int(moved.sum()), int(fixed.sum()), int(broken.sum()))


@dataclass(frozen=True)
class RoundResult:
    """One round of one run, measured against the truth; IoUs in percent, None for what is not there to measure.

    Attributes:
        data_miou: of the pseudo-labels over the pool.
        data_iou: of each class.
        model_miou: of θ over the validation images.
        model_iou: of each class.
        queries: masks that people answered for this round, by the class they gave.
        changes: made by the corrector in this round, against the round before.
        standing: labels that come from the corrector after this round, against the first labels.
        seconds: by phase.
        reliability: of the standing labels by confidence, `BINS` rows of (masks, sum of confidence, right ones).
    """

    data_miou: float
    data_iou: tuple[float | None, ...]
    model_miou: float | None
    model_iou: tuple[float | None, ...]
    queries: tuple[int, ...]
    changes: Changes
    standing: Changes
    seconds: dict[str, float]
    reliability: tuple[tuple[int, float, int], ...]

    @classmethod
    def read(cls, stored: dict[str, Any]) -> RoundResult:
        """Take back what `dataclasses.asdict` made and JSON kept."""
        lists = {name: tuple(stored[name]) for name in ("data_iou", "model_iou", "queries")}
        changes = {name: Changes(**stored[name]) for name in ("changes", "standing")}
        reliability = tuple(tuple(row) for row in stored["reliability"])
        return cls(**{**stored, **lists, **changes, "reliability": reliability})


@dataclass(frozen=True)
class RunResult:
    """One method with one seed, round 0 to the last."""

    method: str
    seed: int
    rounds: tuple[RoundResult, ...]


@dataclass(frozen=True)
class Findings:
    """A whole benchmark.

    Attributes:
        world: name of the world folder.
        classes: names in id order.
        true_masks: masks of each class by the truth, which puts the classes in order from tail to head.
        images: in the pool.
        val_images: for the model's mIoU.
        budget: masks a round.
        rounds: R.
        methods: name and meaning, in order.
        seeds: of each method.
        initial_data_miou: of the first labels.
        ceiling_data_miou: of the masks with their true labels.
        runs: every method with every seed.
    """

    world: str
    classes: tuple[str, ...]
    true_masks: tuple[int, ...]
    images: int
    val_images: int
    budget: int
    rounds: int
    methods: dict[str, str]
    seeds: tuple[int, ...]
    initial_data_miou: float
    ceiling_data_miou: float
    runs: tuple[RunResult, ...]

    def of(self, method: str) -> list[RunResult]:
        """The runs of a method, by seed."""
        return [run for run in self.runs if run.method == method]

    def tail_to_head(self) -> list[int]:
        """Class ids, the rarest first."""
        return [int(label) for label in np.argsort(self.true_masks, kind="stable")]

    def values(self, method: str, read: Callable[[RoundResult], float | None]) -> NDArray[np.float64]:
        """One number of each round of each run of a method, (S, R + 1), NaN where there is none."""
        rows = [
            [math.nan if (value := read(item)) is None else value for item in run.rounds] for run in self.of(method)
        ]
        return np.array(rows, np.float64)


def write_report(findings: Findings, out: Path) -> Path:
    """Write report.json, details.json, report.md and the pictures into a folder.

    Returns:
        Path of report.json, which is written last.
    """
    pictures = draw_plots(findings, out)
    write_json(out / "details.json", asdict(findings))
    (out / "report.md").write_text(markdown(findings, pictures), encoding="utf-8")
    path = out / "report.json"
    write_json(path, summary(findings))
    return path


def write_json(path: Path, content: Any) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """What a file holds, None where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def summary(findings: Findings) -> dict[str, Any]:
    """What report.json holds: lists have one entry a seed, mIoUs one a round from 0 on, the rest sums over rounds."""

    def describe_method(runs: list[RunResult]) -> dict[str, Any]:
        return {
            "data_miou": [[item.data_miou for item in run.rounds] for run in runs],
            "model_miou": [[item.model_miou for item in run.rounds] for run in runs],
            "queries": [sum(sum(item.queries) for item in run.rounds) for run in runs],
            "auto_corrections": [asdict(sum((item.changes for item in run.rounds), Changes())) for run in runs],
            "seconds": [round(sum(sum(item.seconds.values()) for item in run.rounds), 2) for run in runs],
        }

    return {
        "methods": {name: describe_method(findings.of(name)) for name in findings.methods},
        "initial_data_miou": findings.initial_data_miou,
        "ceiling_data_miou": findings.ceiling_data_miou,
    }


def markdown(findings: Findings, pictures: Sequence[str]) -> str:
    """The report as a page: the poster's table first."""
    several = f"mean ± standard deviation of the seeds {', '.join(map(str, findings.seeds))}"
    how = several if len(findings.seeds) > 1 else f"seed {findings.seeds[0]}"
    parts = [
        f"# Benchmark on `{findings.world}`",
        f"{findings.images} pool images, {sum(findings.true_masks):,} masks of {len(findings.classes)} true classes, "
        f"{findings.val_images} validation images; {findings.budget} masks a round, {findings.rounds} rounds; {how}. "
        f"The first labels have a data mIoU of {findings.initial_data_miou:.1f}; with the true label on every mask it "
        f"would be {findings.ceiling_data_miou:.1f}. Measured with the product's own rounds and an oracle annotator.",
        "\n".join(f"- `{name}`: {meaning}" for name, meaning in findings.methods.items()),
        "## Data mIoU\n\n" + _miou_table(findings, lambda item: item.data_miou),
        "## Model mIoU\n\n" + _model_part(findings),
        "\n".join(f"![{Path(name).stem.replace('_', ' ')}]({name})" for name in pictures),
        f"## Data IoU of each class after round {findings.rounds}, tail to head\n\n" + _class_table(findings),
        "## Queries of each class, tail to head\n\nMasks that people answered in all rounds, mean over seeds.\n\n"
        + _query_table(findings),
        "## Automatic corrections\n\nLabels changed in a round against the round before: how many, how many became "
        "right (fixed), how many had been right (broken); below them, those that stand after the last round, against "
        "the first labels. Mean over seeds.\n\n" + _changes_table(findings),
        "## Seconds\n\nOf each phase over all rounds, mean over seeds; frozen features are computed before.\n\n"
        + _seconds_table(findings),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def mean_and_spread(values: NDArray[np.float64]) -> str:
    """`71.2 ± 0.4` of the numbers of several seeds (sample standard deviation), `71.2` of one, `–` of none."""
    known = values[~np.isnan(values)]
    if not known.size:
        return "–"
    return f"{known.mean():.1f}" + (f" ± {known.std(ddof=1):.1f}" if known.size > 1 else "")


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    rule = [":---", *["---:"] * (len(heading) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heading, rule, *rows))


def _miou_table(findings: Findings, read: Callable[[RoundResult], float | None]) -> str:
    heading = ["Method", "Init", *(f"{number}R" for number in range(1, findings.rounds + 1))]
    rows = []
    for method in findings.methods:
        values = findings.values(method, read)
        rows.append([f"`{method}`", *(mean_and_spread(values[:, number]) for number in range(values.shape[1]))])
    return table(heading, rows)


def _model_part(findings: Findings) -> str:
    if not findings.val_images:
        return "The world has no validation images, so the model was not measured."
    return _miou_table(findings, lambda item: item.model_miou)


def _class_table(findings: Findings) -> str:
    order = findings.tail_to_head()
    rows = []
    for method in findings.methods:
        last = [run.rounds[-1].data_iou for run in findings.of(method)]
        values = np.array([[math.nan if iou is None else iou for iou in row] for row in last], np.float64)
        rows.append([f"`{method}`", *(mean_and_spread(values[:, label]) for label in order)])
    return table(["Method", *(findings.classes[label] for label in order)], rows)


def mean_queries(findings: Findings, method: str) -> NDArray[np.float64]:
    """Masks of each class that people answered in all rounds, (C,), mean over seeds."""
    counts = [np.sum([item.queries for item in run.rounds], axis=0) for run in findings.of(method)]
    return np.asarray(np.mean(counts, axis=0), np.float64)


def _query_table(findings: Findings) -> str:
    order = findings.tail_to_head()
    rows = [["masks in the pool", *(f"{findings.true_masks[label]:,}" for label in order)]]
    for method in findings.methods:
        mean = mean_queries(findings, method)
        rows.append([f"`{method}`", *(f"{mean[label]:.0f}" for label in order)])
    return table(["Method", *(findings.classes[label] for label in order)], rows)


def _changes_table(findings: Findings) -> str:
    heading = ["Method", "Round", "Changed", "Fixed", "Broken", "Right after", "Right before"]
    rows = []
    for method in findings.methods:
        runs = findings.of(method)
        for number in range(1, findings.rounds + 1):
            total = sum((run.rounds[number].changes for run in runs), Changes())
            if total.changed:
                rows.append([f"`{method}`", str(number), *_change_cells(total, len(runs))])
        standing = sum((run.rounds[-1].standing for run in runs), Changes())
        if standing.changed:
            rows.append([f"`{method}`", "standing", *_change_cells(standing, len(runs))])
    return table(heading, rows) if rows else "None of these methods changed a label by itself."


def _change_cells(total: Changes, runs: int) -> list[str]:
    counts = [f"{count / runs:.0f}" for count in (total.changed, total.fixed, total.broken)]
    return [*counts, f"{100 * total.fixed / total.changed:.0f} %", f"{100 * total.broken / total.changed:.0f} %"]


def _seconds_table(findings: Findings) -> str:
    phases = list(dict.fromkeys(name for run in findings.runs for item in run.rounds for name in item.seconds))
    rows = []
    for method in findings.methods:
        runs = findings.of(method)
        means = [sum(item.seconds.get(name, 0.0) for run in runs for item in run.rounds) / len(runs) for name in phases]
        rows.append([f"`{method}`", *(f"{value:.1f}" for value in (*means, sum(means)))])
    return table(["Method", *phases, "all"], rows)


def draw_plots(findings: Findings, out: Path) -> list[str]:
    """Draw the pictures into a folder.

    Returns:
        Their file names; the corrector's reliability is left out where no label came from a corrector.
    """
    figures = {"learning_curves.png": _draw_curves(findings), "queries.png": _draw_queries(findings)}
    reliability = _draw_reliability(findings)
    if reliability is not None:
        figures["reliability.png"] = reliability
    for name, figure in figures.items():
        figure.savefig(out / name, dpi=150)
    return list(figures)


def _new_figure(panels: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes a second to load

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = [figure.add_subplot(1, panels, place + 1) for place in range(panels)]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#e4e4e4", linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, axes


def _colour(findings: Findings, method: str) -> str:
    place = list(findings.methods).index(method)
    return COLOURS[-1] if place == len(findings.methods) - 1 else COLOURS[place % (len(COLOURS) - 1)]


def _legend(figure: Figure, axis: Axes) -> None:
    handles, names = axis.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 7), frameon=False)


def _draw_curves(findings: Findings) -> Figure:
    reads: list[tuple[str, Callable[[RoundResult], float | None]]] = [("Data mIoU", lambda item: item.data_miou)]
    if findings.val_images:
        reads.append(("Model mIoU", lambda item: item.model_miou))
    figure, axes = _new_figure(len(reads), 5.4 * len(reads), 4.6)
    rounds = np.arange(findings.rounds + 1)
    for axis, (title, read) in zip(axes, reads, strict=True):
        for method in findings.methods:
            values, colour = findings.values(method, read), _colour(findings, method)
            mean = values.mean(axis=0)
            axis.plot(rounds, mean, color=colour, marker="o", markersize=4, linewidth=1.8, label=method)
            if len(values) > 1:
                spread = values.std(axis=0, ddof=1)
                axis.fill_between(rounds, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
        axis.set(title=title, xlabel=f"Round ({findings.budget} masks each)", ylabel="%", xticks=rounds)
    _legend(figure, axes[0])
    axes[0].axhline(findings.ceiling_data_miou, color="#888888", linestyle="--", linewidth=1)
    axes[0].annotate(
        "every mask right", (0, findings.ceiling_data_miou), (0, -4), textcoords="offset points", va="top",
        color="#666666", fontsize=9,
    )  # fmt: skip
    return figure


def _draw_queries(findings: Findings) -> Figure:
    order = findings.tail_to_head()
    figure, (axis,) = _new_figure(1, float(np.clip(0.16 * len(order) * (len(findings.methods) + 1), 7, 14)), 4.4)
    places = np.arange(len(order))
    width = 0.84 / len(findings.methods)
    for number, method in enumerate(findings.methods):
        offset = (number - (len(findings.methods) - 1) / 2) * width
        heights = mean_queries(findings, method)[order]
        axis.bar(places + offset, heights, width, color=_colour(findings, method), label=method)
    axis.set_xticks(places, [findings.classes[label] for label in order], rotation=30, ha="right")
    axis.set(title="Queries of each class, from tail to head", ylabel="masks answered in all rounds")
    axis.margins(x=0.01)
    _legend(figure, axis)
    return figure


def _draw_reliability(findings: Findings) -> Figure | None:
    bins = {
        method: np.sum([run.rounds[-1].reliability for run in findings.of(method)], axis=0)
        for method in findings.methods
    }
    spoken = {method: rows for method, rows in bins.items() if rows[:, 0].max() >= LEAST_IN_BIN}
    if not spoken:
        return None
    figure, (shares, counts) = _new_figure(2, 10.8, 4.6)
    edges = np.arange(BINS) / BINS
    shares.plot([0, 100], [0, 100], color="#888888", linestyle="--", linewidth=1)
    for number, (method, rows) in enumerate(spoken.items()):
        colour, enough = _colour(findings, method), rows[:, 0] >= LEAST_IN_BIN
        masks, confidence, right = rows[enough].T
        shares.plot(100 * confidence / masks, 100 * right / masks, color=colour, marker="o", label=method)
        width = 0.86 / BINS / len(spoken)
        middles = 100 * (edges + 0.07 / BINS + (number + 0.5) * width)
        counts.bar(middles, rows[:, 0] / len(findings.of(method)), 100 * width, color=colour)
    shares.set(
        title=f"Labels of the corrector after round {findings.rounds}", xlabel="its confidence, %",
        ylabel="right by the truth, %", xlim=(0, 101), ylim=(0, 101),
    )  # fmt: skip
    counts.set(title="How many there are", xlabel="its confidence, %", ylabel="masks", xlim=(0, 101))
    _legend(figure, shares)
    return figure
