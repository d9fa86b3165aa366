"""What a benchmark found, as pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from a2lc_backend.bench.findings import BINS, Findings, RoundResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST_IN_BIN = 5
"""Fewer masks than this say nothing about a bin's share."""

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#7a5c3e", "#d55e00")
"""Of the methods: Okabe and Ito's, told apart by colour-blind people too; the last method gets the last one."""


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
        heights = findings.mean_queries(method)[order]
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
