"""What a value is encrypted for is what its row's columns will hold, however a statement or a field says it."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from django.db import models
from django.db.models import F
from django.test.utils import isolate_apps
from keyside.django import BlindIndex, EncryptedField
from keyside.fields import BindingMissing

from tests.orm.django.citizens.models import created

APP = "tests.orm.django.clinics"


def secret(**options: Any) -> EncryptedField:
    return EncryptedField(models.CharField(max_length=20, null=True), keyring="k", **options)


with isolate_apps(APP):

    class Land(models.Model):
        code = models.CharField(max_length=20, primary_key=True)

        class Meta:
            app_label = "clinics"

    class Town(models.Model):
        """Bound to relations to keys that are text, and that are numbers."""

        land = models.ForeignKey(Land, models.CASCADE)
        twin = models.ForeignKey("self", models.CASCADE, null=True)
        among = secret(partition="land", blind_index=BlindIndex(partitioned=True))
        with_twin = secret(bind="twin_id")

        class Meta:
            app_label = "clinics"

    class House(models.Model):
        id = models.UUIDField(primary_key=True, default=uuid4)
        street = models.CharField(max_length=20, db_column="road")
        key = secret(bind="id")
        by_column = secret(bind="road", partition="road", blind_index=BlindIndex(partitioned=True))

        class Meta:
            app_label = "clinics"

    class NamedHouse(House):
        class Meta:
            app_label = "clinics"
            proxy = True

    class Palace(House):
        """Its column has the name of its parent's."""

        house = models.OneToOneField(House, models.CASCADE, parent_link=True, primary_key=True, db_column="id")
        gate = secret(bind="house")

        class Meta:
            app_label = "clinics"


@pytest.fixture
def towns(database: str) -> Iterator[None]:
    with created(database, Land, Town):
        yield


def test_a_relation_may_be_written_as_an_object(towns: None) -> None:
    one, other = [Land.objects.create(code=code) for code in ("one", "other")]
    town = Town.objects.create(land=one, among="a")
    assert Town.objects.filter(land=one).update(land=other, among="b") == 1
    assert Town.objects.get(land=other, among="b").among == "b"
    assert Town.objects.update(twin=town, with_twin="c") == 1
    assert Town.objects.filter(twin=town).update(with_twin="d") == 1
    assert Town.objects.get().with_twin == "d"
    town, _ = Town.objects.update_or_create(pk=town.pk, defaults={"land": one, "among": "e"})
    assert Town.objects.get(land=one, among="e").among == "e"
    town.land_id = other
    for write in (town.save, lambda: Town.objects.filter(pk=town.pk).update(land=F("twin"), among="f")):
        with pytest.raises(BindingMissing, match="write a value"):
            write()
    assert Town.objects.get().among == "e"


@pytest.mark.parametrize("model", [House, NamedHouse, Palace])
def test_the_row_is_that_of_the_table_that_holds_the_value(database: str, model: type[House]) -> None:
    with created(database, House, Palace):
        own = {"gate": "g"} if model is Palace else {}
        one = model.objects.create(street="s", key="k", by_column="c", **own)
        one.street = "t"
        one.save()
        found = model.objects.get(street="t", by_column="c")
        assert (found.key, found.by_column, *[getattr(found, name) for name in own]) == ("k", "c", *own.values())
        found.key = found.by_column = "new"
        table = House if model is Palace else model
        table.objects.bulk_update([found], ["key", "by_column"])
        assert model.objects.values_list("key", "by_column").get() == ("new", "new")
