"""No query answers with silence, or with ciphertext, what ciphertexts and indexes cannot answer."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import connections, transaction
from django.db.models import (
    Case,
    CharField,
    Count,
    Exists,
    F,
    FilteredRelation,
    Max,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Value,
    When,
)
from django.db.models.functions import Cast, Coalesce, Upper
from django.db.models.lookups import Exact
from django.test.utils import CaptureQueriesContext
from keyside import context
from keyside.django import BlindIndexField
from keyside.fields import BindingMissing, FieldUnwritable, NotSearchable
from keyside.testing import assert_round_trips

from tests.orm.django.citizens.models import created
from tests.orm.django.clinics.guarded import GUARDED, Before, Halfway, Person, Tenant, Ward
from tests.orm.django.clinics.models import Card, GoldCard


@pytest.fixture
def guarded(database: str) -> Iterator[str]:
    with created(database, *GUARDED):
        Person.objects.create(name="a", code="a", ssn="a", other="a", phone="a", alike="a")
        yield database


def own(name: str) -> Subquery:
    return Subquery(Person.objects.filter(pk=OuterRef("pk")).values(name))


def any_(name: str) -> QuerySet:
    return Person.objects.values(name)[:1]


def chosen(**condition: Any) -> Case:
    field = Person._meta.get_field("other")
    return Case(When(**condition, then=Value("x", output_field=field)), default=Value("y", output_field=field))


def parents(**condition: Any) -> int:
    GoldCard.objects.create(number="4111", club="x")
    limit = Card._meta.get_field("limit")
    return GoldCard.objects.update(limit=Case(When(**condition, then=Value(1, output_field=limit))))


def related(condition: Q) -> QuerySet:
    return Ward.objects.annotate(they=FilteredRelation("person", condition=condition)).filter(they__isnull=False)


ASKED: dict[str, Any] = {
    "in a subquery": lambda: Person.objects.filter(name__in=Person.objects.values("ssn")),
    "in a combined subquery": lambda: Person.objects.filter(
        name__in=Person.objects.values_list("name").union(Person.objects.values_list("phone"), all=True)
    ),
    "equal to a subquery": lambda: Person.objects.filter(name=Subquery(any_("ssn"))),
    "less than a subquery": lambda: Person.objects.filter(name__lt=Subquery(any_("phone"))),
    "in a list": lambda: Person.objects.filter(name__in=["b", F("phone")]),
    "ordered by a subquery": lambda: Person.objects.annotate(s=own("ssn")).order_by("s"),
    "ordered by another": lambda: Person.objects.order_by(own("phone")),
    "the greatest subquery": lambda: Person.objects.aggregate(m=Max(own("ssn"))),
    "the greatest annotation": lambda: Person.objects.annotate(s=own("ssn")).aggregate(m=Max("s")),
    "the greatest of some": lambda: Person.objects.order_by("id")[:2].aggregate(m=Max("ssn")),
    "a subquery cast": lambda: Person.objects.annotate(s=Cast(own("phone"), CharField())).values_list("s"),
    "a subquery of another type": lambda: Person.objects.annotate(
        s=Subquery(any_("phone"), output_field=CharField())
    ).values_list("s"),
    "one of two": lambda: Person.objects.annotate(s=Coalesce(own("phone"), own("phone"))).values_list("s"),
    "a case": lambda: Person.objects.annotate(s=Case(When(name="a", then=own("phone")))).values_list("s"),
    "existence": lambda: Person.objects.filter(Exists(Person.objects.filter(name=OuterRef("phone")))),
    "plain, then encrypted": lambda: Person.objects.values_list("id", "name").union(
        Person.objects.values_list("id", "phone"), all=True
    ),
    "one field, then another": lambda: Person.objects.values_list("id", "ssn").union(
        Person.objects.values_list("id", "other"), all=True
    ),
    "branches within branches": lambda: Person.objects.values_list("id", "name").union(
        Person.objects.values_list("id", "phone").union(Person.objects.values_list("id", "phone"), all=True), all=True
    ),
    "indexes of two columns": lambda: Person.objects.filter(ssn_index=F("other_index")),
    "an index in another": lambda: Person.objects.filter(ssn_index__in=Person.objects.values("other_index")),
    "an index in a list": lambda: Person.objects.filter(ssn_index__in=[F("other_index")]),
    "an index of outside": lambda: Person.objects.filter(
        Exists(Person.objects.filter(other_index=OuterRef("ssn_index")))
    ),
    "an index and a plain column": lambda: Person.objects.filter(name=F("ssn_index")),
    "deleted": lambda: Person.objects.filter(name=F("phone")).delete(),
    "deleted by a subquery": lambda: Person.objects.filter(name__in=Person.objects.values("ssn")).delete(),
    "updated": lambda: Person.objects.filter(name=F("phone")).update(name="x"),
    "chosen by a ciphertext": lambda: Person.objects.update(other=chosen(name=F("phone"))),
    "chosen by indexes of two columns": lambda: Person.objects.update(other=chosen(ssn_index=F("other_index"))),
    "chosen within a choice": lambda: Person.objects.update(
        other=Case(When(name="a", then=chosen(name=F("phone"))), default=Value(None))
    ),
    "a parent's, chosen by indexes of two columns": lambda: parents(last_four=F("number_index")),
    "related by a ciphertext": lambda: related(Q(person__name=F("person__phone"))),
    "related by its order": lambda: related(Q(person__name__lt=F("person__phone"))),
    "related by what is computed": lambda: related(Q(person__name=Upper("person__phone"))),
    "related by an expression": lambda: related(Q(Exact(F("person__ssn"), "a"))),
    "related by indexes of two columns": lambda: related(Q(person__ssn_index=F("person__other_index"))),
    "deleted by a relation": lambda: related(Q(person__name=F("person__phone"))).delete(),
    "set to what is computed": lambda: Person.objects.update(name=Cast("phone", CharField())),
}  # fmt: skip


@pytest.mark.parametrize("asked", ASKED)
def test_no_silent_answer(guarded: str, asked: str) -> None:
    def ask() -> None:
        found = ASKED[asked]()
        _ = list(found) if isinstance(found, QuerySet) else found

    with pytest.raises(NotSearchable), transaction.atomic(using=guarded):
        ask()
    assert Person.objects.get().name == "a"


def test_no_ciphertext_in_a_plain_column(guarded: str) -> None:
    for value in (F("phone"), Subquery(any_("phone")), F("alias_of_it")):
        with pytest.raises(FieldUnwritable, match="the database cannot decrypt"), transaction.atomic(using=guarded):
            Person.objects.annotate(alias_of_it=F("phone")).update(name=value)
    with pytest.raises(FieldUnwritable), transaction.atomic(using=guarded):
        Person.objects.create(name=Subquery(any_("phone")))
    assert Person.objects.get().name == "a"
    chosen = Case(When(ssn="a", then=Value("yes")), default=Value("no"))
    assert Person.objects.update(name=chosen) == 1
    assert Person.objects.get(name="yes").ssn == "a"


def test_what_is_answered_as_ever(guarded: str) -> None:
    west = Ward.objects.create(name="west", secret="w")
    assert [one.s for one in Person.objects.annotate(s=own("ssn"))] == ["a"]
    assert Person.objects.annotate(s=own("ssn")).filter(s__isnull=False).count() == 1
    assert Person.objects.aggregate(n=Count("ssn"), m=Count(own("ssn"))) == {"n": 1, "m": 1}
    assert Person.objects.order_by("id")[:1].aggregate(n=Count("ssn")) == {"n": 1}
    both = Person.objects.values_list("name", "ssn").union(Person.objects.values_list("name", "ssn"), all=True)
    assert list(both.order_by("name")) == [("a", "a")] * 2
    some = Person.objects.filter(pk__in=Person.objects.filter(ssn="a")).values_list("id", "ssn")
    assert len(some.union(Person.objects.values_list("id", "ssn"), all=True)) == 2
    assert len(Person.objects.values_list("id", "ssn").union(some.union(some, all=True), all=True)) == 3
    assert Person.objects.union(Person.objects.all()).count() == 1
    inner = Person.objects.filter(ssn="a")
    assert Person.objects.filter(pk__in=inner, ward__in=Ward.objects.all()).count() == 0
    assert Person.objects.filter(Exists(inner.filter(pk=OuterRef("pk")))).count() == 1
    same = Person.objects.filter(ssn_index=OuterRef("ssn_index"))
    assert Person.objects.filter(Exists(same), one_index=F("two_index")).count() == 1
    assert Person.objects.update(ward=west, other=chosen(ssn="a", one_index=F("two_index"))) == 1
    assert Person.objects.get(other="x").other == "x"
    assert related(Q(person__ssn="a", person__one_index=F("person__two_index"))).get() == west
    assert related(Q(person__ssn="b")).count() == 0
    assert parents(number="4111", last_four__isnull=False) == 1
    assert Card.objects.get().limit == 1
    assert Person.objects.filter(ssn_index__in=Person.objects.values("ssn_index")).delete()[0] == 1


def test_an_index_that_was_read_is_compared_as_it_is(guarded: str) -> None:
    Person.objects.create(name="b", ssn="a")
    groups = Person.objects.values("ssn_index").annotate(n=Count("*")).filter(n__gt=1)
    (group,) = groups
    beside = Person.objects.values("ssn_index", "ssn").first()
    assert beside is not None
    for value in (group["ssn_index"], beside["ssn_index"], pickle.loads(pickle.dumps(group["ssn_index"]))):
        assert Person.objects.filter(ssn_index=value).count() == 2
        assert Person.objects.filter(ssn_index__in=[value]).count() == 2
        assert Person.objects.exclude(ssn_index=value).count() == 0


@pytest.mark.parametrize("value", [b"a", bytearray(b"a"), memoryview(b"a")])
def test_bytes_that_are_no_index_do_not_reach_the_database(guarded: str, value: Any) -> None:
    """They may be the value, of an application that holds it as bytes."""
    with CaptureQueriesContext(connections[guarded]) as captured:
        for condition in (Q(ssn_index=value), Q(ssn_index__in=[value]), ~Q(ssn_index=value), Q(ssn=value)):
            with pytest.raises(NotSearchable):
                Person.objects.filter(condition).exists()
    assert not captured.captured_queries


def test_the_partition_of_a_search(guarded: str) -> None:
    for tenant in ("a", "b", "c"):
        Tenant.objects.create(tenant=tenant, ssn="x")
    Tenant.objects.create(tenant="a", ssn="y")
    found = Tenant.objects.order_by("tenant").values_list("tenant", flat=True)
    with context(tenant="b"), assert_round_trips(max=1):
        assert list(found.filter(tenant="a", ssn="x")) == ["a"]
    with context(tenant="b"):
        assert list(found.filter(ssn="x")) == ["b"]
    assert list(found.filter(tenant="a").filter(ssn__in=["x", "y"])) == ["a", "a"]
    assert list(found.filter(tenant="a", ssn_index="x")) == ["a"]
    assert list(found.filter(tenant="a", ssn_index__in=["x", "y"])) == ["a", "a"]
    assert list(found.filter(Q(tenant="a", ssn="y") | Q(tenant="c", ssn="x"))) == ["a", "c"]
    assert list(found.filter(Q(tenant="a") & (Q(ssn="y") | Q(ssn="x")))) == ["a", "a"]
    assert list(found.exclude(tenant="a", ssn="x")) == ["a", "b", "c"]
    assert list(found.filter(Exists(Tenant.objects.filter(tenant="b", ssn="x", pk=OuterRef("pk"))))) == ["b"]
    assert Tenant.objects.filter(tenant="a", ssn="x").update(ssn="z") == 1
    for unknown in (Q(ssn="x"), Q(tenant="a") | Q(ssn="x"), ~Q(tenant="a") & Q(ssn="x"), Q(tenant__in="a", ssn="x")):
        with pytest.raises(BindingMissing, match="tenant"):
            list(found.filter(unknown))


def test_uniqueness_within_a_partition(guarded: str) -> None:
    Tenant.objects.create(tenant="a", ssn="x")
    Tenant(tenant="b", ssn="x").full_clean()
    with pytest.raises(ValidationError) as caught:
        Tenant(tenant="a", ssn="x").full_clean()
    assert "ssn" in caught.value.message_dict
    Tenant.objects.get().full_clean()
    Tenant(tenant=None, ssn="x").clean_fields(exclude=["tenant"])


def test_plaintext_that_is_left_is_compared_exactly(guarded: str) -> None:
    with connections[guarded].cursor() as cursor:
        cursor.execute("INSERT INTO clinics_halfway (text) VALUES ('abc'), ('Abc'), ('äbc')")
    assert [row.text for row in Halfway.objects.filter(text="abc")] == ["abc"]
    assert [row.text for row in Halfway.objects.filter(text__in=["Abc", "abc ", "ABC"])] == ["Abc"]
    assert sorted(row.text for row in Halfway.objects.exclude(text="abc")) == ["Abc", "äbc"]
    assert Before.objects.count() == 0


def test_an_object_of_only_visible_fields_is_no_deferred_one(guarded: str) -> None:
    """It is saved again, and copied, as a plain one is."""
    visible = [field.name for field in Person._meta.concrete_fields if not isinstance(field, BlindIndexField)]
    one = Person.objects.only(*visible).first()
    assert one is not None
    assert one.get_deferred_fields() == set()
    partly = Person.objects.only("ssn").first()
    assert partly is not None
    assert not {"ssn", "ssn_index"} & partly.get_deferred_fields()
    assert {"other", "other_index"} <= partly.get_deferred_fields()
    Person.objects.filter(pk=one.pk).delete()
    one.save()
    assert Person.objects.filter(ssn=one.ssn).get() == one
