"""Jobs over a table that lies in memory: what is remembered, counted and told."""

from __future__ import annotations

import io
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from keyside.fields import Field, Send
from keyside.living import Bar, Changes, Options, Page, Progress, run

ROWS = 100
FIELD = Field("table", "column", "keyring")


class Table:
    """`keyside.living.Rows`: numbers that are to be made negative."""

    def __init__(self) -> None:
        self.held = {number: number + 1 for number in range(ROWS)}
        self.refused: set[int] = set()
        """Rows that somebody else changes whenever they are to be written."""

    def count(self) -> int:
        return len(self.held)

    def transaction(self) -> nullcontext[None]:
        return nullcontext()

    def page(self, columns: tuple[str, ...], after: tuple[Any, ...] | None, limit: int) -> Page:
        keys = [key for key in self.held if after is None or key > after[0]][:limit]
        return Page([(key,) for key in keys], {"column": [self.held[key] for key in keys]})

    def write(self, changes: Changes) -> int:
        written = 0
        for (key,), new in zip(changes.keys, changes.after["column"], strict=True):
            if key not in self.refused:
                self.held[key] = new
                written += 1
        return written


class Negate:
    field = FIELD
    columns = ("column",)

    def changes(self, page: Page, send: Send) -> list[Changes]:
        rows = [row for row, held in enumerate(page.stored["column"]) if held > 0]
        keys, held = [page.keys[row] for row in rows], [page.stored["column"][row] for row in rows]
        return [Changes(keys, {"column": held}, {"column": [-one for one in held]})] if rows else []


def send(jobs: Any) -> Any:
    raise AssertionError("nobody is asked")


class Killed(BaseException):
    pass


def test_what_was_missed_before_a_kill_is_met_after_it(tmp_path: Path) -> None:
    table, state = Table(), tmp_path / "state"
    table.refused = {3}

    def kill(progress: Progress) -> None:
        if progress.seen == 60:
            raise Killed

    with pytest.raises(Killed):
        run(Negate(), table, send, Options(batch=20, state=state), kill)
    assert table.held[3] > 0
    table.refused = set()
    done = run(Negate(), table, send, Options(batch=20, state=state))
    assert max(table.held.values()) < 0, "the row before the place where it stopped"
    assert (done.before, done.seen, done.missed) == (60, 40, 0)
    assert not state.exists()


def test_a_row_that_others_never_let_go_is_counted(tmp_path: Path) -> None:
    table = Table()
    table.refused = {3, 77}
    done = run(Negate(), table, send, Options(batch=20))
    assert (done.seen, done.changed, done.missed) == (ROWS, ROWS, 2)
    assert "2 left that others were changing: run it again" in done.sentence()


def test_a_dry_run_says_so_and_writes_nothing() -> None:
    table = Table()
    done = run(Negate(), table, send, Options(dry_run=True))
    assert "100 would be changed (dry run)" in done.sentence()
    assert min(table.held.values()) > 0


def test_a_bar_of_a_job_that_goes_on_ends_full() -> None:
    shown = io.StringIO()
    Bar(shown, "backfill").finish(Progress(total=100, before=60, seen=40, changed=40))
    assert "[########################] 100 %" in shown.getvalue()
    assert "100 of 100 rows seen, 40 changed" in shown.getvalue()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"after": "1"}', '{"after": "x", "seen": 1, "missed": 0}'])
def test_a_file_that_is_no_state_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "state").write_text(text)
    with pytest.raises(ValueError, match=r"remove it to begin anew|invalid literal"):
        run(Negate(), Table(), send, Options(state=tmp_path / "state"))
