"""Tables for people. Imported by the commands that print one: rich costs a quarter of a second."""

import sys
from typing import Final

from rich.console import Console
from rich.table import Table

# where no terminal says how wide it is, nothing is cut off
PIPED_WIDTH: Final = 200


def new_table(*columns: str) -> Table:
    """A table without lines; without columns it has no header either."""
    return Table(*columns, box=None, pad_edge=False, show_header=bool(columns))


def show(table: Table) -> None:
    # without markup: what a service says in brackets is printed as it is
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else PIPED_WIDTH).print(table)
