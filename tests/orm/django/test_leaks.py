"""Neither errors, nor logs, nor DEBUG show what is encrypted, and the database never holds it."""

from __future__ import annotations

import logging
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import DatabaseError, IntegrityError, connections, transaction
from django.db.models import Value
from django.test.utils import CaptureQueriesContext, override_settings
from keyside.fields import FieldUnwritable
from keyside.testing import assert_encrypted

from tests.orm.django.clinics.models import Card, Clinic, Everything, Letter, Patient, patient

SECRET = "tell-nobody"


def everything(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error)


def use() -> None:
    Clinic.objects.create(name=SECRET)
    Patient.objects.bulk_create([patient(n, email=f"{SECRET}{n}@x", notes={SECRET: SECRET}) for n in range(3)])
    Card.objects.create(number=SECRET, limit=1)
    Letter.objects.create(text=SECRET)
    assert Patient.objects.filter(email=f"{SECRET}1@x").count() == 1
    assert Letter.objects.get(text=SECRET.upper()).text == SECRET
    one = Patient.objects.get(number=1)
    one.notes = {"more": SECRET}
    Patient.objects.bulk_update([one], ["notes", "email"])
    Card.objects.update(number=f"{SECRET}!")
    Patient.objects.update_or_create(number=1, defaults={"email": f"{SECRET}@y"})


@pytest.mark.parametrize("debug", [False, True])
def test_logs_and_collected_queries_show_a_mask(database: str, debug: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "django.db.backends")
    connection = connections[database]
    with override_settings(DEBUG=debug), CaptureQueriesContext(connection) as captured:
        use()
    shown = repr(captured.captured_queries) + caplog.text
    assert "INSERT INTO" in shown
    assert "<encrypted>" in shown
    assert SECRET not in shown


def test_execute_wrappers_before_ours_see_a_mask(database: str) -> None:
    seen: list[str] = []

    def watch(execute, sql, params, many, context):  # type: ignore[no-untyped-def]  # as Django documents it
        seen.append(repr(params))
        return execute(sql, params, many, context)

    connections[database].execute_wrappers.insert(0, watch)
    try:
        use()
    finally:
        connections[database].execute_wrappers.remove(watch)
    assert SECRET not in "".join(seen)


def test_a_connection_that_opens_inside_a_wrapper_keeps_ours(database: str) -> None:
    def refuse(*told: Any) -> Any:
        raise RuntimeError("no queries here")

    def watch(execute, sql, params, many, context):  # type: ignore[no-untyped-def]  # as Django documents it
        return execute(sql, params, many, context)

    def work() -> Any:
        connection = connections[database]  # of this thread, and not open yet
        try:
            with pytest.raises(RuntimeError), connection.execute_wrapper(refuse), connection.execute_wrapper(watch):
                Card.objects.count()
            Card.objects.create(number=SECRET)
            return Card.objects.get().number
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result() == SECRET
    assert_encrypted(Card, "number", bind=database)


def test_errors_show_a_mask(database: str) -> None:
    Patient.objects.create(number=1, clinic_id=1, email=SECRET)
    with pytest.raises(IntegrityError) as refused, transaction.atomic():
        Patient.objects.create(number=2, clinic_id=1, email=SECRET)
    assert SECRET not in everything(refused.value).replace(f'email="{SECRET}"', "")
    with pytest.raises((DatabaseError, ValueError)) as failed, transaction.atomic():
        Patient.objects.create(number="no number", clinic_id=1, email=f"{SECRET}2")
    assert f"{SECRET}2" not in everything(failed.value)
    for name, value in {"count": SECRET, "day": SECRET, "price": "1" * 30, "code": SECRET, "raw": SECRET}.items():
        with pytest.raises(FieldUnwritable, match=rf"clinics_everything\.{name}") as caught, transaction.atomic():
            Everything.objects.create(**{name: value})
        assert value not in str(caught.value)
        assert caught.value.__cause__ is None
    with pytest.raises(ValidationError):
        Everything(day=SECRET).full_clean()


def test_a_connection_without_hooks_stores_nothing(database: str) -> None:
    connection = connections[database]
    kept = connection.execute_wrappers[:]
    connection.execute_wrappers.clear()
    try:
        with pytest.raises((DatabaseError, TypeError)) as caught, transaction.atomic(using=database):
            Card.objects.create(number=SECRET)
    finally:
        connection.execute_wrappers.extend(kept)
    assert SECRET not in str(caught.value)
    assert Card.objects.count() == 0


def test_statements_that_forget_an_index_are_refused(database: str) -> None:
    Card.objects.create(number="1")
    field = Card._meta.get_field("number")
    stored = Value("2", output_field=field)
    sql, params = stored.as_sql(Card.objects.all().query.get_compiler(database), connections[database])
    with connections[database].cursor() as cursor, pytest.raises(FieldUnwritable, match="not its blind index"):
        cursor.execute(f"UPDATE clinics_card SET number = {sql}", params)
    assert Card.objects.get().number == "1"


def test_the_database_file_holds_no_plaintext(databases: None, database: str, tmp_path: Path) -> None:
    use()
    assert assert_encrypted(Patient, "email", bind=database) == 3
    with pytest.raises(AssertionError, match="not encrypted"):
        assert_encrypted(Patient, "number", bind=database)
    connections[database].close()
    for file in tmp_path.iterdir():
        if file.is_file():
            assert SECRET.encode() not in file.read_bytes()
