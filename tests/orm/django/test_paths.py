"""Every way to read and write rows: what comes back, and how often the sidecar is asked."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core import serializers
from django.db import connections, models, transaction
from django.db.models import Case, Count, F, JSONField, Prefetch, Q, Value, When, Window
from django.db.models.functions import RowNumber
from django.test.utils import CaptureQueriesContext
from keyside import context
from keyside.fields import BindingMissing, FieldUnwritable, NotSearchable
from keyside.testing import assert_encrypted, assert_round_trips

from tests.orm.django.citizens.models import created
from tests.orm.django.clinics.guarded import Tenant
from tests.orm.django.clinics.models import Card, Clinic, Everything, GoldCard, Memo, Patient, Peculiar, patient

ROWS = 300
MAILS = [f"P{number}@Example.ORG" for number in range(ROWS)]


@pytest.fixture
def filled(database: str) -> str:
    Clinic.objects.bulk_create([Clinic(id=number, name=f"clinic {number}") for number in (1, 2, 3)])
    Patient.objects.bulk_create([patient(number, 1 + number % 3) for number in range(ROWS)])
    return database


def mails(patients: Any) -> list[str]:
    return [one.email for one in patients]


async def listed(patients: Any) -> list[str]:
    return [one.email async for one in patients]


async def got(number: int) -> str:
    return str((await Patient.objects.aget(number=number)).email)


first_place = Window(RowNumber(), partition_by="id", order_by="number")
first = Patient.objects.annotate(place=first_place).filter(place=1)

READS: dict[str, tuple[int, Callable[[], Any]]] = {
    "list": (1, lambda: mails(Patient.objects.all())),
    "values": (1, lambda: [row["email"] for row in Patient.objects.values("email", "born", "notes")]),
    "values with its keys": (1, lambda: [row["email"] for row in Patient.objects.values("id", "clinic", "email")]),
    "values_list": (1, lambda: [email for email, _ in Patient.objects.values_list("email", "born")]),
    "values_list flat": (1, lambda: list(Patient.objects.values_list("email", flat=True))),
    "values_list named": (1, lambda: mails(Patient.objects.values_list("born", "email", named=True))),
    "iterator": (1, lambda: mails(Patient.objects.iterator())),
    "iterator in chunks": (3, lambda: mails(Patient.objects.iterator(chunk_size=100))),
    "only": (1, lambda: mails(Patient.objects.only("email"))),
    "defer": (1, lambda: mails(Patient.objects.defer("born", "clinic"))),
    "select_related": (1, lambda: mails(Patient.objects.select_related("clinic"))),
    "prefetch_related": (
        2,
        lambda: sorted(
            (mail for clinic in Clinic.objects.prefetch_related("patients") for mail in mails(clinic.patients.all())),
            key=MAILS.index,
        ),
    ),
    "prefetch with a queryset": (
        2,
        lambda: sorted(
            (
                mail
                for clinic in Clinic.objects.prefetch_related(Prefetch("patients", Patient.objects.only("email")))
                for mail in mails(clinic.patients.all())
            ),
            key=MAILS.index,
        ),
    ),
    "raw": (1, lambda: mails(Patient.objects.raw("SELECT * FROM clinics_patient ORDER BY number"))),
    "annotated": (1, lambda: mails(Patient.objects.annotate(mail=F("email")).order_by("number"))),
    "an annotation": (1, lambda: [one.mail for one in Patient.objects.annotate(mail=F("email"))]),
    "through a relation": (
        1,
        lambda: list(Patient.objects.values_list("email", "clinic__name").values_list("email", flat=True)),
    ),
    "in_bulk": (
        1,
        lambda: mails(Patient.objects.in_bulk(list(Patient.objects.values_list("pk", flat=True))).values()),
    ),
    "aggregates beside": (
        1,
        lambda: mails(Patient.objects.annotate(n=Count("clinic")).order_by("number")),
    ),
    "only, aggregates beside": (
        1,
        lambda: mails(Patient.objects.only("email").annotate(n=Count("clinic")).order_by("number")),
    ),
    "deferred, aggregates beside": (
        1,
        lambda: mails(Patient.objects.defer("clinic").annotate(n=Count("clinic")).order_by("number")),
    ),
    "values of an aggregate": (
        1,
        lambda: [
            row["email"]
            for row in Patient.objects.values("id").annotate(n=Count("clinic")).values("email", "n").order_by("number")
        ],
    ),
    "only, through a relation": (
        1,
        lambda: mails(
            Patient.objects.select_related("clinic")
            .only("email", "clinic__name")
            .annotate(n=Count("clinic__patients"))
            .order_by("number")
        ),
    ),
    "distinct": (1, lambda: mails(Patient.objects.only("email").distinct())),
    "distinct values": (
        1,
        lambda: [row["email"] for row in Patient.objects.values("id", "email").distinct().order_by("number")],
    ),
    "by a window": (1, lambda: mails(first.only("email"))),
    "values by a window": (1, lambda: [row["email"] for row in first.values("email").order_by("number")]),
    "a window beside": (1, lambda: [mail for _, mail in first.values_list("place", "email").order_by("number")]),
    "by a window that is not selected": (
        1,
        lambda: list(
            Patient.objects.alias(place=first_place, n=Count("clinic"))
            .filter(place=1, n=1)
            .values_list("email", flat=True)
            .order_by("number")
        ),
    ),
    "asynchronous": (1, lambda: async_to_sync(listed)(Patient.objects.all())),
    "aget": (3, lambda: [async_to_sync(got)(number) for number in range(3)] + MAILS[3:]),
    "aiterator": (3, lambda: async_to_sync(listed)(Patient.objects.aiterator(chunk_size=100))),
}  # fmt: skip


@pytest.mark.parametrize("path", READS)
def test_reading(filled: str, path: str) -> None:
    trips, read = READS[path]
    with assert_round_trips(max=trips):
        assert read() == MAILS


def test_one_row(filled: str) -> None:
    with assert_round_trips(max=1):
        one = Patient.objects.get(number=7)
    assert (one.email, one.born, one.notes) == (MAILS[7], date(2000, 1, 8), {"n": 7})
    with assert_round_trips(max=2):
        assert Patient.objects.get(email="p7@example.org") == one
    with assert_round_trips(max=1):
        one.refresh_from_db()
    with assert_round_trips(max=1):
        one.refresh_from_db(fields=["email"])
    bare = Patient.objects.only("number").get(number=7)
    with assert_round_trips(max=1):
        assert bare.email == MAILS[7]
    with assert_round_trips(max=1):
        assert Patient.objects.last().number == ROWS - 1


def test_a_subquery_and_a_union(filled: str) -> None:
    with assert_round_trips(max=2):
        inner = Patient.objects.filter(email__in=MAILS[:5])
        assert mails(Patient.objects.filter(pk__in=inner.values("pk"))) == MAILS[:5]
    with assert_round_trips(max=1):
        halves = Patient.objects.order_by().filter(number=0).union(Patient.objects.order_by().filter(number=1))
        assert sorted(mails(halves)) == MAILS[:2]
    bare = Patient.objects.order_by().values_list("email")
    with pytest.raises(BindingMissing, match=r"clinics_patient\.email: it"):
        list(bare.union(bare, all=True).order_by())


def test_windows_in_subqueries(filled: str) -> None:
    some = first.values("email").filter(number__lt=3)
    assert first.filter(number__lt=3).count() == some.count() == 3
    assert some.exists()
    assert mails(Patient.objects.filter(pk__in=first.filter(number__lt=3).values("pk"))) == MAILS[:3]
    assert list(some.values_list("email", flat=True).order_by("-number")[1:2]) == [MAILS[1]]


def test_writing_a_batch(database: str) -> None:
    with assert_round_trips(max=1):
        Patient.objects.bulk_create([patient(number) for number in range(50)], batch_size=50)
    with assert_round_trips(max=5):
        Patient.objects.bulk_create([patient(number) for number in range(50, 100)], batch_size=10)
    assert assert_encrypted(Patient, "email", bind=database) == 100
    people = list(Patient.objects.all())
    for one in people:
        one.email, one.notes = f"new{one.number}@x.net", {"m": one.number}
    with assert_round_trips(max=4):
        assert Patient.objects.bulk_update(people, ["email", "notes"], batch_size=25) == 100
    assert mails(Patient.objects.all()) == [f"new{number}@x.net" for number in range(100)]
    assert Patient.objects.filter(email_domain="x.net").count() == 100
    assert not Patient.objects.filter(email="P5@example.org").exists()
    for one in people:
        one.clinic_id = 2
    with pytest.raises(BindingMissing, match="bound to clinic, which changes"):
        Patient.objects.bulk_update(people, ["clinic"])
    Patient.objects.bulk_update(people, ["clinic", "email"])
    assert Patient.objects.get(email="NEW3@x.net").email == "new3@x.net"


def test_saving(database: str) -> None:
    one = patient(1)
    with assert_round_trips(max=2):
        one.save()  # Django tries no UPDATE first: the key has a default
    one.email = "b@c.d"
    with assert_round_trips(max=1):
        one.save()
    assert Patient.objects.get(email="B@C.D").pk == one.pk
    one.email, one.born = "c@d.e", None
    with assert_round_trips(max=1):
        one.save(update_fields=["email"])
    assert Patient.objects.get(email="c@d.e").born == date(2000, 1, 2)
    partial = Patient.objects.only("email").get()
    partial.email = "d@e.f"
    partial.save()
    assert Patient.objects.get(email="d@e.f").email == "d@e.f"
    partial.clinic_id = 9
    with pytest.raises(BindingMissing), transaction.atomic():
        partial.save(update_fields=["clinic"])
    partial.save(update_fields=["clinic", "email"])
    assert Patient.objects.get().email == "d@e.f"


def test_updating(database: str) -> None:
    Card.objects.bulk_create([Card(number=f"12345{n}", limit=n) for n in range(20)])
    with assert_round_trips(max=1):
        assert Card.objects.filter(limit__in=[1, 2, 3]).update(number="98 76", limit=7) == 3
    assert Card.objects.filter(last_four="9876", limit=7).count() == 4 - 1
    assert Card.objects.filter(number="9876").update(number=None) == 3
    assert not Card.objects.filter(last_four="9876").exists()
    assert Card.objects.filter(number_index=None).count() == 3
    Patient.objects.bulk_create([patient(number) for number in range(3)])
    someone = Patient.objects.get(number=1)
    with assert_round_trips(max=1):
        Patient.objects.filter(pk=someone.pk, clinic=1).update(email="x@y.z")
    someone.refresh_from_db()
    assert someone.email == "x@y.z"
    with pytest.raises(BindingMissing, match="bound to the row's id"):
        Patient.objects.filter(clinic=1).update(email="same@for.all")
    with pytest.raises(BindingMissing, match="clinic_id"):
        Patient.objects.filter(pk=someone.pk).update(email="x@y.z")
    Patient.objects.filter(pk=someone.pk).update(email="moved@y.z", clinic_id=5)
    someone.refresh_from_db()
    assert (someone.email, someone.clinic_id) == ("moved@y.z", 5)


def test_get_or_create(database: str) -> None:
    defaults = {"number": 1, "clinic_id": 1, "email": "a@b.c"}
    with assert_round_trips(max=2):
        one, made = Patient.objects.get_or_create(email="A@b.c", defaults=defaults)
    assert made
    assert Patient.objects.get_or_create(email="a@B.c", defaults=defaults) == (one, False)
    with assert_round_trips(max=3):
        same, made = Patient.objects.update_or_create(email="A@b.C", defaults={"email": "new@b.c", "number": 2})
    assert (same, made) == (one, False)
    assert Patient.objects.get(email="new@b.c").number == 2


def test_update_or_create_writes_what_it_is_told(database: str) -> None:
    made = Patient.objects.create(id=patient(1).id, number=1, clinic_id=1, email="A@b.c")
    with CaptureQueriesContext(connections[database]) as queries:
        Patient.objects.update_or_create(id=made.id, defaults={"number": 2})
    update = next(one["sql"] for one in queries if one["sql"].startswith("UPDATE"))
    assert "number" in update
    assert "email" not in update
    assert "notes" not in update
    child = GoldCard.objects.create(number="1", club="chess")
    GoldCard.objects.update_or_create(pk=child.pk, defaults={"number": "2"})
    assert GoldCard.objects.get(number="2", club="chess") == child
    copied = pickle.loads(pickle.dumps(Patient.objects.get()))
    copied.email = "new@b.c"
    copied.save()
    assert Patient.objects.get(email="NEW@b.c").number == 2


def test_a_refreshed_object_is_pickled(database: str) -> None:
    with created(database, Tenant):
        one = Tenant.objects.create(tenant="a", ssn="x")
        one.refresh_from_db()
        again = pickle.loads(pickle.dumps(one))
        assert (again.ssn, again.get_deferred_fields()) == ("x", set())
        again.ssn = "y"
        again.save()
        assert Tenant.objects.get(tenant="a", ssn="y") == one
        bare = pickle.loads(pickle.dumps(Tenant.objects.defer("ssn_index").get()))
        assert bare.get_deferred_fields() == {"ssn_index"}


def test_an_upsert_finds_the_row_by_its_unique_index(database: str) -> None:
    Peculiar.objects.create(handle="ann", address="::1")
    told: dict[str, Any] = {"update_conflicts": True, "update_fields": ["address"]}
    if database != "mariadb":  # there any unique key finds the row
        with pytest.raises(NotSearchable, match="unique_fields"):
            Peculiar.objects.bulk_create([Peculiar(handle="@ann")], unique_fields=["tag"], **told)
        told["unique_fields"] = ["handle"]
    Peculiar.objects.bulk_create([Peculiar(handle="@ann", address="::2"), Peculiar(handle="bob")], **told)
    assert {one.handle: one.address for one in Peculiar.objects.all()} == {"ann": "::2", "bob": None}


def test_upserts(database: str) -> None:
    people = [patient(number) for number in range(10)]
    Patient.objects.bulk_create(people)
    for one in people:
        one.email = f"up{one.number}@x.y"
    told: dict[str, Any] = {"update_conflicts": True}
    if database != "mariadb":  # there any unique key finds the row
        told["unique_fields"] = ["id"]
    with pytest.raises(BindingMissing, match="must find the row by clinic_id, id"):
        Patient.objects.bulk_create(people, update_fields=["email"], **told)
    if database == "mariadb":
        with pytest.raises(BindingMissing, match="must find the row by clinic_id, id"):
            Patient.objects.bulk_create(people, update_fields=["email", "clinic"], **told)
        Patient.objects.bulk_update(people, ["email"])
    else:
        with assert_round_trips(max=1):
            Patient.objects.bulk_create(people, update_fields=["email", "clinic"], **told)
    assert mails(Patient.objects.all()) == [f"up{number}@x.y" for number in range(10)]
    assert Patient.objects.filter(email="UP3@x.y").exists()
    with assert_round_trips(max=1):
        Patient.objects.bulk_create([patient(99, email="UP3@X.Y")], ignore_conflicts=True)
    assert not Patient.objects.filter(number=99).exists()


def test_what_sql_would_compute_is_refused(database: str) -> None:
    Card.objects.create(number="1", limit=1)
    for value in (F("limit"), F("number"), Value("plain")):
        with pytest.raises(FieldUnwritable, match="SQL expression cannot write"):
            Card.objects.update(number=value)
    with pytest.raises(FieldUnwritable, match="written with its field; write number"):
        Card.objects.update(last_four="1234")
    card = Card.objects.get()
    card.number = F("limit")
    with pytest.raises(FieldUnwritable):
        card.save()
    assert Card.objects.get().number == "1"


JSON_NULLS = [lambda: Value(None, JSONField()), *([models.JSONNull] if hasattr(models, "JSONNull") else [])]


@pytest.mark.parametrize("null", JSON_NULLS)
def test_the_null_of_json_is_refused(database: str, null: Callable[[], Any]) -> None:
    """Django writes it past the field, as plaintext; None is SQL's NULL, as ever."""
    with pytest.raises(FieldUnwritable, match="JSON's null"):
        Everything.objects.create(data=null())
    one = Everything.objects.create(data={"a": 1})
    with pytest.raises(FieldUnwritable, match="JSON's null"):
        Everything.objects.bulk_create([Everything(data={}), Everything(data=null())])
    one.data = null()
    for write in (
        one.save,
        lambda: Everything.objects.bulk_update([one], ["data"]),
        lambda: Everything.objects.update(data=null()),
        lambda: Everything.objects.update(data=Case(When(pk=one.pk, then=null()), default=Value(None))),
    ):
        with pytest.raises(FieldUnwritable, match="JSON's null"), transaction.atomic(using=database):
            write()
    assert Everything.objects.get().data == {"a": 1}
    one.data = None
    one.save()
    assert Everything.objects.filter(data=None).exists()


def test_null_is_null_whatever_type_it_is_said_of(database: str) -> None:
    """What a field of the application's own makes of it is another field's matter."""

    class Never(models.TextField):
        def get_db_prep_save(self, value: Any, connection: Any) -> Any:
            return "never" if value is None else value

    for null in (Value(None), Value(None, Never())):
        one = Card.objects.create(number=null, limit=null)
        Card.objects.bulk_create([Card(number=null), Card(number="1")])
        assert Card.objects.filter(number=None, number_index=None).count() == 2
        Card.objects.filter(number="1").update(number=null)
        one.number = "2"
        one.save()
        one.number = null
        one.save()
        assert Card.objects.filter(number=None, number_index=None, last_four=None).count() == 3
        Card.objects.all().delete()


def test_inheritance(database: str) -> None:
    GoldCard.objects.create(number="4111 1111", limit=5, club="chess")
    with assert_round_trips(max=1):
        one = GoldCard.objects.get()
    assert (one.number, one.limit, one.club) == ("4111 1111", 5, "chess")
    one.number, one.club = "4222 2222", "go"
    one.save()
    assert GoldCard.objects.get(number="42222222", club="go") == one
    GoldCard.objects.filter(club="go").update(number="4333 3333", club="shogi")
    assert GoldCard.objects.get(last_four="3333", club="shogi") == one
    assert Card.objects.get().number == "4333 3333"


def test_partitions_of_the_context(database: str) -> None:
    with context(tenant="a"), assert_round_trips(max=1):
        Memo.objects.bulk_create([Memo(text=f"a{n}") for n in range(10)])
    with pytest.raises(BindingMissing, match=r"keyside\.context\(tenant=…\)"):
        Memo.objects.create(text="whose?")
    with context(tenant="a"), assert_round_trips(max=1):
        assert len({memo.text for memo in Memo.objects.all()}) == 10
    with pytest.raises(BindingMissing):
        list(Memo.objects.all())


def test_fixtures(filled: str) -> None:
    kept = serializers.serialize("json", Patient.objects.filter(number__lt=20))
    Patient.objects.all().delete()
    for loaded in serializers.deserialize("json", kept):
        loaded.save(using=filled)
    assert mails(Patient.objects.all()) == MAILS[:20]
    assert Patient.objects.filter(Q(email=MAILS[3]) | Q(email_domain="nowhere.org")).count() == 1
