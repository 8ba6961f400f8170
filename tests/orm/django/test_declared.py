"""Declarations and values that are refused: keys that are secret, schemas that name ciphertexts, stolen ciphertexts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.helpers import AdminReadonlyField
from django.contrib.auth.models import User
from django.db import connections, models, transaction
from django.db.migrations.state import ModelState, StateApps
from django.db.models import F, Q
from django.db.models.functions import Lower
from django.http import HttpRequest
from django.test import RequestFactory
from django.test.utils import isolate_apps
from keyside.django import BlindIndex, EncryptedField
from keyside.django.admin import EncryptedAdminMixin
from keyside.fields import FieldUnwritable

from tests.orm.django.citizens.models import created
from tests.orm.django.clinics.guarded import GUARDED, Before, Halfway, Person, Ward

APP = "tests.orm.django.clinics"


@pytest.fixture
def guarded(database: str) -> Iterator[str]:
    with created(database, *GUARDED):
        yield database


def secret(**options: Any) -> EncryptedField:
    return EncryptedField(models.CharField(max_length=20), keyring="k", **options)


@isolate_apps(APP)
@pytest.mark.parametrize("name", ["ssn", "ssn_index"])
@pytest.mark.parametrize("way", ["bind", "partition"])
def test_no_key_is_encrypted_itself(name: str, way: str) -> None:
    class Meta:
        app_label = "clinics"

    def declare(**fields: Any) -> None:
        type("Hidden", (models.Model,), {"__module__": APP, "Meta": Meta, **fields})

    for first_is_bound in (True, False):
        fields = {"scan": secret(**{way: name}), "ssn": secret(blind_index=BlindIndex())}
        with pytest.raises(ValueError, match=rf"Hidden\.scan depends on '{name}', which is encrypted itself"):
            declare(**fields if first_is_bound else dict(reversed(fields.items())))
    with pytest.raises(ValueError, match="encrypted itself"):
        declare(ssn=secret(bind="ssn"))


@isolate_apps(APP)
def test_the_schema_names_no_ciphertext() -> None:
    class Wrong(models.Model):
        ssn = secret(blind_index=BlindIndex())
        lower = models.GeneratedField(
            expression=Lower("ssn"), output_field=models.CharField(max_length=20), db_persist=True
        )

        class Meta:
            app_label = "clinics"
            ordering = (F("ssn").desc(),)
            get_latest_by = "ssn"
            constraints = (
                models.UniqueConstraint("ssn", name="expression"),
                models.UniqueConstraint(Lower("ssn"), name="function"),
                models.UniqueConstraint(fields=["id"], condition=Q(ssn="x"), name="condition"),
                models.UniqueConstraint(fields=["id"], include=["ssn"], name="include"),
                models.CheckConstraint(condition=Q(id=1) | ~Q(ssn__gt="x"), name="check"),
                models.CheckConstraint(condition=Q(id=F("ssn")), name="reference"),
                models.CheckConstraint(condition=Q(ssn_index="x"), name="index_value"),
                models.CheckConstraint(condition=Q(ssn__isnull=False, ssn_index__isnull=False), name="fine"),
            )
            indexes = (
                models.Index(F("ssn"), name="of_expression"),
                models.Index(fields=["-ssn"], name="descending"),
                models.Index(fields=["ssn_index"], name="also_fine"),
            )

    found = [(problem.id, str(problem.msg)) for problem in Wrong.check() if str(problem.id).startswith("keyside")]
    named = " ".join(message for _, message in found)
    for name in ("expression", "function", "condition", "include", "check", "reference", "of_expression", "descending"):
        assert f"'{name}' refers to 'ssn'" in named, name
    assert "'index_value' compares a blind index of 'ssn' with a value" in named
    for name in ("'ordering'", "'get_latest_by'", "the generated field 'lower'"):
        assert f"{name} refers to" in named, name
    assert "fine" not in named
    assert len(found) == 12


@isolate_apps(APP)
def test_a_field_inside_may_stand_inside_another_too(database: str) -> None:
    inner = models.CharField(max_length=20)

    class Twins(models.Model):
        first = EncryptedField(inner, keyring="k", blind_index=BlindIndex())
        family = EncryptedField(inner, keyring="k", blind_index=BlindIndex())

        class Meta:
            app_label = "clinics"

    past = ModelState.from_model(Twins)
    past.name = "Past"
    historical = StateApps([], {("clinics", "past"): past}, ignore_swappable=True).get_model("clinics", "Past")
    with created(database, Twins):
        Twins.objects.create(first="Ada", family="Lovelace")
        assert Twins.objects.filter(first="Ada").values_list("first", "family").get() == ("Ada", "Lovelace")
    for model in (Twins, historical):
        assert {model._meta.get_field(name).inner.model for name in ("first", "family")} == {model}
    assert not hasattr(inner, "model")


@isolate_apps(APP)
def test_an_index_beside_a_renamed_column_says_what_it_was_called() -> None:
    class Renamed(models.Model):
        ssn = secret(context="people.ssn", blind_index=[BlindIndex(), BlindIndex(name="told", context="people.told")])
        own = secret(blind_index=BlindIndex(context="shared"))

        class Meta:
            app_label = "clinics"

    (found,) = (problem for problem in Renamed.check() if str(problem.id).startswith("keyside"))
    assert found.id == "keyside.E015"
    assert "ssn_index: " in found.msg
    assert "Give it context= as well" in found.msg
    assert "or 'clinics_renamed.ssn_index' when it never had another name" in found.msg


@isolate_apps(APP)
def test_no_row_is_known_by_a_ciphertext_or_an_index() -> None:
    class Base(models.Model):
        ssn = secret(blind_index=BlindIndex(unique=True))

        class Meta:
            app_label = "clinics"

    class Child(models.Model):
        base = models.ForeignKey(Base, models.CASCADE, to_field="ssn_index")
        fine = models.ForeignKey(Base, models.CASCADE, related_name="+")

        class Meta:
            app_label = "clinics"

    class Composite(models.Model):
        pk = models.CompositePrimaryKey("number", "ssn")
        number = models.IntegerField()
        ssn = secret()

        class Meta:
            app_label = "clinics"

    class ByIndex(models.Model):
        pk = models.CompositePrimaryKey("number", "ssn_index")
        number = models.IntegerField()
        ssn = secret(blind_index=BlindIndex())

        class Meta:
            app_label = "clinics"

    told = [problem for model in (Base, Child, Composite, ByIndex) for problem in model.check()]
    assert [str(problem.msg).split(" refers")[0] for problem in told if problem.id == "keyside.E016"] == [
        "Child.base",
        "the primary key of Composite",
        "the primary key of ByIndex",
    ]


@isolate_apps(APP)
def test_a_partition_that_is_compared_loosely_warns(databases: None) -> None:
    def declared(**options: Any) -> type[models.Model]:
        class Meta:
            app_label = "clinics"

        index = BlindIndex(partitioned=options.pop("partitioned", True))
        fields = {
            "tenant": options.pop("field", None) or models.CharField(max_length=20, **options),
            "ssn": secret(partition="tenant", blind_index=index),
        }
        return type("Loose", (models.Model,), {"__module__": APP, "Meta": Meta, **fields})

    def warned(**options: Any) -> list[str]:
        with isolate_apps(APP):
            model: Any = declared(**options)
            found = model._meta.get_field("ssn").check(databases=["default", "postgresql", "mariadb"])
        return [
            str(problem.msg).split("collation in ")[1].split()[0] for problem in found if problem.id == "keyside.W001"
        ]

    assert warned() == ["'mariadb'"]
    assert warned(db_collation="NOCASE") == ["'default'", "'postgresql'", "'mariadb'"]
    assert warned(db_collation="utf8mb4_bin") == warned(partitioned=False) == []
    assert warned(field=models.IntegerField()) == []


def test_plaintext_that_looks_like_ciphertext_is_not_written(guarded: str) -> None:
    """Otherwise whoever may type a text has a stolen ciphertext opened, or makes every list that holds it fail."""
    Person.objects.create(phone="stolen")
    with connections[guarded].cursor() as cursor:
        cursor.execute("SELECT phone FROM clinics_person")
        stolen = cursor.fetchone()[0]
    forged = b"\xc1\x01" + bytes(60)
    one = Before.objects.create(text="harmless", raw=b"harmless")
    for values in ({"text": stolen}, {"raw": forged}, {"raw": memoryview(forged)}, {"raw": bytearray(forged)}):
        with pytest.raises(FieldUnwritable, match="looks like ciphertext") as caught, transaction.atomic(using=guarded):
            Before.objects.create(**values)
        assert stolen not in str(caught.value)
        with pytest.raises(FieldUnwritable), transaction.atomic(using=guarded):
            Before.objects.update(**values)
    one.text = stolen
    with pytest.raises(FieldUnwritable), transaction.atomic(using=guarded):
        Before.objects.bulk_update([one], ["text"])
    Before.objects.create(text="ks1.no ciphertext")
    assert {row.text for row in Before.objects.all()} == {"harmless", "ks1.no ciphertext"}


def test_a_row_found_by_its_plaintext_or_index_is_written(guarded: str) -> None:
    Halfway.objects.create(text="a")
    with connections[guarded].cursor() as cursor:
        cursor.execute("INSERT INTO clinics_halfway (text) VALUES ('p')")
    assert Halfway.objects.filter(text="a").update(text="b") == 1
    assert Halfway.objects.filter(text__in=["p", "b"]).update(text="q") == 2
    assert Halfway.objects.update_or_create(text="q", defaults={"text": "r"}, pk=Halfway.objects.first().pk)
    assert sorted(row.text for row in Halfway.objects.all()) == ["q", "r"]


class PersonAdmin(EncryptedAdminMixin, admin.ModelAdmin):
    list_display = ("name", "ward__name", "ward__secret", "ssn")
    readonly_fields = ("ward__secret",)
    fields = ("name", ("ward__secret", "ssn"))


class RevealingAdmin(PersonAdmin):
    def has_reveal_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return True


def test_the_admin_masks_what_relations_lead_to(guarded: str) -> None:
    ward = Ward.objects.create(name="west", secret="tell-nobody")
    person = Person.objects.create(ward=ward, ssn="nor-this")
    site = PersonAdmin(Person, admin.site)
    request = RequestFactory().get("/")
    request.user = User(is_superuser=True, is_active=True)
    shown = [one(person) if callable(one) else one for one in site.get_list_display(request)]
    assert shown == ["name", "ward__name", "<encrypted>", "<encrypted>"]
    (column,) = site.get_readonly_fields(request, person)
    assert column(person) == "<encrypted>"
    (_, options), *_ = site.get_fieldsets(request, person)
    assert options["fields"][1][0] == column
    form = site.get_form(request, person)(instance=person)
    contents = AdminReadonlyField(form, options["fields"][1][0], True, model_admin=site).contents()
    assert "tell-nobody" not in contents
    assert column(Person(ward=None)) is None

    site = RevealingAdmin(Person, admin.site)
    assert [one(person) for one in site.get_list_display(request)[2:]] == ["tell-nobody", "nor-this"]
