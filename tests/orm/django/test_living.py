"""Columns that are encrypted, re-encrypted, counted and decrypted while the application runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.db import connections, transaction
from django.db.models import signals
from keyside import context
from keyside.django.living import backfill, decrypt_column, encrypted_fields_of, plain_field_of, reencrypt, status
from keyside.django.rows import TableRows
from keyside.fields import BindingMissing, FieldUnavailable, FieldUnreadable
from keyside.living import Changes, Options, Progress
from keyside.testing import faults
from keyside.testing.frames import Code
from keyside.testing.server import Twin

from tests.orm.django.citizens.models import Citizen, Memo, PlainCitizen, created

ROWS = 250
NAMES = [None if n % 50 == 9 else f"Name {n}" for n in range(ROWS)]
NAME: Any = Citizen._meta.get_field("name")
DRIVERS = ["default", "postgresql", "mariadb"]


def fill(alias: str) -> None:
    """Citizens in plaintext, as an application without Keyside left them."""
    rows = [
        PlainCitizen(
            region="eu" if n % 2 else "us",
            number=n,
            tenant=n % 3,
            name=text,
            born_plain=date(2000, 1, 1 + n % 28),
            data_plain={"n": n},
            price_plain=Decimal(n) / 4,
        )
        for n, text in enumerate(NAMES)
    ]
    PlainCitizen.objects.using(alias).bulk_create(rows)


@pytest.fixture(params=DRIVERS)
def alias(request: pytest.FixtureRequest, databases: None) -> Iterator[str]:
    """The alias of a database with citizens in plaintext."""
    name: str = request.param
    with created(name, Citizen):
        fill(name)
        yield name


def read(alias: str, name: str, model: Any = Citizen) -> list[Any]:
    return list(model.objects.using(alias).order_by("number").values_list(name, flat=True))


def test_a_column_from_plain_to_encrypted_and_rotated(alias: str, sidecar: Twin) -> None:
    before = status(NAME, using=alias)
    assert (before.plaintext, before.encrypted, before.nulls) == (ROWS - 5, 0, 5)
    dry = backfill(NAME, options=Options(batch=100, dry_run=True), using=alias)
    assert (dry.seen, dry.changed) == (ROWS, ROWS - 5)
    assert status(NAME, using=alias) == before
    reports: list[int] = []
    done = backfill(NAME, None, Options(batch=100), lambda progress: reports.append(progress.seen), using=alias)
    assert (done.seen, done.changed) == (ROWS, ROWS - 5)
    assert reports[:3] == [100, 200, 250]
    after = status(NAME, using=alias)
    assert (after.plaintext, after.encrypted, after.nulls) == (0, ROWS - 5, 5)
    assert len(after.by_key) == 3
    assert read(alias, "name") == NAMES
    assert list(Citizen.objects.using(alias).filter(name="NAME 7").values_list("number", flat=True)) == [7]
    assert backfill(NAME, using=alias).changed == 0

    sidecar.vault.rotate("users/1")
    done = reencrypt(NAME, options=Options(batch=60), using=alias)
    assert done.changed == sum(1 for n, name in enumerate(NAMES) if n % 3 == 1 and name)
    assert read(alias, "name") == NAMES
    rotated = status(NAME, using=alias)
    assert len(rotated.by_key) == 3
    assert set(rotated.by_key) != set(after.by_key)
    assert reencrypt(NAME, using=alias).changed == 0


def test_nothing_else_is_touched_and_nobody_is_told(alias: str) -> None:
    told: list[Any] = []
    watched = (signals.pre_save, signals.post_save, signals.pre_init)

    def note(sender: Any, **named: Any) -> None:
        told.append(sender)

    before = [read(alias, name, PlainCitizen) for name in ("updated_at", "tenant", "born_plain")]
    for signal in watched:
        signal.connect(note)
    try:
        backfill(NAME, using=alias)
        reencrypt(NAME, using=alias)
    finally:
        for signal in watched:
            signal.disconnect(note)
    assert told == []
    assert [read(alias, name, PlainCitizen) for name in ("updated_at", "tenant", "born_plain")] == before


@pytest.mark.parametrize("name", ["born", "data", "price"])
def test_a_column_of_any_type_moves_through_one_beside_it(alias: str, name: str) -> None:
    field: Any = Citizen._meta.get_field(name)
    plain = plain_field_of(field, f"{name}_plain")
    want = read(alias, plain.name)
    assert backfill(field, options=Options(batch=99), using=alias, source=plain).changed == ROWS
    assert read(alias, name) == want
    assert backfill(field, using=alias, source=plain).changed == 0
    PlainCitizen.objects.using(alias).update(**{plain.name: None})
    assert decrypt_column(field, using=alias, into=plain).changed == ROWS
    assert read(alias, plain.name) == want


def test_in_place_and_back_with_a_partition_of_the_context(databases: None, sidecar: Twin) -> None:
    text: Any = Memo._meta.get_field("text")
    with created("default", Memo):
        with context(tenant="a"):
            Memo.objects.bulk_create(Memo(text=f"memo {n}") for n in range(30))
        assert status(text).plaintext == 30  # this stage writes plaintext
        with pytest.raises(ValueError, match='declare migrating="plaintext" and deploy first'):
            backfill(text)


def test_stages_in_which_a_job_would_do_harm_are_refused(alias: str) -> None:
    with pytest.raises(ValueError, match=r'Citizen\.name still writes ciphertext; declare migrating="plain"'):
        decrypt_column(NAME, using=alias)
    assert status(NAME, using=alias).plaintext == ROWS - 5


def test_a_concurrent_writer_wins(alias: str) -> None:
    """Between reading and writing a page, somebody else writes a row of it."""

    def interfere(progress: Progress) -> None:
        if progress.seen == 100:
            PlainCitizen.objects.using(alias).filter(number__gt=200).update(name="meanwhile")

    backfill(NAME, None, Options(batch=100), interfere, using=alias)
    assert status(NAME, using=alias).plaintext == 0
    assert read(alias, "name")[201:] == ["meanwhile"] * 49


def test_a_row_that_changed_since_it_was_read_is_left_alone(alias: str) -> None:
    rows = TableRows(NAME, alias)
    page = rows.page(("name", "name_index"), None, 10)
    count, held = len(page.keys), page.stored["name"]
    lost: dict[str, list[Any]] = {"name": ["lost"] * count, "name_index": [b"lost"] * count}
    assert rows.write(Changes(page.keys, {"name": ["NAME of another case"] * count}, lost)) == 0
    assert rows.write(Changes(page.keys, {"name": [None] * count}, lost)) == held.count(None)
    there = [row for row, name in enumerate(held) if name]
    shouted = {"name": [held[row].upper() for row in there]}
    assert rows.write(Changes([page.keys[row] for row in there], shouted, {"name": ["lost"] * len(there)})) == 0
    assert rows.write(Changes(page.keys[:1], {"name": held[:1]}, {"name": ["won"]})) == 1


def test_a_state_file_spares_what_was_done(alias: str, sidecar: Twin, tmp_path: Path) -> None:
    state = tmp_path / "state"

    def fail(progress: Progress) -> None:
        if progress.seen == 150:
            sidecar.faults.extend([faults.refuse(Code.OVERLOADED)] * 40)

    with pytest.raises(FieldUnavailable):
        backfill(NAME, None, Options(batch=50, state=state), fail, using=alias)
    sidecar.faults.clear()
    done_before = status(NAME, using=alias).encrypted
    assert 0 < done_before < ROWS - 5
    done = backfill(NAME, options=Options(batch=50, state=state), using=alias)
    assert done.seen in (ROWS - 150, ROWS - 200), "the next page may have been encrypted already"
    assert not state.exists()
    assert status(NAME, using=alias).plaintext == 0
    assert read(alias, "name") == NAMES
    state.write_text('{"after": "nonsense", "seen": 1, "missed": 0}')
    with pytest.raises(ValueError, match="remove it to begin anew"):
        backfill(NAME, options=Options(state=state), using=alias)


def test_a_pace_is_kept(alias: str) -> None:
    began = time.monotonic()
    backfill(NAME, options=Options(batch=125, rate=1000, dry_run=True), using=alias)
    assert time.monotonic() - began >= 0.24


def test_what_cannot_be_read_stops_the_job_and_names_the_row(alias: str) -> None:
    backfill(NAME, using=alias)
    stolen = PlainCitizen.objects.using(alias).get(number=3).name
    PlainCitizen.objects.using(alias).filter(number=5).update(name=stolen)
    with pytest.raises(FieldUnreadable, match=r"citizens\.name of row \('eu', 5\)"):
        reencrypt(NAME, using=alias)


def test_inside_a_transaction_of_the_caller_all_of_it_rolls_back(alias: str) -> None:
    before = status(NAME, using=alias)
    with transaction.atomic(using=alias):
        backfill(NAME, using=alias)
        assert status(NAME, using=alias).plaintext == 0
        transaction.set_rollback(True, using=alias)
    assert status(NAME, using=alias) == before


def test_no_query_log_and_no_wrapper_sees_plaintext(alias: str, settings_debug: None, caplog: Any) -> None:
    connection = connections[alias]
    seen: list[Any] = []

    def watch(execute: Any, sql: str, params: Any, many: bool, about: Any) -> Any:
        seen.append(params)
        return execute(sql, params, many, about)

    connection.queries_log.clear()
    with caplog.at_level("DEBUG"), connection.execute_wrapper(watch):
        backfill(NAME, using=alias)
    assert "Name 7" not in repr([seen, list(connection.queries_log), caplog.text])


def test_columns_are_found_by_app_model_and_field() -> None:
    assert NAME in encrypted_fields_of()
    assert encrypted_fields_of("citizens.citizen.name") == [NAME] == encrypted_fields_of("citizens.Citizen.name")
    assert {field.name for field in encrypted_fields_of("citizens.Citizen")} == {"name", "born", "data", "price"}
    for nothing in ("nobody", "auth", "citizens.Nobody", "citizens.Citizen.region"):
        with pytest.raises(LookupError, match=nothing.split(".")[0]):
            encrypted_fields_of(nothing)
    for other in ("nothing", "name", "born"):
        with pytest.raises(LookupError, match="no plain field"):
            plain_field_of(NAME, other)


def test_a_partition_that_nobody_tells_is_asked_for(databases: None) -> None:
    text: Any = Memo._meta.get_field("text")
    with created("default", Memo):
        with connections["default"].cursor() as cursor:
            cursor.execute("INSERT INTO memos_of_tenants (text) VALUES (%s)", [b"\xc1\x01" + bytes(60)])
        with pytest.raises(BindingMissing, match=r"keyside\.context"):
            reencrypt(text)
