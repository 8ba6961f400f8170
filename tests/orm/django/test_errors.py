"""Bad days: tampered and foreign values, an absent sidecar, wrong declarations and settings."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from typing import Any

import pytest
from django.contrib.contenttypes.fields import GenericForeignKey
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connections, models, transaction
from django.db.models.sql.compiler import SQLCompiler
from django.test.utils import isolate_apps, override_settings
from keyside.django import BlindIndex, EncryptedField, client, context, selfcheck, settings
from keyside.fields import FieldRefused, FieldUnavailable, FieldUnreadable, UnbatchedCall, UnbatchedWarning, open_one
from keyside.testing import assert_round_trips, faults
from keyside.testing.frames import Code
from keyside.testing.server import Twin

from tests.house.tree import ROOT
from tests.orm.django.clinics.models import Card, Clinic, Memo, Patient, patient

APP = "tests.orm.django.clinics"


def execute(alias: str, sql: str, *params: Any) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql, params)


def test_a_value_of_another_row_column_or_partition_does_not_open(database: str) -> None:
    Patient.objects.bulk_create([patient(n, 1 + n % 2) for n in range(4)])
    copied = "UPDATE clinics_patient SET {} = (SELECT {} FROM clinics_patient WHERE number = 1) WHERE number = {}"
    execute(database, copied.format("email", "email", 3))  # the same clinic, another row
    wrong = Patient.objects.only("id").get(number=3).pk
    with pytest.raises(FieldUnreadable, match=rf"clinics_patient\.email of row .*{wrong}.*: does not open") as caught:
        list(Patient.objects.all())
    assert caught.value.key == (wrong,)
    execute(database, copied.format("born", "notes", 0))
    with pytest.raises(FieldUnreadable, match=r"clinics_patient\.born"):
        Patient.objects.defer("email").get(number=0)
    execute(database, "UPDATE clinics_patient SET clinic_id = 9 WHERE number = 2")
    with pytest.raises(FieldUnreadable, match=r"clinics_patient\.email"):
        Patient.objects.get(number=2)
    assert Patient.objects.get(number=1).email == "P1@Example.ORG"


def test_what_is_no_ciphertext_is_never_returned(database: str) -> None:
    card = Card.objects.create(number="1", limit=1)
    for held in ("plain", "ks1.AAAA", ""):
        execute(database, "UPDATE clinics_card SET number = %s", held)
        with pytest.raises(FieldUnreadable, match=rf"clinics_card\.number of row {card.pk}"):
            Card.objects.get()
    limit = connections[database].ops.quote_name("limit")
    execute(database, f"UPDATE clinics_card SET number = NULL, {limit} = %s", b"\xc1\x01" + bytes(50))
    with pytest.raises(FieldUnreadable, match=r"clinics_card\.limit"):
        Card.objects.get()


def test_on_error_none_reads_none(database: str) -> None:
    with context(tenant=1):
        Memo.objects.create(text="a", lenient="b")
        execute(database, "UPDATE clinics_memo SET lenient = %s", b"\xc1\x01" + bytes(50))
        memo = Memo.objects.get()
    assert (memo.text, memo.lenient) == ("a", None)


def test_an_absent_sidecar(database: str, sidecar: Twin) -> None:
    Card.objects.create(number="1")
    sidecar.faults.extend([faults.refuse(Code.OVERLOADED)] * 40)
    with transaction.atomic():
        Clinic.objects.filter(pk=1).exists()
        with pytest.raises(FieldUnavailable, match="nothing was written, try again") as caught, transaction.atomic():
            Card.objects.create(number="2")
        assert caught.value.retryable
        with pytest.raises(FieldUnavailable):
            list(Card.objects.all())
        with pytest.raises(FieldUnavailable):
            Card.objects.filter(number="1").exists()
        assert Card.objects.count() == 1
        sidecar.faults.clear()
        Card.objects.create(number="3")
    assert {card.number for card in Card.objects.all()} == {"1", "3"}


def test_a_batch_is_written_whole_or_not_at_all(database: str) -> None:
    with pytest.raises(FieldRefused, match=r"item|refused|too"), transaction.atomic():
        Card.objects.bulk_create([Card(number="1"), Card(number="x" * (17 * 2**20))])
    assert Card.objects.count() == 0


def test_value_by_value_where_batching_is_off(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Card.objects.bulk_create([Card(number=str(n), limit=n) for n in range(3)])
    monkeypatch.setattr(SQLCompiler, "apply_converters", SQLCompiler.apply_converters.__wrapped__)
    with pytest.raises(UnbatchedCall, match=r"clinics_card\.number"):
        list(Card.objects.all())
    with override_settings(KEYSIDE=settings.configured() | {"UNBATCHED": "warn"}), pytest.warns(UnbatchedWarning):
        assert {card.number for card in Card.objects.all()} == {"0", "1", "2"}
    with override_settings(KEYSIDE=settings.configured() | {"UNBATCHED": "allow"}), assert_round_trips(6, unbatched=6):
        assert {card.limit for card in Card.objects.all()} == {0, 1, 2}


def test_the_self_check_finds_what_changed() -> None:
    assert selfcheck.what_changed(selfcheck.READING) == selfcheck.what_changed(selfcheck.WRITING) == ""
    assert selfcheck.what_changed([(SQLCompiler, "apply_converters", ["rows"])]) == "SQLCompiler.apply_converters"
    assert selfcheck.what_changed([(SQLCompiler, "gone", [])]) == "SQLCompiler.gone"


def test_settings(sidecar: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    with override_settings(KEYSIDE={"SOCKET": sidecar.path, "TIMEOUT": 3, "RETRIES": 0, "POOL_SIZE": 2}):
        one = client()
        assert one is client()
        assert sidecar.path in repr(one)
    with override_settings(KEYSIDE={}):
        monkeypatch.setenv("KEYSIDE_SOCKET", "/nowhere")
        assert "/nowhere" in repr(client())
        assert settings.unbatched() == "warn"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"SOKET": "x"}, "KEYSIDE: expected a dict with the keys POOL_SIZE"),
        ("x", "KEYSIDE: expected a dict"),
        ({"SOCKET": 5}, "SOCKET is the path"),
        ({"TIMEOUT": -1}, "TIMEOUT is a number of seconds"),
        ({"TIMEOUT": "10"}, "TIMEOUT is a number of seconds"),
        ({"TIMEOUT": True}, "TIMEOUT is a number of seconds"),
        ({"POOL_SIZE": 0}, "POOL_SIZE is a number, at least 1"),
        ({"RETRIES": 1.5}, "RETRIES is a number, 0 or more"),
        ({"UNBATCHED": "perhaps"}, "UNBATCHED is one of warn, error, allow"),
    ],
)
def test_wrong_settings_are_found_by_check_and_by_the_first_query(wrong: Any, told: str) -> None:
    with override_settings(KEYSIDE=wrong):
        with pytest.raises(SystemCheckError, match=f"keyside.E201.*{told}"):
            call_command("check")
        for use in (client, settings.unbatched):
            with pytest.raises(ImproperlyConfigured, match=told):
                use()


def test_without_the_application() -> None:
    asked = """
import django
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import SystemCheckError

settings.configure(
    INSTALLED_APPS=["tests.orm.django.clinics"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()
from django.db import connection
from tests.house.tree import ROOT
from tests.orm.django.clinics.models import Card, Clinic
for use in (
    lambda: call_command("check"),
    lambda: Clinic.objects.create(name="tell-nobody"),
    lambda: list(Clinic.objects.all()),
    lambda: Card.objects.filter(number="tell-nobody").exists(),
    lambda: Card.objects.filter(last_four="tell-nobody").exists(),
):
    with connection.schema_editor() as editor:
        editor.create_model(Clinic), editor.create_model(Card)
    connection.cursor().execute("INSERT INTO clinics_clinic (name) VALUES ('x')")
    try:
        use()
    except Exception as error:
        print(type(error).__name__, str(error).replace("\\n", " "))
    with connection.schema_editor() as editor:
        editor.delete_model(Clinic), editor.delete_model(Card)
"""
    done = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert "keyside.E005" in told[0]
    assert len(told) == 5, told
    for line in told[1:]:
        assert line.startswith("ImproperlyConfigured INSTALLED_APPS lacks 'keyside.django'"), line
    assert "nobody" not in done.stdout


def test_a_forked_child_has_connections_of_its_own(sidecar: Twin) -> None:
    declared = Clinic._meta.get_field("name").declaration
    stored = client().encrypt("clinics", b"\x10a", declared.prefix)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the threads of the test sidecar
        child = os.fork()
    if child == 0:
        try:
            opened = open_one(declared, stored, settings.send())
            os._exit(0 if opened == "a" else 1)
        finally:
            os._exit(2)
    assert open_one(declared, stored, settings.send()) == "a"
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    ("inner", "told"),
    [
        (lambda: models.CharField(unique=True), r"unique .*BlindIndex\(unique=True\)"),
        (lambda: models.IntegerField(db_index=True), "db_index"),
        (lambda: models.IntegerField(db_default=1), "db_default"),
        (lambda: models.CharField(primary_key=True), "primary_key"),
        (lambda: models.AutoField(primary_key=True), "AutoField cannot be encrypted"),
        (lambda: models.ForeignKey("x", models.CASCADE), "ForeignKey cannot be encrypted"),
        (lambda: models.FileField(), "FileField cannot be encrypted"),
        (lambda: models.CharField, "expected the field"),
        (lambda: EncryptedField(models.TextField(), keyring="k"), "expected the field"),
    ],
)
def test_fields_that_cannot_be_encrypted(inner: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        EncryptedField(inner(), keyring="k")


@pytest.mark.parametrize(
    "options", [{"on_error": "ignore"}, {"storage": "json"}, {"migrating": "soon"}, {"blind_index": BlindIndex}]
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        EncryptedField(models.TextField(), keyring="k", **options)


@isolate_apps(APP)
def test_checks_find_declarations_that_cannot_work() -> None:
    class Wrong(models.Model):
        name = EncryptedField(models.CharField(), keyring="k", bind="nothing", blind_index=BlindIndex())
        note = EncryptedField(models.TextField(), keyring="k", partition="nobody")
        late = EncryptedField(models.TextField(), keyring="k", bind="id", partition="tenant")
        known = EncryptedField(models.TextField(), keyring="k", bind="number")
        tenant = models.IntegerField(db_default=1)
        number = models.IntegerField(db_default=1, default=2)
        of_type = models.ForeignKey("contenttypes.ContentType", models.CASCADE)
        of_id = EncryptedField(models.TextField(), keyring="k")
        of = GenericForeignKey("of_type", "of_id")

        class Meta:
            app_label = "clinics"
            ordering = ("-name",)
            unique_together = (("name", "id"),)
            indexes = (models.Index(fields=["note"], name="of_note"),)

    found = [(problem.id, str(problem.msg)) for problem in Wrong.check() if str(problem.id).startswith("keyside")]
    assert sorted(id_ for id_, _ in found) == [
        *["keyside.E001"] * 2,
        *["keyside.E002"] * 3,
        *["keyside.E003"] * 2,
        "keyside.E007",
    ]
    with pytest.raises(ValueError, match="names of their own"):

        class Twice(models.Model):
            name = EncryptedField(models.TextField(), keyring="k", blind_index=[BlindIndex(), BlindIndex()])

            class Meta:
                app_label = "clinics"


def test_the_models_of_the_tests_pass_the_checks() -> None:
    call_command("check", "clinics", "citizens")
