"""What does not open is not erased by whoever saves the object that could not show it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django import forms
from django.core import serializers
from django.db import connections, transaction
from django.db.models import signals
from django.test.utils import CaptureQueriesContext
from keyside.django.serializers import EncryptedModelSerializer
from keyside.fields import BindingMissing, FieldUnreadable, FieldUnwritable
from keyside.testing import assert_round_trips, faults
from keyside.testing.frames import Code
from keyside.testing.server import Twin

from tests.orm.django.citizens.models import created
from tests.orm.django.clinics.guarded import GUARDED, Lenient, Person, Ward


@pytest.fixture
def guarded(database: str) -> Iterator[str]:
    with created(database, *GUARDED):
        yield database


def stored(alias: str) -> list[tuple[Any, ...]]:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT value, value_index, within FROM clinics_lenient ORDER BY id")
        return [tuple(None if one is None else bytes(one) for one in row) for row in cursor.fetchall()]


@pytest.fixture
def tampered(guarded: str) -> tuple[str, list[tuple[Any, ...]]]:
    """One row whose values do not open, and one of NULLs."""
    Lenient.objects.create(value="a", within="b")
    broken = b"\xc1\x01" + bytes(50)
    with connections[guarded].cursor() as cursor:
        cursor.execute("UPDATE clinics_lenient SET value = %s, within = %s", [broken, broken])
    Lenient.objects.create()
    return guarded, stored(guarded)


class LenientSerializer(EncryptedModelSerializer):
    class Meta:
        model = Lenient
        fields = ("name", "value", "within")


class LenientForm(forms.ModelForm):
    class Meta:
        model = Lenient
        fields = ("name", "value")


def test_saving_keeps_it(tampered: tuple[str, list[Any]]) -> None:
    alias, before = tampered
    one, null = Lenient.objects.order_by("id")
    assert one.value is one.within is None
    one.name = null.name = "x"
    one.save()
    null.save()
    one.save(update_fields=["name", "value", "within"])
    one.refresh_from_db()
    one.save()
    Lenient.objects.only("name").get(pk=one.pk).save()
    deferred = Lenient.objects.defer("value").get(pk=one.pk)
    assert deferred.value is None
    deferred.save()
    Lenient.objects.bulk_update([one, null], ["name", "value", "within"])
    Lenient.objects.update_or_create(pk=one.pk, defaults={"name": "y"})
    form = LenientForm({"name": "z", "value": ""}, instance=Lenient.objects.get(pk=one.pk))
    form.save()
    assert stored(alias) == before
    assert [row.name for row in Lenient.objects.order_by("id")] == ["z", "x"]


def test_what_is_assigned_is_written(tampered: tuple[str, list[Any]]) -> None:
    alias, before = tampered
    one, null = Lenient.objects.order_by("id")
    one.value, null.value = "new", "newer"
    Lenient.objects.bulk_update([one, null], ["value", "within"])
    assert [row.value for row in Lenient.objects.order_by("id")] == ["new", "newer"]
    assert Lenient.objects.filter(value="newer").get() == null
    assert stored(alias)[0][2] == before[0][2]
    fresh = Lenient.objects.get(pk=one.pk)
    fresh.within = None
    fresh.save()
    assert stored(alias)[0][2] is None
    fresh.value = None
    fresh.save(update_fields=["value"])
    assert stored(alias)[0] == (None, None, None)


def test_a_row_is_not_moved_from_under_it(tampered: tuple[str, list[Any]]) -> None:
    alias, before = tampered
    one, null = Lenient.objects.order_by("id")
    one.ward_id = null.ward_id = 2
    null.save()
    for ask in (one.save, lambda: Lenient.objects.bulk_update([one, null], ["ward_id", "within"])):
        with pytest.raises(BindingMissing, match="within: it is encrypted"), transaction.atomic(using=alias):
            ask()
    told: dict[str, Any] = {"update_conflicts": True}
    if alias != "mariadb":
        told["unique_fields"] = ["id"]
    with pytest.raises(FieldUnwritable, match="assign None to erase"), transaction.atomic(using=alias):
        Lenient.objects.bulk_create([one], update_fields=["value"], **told)
    assert stored(alias) == before
    one.within = None
    one.save()
    assert Lenient.objects.filter(ward_id=2).count() == 2


def test_a_fixture_and_a_client_that_send_back_null_keep_it(tampered: tuple[str, list[Any]]) -> None:
    alias, before = tampered
    dump = serializers.serialize("json", Lenient.objects.order_by("id"))
    one, null = serializers.deserialize("json", dump.replace('"name": "n"', '"name": "f"'), using=alias)
    one.save(using=alias)
    null.save(using=alias)
    assert [row.name for row in Lenient.objects.order_by("id")] == ["f", "f"]
    assert stored(alias) == before

    serializer = LenientSerializer(Lenient.objects.get(pk=one.object.pk), {"name": "s", "value": None, "within": None})
    assert serializer.is_valid()
    serializer.save()
    assert stored(alias) == before
    serializer = LenientSerializer(Lenient.objects.get(pk=one.object.pk), {"name": "t", "value": "new", "within": None})
    assert serializer.is_valid()
    serializer.save()
    readable = Lenient.objects.get(pk=one.object.pk)
    assert (readable.name, readable.value) == ("t", "new")
    assert stored(alias)[0][2] == before[0][2]
    serializer = LenientSerializer(readable, {"name": "u", "value": None})
    assert serializer.is_valid()
    serializer.save()
    assert stored(alias)[0][:2] == (None, None)


def test_a_fixture_writes_what_it_has(guarded: str) -> None:
    Lenient.objects.create(value="a", within="b")
    dump = serializers.serialize("json", Lenient.objects.all())
    Lenient.objects.update(value="x", within=None)
    (one,) = serializers.deserialize("json", dump, using=guarded)
    one.save(using=guarded)
    assert (Lenient.objects.get(value="a").within, Lenient.objects.count()) == ("b", 1)
    Lenient.objects.all().delete()
    one.save(using=guarded)
    assert Lenient.objects.get(value_index="a").within == "b"


def test_what_does_not_open_is_deleted_without_being_read(guarded: str) -> None:
    """As the manual says it, where signals have Django read every row that a deletion meets."""
    ward = Ward.objects.create(name="w")
    Person.objects.create(ward=ward, ssn="a")
    with connections[guarded].cursor() as cursor:
        cursor.execute("UPDATE clinics_person SET ssn = %s", [b"\xc1\x01" + bytes(50)])
    told: list[Any] = []

    def note(sender: Any, **named: Any) -> None:
        told.append(sender)

    signals.pre_delete.connect(note, sender=Person)
    try:
        for ask in (Person.objects.all().delete, ward.delete):
            with pytest.raises(FieldUnreadable), transaction.atomic(using=guarded):
                ask()
        Person.objects.filter(ward=ward).defer("ssn").delete()
        ward.delete()
    finally:
        signals.pre_delete.disconnect(note, sender=Person)
    assert told == [Person]
    assert not Ward.objects.exists()


def test_a_disabled_key_may_be_enabled_again(guarded: str, sidecar: Twin) -> None:
    Lenient.objects.create(value="a", within="b")
    before = stored(guarded)
    assert Lenient.objects.get().value == "a"  # the first read asks for limits, too; that would take the fault
    sidecar.faults.append(faults.fail_items({0: Code.KEY_DISABLED}))
    one = Lenient.objects.get()
    sidecar.faults.clear()
    assert one.value is None
    one.name = "x"
    one.save()
    assert stored(guarded)[0][:2] == before[0][:2]
    assert Lenient.objects.get().value == "a"


def test_what_was_not_read_is_not_asked_for(guarded: str, sidecar: Twin) -> None:
    Person.objects.create(name="n", ssn="1", other="2")
    one = Person.objects.defer("ssn", "other").get()
    one.name, one.other = "new", "3"
    with CaptureQueriesContext(connections[guarded]) as asked, assert_round_trips(max=1):
        one.save()
    assert ["UPDATE" in query["sql"] for query in asked.captured_queries] == [True]
    one = Person.objects.defer("ssn", "other").get()
    one.name = "newer"
    with sidecar.absent():
        one.save()
    assert Person.objects.get(ssn="1", other="3").name == "newer"
