"""GROUP BY, DISTINCT and UNION: the database cannot say which ciphertexts are equal, and says it of keys as ever."""

from __future__ import annotations

from typing import Any

import pytest
from django.db.models import Count, F, Max, Sum
from keyside.fields import NotSearchable

from tests.orm.django.clinics.models import Badge, Card, Clinic, GoldCard, Patient, patient

NUMBERS = ["4111 0001", "4111 0001", "4111 0002"]


@pytest.fixture
def filled(database: str) -> str:
    Clinic.objects.bulk_create([Clinic(id=1, name="a"), Clinic(id=2, name="a")])
    Patient.objects.bulk_create([patient(n, 1 + n % 2) for n in range(4)])
    Card.objects.bulk_create([Card(number=number, limit=5) for number in NUMBERS])
    GoldCard.objects.create(number="4222 0001", limit=7, club="chess")
    Badge.objects.create(clinic_id=1, holder="Ann")
    return database


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda: Card.objects.values_list("number").distinct(), "number: distinct .* the blind index in place of it"),
        (lambda: Card.objects.values("number").distinct().count(), "number: distinct"),
        (lambda: Clinic.objects.values("name").distinct(), "name: distinct .* key beside it"),
        (lambda: Patient.objects.values("number", "clinic__name").distinct(), r"clinic\.name: distinct"),
        (lambda: Card.objects.filter(limit__in=[5]).values("number").distinct()[:1], "number: distinct"),
        (lambda: Card.objects.values("number").annotate(n=Count("id")), "number: values"),
        (lambda: Card.objects.values("number").annotate(n=Count("id")).count(), "number: values"),
        (lambda: Card.objects.values(x=F("number")).annotate(n=Count("id")), "number: values"),
        (lambda: Card.objects.annotate(x=F("number")).values("x").annotate(n=Count("id")).values("n"), "values"),
        (lambda: Card.objects.values("number", "last_four").annotate(n=Count("id")), "number: values"),
        (lambda: Clinic.objects.values("patients__email").annotate(n=Count("id")), "email: values"),
        (lambda: Clinic.objects.values("id", "patients__email").annotate(n=Count("id")), "email: values"),
        (lambda: Patient.objects.values("clinic").annotate(n=Count("id")).values("n", "born"), "born: values"),
        (lambda: Clinic.objects.annotate(mail=F("patients__email"), n=Count("id")), "email: values"),
        (lambda: Card.objects.values("number").union(Card.objects.values("number")), "number: a set operation"),
        (lambda: Card.objects.values("number").intersection(Card.objects.values("number")), "number: a set operation"),
        (lambda: Card.objects.values("number").difference(Card.objects.values("number")), "number: a set operation"),
        (lambda: Card.objects.union(Card.objects.all()).values("number"), "number: a set operation"),
        (lambda: Card.objects.values("id").union(Card.objects.values("number")), "number: a set operation"),
        (
            lambda: Card.objects.values("id", "number").union(Clinic.objects.values("id", "name")),
            "number: a set operation",
        ),
        (lambda: Card.objects.union(Card.objects.all()).order_by("number"), "number: "),
    ],
)
def test_equal_values_are_no_equal_ciphertexts(filled: str, ask: Any, told: str) -> None:
    with pytest.raises(NotSearchable, match=told):
        list(ask())


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_distinct_on(filled: str) -> None:
    with pytest.raises(NotSearchable, match="number: distinct"):
        list(Card.objects.distinct("number"))
    with pytest.raises(NotSearchable, match="number: distinct"):
        list(Card.objects.annotate(x=F("number")).distinct("x"))
    with pytest.raises(NotSearchable, match="name: distinct"):
        list(Patient.objects.distinct("clinic__name").order_by())
    assert len(Card.objects.distinct("number_index")) == 3


def test_rows_are_told_apart_by_their_key(filled: str) -> None:
    assert sorted(card.number for card in Card.objects.distinct()) == [*NUMBERS, "4222 0001"]
    assert Card.objects.distinct().count() == 4
    assert Card.objects.distinct().exists()
    assert len(Card.objects.only("number").distinct()) == 4
    assert {clinic.name for clinic in Clinic.objects.filter(patients__number__gte=0).distinct()} == {"a"}
    assert Card.objects.values_list("pk", "number").distinct().count() == 4
    assert GoldCard.objects.distinct().get().number == "4222 0001"
    assert Patient.objects.filter(pk__in=Patient.objects.distinct()).count() == 4
    assert len(Patient.objects.select_related("clinic").distinct()) == 4


def test_other_columns_are_counted_beside_ciphertexts(filled: str) -> None:
    clinics = Clinic.objects.annotate(n=Count("patients"), most=Max("patients__number")).order_by("id")
    assert [(clinic.name, clinic.n, clinic.most) for clinic in clinics] == [("a", 2, 2), ("a", 2, 3)]
    assert clinics.filter(n__gt=1).count() == 2
    assert clinics.filter(n__gt=1).exists()
    assert Patient.objects.select_related("clinic").annotate(n=Count("clinic__patients")).order_by("number")[0].n == 2
    assert dict(Patient.objects.values_list("clinic").annotate(n=Count("id")).order_by()) == {1: 2, 2: 2}
    assert Patient.objects.values("clinic").annotate(n=Count("email")).order_by().aggregate(all=Sum("n")) == {"all": 4}
    assert Badge.objects.values("id", "holder").annotate(n=Count("clinic")).get()["n"] == 1
    assert GoldCard.objects.annotate(n=Count("pk")).get().n == 1


def test_a_blind_index_groups_equal_values(filled: str) -> None:
    groups = Card.objects.values("number_index").annotate(n=Count("id")).values_list("n", flat=True)
    assert sorted(groups) == [1, 1, 2]
    assert Card.objects.values("number_index").distinct().count() == 3


def test_unions_of_rows(filled: str) -> None:
    one, other = Card.objects.filter(number="41110001"), Card.objects.filter(number__in=["41110001", "41110002"])
    assert len(one.union(other)) == 3
    assert len(one.union(other, all=True)) == 5
    texts = [queryset.values_list("number", flat=True) for queryset in (one, other)]
    assert sorted(texts[0].union(texts[1], all=True)) == [NUMBERS[0]] * 4 + [NUMBERS[2]]
    assert [card.number for card in other.difference(one)] == ["4111 0002"]
    assert set(one.values_list("id").union(Clinic.objects.values_list("id"))) >= {(1,), (2,)}
