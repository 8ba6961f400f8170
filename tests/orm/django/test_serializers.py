"""Serializers of Django REST framework: they take and refuse what those of a plain model do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from django.test import RequestFactory
from keyside.django.serializers import EncryptedModelSerializer
from keyside.testing import assert_encrypted, assert_round_trips
from rest_framework import generics, serializers

from tests.orm.django.citizens.models import Club, Member, created
from tests.orm.django.clinics.models import Badge, Clinic, Everything

SSN, OTHER_SSN = "123-45-6789", "987-65-4321"


class MemberSerializer(EncryptedModelSerializer):
    class Meta:
        model = Member
        fields = ("id", "club", "alias", "ssn", "motto", "born", "sex", "vegan", "scan")


class BadgeSerializer(EncryptedModelSerializer):
    class Meta:
        model = Badge
        fields = ("clinic", "holder")


class EverythingSerializer(EncryptedModelSerializer):
    class Meta:
        model = Everything
        fields = "__all__"


class Members(generics.CreateAPIView):
    queryset = Member.objects.all()
    serializer_class = MemberSerializer
    authentication_classes = ()


@pytest.fixture
def club(databases: None) -> Iterator[Club]:
    with created("default", Club, Member):
        yield Club.objects.create(name="chess")


def sent(club: Club, **changes: Any) -> dict[str, Any]:
    return {"club": club.pk, "alias": "ann", "ssn": SSN, "born": "1990-05-17", "scan": {"x": 1}, **changes}


def answer(data: dict[str, Any]) -> Any:
    """What a view says that creates a member."""
    request = RequestFactory().post("/members/", json.dumps(data), content_type="application/json")
    return Members.as_view()(request)


def test_fields_are_those_of_the_plain_model() -> None:
    kinds = {name: type(field) for name, field in MemberSerializer().fields.items() if name not in ("id", "club")}
    assert kinds == {
        "alias": serializers.CharField,
        "ssn": serializers.CharField,
        "motto": serializers.CharField,
        "born": serializers.DateField,
        "sex": serializers.ChoiceField,
        "vegan": serializers.BooleanField,
        "scan": serializers.JSONField,
    }
    fields = MemberSerializer().fields
    assert (fields["ssn"].label, fields["ssn"].max_length) == ("Social security number", 11)
    assert [name for name, field in fields.items() if field.required] == ["club", "alias", "ssn"]
    every = EverythingSerializer().fields
    assert [name for name, field in every.items() if type(field) is serializers.ModelField] == ["raw"], "as plain ones"
    assert type(every["tags"].child) is serializers.DateField


def test_what_is_sent_is_stored_and_comes_back(club: Club) -> None:
    created = answer(sent(club))
    assert created.status_code == 201, created.data
    assert (created.data["ssn"], created.data["born"], created.data["sex"]) == (SSN, "1990-05-17", "f")
    assert assert_encrypted(Member, "ssn") == 1
    member = Member.objects.get(born=date(1990, 5, 17))
    assert MemberSerializer(member).data["scan"] == {"x": 1}
    again = MemberSerializer(member, {"ssn": "987654321"}, partial=True)
    assert again.is_valid(), again.errors
    assert again.save().ssn == "987654321"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ssn", ["a"]),
        ("ssn", ""),
        ("ssn", None),
        ("ssn", "letters"),
        ("ssn", "1" * 12),
        ("born", 5),
        ("born", "tomorrow"),
        ("sex", "x"),
        ("vegan", {}),
    ],
)
def test_what_the_plain_field_refuses_is_no_error_of_the_server(club: Club, name: str, value: Any) -> None:
    refused = answer(sent(club, **{name: value}))
    assert (refused.status_code, set(refused.data)) == (400, {name})


def test_a_duplicate_is_found_before_it_is_written(club: Club) -> None:
    assert answer(sent(club)).status_code == 201
    refused = answer(sent(club, ssn="123456789"))
    assert refused.status_code == 400
    assert [error.code for error in refused.data["ssn"]] == ["unique"]
    assert Member.objects.count() == 1
    unchanged = MemberSerializer(Member.objects.get(), {"ssn": "123456789"}, partial=True)
    with assert_round_trips(max=1):
        assert unchanged.is_valid(), "it is its own row's"


def test_a_value_without_an_index_is_no_duplicate(club: Club) -> None:
    for alias in ("ann", "bea"):
        assert answer(sent(club, alias=alias, ssn="-")).status_code == 201


def test_a_constraint_that_names_an_index(databases: None) -> None:
    with created("default", Clinic, Badge):
        clinic = Clinic.objects.create(name="a")
        Badge.objects.create(clinic=clinic, holder="Ann")
        refused = BadgeSerializer(data={"clinic": clinic.pk, "holder": "Ann"})
        assert not refused.is_valid()
        assert [error.code for error in refused.errors["non_field_errors"]] == ["unique"]
        assert BadgeSerializer(data={"clinic": clinic.pk, "holder": "Bob"}).is_valid()
