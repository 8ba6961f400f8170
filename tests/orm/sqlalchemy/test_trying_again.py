"""A sidecar that is away while rows are fetched: whoever asks again gets every row or an error, never fewer rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from keyside.fields import FieldUnavailable
from keyside.testing import faults
from keyside.testing.frames import Code
from keyside.testing.server import Twin
from sqlalchemy import Engine, insert, select
from sqlalchemy.exc import ResourceClosedError
from sqlalchemy.orm import Session

from tests.orm.sqlalchemy.models import Card

ROWS = [(number, str(number)) for number in range(1, 7)]
STATEMENT = select(Card.id, Card.number).order_by(Card.id)


@pytest.fixture
def cards(engine: Engine) -> Engine:
    with engine.begin() as connection:
        connection.execute(insert(Card), [{"id": number, "number": text} for number, text in ROWS])
    return engine


def away(twin: Twin) -> None:
    twin.faults.extend([faults.refuse(Code.SHUTTING_DOWN)] * 2)


def patiently(twin: Twin, fetch: Callable[[], Any]) -> Iterator[Any]:
    """What `fetch` gives until the end, when the sidecar is away at the second call."""
    refused = 0
    for number in range(20):
        if number == 1:
            away(twin)
        try:
            found = fetch()
        except FieldUnavailable:
            twin.faults.clear()
            refused += 1
            continue
        if not found:
            break
        yield found
    assert refused == 1


def test_fetching_again_gives_the_rows_that_did_not_open(cards: Engine, twin: Twin) -> None:
    with cards.connect() as connection:
        result = connection.execute(STATEMENT)
        assert [row for rows in patiently(twin, lambda: result.fetchmany(2)) for row in rows] == ROWS
        result = connection.execution_options(yield_per=2).execute(STATEMENT)
        assert [row for rows in patiently(twin, lambda: next(result.partitions(), None)) for row in rows] == ROWS
        result = connection.execution_options(yield_per=2).execute(STATEMENT)
        first = result.fetchone()
        assert result.fetchone() == ROWS[1]
        assert [first, *ROWS[1:2], *patiently(twin, result.fetchone)] == ROWS


@pytest.mark.parametrize("fetch", ["all", "fetchall", "fetchone", "first"])
def test_the_first_rows_are_kept_as_well(cards: Engine, twin: Twin, fetch: str) -> None:
    with cards.connect() as connection:
        result = connection.execute(STATEMENT)
        away(twin)
        with pytest.raises(FieldUnavailable):
            getattr(result, fetch)()
        twin.faults.clear()
        assert result.all() == ROWS


def test_a_stream_of_the_orm_that_broke_off_does_not_look_complete(cards: Engine, twin: Twin) -> None:
    streams = {"yield_per": 2}, {"stream_results": True, "yield_per": 2}
    with Session(cards) as session:
        for options in streams:
            result = session.scalars(select(Card).order_by(Card.id).execution_options(**options))
            assert [next(result).id, next(result).id] == [1, 2]
            away(twin)
            with pytest.raises(FieldUnavailable):
                next(result)
            twin.faults.clear()
            for again in (lambda: next(result), result.all, result.first, result.fetchmany, lambda: list(result)):  # noqa: B023  called at once
                with pytest.raises(ResourceClosedError):
                    again()
        assert len(session.scalars(select(Card)).all()) == len(ROWS)


def test_a_whole_result_of_the_orm_is_opened_when_it_is_executed(cards: Engine, twin: Twin) -> None:
    with Session(cards) as session:
        away(twin)
        with pytest.raises(FieldUnavailable):
            session.scalars(select(Card))
        twin.faults.clear()
        result = session.execute(STATEMENT)
        away(twin)
        assert result.all() == ROWS
        twin.faults.clear()
