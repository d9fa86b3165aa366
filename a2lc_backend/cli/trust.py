"""Why the labels of a round can be trusted, as `a2lc rounds show` prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from a2lc_backend.audit import Interval
    from a2lc_backend.rounds.report import RoundReport


def print_trust(console: Console, report: RoundReport) -> None:
    """Print what audits say of the corrector's labels, what was held back, and what is left to do."""
    _print_statements(console, report)
    _print_strata(console, report)
    _print_estimates(console, report)


def _print_statements(console: Console, report: RoundReport) -> None:
    from rich.table import Table  # noqa: PLC0415

    from a2lc_backend.audit import Evidence, Statement  # noqa: PLC0415

    if not report.audits:
        return
    table = Table(title="Labels of the corrector, by blind audit (95 % intervals)")
    for heading in ("Published in", "Labels", "Audited", "Right", "Right before"):
        table.add_column(heading, justify="left" if heading == "Published in" else "right", no_wrap=True)
    pooled, *single = report.audits
    for result in (*single, pooled):
        stated = Statement.of(Evidence(result.audited, result.right, result.broken))
        table.add_row(
            "all rounds" if result.about < 0 else f"round {result.about}",
            str(result.applied) if result.about >= 0 else "",
            f"{result.audited} of {result.drawn}",
            _share(result.right, result.audited, stated.after),
            _share(result.broken, result.audited, stated.before),
        )
    console.print(table)
    if pooled.audited < pooled.drawn:
        console.print(
            "  Not every audited mask is answered: the shares hold for the images that people have come to.",
            style="yellow",
        )


def _print_strata(console: Console, report: RoundReport) -> None:
    from rich.table import Table  # noqa: PLC0415

    from a2lc_backend.audit import STRATA  # noqa: PLC0415

    if not any(row.proposed for row in report.strata):
        return
    table = Table(title="Proposals of the corrector")
    for heading in ("Proposals", "Masks", "Audited", "Mended", "Broken", "So they are"):
        table.add_column(heading, justify="left" if heading in ("Proposals", "So they are") else "right")
    for row in reversed(report.strata):
        counts = (row.proposed, row.audited, row.right, row.broken)
        table.add_row(STRATA[row.stratum].name, *map(str, counts), "applied" if row.taken else "held back")
    console.print(table)
    if report.round.settings.get("policy") == "manual":
        console.print("  of those, only the class pairs that were approved; see `a2lc proposals list`")


def _print_estimates(console: Console, report: RoundReport) -> None:
    wrong, fixes = report.estimate("still_wrong"), report.estimate("next_fixes")
    unanswered, queued = report.round.summary.get("unanswered", 0), report.round.summary.get("queued", 0)
    if wrong is not None:
        console.print(
            f"  still wrong: about {wrong.value:.0f} of {unanswered:.0f} unanswered masks "
            f"(95 %: {wrong.low:.0f} to {wrong.high:.0f})"
        )
    if fixes is not None:
        console.print(
            f"  its {queued:.0f} queries should mend about {fixes.value:.0f} masks "
            f"(95 %: {fixes.low:.0f} to {fixes.high:.0f})"
        )


def _share(count: int, audited: int, interval: Interval) -> str:
    if not audited:
        return "–"
    return f"{100 * count / audited:.0f} % ({100 * interval.low:.0f}–{100 * interval.high:.0f})"
