"""Forms and serializers: an encrypted field is to them what the field inside it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from django import forms
from django.core import serializers
from django.core.exceptions import ValidationError
from django.db import models
from django.forms.models import model_to_dict

from tests.orm.django.citizens.models import Club, Member, created

SSN, OTHER_SSN = "123-45-6789", "987-65-4321"


class MemberForm(forms.ModelForm):
    class Meta:
        model = Member
        fields = ("club", "alias", "ssn", "motto", "born", "sex", "vegan", "scan")


@pytest.fixture
def club(databases: None) -> Iterator[Club]:
    with created("default", Club, Member):
        yield Club.objects.create(name="chess")


def typed(club: Club, **changes: str) -> dict[str, str]:
    values = {"club": str(club.pk), "alias": "ann", "ssn": SSN, "motto": "", "born": "1990-05-17", "sex": "m"}
    # a default that is called makes Django send what a field held before
    return {**values, "scan": '{"x": [1, 2]}', "initial-scan": '{"x": [1, 2]}', **changes}


def test_a_form_has_the_fields_of_the_plain_model() -> None:
    form = MemberForm()
    kinds = {name: type(field) for name, field in form.fields.items() if name not in ("club", "alias")}
    assert kinds == {
        "ssn": forms.CharField,
        "motto": forms.CharField,
        "born": forms.DateField,
        "sex": forms.TypedChoiceField,
        "vegan": forms.BooleanField,
        "scan": forms.JSONField,
    }
    assert (form.fields["ssn"].label, form.fields["ssn"].max_length) == ("Social security number", 11)
    assert [name for name, field in form.fields.items() if not field.required] == ["motto", "born", "vegan", "scan"]
    assert form["sex"].initial == "f"
    assert [value for value, _ in form.fields["sex"].choices if value] == ["f", "m"]


def test_what_is_typed_is_saved_and_shown_again(club: Club) -> None:
    form = MemberForm(typed(club, vegan="on"))
    assert form.is_valid(), form.errors
    saved = form.save()
    fresh = Member.objects.get(pk=saved.pk)
    assert (fresh.ssn, fresh.born, fresh.sex) == (SSN, date(1990, 5, 17), "m")
    assert (fresh.vegan, fresh.scan, fresh.motto) == (True, {"x": [1, 2]}, None)
    assert fresh.get_sex_display() == "male"
    assert not MemberForm(typed(club, vegan="on"), instance=fresh).has_changed()
    assert MemberForm(typed(club, vegan="on", born="1990-05-18"), instance=fresh).changed_data == ["born"]
    assert 'value="123-45-6789"' in MemberForm(instance=fresh).as_p()


@pytest.mark.parametrize(
    ("name", "value"),
    [("ssn", ""), ("ssn", "letters"), ("ssn", "1" * 12), ("born", "tomorrow"), ("sex", "x"), ("scan", "{")],
)
def test_what_the_plain_field_refuses_is_refused(club: Club, name: str, value: str) -> None:
    assert set(MemberForm(typed(club, **{name: value})).errors) == {name}


def test_models_are_validated_as_ever(club: Club) -> None:
    with pytest.raises(ValidationError) as caught:
        Member(club=club, alias="ann", ssn="letters", sex="x").full_clean()
    assert set(caught.value.message_dict) == {"ssn", "sex"}
    Member(club=club, alias="ann", ssn=SSN, sex="f").full_clean()


@pytest.mark.parametrize("form", ["json", "jsonl", "xml", "python"])
def test_serializers_carry_values_and_load_them_again(club: Club, form: str) -> None:
    Member.objects.create(club=club, alias="ann", ssn=SSN, motto=None, born=date(1990, 5, 17), scan={"x": 1})
    text = serializers.serialize(form, Member.objects.all())
    Member.objects.all().delete()
    for loaded in serializers.deserialize(form, text):
        loaded.save()
    fresh = Member.objects.get()
    assert (fresh.ssn, fresh.born, fresh.scan, fresh.motto) == (SSN, date(1990, 5, 17), {"x": 1}, None)
    assert Member.objects.get(ssn="123456789") == fresh, "its blind index came with it"


def test_serializers_know_no_index_columns(club: Club) -> None:
    Member.objects.create(club=club, alias="ann", ssn=SSN)
    (row,) = json.loads(serializers.serialize("json", Member.objects.all(), fields=["ssn", "born"]))
    assert row["fields"] == {"ssn": SSN, "born": None}


def test_what_other_serializers_look_at(club: Club) -> None:
    """Libraries such as Django REST framework ask fields for values, validators, choices and limits."""
    member = Member.objects.create(club=club, alias="ann", ssn=SSN, born=date(1990, 5, 17))
    values = model_to_dict(member)
    assert (values["ssn"], values["born"], values["sex"]) == (SSN, date(1990, 5, 17), "f")
    ssn: Any = Member._meta.get_field("ssn")
    assert (ssn.max_length, ssn.null, ssn.blank, ssn.editable) == (11, False, False, True)
    with pytest.raises(ValidationError):
        ssn.run_validators("letters")
    assert ssn.value_to_string(member) == SSN
    sex: Any = Member._meta.get_field("sex")
    assert [value for value, _ in sex.flatchoices] == ["f", "m"]
    assert sex.get_default() == "f"
    born: Any = Member._meta.get_field("born")
    assert born.to_python("1990-05-17") == date(1990, 5, 17)
    assert born.value_to_string(member) == "1990-05-17"


def test_index_columns_are_in_no_form() -> None:
    class Whole(forms.ModelForm):
        class Meta:
            model = Member
            fields = "__all__"

    hidden = {field.name for _, index in _indexes() for field in [Member._meta.get_field(index)]}
    assert hidden
    assert not hidden & set(Whole.base_fields)


def _indexes() -> list[tuple[models.Field, str]]:
    fields: list[Any] = [field for field in Member._meta.concrete_fields if hasattr(field, "indexes")]
    return [(field, place.column) for field in fields for _, place in field.indexes]
