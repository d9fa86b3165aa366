"""What a benchmark found, as report.json, details.json and report.md, with the pictures of `plots`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from a2lc_backend.bench.findings import Changes, Check, Findings, RoundResult, RunResult
from a2lc_backend.bench.plots import draw_plots

CHECKS = {
    "right_after": "right after",
    "right_before": "right before",
    "still_wrong": "still wrong",
    "next_fixes": "mended by the next queries",
}
"""What a round states, in the order of the report."""


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
        f"# Benchmark on `{findings.data}`",
        f"{findings.images} pool images, {sum(findings.true_masks):,} masks of {len(findings.classes)} true classes "
        f"(masks and first labels: `{findings.proposals}`), {findings.val_images} validation images; "
        f"{findings.budget:,} masks a round, {findings.rounds} rounds; {how}. "
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
        _checks_part(findings),
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
        return "There are no validation images, so the model was not measured."
    return _miou_table(findings, lambda item: item.model_miou)


def _class_table(findings: Findings) -> str:
    order = findings.tail_to_head()
    rows = []
    for method in findings.methods:
        last = [run.rounds[-1].data_iou for run in findings.of(method)]
        values = np.array([[math.nan if iou is None else iou for iou in row] for row in last], np.float64)
        rows.append([f"`{method}`", *(mean_and_spread(values[:, label]) for label in order)])
    return table(["Method", *(findings.classes[label] for label in order)], rows)


def _query_table(findings: Findings) -> str:
    order = findings.tail_to_head()
    rows = [["masks in the pool", *(f"{findings.true_masks[label]:,}" for label in order)]]
    for method in findings.methods:
        mean = findings.mean_queries(method)
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


def _checks_part(findings: Findings) -> str:
    """What rounds stated beside the truth; empty where no method states anything."""
    rows = []
    for method in findings.methods:
        for name, meaning in CHECKS.items():
            checks = [[item.checks.get(name, Check(math.nan)) for item in run.rounds] for run in findings.of(method)]
            stated = [check for run in checks for check in run if check.stated is not None]
            if not stated:
                continue
            cells = []
            for number in range(1, findings.rounds + 1):
                here = [run[number] for run in checks if run[number].stated is not None]
                means = [np.mean([getattr(check, part) for check in here] or [0]) for part in ("stated", "true")]
                cells.append(f"{means[0]:.0f} / {means[1]:.0f}" if here else "–")
            held = f"{sum(check.covered for check in stated)} of {len(stated)}"
            rows.append([f"`{method}`", meaning, *cells, held])
    if not rows:
        return ""
    heading = ["Method", "Stated / true", *(f"{number}R" for number in range(1, findings.rounds + 1)), "In interval"]
    return (
        "## What the rounds stated\n\nFrom blind audits alone, beside the truth; means over seeds. In interval: how "
        "many of the stated 95 % intervals hold the true number. Right after and before are shares (%) of the labels "
        "that the corrector had applied in the round before; the others are masks.\n\n" + table(heading, rows)
    )


def _seconds_table(findings: Findings) -> str:
    phases = list(dict.fromkeys(name for run in findings.runs for item in run.rounds for name in item.seconds))
    rows = []
    for method in findings.methods:
        runs = findings.of(method)
        means = [sum(item.seconds.get(name, 0.0) for run in runs for item in run.rounds) / len(runs) for name in phases]
        rows.append([f"`{method}`", *(f"{value:.1f}" for value in (*means, sum(means)))])
    return table(["Method", *phases, "all"], rows)
