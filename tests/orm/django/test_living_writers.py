"""Jobs on living data beside those who write the same rows, and beside those who wrote past the hooks."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db.models import F
from keyside.django.living import backfill, decrypt_column, plain_field_of, status
from keyside.django.rows import TableRows
from keyside.fields import FieldUnreadable
from keyside.living import Changes, Options, Progress

from tests.orm.django.citizens.models import Citizen, PlainCitizen
from tests.orm.django.test_living import NAME, NAMES, alias, read

__all__ = ["alias"]  # the fixture


def test_a_plaintext_that_moved_to_another_partition_is_encrypted_there(alias: str) -> None:
    def move(progress: Progress) -> None:
        if progress.seen == 100:
            PlainCitizen.objects.using(alias).update(tenant=F("tenant") + 7)

    done = backfill(NAME, None, Options(batch=100), move, using=alias)
    assert status(NAME, using=alias).plaintext == 0
    assert done.missed == 0
    # the first page was done before the rows moved: those the application would have encrypted anew
    opened = {}
    for one in PlainCitizen.objects.using(alias).exclude(name=None).values("region", "number"):
        try:
            opened[one["number"]] = Citizen.objects.using(alias).get(**one).name
        except FieldUnreadable:
            continue
    first = sorted((c.region, c.number) for c in PlainCitizen.objects.using(alias))[:100]
    elsewhere = {number for number, name in enumerate(NAMES) if name} - {number for _, number in first}
    assert {number: NAMES[number] for number in elsewhere}.items() <= opened.items()


def test_a_blank_at_the_end_is_another_value(alias: str) -> None:
    rows = TableRows(NAME, alias)
    page = rows.page(("name",), None, 10)
    there = [row for row, name in enumerate(page.stored["name"]) if name]
    keys = [page.keys[row] for row in there]
    padded = {"name": [page.stored["name"][row] + " " for row in there]}
    assert rows.write(Changes(keys, padded, {"name": ["lost"] * len(keys)})) == 0
    held = {"name": [page.stored["name"][row] for row in there]}
    assert rows.write(Changes(keys, held, {"name": ["won"] * len(keys)})) == len(keys)


def test_what_the_application_writes_into_the_plain_column_stays(alias: str) -> None:
    born: Any = Citizen._meta.get_field("born")
    plain = plain_field_of(born, "born_plain")
    backfill(born, using=alias, source=plain)
    PlainCitizen.objects.using(alias).update(born_plain=None)
    fresh = date(2026, 1, 1)

    def write(progress: Progress) -> None:
        if progress.seen == 100:
            PlainCitizen.objects.using(alias).update(born_plain=fresh)

    decrypt_column(born, None, Options(batch=100), write, using=alias, into=plain)
    assert set(read(alias, "born_plain", PlainCitizen)) == {fresh}


def test_a_plaintext_in_an_encrypted_column_is_reported_and_not_encrypted(alias: str) -> None:
    backfill(NAME, using=alias)
    PlainCitizen.objects.using(alias).filter(number=7).update(name="planted")
    declared = NAME.declaration
    NAME.__dict__["declaration"] = declared.in_stage(declared.stage.ENCRYPTED)
    try:
        with pytest.raises(FieldUnreadable, match=r"citizens\.name of row \('eu', 7\): holds no ciphertext") as caught:
            backfill(NAME, using=alias)
    finally:
        NAME.__dict__["declaration"] = declared
    assert "planted" not in str(caught.value)
    assert PlainCitizen.objects.using(alias).get(number=7).name == "planted"


def test_the_command_says_that_rows_are_left(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TableRows, "write", lambda rows, changes: 0)
    with pytest.raises(CommandError, match="others kept changing 245 rows; run the same command again") as caught:
        call_command("keyside_backfill", "citizens.Citizen.name", "--database", alias)
    assert caught.value.returncode == 75
