"""What a report of an error shows of the frames it passed: their variables, as Django's and other reporters print."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import keyside.fields
import pytest
from keyside import Client
from keyside.fields import (
    Field,
    FieldError,
    FieldUnavailable,
    FieldUnreadable,
    FieldUnwritable,
    Placeholder,
    Sender,
    Stored,
    Unsealed,
    open_chunk,
    renew,
    seal,
    seal_columns,
)
from keyside.testing import faults
from keyside.testing.frames import Code
from keyside.testing.server import Twin

OURS = Path(keyside.fields.__file__).parents[1]
SECRET = "what nobody may see"
NOTE = Field("patients", "note", "notes")


def shown(error: BaseException) -> str:
    """The variables of all frames of ours, of causes and of what was handled meanwhile as well."""
    text: list[str] = []
    following: list[BaseException | None] = [error]
    while following:
        one = following.pop()
        if one is None:
            continue
        following += [one.__cause__, one.__context__]
        trace = one.__traceback__
        while trace is not None:
            frame = trace.tb_frame
            if Path(frame.f_code.co_filename).is_relative_to(OURS):
                text += [frame.f_code.co_name, repr(frame.f_locals)]
            trace = trace.tb_next
    return "\n".join(text)


def failing(kind: type[FieldError], work: Callable[[], Any]) -> str:
    with pytest.raises(kind) as caught:
        work()
    assert "bare_errors" in shown(caught.value), "this test sees frames"
    return shown(caught.value)


def sealed(client: Client) -> list[Any]:
    (column,) = seal_columns([Unsealed(NOTE, [f"{SECRET} {n}" for n in range(9)])], Sender(client))
    return column


def test_one_bad_row_does_not_show_the_others(client: Client) -> None:
    stored = sealed(client)
    stored[4] = stored[4][:-1] + bytes([stored[4][-1] ^ 1])
    for work in (open_chunk, renew):
        assert SECRET not in failing(FieldUnreadable, lambda: work([Stored(NOTE, stored)], Sender(client)))  # noqa: B023
    other = replace(NOTE, from_bytes=lambda data: date.fromisoformat(data.decode()))
    assert SECRET not in failing(FieldUnreadable, lambda: open_chunk([Stored(other, sealed(client))], Sender(client)))


def test_what_the_application_handles_meanwhile_keeps_its_frames(client: Client) -> None:
    stored = sealed(client)
    stored[4] = b"nothing"

    def handle() -> None:
        try:
            raise KeyError(SECRET)
        except KeyError:
            with pytest.raises(FieldUnreadable):
                open_chunk([Stored(NOTE, stored)], Sender(client))
            raise

    with pytest.raises(KeyError) as caught:
        handle()
    assert [entry.name for entry in caught.traceback][-1] == "handle"


def test_an_absent_sidecar_does_not_show_what_was_to_be_written(client: Client, twin: Twin) -> None:
    values = [f"{SECRET} {n}" for n in range(3)]
    twin.faults.extend([faults.refuse(Code.OVERLOADED)] * 10)
    assert SECRET not in failing(FieldUnavailable, lambda: seal([Placeholder(NOTE, SECRET)], Sender(client)))
    assert SECRET not in failing(FieldUnavailable, lambda: seal_columns([Unsealed(NOTE, values)], Sender(client)))


def test_a_value_that_does_not_fit_does_not_show_the_others(client: Client) -> None:
    values = [SECRET, {SECRET}]
    assert SECRET not in failing(
        FieldUnwritable, lambda: seal([Placeholder(NOTE, one) for one in values], Sender(client))
    )
    assert SECRET not in failing(FieldUnwritable, lambda: seal_columns([Unsealed(NOTE, values)], Sender(client)))


def test_what_could_not_be_asked_is_said(client: Client) -> None:
    with Client("/nonexistent/keyside.sock", retries=0) as nobody, pytest.raises(FieldUnavailable) as caught:
        seal([Placeholder(NOTE, SECRET)], Sender(nobody))
    assert "/nonexistent/keyside.sock" in str(caught.value)


def test_what_can_never_work_is_refused_where_it_is_declared() -> None:
    with pytest.raises(ValueError, match=r"keyring 'no such': expected 1 to 64 letters"):
        Field("patients", "note", "no such")
    with pytest.raises(ValueError, match="give the column context"):
        Field("a", "b.c", "notes")
    assert Field("a.b", "c", "notes").prefix == b"a.b.c"
    assert Field("a", "b.c", "notes", context="a b.c").prefix == b"a b.c"
