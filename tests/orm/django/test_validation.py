"""What must be unique: the database holds it by blind indexes, people are told of the fields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django import forms
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import F, Value
from django.db.models.functions import Lower
from django.db.models.lookups import Exact
from keyside.django import BlindIndex, EncryptedField
from keyside.fields import NotSearchable
from keyside.testing import assert_round_trips

from tests.orm.django.citizens.models import created
from tests.orm.django.clinics.guarded import Tenant
from tests.orm.django.clinics.models import Badge, Clinic, Patient, patient

TAKEN = {"email": ["Patient with this Email already exists."]}


class PatientForm(forms.ModelForm):
    class Meta:
        model = Patient
        fields = ("number", "email")


class BadgeForm(forms.ModelForm):
    class Meta:
        model = Badge
        fields = ("clinic", "holder")


PatientForms = forms.modelformset_factory(Patient, form=PatientForm, extra=2)


@pytest.fixture
def clinic(database: str) -> Clinic:
    return Clinic.objects.create(id=1, name="one")


def refused(instance: Any, **options: Any) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as caught:
        instance.full_clean(**options)
    told: dict[str, list[str]] = caught.value.message_dict
    return told


def test_an_object_is_told_once_and_of_the_field(clinic: Clinic) -> None:
    patient(1, email="A@b.c").save()
    assert refused(patient(2, email="a@B.c")) == TAKEN
    with pytest.raises(ValidationError) as caught:
        patient(2, email="a@B.c").validate_unique()
    assert caught.value.message_dict == TAKEN
    patient(2, email="a@B.c").full_clean(exclude=["email"])
    patient(2, email="another@b.c").full_clean()
    kept = Patient.objects.get()
    with assert_round_trips(max=1):
        kept.full_clean(exclude=["clinic"])


def test_a_form_is_told_of_the_field(clinic: Clinic) -> None:
    patient(1, email="A@b.c").save()
    form = PatientForm({"number": "2", "email": "a@B.c"})
    assert not form.is_valid()
    assert form.errors == TAKEN
    assert PatientForm({"number": "2", "email": "other@b.c"}).is_valid()
    assert PatientForm({"number": "1", "email": "A@B.C"}, instance=Patient.objects.get()).is_valid()


def typed(name: str, *rows: dict[str, str]) -> dict[str, str]:
    told = {f"{name}-TOTAL_FORMS": str(len(rows)), f"{name}-INITIAL_FORMS": "0"}
    return told | {f"{name}-{n}-{field}": value for n, row in enumerate(rows) for field, value in row.items()}


@pytest.mark.parametrize(("other", "found"), [("same@b.c", True), ("SAME@B.c", True), ("another@b.c", False)])
def test_a_formset_finds_what_it_would_write_twice(clinic: Clinic, other: str, found: bool) -> None:
    rows = [{"number": str(n), "email": email} for n, email in enumerate(["same@b.c", other])]
    formset = PatientForms(typed("form", *rows), queryset=Patient.objects.none())
    assert formset.is_valid() is not found
    if found:
        assert formset.non_form_errors() == ["Please correct the duplicate data for email."]
    else:
        assert [form.cleaned_data["email"] for form in formset] == ["same@b.c", other]


@pytest.mark.parametrize(("tenants", "found"), [(("a", "a"), True), (("a", "b"), False)])
def test_a_formset_tells_partitions_apart(database: str, tenants: tuple[str, str], found: bool) -> None:
    with created(database, Tenant):
        forms_ = forms.modelformset_factory(Tenant, fields=("tenant", "ssn"), extra=2)
        rows = [{"tenant": tenant, "ssn": "x"} for tenant in tenants]
        formset = forms_(typed("form", *rows), queryset=Tenant.objects.none())
        assert formset.is_valid() is not found
        if not found:
            assert [one.ssn for one in formset.save()] == ["x", "x"]


def test_a_constraint_over_an_index_is_validated_by_forms(clinic: Clinic) -> None:
    Badge.objects.create(clinic=clinic, holder="Ann")
    told = {"__all__": ["Badge with this Clinic and Holder already exists."]}
    assert refused(Badge(clinic=clinic, holder="Ann")) == told
    form = BadgeForm({"clinic": "1", "holder": "Ann"})
    assert not form.is_valid()
    assert form.errors == told
    assert BadgeForm({"clinic": "1", "holder": "Bob"}).is_valid()
    Badge(clinic=clinic, holder="Ann").full_clean(exclude=["holder"])


class Desk(models.Model):
    """Constraints of expressions, over an index of every row and over one of each clinic's."""

    class Meta:
        app_label = "clinics"
        constraints = (
            models.UniqueConstraint(Lower("room"), F("owner_index"), name="one_desk_a_room"),
            models.UniqueConstraint(Lower("room"), F("phone_index"), name="one_phone_a_room"),
        )

    room = models.CharField(max_length=20)
    floor = models.CharField(max_length=20, default="1")
    owner = EncryptedField(
        models.CharField(max_length=20, null=True, blank=True),
        keyring="badges",
        blind_index=BlindIndex(normalize="casefold"),
    )
    phone = EncryptedField(
        models.CharField(max_length=20, null=True, blank=True),
        keyring="patients",
        partition="floor",
        blind_index=BlindIndex(partitioned=True),
    )


@pytest.fixture
def desk(database: str) -> Iterator[Desk]:
    with created(database, Desk):
        yield Desk.objects.create(room="a1", owner="Ann", phone="1")


@pytest.mark.parametrize("database", ["default", "postgresql"], indirect=True)  # MariaDB has no indexes of expressions
def test_a_constraint_of_expressions_over_an_index(desk: Desk) -> None:
    desk.full_clean()
    assert refused(Desk(room="A1", owner="ANN")) == {"__all__": ["Constraint “one_desk_a_room” is violated."]}
    assert refused(Desk(room="A1", phone="1")) == {"__all__": ["Constraint “one_phone_a_room” is violated."]}
    for other in (
        Desk(room="A2", owner="Ann", phone="1"),
        Desk(room="a1", owner="Bob", phone="2"),
        Desk(room="a1", floor="2", phone="1"),
        Desk(room="a1"),
    ):
        other.full_clean()
    with pytest.raises(NotSearchable):
        Desk.objects.filter(Exact(F("owner_index"), Value("Ann"))).exists()
