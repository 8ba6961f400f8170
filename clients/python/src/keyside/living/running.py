"""Running a job over a table: page by page, each in a transaction, at the pace that the application leaves it."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from keyside.fields import Send
from keyside.living.jobs import Changes, Job, Page
from keyside.living.progress import Progress
from keyside.values import decode, encode

MOST_PASSES = 5

EXACT_COLLATION: Final = {"postgresql": "C", "sqlite": "BINARY"}
"""Compare-and-set must tell `Abc` from `abc`, whatever the collation of the column. MySQL and MariaDB have none that
tells `abc` from `abc ` in all their versions; there bytes are compared."""


class Rows(Protocol):
    """A table as an ORM shows it to a job. Reads and writes go past the hooks."""

    def count(self) -> int:
        """How many rows there are."""

    def transaction(self) -> AbstractContextManager[Any]:
        """Around the work on one page: commits, or leaves that to whoever owns the connection."""

    def page(self, columns: tuple[str, ...], after: tuple[Any, ...] | None, limit: int) -> Page:
        """The next rows by primary key."""

    def write(self, changes: Changes) -> int | None:
        """Write each row where its row still holds what was read. No signals, no other column.

        Returns how many rows were written, None where the driver does not say.
        """


@dataclass(frozen=True)
class Options:
    """How a job runs."""

    batch: int = 1000
    """Rows a page, a transaction and a round trip."""
    rate: float | None = None
    """Most rows a second; None for as fast as it goes."""
    dry_run: bool = False
    """Do everything, sidecar included, but write nothing."""
    state: Path | None = None
    """A file that remembers how far the job is, so that a restart need not look at the rows before."""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError("batch: expected at least 1 row")
        if self.rate is not None and self.rate <= 0:
            raise ValueError("rate: expected more than 0 rows a second")


def run(
    job: Job, rows: Rows, send: Send, options: Options, report: Callable[[Progress], object] = lambda progress: None
) -> Progress:
    """Run a job until nothing is left to change. Raises FieldError; pages before it are done.

    A row that somebody else changes between reading and writing keeps what it was given; for such rows there is another
    pass, five in all; `Progress.missed` tells what is left then. With `dry_run` there is one pass.
    """
    progress = Progress(rows.count(), dry_run=options.dry_run)
    after = _remembered(options, progress)
    passes = 0
    while True:
        # what an earlier run missed lies behind where it stopped
        missed = progress.missed if passes == 0 else 0
        progress.missed = missed + _pass(job, rows, send, options, progress, report, after)
        after, passes = None, passes + 1
        if options.state is not None and not options.dry_run:
            options.state.unlink(missing_ok=True)
        if not progress.missed or options.dry_run or passes == MOST_PASSES:
            return progress


def _pass(
    job: Job,
    rows: Rows,
    send: Send,
    options: Options,
    progress: Progress,
    report: Callable[[Progress], object],
    after: tuple[Any, ...] | None,
) -> int:
    """One walk over the table; how many rows were changed by somebody else meanwhile, as far as the driver tells."""
    again = progress.seen > 0
    earlier, missed = (0 if again else progress.missed), 0
    with ThreadPoolExecutor(1, "keyside-living") as beside:
        began = time.monotonic()
        with rows.transaction():
            page = rows.page(job.columns, after, options.batch)
        changing = _begin(beside, job, page, send)
        while page.keys:
            with rows.transaction():
                # the sidecar works on the next page while the database takes this one
                following = rows.page(job.columns, page.keys[-1], options.batch)
                parts = changing.result()
                changing = _begin(beside, job, following, send)
                changed = sum(len(changes) for changes in parts)
                if not options.dry_run:
                    missed += changed - sum(rows.write(changes) or 0 for changes in parts)
            if not again:
                progress.seen += len(page.keys)
                progress.changed += changed
            _remember(options, _State(_key_text(page.keys[-1]), progress.before + progress.seen, earlier + missed))
            report(progress)
            if options.rate is not None:
                time.sleep(max(0.0, len(page.keys) / options.rate - (time.monotonic() - began)))
            page, began = following, time.monotonic()
    return missed


def _begin(beside: ThreadPoolExecutor, job: Job, page: Page, send: Send) -> Future[list[Changes]]:
    """Work out the changes of a page in another thread, in the context of this one: partitions may come from it."""
    return beside.submit(copy_context().run, job.changes, page, send)


class _State(NamedTuple):
    """What a state file says."""

    after: str
    """The last primary key of the pages that are done, base64 of the value encoding."""
    seen: int
    missed: int
    """Rows of those pages that somebody else changed meanwhile."""


def _key_text(key: tuple[Any, ...]) -> str:
    return base64.b64encode(encode(key)).decode()


def _remembered(options: Options, progress: Progress) -> tuple[Any, ...] | None:
    if options.state is None or not options.state.exists():
        return None
    try:
        state = _State(**json.loads(options.state.read_text()))
        key = tuple(decode(base64.b64decode(state.after, validate=True)))
    except (TypeError, ValueError):  # what is no base64 or no encoding is a ValueError as well
        raise ValueError("the state file is not one of this job; remove it to begin anew") from None
    progress.before, progress.missed = state.seen, state.missed
    return key


def _remember(options: Options, state: _State) -> None:
    if options.state is None or options.dry_run:
        return
    # replaced at once, so that a kill leaves the old state or the new one
    fresh = options.state.with_suffix(options.state.suffix + ".new")
    fresh.write_text(json.dumps(state._asdict()))
    fresh.replace(options.state)
