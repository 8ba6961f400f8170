"""Results in PostgreSQL's binary format, which Django's usual cursors do not know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from keyside.django import fetching
from keyside.fields import FieldUnavailable
from keyside.fields.formats import BINARY, TEXT, same_in_both

from tests.orm.django.clinics.models import Clinic, Patient, patient

ROWS = 30


@pytest.fixture
def formats(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The format of each result with encrypted columns."""
    found: list[int] = []

    def noted(cursor: Any) -> bool:
        found.append(cursor.format)
        return same_in_both(cursor)

    fetching._in_binary.clear()
    monkeypatch.setattr("keyside.django.fetching.same_in_both", noted)
    yield found
    fetching._in_binary.clear()


@pytest.fixture
def people(database: str) -> str:
    Clinic.objects.bulk_create([Clinic(id=n, name=f"clinic {n}") for n in range(1, 4)])
    Patient.objects.bulk_create([patient(n, 1 + n % 3) for n in range(ROWS)])
    return database


def emails() -> list[tuple[int, str]]:
    return list(Patient.objects.filter(number__gte=0).order_by("number").values_list("number", "email"))


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_the_second_result_of_a_statement_comes_in_binary(people: str, formats: list[int]) -> None:
    want = [(n, f"P{n}@Example.ORG") for n in range(ROWS)]
    with CaptureQueriesContext(connections[people]) as queries:
        assert [emails() for _ in range(3)] == [want] * 3
    assert formats == [TEXT, BINARY, BINARY]
    assert len({query["sql"] for query in queries.captured_queries}) == 1
    assert "5" not in queries.captured_queries[0]["sql"].partition("WHERE")[2].replace(">= 0", "")


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_column_that_changes_its_type_is_an_error_once(people: str, formats: list[int]) -> None:
    before = [emails() for _ in range(2)]
    with connections[people].cursor() as cursor:
        cursor.execute("ALTER TABLE clinics_patient ALTER COLUMN number TYPE double precision")
    with pytest.raises(FieldUnavailable, match="try again"):
        emails()
    assert before == [emails() for _ in range(2)]
    assert formats == [TEXT, BINARY, BINARY, TEXT]


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_wrappers_of_the_application_see_what_django_made(people: str, formats: list[int]) -> None:
    seen: list[tuple[str, Any]] = []

    def watch(execute: Any, sql: str, params: Any, many: bool, about: Any) -> Any:
        seen.append((sql, params))
        return execute(sql, params, many, about)

    before = [emails() for _ in range(2)]
    with connections[people].execute_wrapper(watch):
        assert emails() == before[0]
    ((sql, params),) = seen
    assert "%s" in sql
    assert params == (0,)
    assert formats == [TEXT, BINARY]


def test_other_databases_and_errors_are_left_alone(people: str) -> None:
    assert emails() == emails()
    assert Patient.objects.filter(number=5).get().email == "P5@Example.ORG"
    assert [one.email for one in Patient.objects.order_by("number").iterator(chunk_size=7)] == [
        f"P{n}@Example.ORG" for n in range(ROWS)
    ]
