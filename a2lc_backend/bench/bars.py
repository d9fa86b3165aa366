"""How far a benchmark is, on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Bars:
    """Two progress bars: rounds of all runs, and the step at hand."""

    def __init__(self, console: Console, rounds: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console)
        self._all = self._progress.add_task("rounds", total=rounds)
        self._step = self._progress.add_task("", total=None)

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, what: str, done: int, total: int) -> None:
        """Show how far the step at hand is."""
        self._progress.update(self._step, description=what, completed=done, total=total or None)

    def advance(self, rounds: int = 1) -> None:
        """Count finished rounds."""
        self._progress.advance(self._all, rounds)

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(text, markup=False, highlight=False)
