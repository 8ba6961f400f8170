"""Values keep the type that a plain column gives them, NULL stays NULL, and columns have the types they should."""

from __future__ import annotations

import math
from contextlib import nullcontext
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from django.apps.registry import Apps
from django.db import connections, models
from django.test.utils import override_settings
from django.utils.timezone import override
from keyside.django import EncryptedField
from keyside.testing import assert_encrypted, assert_round_trips

from tests.orm.django.clinics.models import Card, Everything, Patient, Peculiar, Tag

VALUES: dict[str, list[Any]] = {
    "text": ["", "a", "ü€😀\0", "x" * 100_000],
    "slug": ["a-b"],
    "mail": ["a@b.c"],
    "count": [0, -1, 2**63 - 1, -(2**63)],
    "ratio": [0.0, -1.5, math.inf],
    "price": [Decimal("1.50"), Decimal("-0.01"), Decimal("999999.99")],
    "flag": [True, False],
    "day": [date(1, 1, 1), date(9999, 12, 31)],
    "moment": [datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=timezone.utc)],  # noqa: UP017  as docs/spec/values.md
    "hour": [time(0), time(23, 59, 59, 999999)],
    "span": [timedelta(0), timedelta(days=-3, microseconds=1)],
    "code": [UUID(int=0), UUID(int=2**128 - 1)],
    "raw": [b"", b"\0\xff"],
    "data": [{"a": [1, None, {"b": "ü"}]}, [], 0, "", False],
    "address": ["::1", "192.0.2.1"],
    "tags": [[], [date(2024, 1, 1), None]],
}


def test_values_come_back_as_they_were(database: str) -> None:
    rows = max(map(len, VALUES.values()))
    made = [Everything(**{n: v[row] for n, v in VALUES.items() if row < len(v)}) for row in range(rows)]
    with assert_round_trips(max=1):
        Everything.objects.bulk_create(made)
    with assert_round_trips(max=1):
        found = list(Everything.objects.order_by("pk"))
    for name, values in VALUES.items():
        for row, one in enumerate(found):
            want = values[row] if row < len(values) else None
            got = getattr(one, name)
            assert got == want, name
            assert type(got) is type(want), name
        assert assert_encrypted(Everything, name, bind=database) == len(values)


@pytest.mark.parametrize(
    ("name", "given", "kept"),
    [
        ("count", "12", 12),
        ("price", 1.5, Decimal("1.50")),
        ("price", "2", Decimal("2.00")),
        ("flag", 1, True),
        ("day", "2024-02-29", date(2024, 2, 29)),
        ("day", datetime(2024, 2, 29, 12), date(2024, 2, 29)),
        ("moment", "2024-02-29T12:00:00+02:00", datetime(2024, 2, 29, 10, tzinfo=timezone.utc)),  # noqa: UP017  as above
        ("hour", "12:30", time(12, 30)),
        ("span", "1 00:00:01", timedelta(days=1, seconds=1)),
        ("code", "0" * 32, UUID(int=0)),
        ("raw", bytearray(b"a"), b"a"),
        ("raw", memoryview(b"a"), b"a"),
        ("text", 12, "12"),
        ("data", (1, 2), [1, 2]),
    ],
)
def test_what_a_plain_field_would_convert_is_converted(database: str, name: str, given: Any, kept: Any) -> None:
    made = Everything.objects.create(**{name: given})
    got = getattr(Everything.objects.get(pk=made.pk), name)
    assert (got, type(got)) == (kept, type(kept))


def test_fields_of_the_applications_own(database: str) -> None:
    """What a plain column would hold of a value is what is encrypted, and NULL where it would be NULL."""
    Peculiar.objects.create(address="", handle="@ann", tag=Tag("x"), words=["b", "a"], grade=1)
    Peculiar.objects.bulk_create([Peculiar(handle="@"), Peculiar(handle="")])
    one = Peculiar.objects.get(handle="@ann")
    assert (one.address, one.handle, one.words, one.get_grade_display()) == (None, "ann", ("a", "b"), "One")
    assert one.tag.word == "x"
    assert Peculiar.objects.get(handle="ann") == one
    assert Peculiar.objects.filter(address__isnull=True).count() == Peculiar.objects.filter(address="").count() == 3
    assert Peculiar.objects.filter(handle="@").count() == Peculiar.objects.filter(handle=None).count() == 2
    assert Peculiar.objects.get(handle__in=(name for name in ["", "ann"])) == one
    one.handle, one.address = "@", "::1"
    one.save()
    assert Peculiar.objects.filter(handle__isnull=True).count() == 3
    Peculiar.objects.update(address="")
    Peculiar.objects.bulk_update([one], ["address"])
    assert Peculiar.objects.get(address="::1") == one
    one.address = ""
    Peculiar.objects.bulk_update([one], ["address"])
    assert Peculiar.objects.filter(address__isnull=True, address_index__isnull=True).count() == 3


@pytest.mark.parametrize("use_tz", [True, False])
def test_moments_are_those_of_a_plain_column(database: str, use_tz: bool) -> None:
    """Naive ones are meant in the default zone, whatever zone is current, and are warned of without being quoted."""
    naive, berlin = datetime(2024, 1, 1, 12), ZoneInfo("Europe/Berlin")
    with override_settings(USE_TZ=use_tz, TIME_ZONE="Europe/Berlin"), override("Asia/Tokyo"):
        expected = naive.replace(tzinfo=berlin) if use_tz else naive
        with pytest.warns(RuntimeWarning, match=r"moment received a naive datetime while") if use_tz else nullcontext():
            made = Everything.objects.create(moment=naive)
        assert Everything.objects.get(pk=made.pk).moment == expected
        made = Everything.objects.create(moment=naive.replace(tzinfo=berlin))
        assert Everything.objects.get(pk=made.pk).moment == expected


def test_columns(database: str) -> None:
    connection = connections[database]

    def type_of(model: Any, name: str) -> str:
        return str(model._meta.get_field(name).db_type(connection))

    binary = {"default": "BLOB", "postgresql": "bytea", "mariadb": "longblob"}[database]
    assert {type_of(Everything, name) for name in VALUES if name != "mail"} == {binary}
    assert type_of(Everything, "mail") == type_of(Card, "number") == {"mariadb": "longtext"}.get(database, "text")
    # MySQL and MariaDB index a BLOB by a prefix only
    assert type_of(Patient, "email_index") == {"mariadb": "varbinary(64)"}.get(database, binary)
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, "clinics_patient")
    unique = {tuple(one["columns"]): one["unique"] for one in found.values() if one["index"] or one["unique"]}
    assert unique["email_index",]
    assert unique["email_domain",] is False


def test_a_subclass_of_the_field_stays_what_it_is() -> None:
    class Own(EncryptedField):
        pass

    class Told(EncryptedField):
        def pre_save(self, model_instance: models.Model, add: bool) -> Any:
            return "told"

    cases: list[tuple[Any, models.Field, Any]] = [
        (Own, models.DateField(auto_now=True), date.today()),
        (Own, models.TextField(), ""),
        (Told, models.TextField(), "told"),
    ]
    for kind, inner, written in cases:
        meta = type("Meta", (), {"app_label": "nowhere", "apps": Apps()})
        attributes = {"__module__": __name__, "field": kind(inner, keyring="k"), "Meta": meta}
        model: Any = type("Model", (models.Model,), attributes)
        field = model._meta.get_field("field")
        assert isinstance(field, kind)
        assert field.pre_save(model(), True) == written
