"""What a run shows while it works: a live table on a terminal, plain lines elsewhere, one line per stage in the log."""

import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from curation.stage import shown

PLAIN_SECONDS = 10.0  # without a terminal: a line at most this often


class Progress:
    """Rows, tokens per second and time left, per stage. Safe to call from several threads."""

    def __init__(self, log: Path, quiet: bool = False) -> None:
        self.log, self.lock, self.tasks = log, threading.Lock(), dict[str, Any]()
        self.counts: dict[str, list[float]] = {}  # stage → rows done, rows in all, tokens, started
        self.live = None if quiet or not sys.stderr.isatty() else _bars()
        self.quiet, self.said = quiet, time.monotonic()

    @contextmanager
    def shown(self) -> Iterator["Progress"]:
        if self.live is None:
            yield self
        else:
            with self.live:
                yield self

    def expect(self, stage: str, rows: int) -> None:
        """A stage will see so many rows."""
        with self.lock:
            self.counts[stage] = [0.0, float(rows), 0.0, time.monotonic()]
            if self.live is not None:
                self.tasks[stage] = self.live.add_task(stage, total=rows, speed="")

    def advance(self, stage: str, rows: float, tokens: float = 0.0) -> None:
        with self.lock:
            done = self.counts[stage]
            done[0], done[2] = done[0] + rows, done[2] + tokens
            seconds = time.monotonic() - done[3]
            if self.live is not None:
                speed = f"{done[2] / max(seconds, 1e-9):.0f} tok/s" if done[2] else ""
                self.live.update(self.tasks[stage], completed=done[0], speed=speed)
            elif not self.quiet and time.monotonic() - self.said > PLAIN_SECONDS:
                self.said = time.monotonic()
                left = seconds / max(done[0], 1e-9) * (done[1] - done[0])
                tokens_shown = f"  {done[2] / max(seconds, 1e-9):.0f} tok/s" if done[2] else ""
                print(f"{stage}  {done[0]:.0f} of {done[1]:.0f} rows{tokens_shown}  {left:.0f} s left", file=sys.stderr)

    def line(self, text: str) -> None:
        """One line for good: in the log, and on the terminal."""
        with self.lock, self.log.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
            if self.live is not None:
                self.live.console.print(text, markup=False, highlight=False)
            elif not self.quiet:
                print(text, file=sys.stderr, flush=True)


def stage_line(
    word: str, stage: object, rows_in: int, rows_out: int, reasons: Mapping[str, int],
    counters: Mapping[str, float], seconds: float,
) -> str:  # fmt: skip
    """ran    BestOfK(min_score=1.0)   200 -> 50   dropped 150: not_best 120, below_floor 30   1.2 s"""
    parts = [f"{word:6} {shown(stage)}", f"{rows_in} -> {rows_out}"]
    if reasons:
        listed = ", ".join(f"{name} {count}" for name, count in sorted(reasons.items(), key=lambda r: (-r[1], r[0])))
        parts.append(f"dropped {sum(reasons.values())}: {listed}")
    parts += [f"{name} {value:g}" for name, value in sorted(counters.items())]
    if seconds:
        parts.append(f"{seconds:.1f} s")
    return "   ".join(parts)


def _bars() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    return Bars(
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(), console=Console(stderr=True),
    )  # fmt: skip
