"""Measure how rounds grow with a project: memory, seconds a phase, bytes and SQL statements.

Run with `python -m benchmarks.scale`; the tables are Markdown. Data are drawn and the neural networks replaced by
recorded outputs (`drawn.py`); rounds, ledger and artifacts are the product's own. Every size runs in a process of its
own, and what the web process does with a finished round in another.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import event, func, select
from sqlalchemy.engine import Engine

from a2lc_backend.rounds.context import Context
from a2lc_backend.rounds.phases import PHASES
from a2lc_backend.rounds.publish import RoundView
from a2lc_backend.rounds.report import group_reports, round_report
from a2lc_backend.rounds.runner import run_round
from a2lc_backend.rounds.workspace import Workspace
from a2lc_backend.settings import ProjectSettings
from a2lc_backend.store import Artifacts, Ledger, Phase, tables
from benchmarks.drawn import MASKS, DrawnMasks, DrawnPlatform, DrawnProject, RecordedSegmenter

SIZES = (2_000, 20_000, 200_000)
ROUNDS = 2
BUDGET_SHARE = 0.025
"""Of the masks that are queued a round: what people can answer does not grow with a project, but this is the worst."""

_PROJECT = 1
_MIB = 2**20


@dataclass(frozen=True)
class PhaseCost:
    """What one phase of one round took.

    Attributes:
        round: number.
        name: of the phase.
        seconds: on the clock, as the ledger has them.
        processor: seconds of all threads, which other programs on the machine do not stretch.
        peak: of the process's memory, bytes.
    """

    round: int
    name: str
    seconds: float
    processor: float
    peak: int


@dataclass(frozen=True)
class Measured:
    """What the rounds of one size took.

    Attributes:
        masks: N.
        images: T.
        budget: masks queued a round.
        phases: in the order they ran.
        seconds: of every round, with what lies between phases.
        statements: SQL statements of every round.
        peak: of the process that ran the rounds, bytes.
        artifact_bytes: on disk after the last round, by kind.
        artifact_files: of the same.
        ledger_bytes: of the database file.
        ledger_rows: by table.
        predictions: written by each round.
        web_peak: of a process that shows the last round, bytes; 0 where none was started.
        web_seconds: until it had shown it.
    """

    masks: int
    images: int
    budget: int
    phases: tuple[PhaseCost, ...]
    seconds: tuple[float, ...]
    statements: tuple[int, ...]
    peak: int
    artifact_bytes: dict[str, int]
    artifact_files: dict[str, int]
    ledger_bytes: int
    ledger_rows: dict[str, int]
    predictions: tuple[int, ...]
    web_peak: int = 0
    web_seconds: float = 0.0

    @classmethod
    def read(cls, text: str) -> Measured:
        """What `write` wrote."""
        data = json.loads(text)
        lists = {name: tuple(data[name]) for name in ("seconds", "statements", "predictions")}
        return cls(**(data | lists | {"phases": tuple(PhaseCost(**phase) for phase in data["phases"])}))

    def write(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    def cost(self, number: int, name: str) -> PhaseCost:
        """Of one phase."""
        return next(phase for phase in self.phases if (phase.round, phase.name) == (number, name))


def run_rounds(masks: int, rounds: int, folder: Path) -> Measured:
    """Run rounds 0 to R on drawn data in this process.

    Args:
        masks: N, rounded to whole images.
        rounds: R.
        folder: of the ledger and the artifacts, empty.
    """
    drawn = DrawnProject(max(masks // MASKS, 1))
    settings = ProjectSettings(budget=max(int(BUDGET_SHARE * drawn.images * MASKS), 50))
    platform = DrawnPlatform(drawn)
    workspace = Workspace(Artifacts(f"file://{folder / 'artifacts'}"), _PROJECT)
    phases: list[PhaseCost] = []
    seconds, statements = [], []
    with closing(Ledger(_ledger_url(folder))) as ledger, count_statements() as counted:
        for number in range(rounds + 1):
            costs: dict[str, tuple[float, int]] = {}
            started, before = time.perf_counter(), counted()
            context = Context(
                ledger.begin_round(_PROJECT, settings.budget), settings, ledger, workspace, platform,
                DrawnMasks(drawn), lambda _: RecordedSegmenter(drawn),
            )  # fmt: skip
            run_round(context, "scale", _note_costs(costs))
            seconds.append(time.perf_counter() - started)
            statements.append(counted() - before)
            phases += [
                PhaseCost(number, phase.name, phase.ended - phase.started, *costs[phase.name])
                for phase in ledger.phases(_PROJECT, number)
            ]
        rows = _count_rows(ledger)
    sizes, files = _by_kind(folder / "artifacts")
    return Measured(
        drawn.images * MASKS, drawn.images, settings.budget, tuple(phases), tuple(seconds), tuple(statements),
        max(_peak(), *(phase.peak for phase in phases)), sizes, files, (folder / "ledger.db").stat().st_size, rows,
        tuple(len(set(written)) for written in platform.predictions.values()),
    )  # fmt: skip


def look_at(folder: Path) -> tuple[int, float]:
    """Do what the web process does with the last round: its report, its proposals, one image's prediction.

    Returns:
        Peak memory of this process in bytes, and seconds.
    """
    started = time.perf_counter()
    workspace = Workspace(Artifacts(f"file://{folder / 'artifacts'}"), _PROJECT)
    with closing(Ledger(_ledger_url(folder))) as ledger:
        number = ledger.rounds(_PROJECT)[-1].number
        round_report(ledger, _PROJECT, number)
        group_reports(ledger, _PROJECT, number)
        RoundView(ledger, workspace, _PROJECT, number).prediction(1)
    return _peak(), time.perf_counter() - started


@contextmanager
def count_statements() -> Iterator[Callable[[], int]]:
    """Count what is sent to any database meanwhile; many rows in one call count once."""
    count = 0

    def add(*_: object) -> None:
        nonlocal count
        count += 1

    event.listen(Engine, "before_cursor_execute", add)
    try:
        yield lambda: count
    finally:
        event.remove(Engine, "before_cursor_execute", add)


def measure(masks: int, rounds: int) -> Measured:
    """Run one size in a process of its own, then look at it in another."""
    with tempfile.TemporaryDirectory() as folder:
        found = Measured.read(_in_process("run", folder, "--masks", str(masks), "--rounds", str(rounds)))
        peak, seconds = json.loads(_in_process("look", folder))
        return Measured(**(vars(found) | {"web_peak": peak, "web_seconds": seconds}))


def tables_of(found: list[Measured]) -> Iterator[str]:
    """The Markdown tables, line by line."""
    yield from _table("", found, _size_lines(found))
    for number in range(len(found[0].seconds)):
        yield ""
        yield from _table(f"round {number}: seconds, processor seconds, peak MiB", found, _phase_lines(found, number))


def _size_lines(found: list[Measured]) -> Iterator[list[str]]:
    kinds = found[-1].artifact_bytes
    yield ["images", *(f"{item.images:,}" for item in found)]
    yield ["masks queued a round", *(f"{item.budget:,}" for item in found)]
    yield ["peak memory of the process that runs rounds, MiB", *(f"{item.peak / _MIB:.0f}" for item in found)]
    yield ["peak memory of a process that shows a round, MiB", *(f"{item.web_peak / _MIB:.0f}" for item in found)]
    yield ["… seconds", *(f"{item.web_seconds:.1f}" for item in found)]
    for kind in kinds:
        sizes = (item.artifact_bytes.get(kind, 0) / item.masks for item in found)
        yield [f"artifacts, bytes a mask: {kind}", *(f"{size:.0f}" for size in sizes)]
    yield ["artifacts, bytes a mask: all", *(f"{sum(item.artifact_bytes.values()) / item.masks:.0f}" for item in found)]
    yield ["artifacts, files an image", *(f"{sum(item.artifact_files.values()) / item.images:.1f}" for item in found)]
    yield ["ledger, bytes a mask", *(f"{item.ledger_bytes / item.masks:.1f}" for item in found)]
    yield ["ledger, rows", *(f"{sum(item.ledger_rows.values()):,}" for item in found)]
    for number in range(len(found[0].statements)):
        yield [f"SQL statements of round {number}", *(f"{item.statements[number]:,}" for item in found)]


def _phase_lines(found: list[Measured], number: int) -> Iterator[list[str]]:
    for name in (kind.name for kind in PHASES):
        costs = [item.cost(number, name) for item in found]
        cells = [f"{cost.seconds:.2f}, {cost.processor:.2f}, {cost.peak / _MIB:.0f}" for cost in costs]
        yield [name, *cells, _growth([cost.processor for cost in costs])]
    totals = [item.seconds[number] for item in found]
    own = [sum(cost.processor for cost in item.phases if cost.round == number) for item in found]
    cells = [f"{total:.2f}, {processor:.2f}" for total, processor in zip(totals, own, strict=True)]
    yield ["whole round", *cells, _growth(own)]


def _growth(values: list[float]) -> str:
    """How many times the last is the one before; little where both are noise."""
    return f"× {values[-1] / values[-2]:.1f}" if len(values) > 1 and values[-2] > 0 else ""


def _table(what: str, found: list[Measured], lines: Iterator[list[str]]) -> Iterator[str]:
    rows = list(lines)
    head = [what, *(f"{item.masks:,} masks" for item in found)]
    if len(rows[0]) > len(head):
        head.append("growth of processor seconds, last step")
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _in_process(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.scale", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603


def _ledger_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'ledger.db'}"


def _note_costs(costs: dict[str, tuple[float, int]]) -> Callable[[Phase], None]:
    """Note processor seconds and peak memory of every phase, by name, between its first and its last report."""
    begun: dict[str, float] = {}

    def watch(phase: Phase) -> None:
        if phase.name not in begun:
            begun[phase.name] = time.process_time()
            _forget_peak()
        if phase.status == "done":
            costs[phase.name] = time.process_time() - begun[phase.name], _peak()

    return watch


def _peak() -> int:
    """Peak resident memory of this process in bytes, since it was last forgotten where the system allows that."""
    status = Path("/proc/self/status")
    if status.exists():
        mark = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM")), None)
        if mark is not None:
            return int(mark.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _forget_peak() -> None:
    mark = Path("/proc/self/clear_refs")
    if mark.exists():
        mark.write_text("5")  # only VmHWM goes back, to what is resident now


def _count_rows(ledger: Ledger) -> dict[str, int]:
    with ledger._engine.connect() as db:
        return {
            table.name: int(db.execute(select(func.count()).select_from(table)).scalar() or 0)
            for table in tables.metadata.sorted_tables
        }


def _by_kind(folder: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes and files of the artifacts by kind."""
    sizes: dict[str, int] = {}
    files: dict[str, int] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            kind = _kind(path)
            sizes[kind] = sizes.get(kind, 0) + path.stat().st_size
            files[kind] = files.get(kind, 0) + 1
    return sizes, files


def _kind(path: Path) -> str:
    if path.parent.name == "scores":
        return f"scores of round {path.parent.parent.name}"
    if path.parent.parent.name == "rounds":
        return f"labels and θ of round {path.parent.name}"
    if path.name.endswith(".catalog"):
        return "catalogs"
    return "recorded outputs" if path.name.startswith("input") else "masks"


def main(arguments: list[str] | None = None) -> int:
    """Print the tables; `run` and `look` are what the processes of one size do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", nargs="?", choices=("run", "look"), help="of one size, in a folder")
    parser.add_argument("folder", nargs="?", type=Path, help="of its ledger and artifacts")
    parser.add_argument("--masks", type=int, nargs="+", default=SIZES, help=f"sizes of projects; {SIZES} if not given")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"after round 0; {ROUNDS} if not given")
    options = parser.parse_args(arguments)
    if options.step is None:
        found: list[Measured] = []
        for masks in options.masks:
            found.append(measure(masks, options.rounds))
            print(f"{masks:,} masks: {sum(found[-1].seconds):.1f} s", file=sys.stderr, flush=True)  # noqa: T201
        for line in tables_of(found):
            print(line)  # noqa: T201
        return 0
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    answer: Any = look_at(options.folder) if options.step == "look" else None
    text = run_rounds(options.masks[0], options.rounds, options.folder).write() if answer is None else None
    print(text or json.dumps(answer))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
