"""How far a job is: counts, rate, time left, and a bar for people."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TextIO

BAR_CELLS = 24
REDRAW_SECONDS = 0.2
_CLEAR = "\r\x1b[K"


@dataclass
class Progress:
    """Counts of a job's pass."""

    total: int | None
    """Rows of the table when the job began; None when nobody counted."""
    seen: int = 0
    changed: int = 0
    missed: int = 0
    """Rows that somebody else kept changing: left as they are, for the next run."""
    before: int = 0
    """Rows that earlier runs have seen, as the state file tells."""
    dry_run: bool = False
    began: float = field(default_factory=time.monotonic)

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.seen / max(time.monotonic() - self.began, 1e-9)

    @property
    def left(self) -> timedelta | None:
        """Time left at the rate so far."""
        if self.total is None or not self.seen:
            return None
        return timedelta(seconds=round(max(0, self.total - self.before - self.seen) / self.rate))

    def sentence(self) -> str:
        share = f" of {self.total:,}" if self.total is not None else ""
        left = f", {self.left} left" if self.left is not None else ""
        done = "would be changed (dry run)" if self.dry_run else "changed"
        missed = f", {self.missed:,} left that others were changing: run it again" if self.missed else ""
        seen = f"{self.before + self.seen:,}{share} rows seen"
        return f"{seen}, {self.changed:,} {done}{missed}, {self.rate:,.0f} rows/s{left}"


class Bar:
    """Draws progress on one line of a terminal; writes a line at the end alone where there is none."""

    def __init__(self, stream: TextIO, title: str) -> None:
        self._stream = stream
        self._title = title
        self._terminal = stream.isatty()
        self._drawn = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if self._terminal and now - self._drawn >= REDRAW_SECONDS:
            self._drawn = now
            self._stream.write(f"{_CLEAR}{self._line(progress)}")
            self._stream.flush()

    def finish(self, progress: Progress) -> None:
        self._stream.write(f"{_CLEAR if self._terminal else ''}{self._line(progress)}\n")
        self._stream.flush()

    def _line(self, progress: Progress) -> str:
        bar = ""
        if progress.total:
            share = min(100, 100 * (progress.before + progress.seen) // progress.total)
            full = BAR_CELLS * share // 100
            bar = f" [{'#' * full}{'.' * (BAR_CELLS - full)}] {share} %"
        return f"{self._title}:{bar} {progress.sentence()}"
