"""Do the stated intervals hold, and what does each policy cost? Hundreds of simulated projects.

    .venv/bin/python -m benchmarks.trust --data ../shared/camvid --repetitions 200

Each repetition is a project of its own: a random fifth of the images, its own draws and answers, five rounds.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import stats

from a2lc_backend.audit import share_interval
from a2lc_backend.settings import ProjectSettings
from benchmarks.simulation import MaskPool, Simulation, Step, load_pool

POLICIES: dict[str, dict[str, Any]] = {
    "gain": {},
    "precision 0.7": {"policy": "precision", "precision": 0.7},
    "precision 0.9": {"policy": "precision", "precision": 0.9},
    "manual": {"policy": "manual"},
    "no corrector": {"corrector": "none"},
}


PARTS = {0.5: "half the", 1.0: "the", 2.0: "twice the"}


@dataclass(frozen=True)
class Outcome:
    """One repetition.

    Attributes:
        data_miou: after the last round.
        applied: labels of the corrector after the last round.
        right: of those, right.
        misses: by what is stated, one bool a statement: the 95 % interval does not hold the truth.
    """

    data_miou: float
    applied: int
    right: int
    misses: dict[str, list[bool]]


def repeat(pool: MaskPool, share: float, budget: int, settings: dict[str, Any], seed: int) -> Outcome:
    """Run one project and hold all it states against the truth."""
    part = pool.part(share, seed)
    steps = Simulation(part, ProjectSettings(budget=budget, seed=seed, **settings)).run()
    misses: dict[str, list[bool]] = {}

    def check(name: str, low: float, high: float, true: float) -> None:
        misses.setdefault(name, []).append(not low <= true <= high)

    for before, step in pairwise(steps):
        if before.applied and step.statement is not None and step.statement.evidence.audited:
            said = step.statement
            check("right after, a round", said.after.low, said.after.high, before.right / before.applied)
            check("right before, a round", said.before.low, said.before.high, before.broken / before.applied)
        if step.applied and step.decided.audited:
            interval = share_interval(step.decided.right, step.decided.audited)
            # What would be stated if the answers that decided were used again.
            check("right after, from the deciding answers", interval.low, interval.high, step.right / step.applied)
        if step.still is not None:
            check("still wrong", step.still[1], step.still[2], step.wrong)
        for queues, (fixes, true) in step.expected.items():
            check(f"mended by {PARTS[queues]} next queries", fixes.low, fixes.high, true)
    _check_pooled(steps, check)
    return Outcome(steps[-1].data_miou, steps[-1].applied, steps[-1].right, misses)


def _check_pooled(steps: list[Step], check: Any) -> None:
    audited = [step.statement.evidence.audited if step.statement else 0 for step in steps[1:]]
    if not sum(audited):
        return
    pooled = steps[-1].pooled
    shares = [(step.right / max(step.applied, 1), step.broken / max(step.applied, 1)) for step in steps[:-1]]
    after, before = np.average(shares, axis=0, weights=audited)
    if pooled is not None:
        check("right after, all rounds", pooled.after.low, pooled.after.high, float(after))
        check("right before, all rounds", pooled.before.low, pooled.before.high, float(before))


def main(
    data: Annotated[Path, typer.Option(help="A world folder.")],
    repetitions: Annotated[int, typer.Option(min=2)] = 200,
    budget: Annotated[int, typer.Option(min=5)] = 100,
    share: Annotated[float, typer.Option(min=0.01, max=1.0, help="Of the images in each repetition.")] = 0.2,
    cache: Annotated[Path, typer.Option(help="Where round 0 is kept.")] = Path(".cache/simulation.npz"),
    jobs: Annotated[int, typer.Option(min=1)] = 2,
    policies: Annotated[str, typer.Option(help="Commas between.")] = ",".join(POLICIES),
) -> None:
    """Print how often stated intervals fail, and what each policy costs."""
    pool, console = load_pool(data, cache), Console(width=140)
    costs = Table("Policy", "Data mIoU", "Labels applied", "of those right")
    coverage = Table("Policy", "Stated (95 %)", "Statements", "Failed", "Share", "Allowed")
    with ProcessPoolExecutor(jobs) as workers:
        for policy in policies.split(","):
            work = partial(repeat, pool, share, budget, POLICIES[policy])
            done = workers.map(work, range(repetitions))
            outcomes = list(track(done, policy, repetitions, console=console))
            miou = np.array([outcome.data_miou for outcome in outcomes])
            applied, right = (sum(getattr(outcome, name) for outcome in outcomes) for name in ("applied", "right"))
            spread = miou.std(ddof=1) / len(miou) ** 0.5
            costs.add_row(
                policy, f"{miou.mean():.2f} ± {spread:.2f}", f"{applied / repetitions:.0f}",
                f"{100 * right / applied:.0f} %" if applied else "–",
            )  # fmt: skip
            for name in dict.fromkeys(name for outcome in outcomes for name in outcome.misses):
                missed = [miss for outcome in outcomes for miss in outcome.misses.get(name, [])]
                # Statements of one repetition are not independent, so the error is that of as many repetitions.
                allowed = stats.binom.ppf(0.975, repetitions, 0.05) / repetitions
                failed = np.mean(missed)
                coverage.add_row(
                    policy, name, str(len(missed)), str(sum(missed)), f"{100 * failed:.1f} %", f"{100 * allowed:.1f} %"
                )
    console.print(costs)
    console.print(coverage)


if __name__ == "__main__":
    typer.run(main)
