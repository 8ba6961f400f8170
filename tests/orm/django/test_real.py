"""The same with the real sidecar at the other end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connections
from django.test.utils import override_settings
from keyside import context
from keyside.django import client
from keyside.django.living import reencrypt, status
from keyside.fields import FieldRefused, FieldUnavailable, FieldUnreadable
from keyside.testing import assert_encrypted, assert_round_trips

from benchmarks.sidecar import Sidecar
from tests.orm.django.citizens.models import created
from tests.orm.django.clinics.models import Clinic, Memo, Patient, patient
from tests.orm.django.conftest import CLINICS, OneDatabase

KEYRINGS = {"patients": True, "clinics": False, "notes": False, "cards": False}
ROWS = 300


@pytest.fixture(scope="module")
def running() -> Iterator[Sidecar]:
    with Sidecar(workers=2) as sidecar:
        for name, partitioned in KEYRINGS.items():
            sidecar.create_keyring(name, partitioned=partitioned)
        yield sidecar


@pytest.fixture(params=["default", "postgresql"])
def real(request: pytest.FixtureRequest, databases: None, running: Sidecar) -> Iterator[str]:
    alias: str = request.param
    keyside = {"SOCKET": running.path, "UNBATCHED": "error", "RETRIES": 0, "TIMEOUT": 5}
    with override_settings(KEYSIDE=keyside, DATABASE_ROUTERS=[OneDatabase(alias)]), created(alias, *CLINICS):
        yield alias
        client().close()


def test_rows_of_several_partitions(real: str, tmp_path: Path) -> None:
    statements = {"default": 1 + 3, "postgresql": 1 + 1}  # SQLite has fewer parameters a statement
    with assert_round_trips(max=statements[real]):
        Clinic.objects.bulk_create([Clinic(id=n, name=f"clinic {n}") for n in range(7)])
        Patient.objects.bulk_create([patient(n, n % 7) for n in range(ROWS)])
    with assert_round_trips(max=1):
        people = list(Patient.objects.select_related("clinic"))
    assert [(one.email, one.clinic.name) for one in people] == [
        (f"P{n}@Example.ORG", f"clinic {n % 7}") for n in range(ROWS)
    ]
    with assert_round_trips(max=1):
        assert list(Patient.objects.filter(email="p77@example.org").values_list("number", flat=True)) == [77]
    for one in people:
        one.email = f"new{one.number}@x.y"
    with assert_round_trips(max=3):
        Patient.objects.bulk_update(people, ["email"], batch_size=100)
    assert Patient.objects.get(email="NEW77@x.y").number == 77
    assert assert_encrypted(Patient, "email", bind=real) == ROWS
    assert len(status(Patient._meta.get_field("email"), using=real).by_key) == 7
    assert reencrypt(Clinic._meta.get_field("name"), using=real).changed == 0
    with connections[real].cursor() as cursor:
        copied = "(SELECT email FROM clinics_patient WHERE number = 1)"
        cursor.execute(f"UPDATE clinics_patient SET email = {copied} WHERE number = 2")
    with pytest.raises(FieldUnreadable, match=r"clinics_patient\.email of row"):
        Patient.objects.get(number=2)
    connections[real].close()
    for file in tmp_path.iterdir():
        if file.is_file():
            assert b"example.org" not in file.read_bytes().lower()


def test_a_keyring_that_does_not_exist_is_named(real: str) -> None:
    with (
        context(tenant="x"),
        pytest.raises(FieldRefused, match=r"clinics_memo\.text: the keyring 'memos' does not exist"),
    ):
        Memo.objects.create(text="a")


def test_a_sidecar_that_is_gone_and_comes_back(real: str, running: Sidecar) -> None:
    Clinic.objects.create(name="1")
    running.stop()
    try:
        with pytest.raises(FieldUnavailable) as caught:
            Clinic.objects.create(name="2")
        assert caught.value.retryable
        with pytest.raises(FieldUnavailable):
            list(Clinic.objects.all())
    finally:
        running.start()
    assert [clinic.name for clinic in Clinic.objects.all()] == ["1"]
