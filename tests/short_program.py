"""The command line with a U-Net trained for few steps, whose shards a test may hold while it kills somebody."""

from __future__ import annotations

import os
import time
from pathlib import Path

from a2lc_backend.cli import main
from a2lc_backend.rounds import shards
from a2lc_backend.segmenter import unet

unet.MIN_STEPS = unet.MAX_STEPS = int(os.environ.get("A2LC_TEST_STEPS", "30"))
HOLDS = Path(os.environ.get("A2LC_TEST_HOLDS", "/nonexistent"))
"""Folder with a file named as a phase for each that is to be held; `<phase>.held` says in which process it is."""

_progress = shards._Work.progress


def held_progress(self: shards._Work, done: int, total: int) -> None:
    """Wait inside a shard, in front of its first progress, until the test lets it go."""
    hold = HOLDS / self._shard.phase
    while hold.exists():
        held = hold.with_suffix(".held")
        if not held.exists():
            mine = hold.with_suffix(f".{os.getpid()}")
            mine.write_text(str(os.getpid()))
            mine.replace(held)  # whoever sees it sees all of it
        self.check()
        time.sleep(0.01)
    _progress(self, done, total)


shards._Work.progress = held_progress  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
