"""What the run prints: numbered steps with the time they took, and a few rows before, at rest and after."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from demo.people import OPEN

SHOWN = ("given_names", "born", "birthplace")  # what fits 80 columns, at rest too


def shown(cell: object) -> str:
    """A cell in a table's column: of an envelope the first two and last two bytes in hex, and the length."""
    if cell is None:
        return "[dim]NULL[/dim]"
    if isinstance(cell, bytes):
        return f"[red]{cell[:2].hex()}…{cell[-2:].hex()}[/red] [dim]{len(cell)} B[/dim]"
    return str(cell)


class Screen:
    """Prints to a terminal with colour and moving bars, to anything else as plain lines."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=False)
        self.steps = 0

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step, and say how long it took when it went well."""
        self.steps += 1
        self.console.print(f"[bold cyan]{self.steps:2}[/bold cyan]  {title}")
        began = time.perf_counter()
        yield
        self.console.print(f"    [green]done[/green] [dim]in {time.perf_counter() - began:.2f} s[/dim]")

    def note(self, line: str) -> None:
        self.console.print(f"    {line}")

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """A progress bar for `total` fields; gives the function that advances it."""
        columns = (TextColumn(f"    {label}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(label, total=total)
            yield lambda fields: progress.advance(task, fields)

    def rows(self, title: str, rows: Sequence[Sequence[object]], *, as_text: bool = False) -> None:
        """A table of rows: two readable columns, then those to encrypt. `as_text`: bytes are UTF-8, not envelopes."""
        table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
        for name in ("id", "country", *SHOWN):
            table.add_column(name, style="dim" if name in OPEN else "", no_wrap=True, overflow="ellipsis")
        for row in rows:
            cells = [cell.decode() if as_text and isinstance(cell, bytes) else cell for cell in row]
            table.add_row(*(shown(cell) for cell in cells))
        self.console.print(table)

    def total(self, line: str) -> None:
        """The last line."""
        self.console.print(f"\n[bold]{line}[/bold]", soft_wrap=True)

    def failure(self, line: str) -> None:
        self.console.print(f"[bold red]demo failed:[/bold red] {line}", soft_wrap=True)
