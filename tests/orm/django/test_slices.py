"""Results of which the first rows become objects while the sidecar opens the rest."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
from django.db import connections
from django.db.models import QuerySet
from django.test.utils import override_settings
from keyside.django import client
from keyside.django.reading import FIRST_SLICE, LEAST_SLICED
from keyside.fields import FieldUnreadable
from keyside.testing import assert_round_trips
from keyside.testing.server import Twin

from tests.orm.django.clinics.models import Clinic

ROWS = LEAST_SLICED + 10
SECRET = "what nobody may see"


@pytest.fixture
def clinics(database: str) -> str:
    Clinic.objects.bulk_create([Clinic(id=n + 1, name=f"{SECRET} {n}") for n in range(ROWS)])
    return database


def names() -> list[str]:
    return [clinic.name for clinic in Clinic.objects.order_by("id")]


def test_every_row_comes_in_its_place_and_in_one_round_trip(clinics: str) -> None:
    wanted = [f"{SECRET} {n}" for n in range(ROWS)]
    for read in (
        names,
        lambda: list(Clinic.objects.order_by("id").values_list("name", flat=True)),
        lambda: [one.name for one in Clinic.objects.raw("SELECT * FROM clinics_clinic ORDER BY id")],
    ):
        with assert_round_trips(max=1):
            assert read() == wanted
    assert not client()._calls.pool.held


def test_a_query_for_each_row_works_with_a_single_connection(clinics: str, twin: Twin) -> None:
    keyside = {"SOCKET": twin.path, "POOL_SIZE": 1, "TIMEOUT": 5, "RETRIES": 0}
    with override_settings(KEYSIDE=keyside):
        rows = iter(Clinic.objects.raw("SELECT * FROM clinics_clinic ORDER BY id").iterator())
        for n, clinic in zip(range(FIRST_SLICE + 2), rows, strict=False):
            assert Clinic.objects.get(id=clinic.id).name == f"{SECRET} {n}"
        client().close()


def test_whoever_stops_in_the_middle_leaves_nothing_behind(clinics: str) -> None:
    rows = Clinic.objects.raw("SELECT * FROM clinics_clinic ORDER BY id").iterator()
    assert next(rows).name == f"{SECRET} 0"
    rows.close()
    del rows
    assert not client()._calls.pool.held
    assert names()[-1] == f"{SECRET} {ROWS - 1}"


def test_a_bad_row_of_the_rest_is_named_and_shows_no_other(clinics: str) -> None:
    with connections[clinics].cursor() as cursor:
        rotten = [b"\xc1\x01" + bytes(60), FIRST_SLICE + 2]
        cursor.execute("UPDATE clinics_clinic SET name = %s WHERE id = %s", rotten)
    for read in (
        lambda: list(Clinic.objects.order_by("id")),
        lambda: list(Clinic.objects.order_by("id").values()),
        lambda: list(Clinic.objects.order_by("id").values_list("id", "name")),
        lambda: len(Clinic.objects.order_by("id")),
        lambda: list(Clinic.objects.raw("SELECT * FROM clinics_clinic ORDER BY id")),
        lambda: list(Clinic.objects.prefetch_related("patients").order_by("id")),
    ):
        with pytest.raises(FieldUnreadable, match=f"of row {FIRST_SLICE + 2}") as caught:
            read()
        shown: list[Any] = []
        for frame, _ in traceback.walk_tb(caught.value.__traceback__):
            # the repr of a query set is the rows that it finds when it is asked
            held = {name: one for name, one in frame.f_locals.items() if not isinstance(one, QuerySet)}
            shown += [frame.f_code.co_name, repr(held)]
        assert "bare_errors" in shown
        assert [one for one in shown if SECRET in one] == []
