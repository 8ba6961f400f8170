"""What a value is encrypted for is what its row's columns will hold, however a statement or a field says it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.postgres.fields import ArrayField
from django.db import connections, models, transaction
from django.db.models import F
from django.test.utils import isolate_apps
from django.utils.translation import gettext_lazy
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

    class Lowered(models.CharField):
        """The application's own: told for the database alone."""

        def get_prep_value(self, value: Any) -> Any:
            value = super().get_prep_value(value)
            return value if value is None else value.lower()

    class Prefixed(models.CharField):
        """The application's own: another value in Python than in the column, and twice prepared another one."""

        def get_prep_value(self, value: Any) -> Any:
            value = super().get_prep_value(value)
            return value if value is None else f"t-{value}"

        def from_db_value(self, value: Any, *_: Any) -> Any:
            return value if value is None else value.removeprefix("t-")

    class Cased(models.CharField):
        """The application's own: told when it is saved, and not before."""

        def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
            value = super().get_db_prep_value(value, connection, prepared)
            return value if value is None else value.upper()

    class Minute(models.DateTimeField):
        """The application's own, over a type that drivers convert."""

        def get_prep_value(self, value: Any) -> Any:
            value = super().get_prep_value(value)
            return value if value is None else value.replace(second=0, microsecond=0)

    NOON = datetime(2026, 7, 1, 12, 30, 15, 123456)
    PLAIN: dict[str, tuple[models.Field, list[Any]]] = {
        "lowered": (Lowered(max_length=20), ["ACME", "acme"]),
        "prefixed": (Prefixed(max_length=20), ["acme", "t-acme"]),
        "cased": (Cased(max_length=20), ["acme", "ACME"]),
        "minute": (Minute(), [NOON.replace(tzinfo=UTC)]),
        "text": (models.CharField(max_length=20), [5, gettext_lazy("Yes"), "a  "]),
        "file": (models.FileField(), ["a.txt"]),
        "number": (models.IntegerField(), ["5", 5.7, True]),
        "ratio": (models.FloatField(), ["1.5", 1, -0.0]),
        "amount": (models.DecimalField(max_digits=8, decimal_places=2), ["1.5", 1.25, Decimal("1E+2"), "1.230"]),
        "moment": (
            models.DateTimeField(),
            [NOON, "2026-07-01 12:30", date(2026, 7, 1), NOON.replace(tzinfo=timezone(timedelta(hours=5)))],
        ),
        "day": (models.DateField(), ["2026-07-01", NOON]),
        "hour": (models.TimeField(), ["12:30", NOON.time()]),
        "span": (models.DurationField(), [timedelta(microseconds=1)]),
        "address": (models.GenericIPAddressField(), ["2001:0DB8::1", "::ffff:1.2.3.4", "10.0.0.1"]),
        "raw": (models.BinaryField(), [b"x", memoryview(b"y")]),
        "code": (models.UUIDField(), ["a" * 32]),
    }  # fmt: skip

    def bound_to(**fields: models.Field) -> type[models.Model]:
        """A model with a secret for each field, bound to it."""
        told = {f"of_{name}": secret(bind=name) for name in fields}
        meta = type("Meta", (), {"app_label": "clinics"})
        return type("BoundToAll", (models.Model,), {"__module__": __name__, "Meta": meta, **told, **fields})

    Every = bound_to(**{name: field for name, (field, _) in PLAIN.items()})

    class Stamp(models.CharField):
        """Chooses its value when it is saved, and tells the object, or does not."""

        silent = False

        def pre_save(self, instance: models.Model, add: bool) -> Any:
            value = f"{uuid4()}" if add else super().pre_save(instance, add)
            if not self.silent:
                setattr(instance, self.attname, value)
            return value

    class SilentStamp(Stamp):
        silent = True

        def pre_save(self, instance: models.Model, add: bool) -> Any:
            return f"{super().pre_save(instance, add)}!"

    class Chosen(models.Model):
        """Its encrypted fields come first, before others have chosen what they are bound to."""

        of_tenant = secret(partition="tenant", blind_index=BlindIndex(partitioned=True))
        of_made = secret(bind="made")
        of_changed = secret(bind="changed")
        tenant = Stamp(max_length=50)
        made = models.DateTimeField(auto_now_add=True)
        changed = models.DateTimeField(auto_now=True)
        name = models.CharField(max_length=9, default="n")

        class Meta:
            app_label = "clinics"

    class ChosenSilently(models.Model):
        of_tenant = secret(partition="tenant")
        tenant = SilentStamp(max_length=50)

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
    lost = Town(among="f")
    lost.land_id = other
    for write in (lost.save, lambda: Town.objects.filter(pk=town.pk).update(land=F("twin"), among="f")):
        with pytest.raises(BindingMissing, match="write a value that it keeps"):
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


@pytest.mark.filterwarnings("ignore:DateTimeField .* received a naive datetime")
@pytest.mark.parametrize("bulk", [False, True])
def test_a_row_is_bound_to_what_its_column_gives_back(database: str, bulk: bool) -> None:
    most = max(len(values) for _, values in PLAIN.values())
    with created(database, Every):
        for number in range(most):
            chosen = {name: values[number % len(values)] for name, (_, values) in PLAIN.items()}
            secrets = {f"of_{name}": name for name in PLAIN}
            one = Every(**chosen, **secrets)
            _ = Every.objects.bulk_create([one]) if bulk else one.save()
            assert Every.objects.values(*secrets).get(pk=one.pk) == secrets
            found = Every.objects.get(pk=one.pk)
            found.save(update_fields=secrets)
            assert Every.objects.filter(pk=one.pk).update(**chosen, **secrets) == 1
            for name, value in chosen.items():
                assert Every.objects.filter(**{"pk": one.pk, name: value}).update(**{f"of_{name}": "new"}) == 1, name
            assert set(Every.objects.values_list(*secrets).get(pk=one.pk)) == {"new"}


def test_a_condition_has_prepared_its_value_already(database: str) -> None:
    with isolate_apps(APP):

        class Tenancy(models.Model):
            tenant = Prefixed(max_length=20)
            ssn = secret(partition="tenant", blind_index=BlindIndex(partitioned=True))

            class Meta:
                app_label = "clinics"

    with created(database, Tenancy):
        Tenancy.objects.create(tenant="acme", ssn="1")
        assert Tenancy.objects.get(tenant="acme", ssn="1").ssn == "1"


@isolate_apps(APP)
def test_a_key_of_two_columns_is_prepared_too(database: str) -> None:
    class Pair(models.Model):
        pk = models.CompositePrimaryKey("name", "number")
        name = Lowered(max_length=20)
        number = models.IntegerField()
        key = secret(bind=("name", "number"))

        class Meta:
            app_label = "clinics"

    with created(database, Pair):
        Pair.objects.create(name="A", number=1, key="k")
        assert Pair.objects.filter(pk=("A", "1")).update(key="new") == 1
        assert Pair.objects.get(pk=("A", 1)).key == "new"
        assert Pair.objects.filter(pk=(F("name"), 1)).update(key=None) == 1
        with pytest.raises(BindingMissing, match="bound to the row's name, number"):
            Pair.objects.filter(pk=(F("name"), 1)).update(key="lost")


@isolate_apps(APP)
def test_what_a_column_would_round_is_refused(database: str) -> None:
    """Each database rounds in a way of its own."""
    model = bound_to(amount=models.DecimalField(max_digits=8, decimal_places=2))
    with created(database, model):
        for value in (Decimal("1.005"), "1.234", 10**9):
            values = {"amount": value, "of_amount": "s"}
            for write in (model(**values).save, lambda values=values: model.objects.update(**values)):
                with pytest.raises(BindingMissing, match=r"amount: .* write a value that it keeps"):
                    write()
        assert not model.objects.exists()


@isolate_apps(APP)
def test_checks_refuse_what_cannot_be_foreseen() -> None:
    class Hour(models.DateTimeField):
        def from_db_value(self, value: Any, *_: Any) -> Any:
            return value.hour

    class Other(models.ForeignKey):
        def get_db_prep_save(self, value: Any, connection: Any) -> Any:
            return f"{value}!"

    wrong = {
        "json": models.JSONField(), "other": Other(Land, models.CASCADE),
        "array": ArrayField(models.IntegerField()), "hour": Hour(),
        "wide": models.DecimalField(max_digits=16, decimal_places=0), "own": models.Field(),
    }  # fmt: skip
    model = bound_to(**wrong, ward=models.ForeignKey("clinics.Nowhere", models.CASCADE))
    found = model.check()
    assert [error.obj.name for error in found if error.id == "keyside.E011"] == [f"of_{name}" for name in wrong]
    assert [error for error in Every.check() if str(error.id).startswith("keyside")] == []
    field, document = model._meta.get_field("of_json"), model(ward_id=1, other_id="o", json={}, of_json="s")
    with pytest.raises(BindingMissing, match="write a value that it keeps"):
        field.get_db_prep_save(field.pre_save(document, True), connections["default"])


SECRETS = {"of_tenant": "t", "of_made": "m", "of_changed": "c"}


def test_fields_choose_first_what_others_are_bound_to(database: str) -> None:
    with created(database, Chosen):
        one = Chosen.objects.create(**SECRETS)
        Chosen.objects.bulk_create([Chosen(**SECRETS), Chosen(**SECRETS)])
        one.name = "new"
        one.save()
        again = Chosen.objects.get(pk=one.pk)
        again.pk, again._state.adding = None, True
        again.save()
        assert list(Chosen.objects.values(*SECRETS)) == [SECRETS] * 4
        tenants = set(Chosen.objects.values_list("tenant", flat=True))
        assert len(tenants) == 4
        assert [Chosen.objects.get(tenant=tenant, of_tenant="t").of_tenant for tenant in tenants] == ["t"] * 4
        again.of_made = "new"
        again.save(update_fields=["of_made"])
        with pytest.raises(BindingMissing, match="which changes: write the field"), transaction.atomic(using=database):
            Chosen.objects.update_or_create(pk=again.pk, defaults={"of_made": "n"})
        assert Chosen.objects.values_list(*SECRETS).get(pk=again.pk) == ("t", "new", "c")


def test_a_field_that_does_not_tell_what_it_chose_is_refused(database: str) -> None:
    with created(database, ChosenSilently):
        for write in (
            ChosenSilently(of_tenant="t").save,
            lambda: ChosenSilently.objects.bulk_create([ChosenSilently(of_tenant="t")]),
        ):
            with pytest.raises(BindingMissing, match="let it set the attribute as well"):
                write()
        with connections[database].cursor() as cursor:
            cursor.execute("INSERT INTO clinics_chosensilently (tenant) VALUES ('old')")
        one = ChosenSilently.objects.get()
        one.of_tenant = "t"
        one.save()
        assert ChosenSilently.objects.values_list("tenant", "of_tenant").get() == ("old!", "t")


BY_DATABASE = [name for name in ("DB_SET_NULL", "DB_SET_DEFAULT", "DB_CASCADE") if hasattr(models, name)]


@isolate_apps(APP)
def test_checks_refuse_keys_that_deletion_changes() -> None:
    kept = ["CASCADE", "PROTECT", "RESTRICT", "DO_NOTHING", *BY_DATABASE[2:]]
    changed = ["SET_NULL", "SET_DEFAULT", *BY_DATABASE[:2]]
    ways = {name.lower(): getattr(models, name) for name in [*kept, *changed]}
    ways |= {"set_of": models.SET(1), "set_by": models.SET(lambda: 1)}
    model = bound_to(
        **{name: models.ForeignKey(Land, way, null=True, default="", related_name="+") for name, way in ways.items()}
    )
    found = [error.obj.name for error in model.check() if error.id == "keyside.E012"]
    assert found == [f"of_{name}" for name in [*map(str.lower, changed), "set_of", "set_by"]]
