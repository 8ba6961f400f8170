"""What the distribution gives to tests of applications: no test reaches the sidecar that settings name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keyside.testing
import pytest
from keyside.django.testing import sidecar
from keyside.testing import assert_encrypted
from keyside.testing.server import Twin

from tests.orm.django.clinics.models import GoldCard

SETTINGS = """
SECRET_KEY = "for tests alone"
INSTALLED_APPS = ["django.contrib.contenttypes", "keyside.django", "notes"]
KEYSIDE = {"SOCKET": REAL, "TIMEOUT": 2, "RETRIES": 1}
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TEST_RUNNER = "keyside.django.testing.SidecarRunner"
"""

MODELS = """
from django.db import models
from keyside.django import EncryptedField


class Note(models.Model):
    text = EncryptedField(models.TextField(), keyring="notes")
"""

WITH_DJANGO = """
import os

from django.test import TestCase, TransactionTestCase
from keyside.django.testing import sidecar
from keyside.fields import FieldUnavailable
from keyside.testing import assert_encrypted, faults
from keyside.testing.frames import Code

from notes.models import Note


class OneTests(TransactionTestCase):
    def test_here(self):
        note = Note.objects.create(text="a")
        self.assertEqual(Note.objects.get().text, "a")
        self.assertGreater(len(sidecar().requests), 1)
        self.assertEqual(assert_encrypted(Note, "text"), 1)
        self.assertEqual(os.environ["KEYSIDE_SOCKET"], sidecar().path)


class OtherTests(TestCase):
    def test_absent(self):
        Note.objects.create(text="a")
        with sidecar().absent(), self.assertRaises(FieldUnavailable):
            Note.objects.get()
        self.assertEqual(Note.objects.get().text, "a")

    def test_failing(self):
        Note.objects.create(text="a")
        with sidecar().failing(faults.refuse(Code.OVERLOADED)), self.assertRaises(FieldUnavailable):
            Note.objects.get()
        self.assertEqual(Note.objects.get().text, "a")


class ParallelTests(TestCase):
    def test_faults_are_this_processs_own(self):
        sidecar().faults.append(faults.drop())
        Note.objects.create(text="b")
        self.assertFalse(sidecar().faults)
"""

MANAGE = """
import multiprocessing
import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ["DJANGO_SETTINGS_MODULE"] = "project"
    multiprocessing.set_start_method(sys.argv.pop(1))
    execute_from_command_line(sys.argv)
"""

WITH_PYTEST = """
import django
import pytest
from django.db import connection

django.setup()

from keyside.testing import Twin, assert_encrypted

from notes.models import Note


def test_who_is_asked(keyside_sidecar: Twin) -> None:
    with connection.schema_editor() as editor:
        editor.create_model(Note)
    Note.objects.create(text="a")
    assert Note.objects.get().text == "a"
    assert len(keyside_sidecar.requests) > 1
    assert assert_encrypted(Note, "text") == 1
"""


@pytest.fixture
def project(tmp_path: Path, twin: Twin) -> Path:
    """A project whose settings name a sidecar with real keys, which no test may ask."""
    (tmp_path / "notes").mkdir()
    files = {"project.py": f"REAL = {twin.path!r}{SETTINGS}", "manage.py": MANAGE, "notes/models.py": MODELS}
    files |= {"notes/__init__.py": "", "notes/tests.py": WITH_DJANGO, "test_pytest.py": WITH_PYTEST}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def run(project: Path, *words: str) -> str:
    """What a command prints that is to end well."""
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "project", "PYTHONPATH": str(project)}
    done = subprocess.run(
        [sys.executable, *words], cwd=project, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_under_pytest_the_setting_does_not_win(project: Path, twin: Twin) -> None:
    run(project, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_pytest.py")
    assert twin.connections == 0


def test_djangos_own_runner(project: Path, twin: Twin) -> None:
    run(project, "manage.py", "fork", "test")
    assert twin.connections == 0


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_djangos_own_runner_in_parallel(project: Path, twin: Twin, method: str) -> None:
    shown = run(project, "-W", "error", "manage.py", method, "test", "-v", "2", "--parallel", "2")
    assert "Ran 4 tests" in shown
    assert "Cloning test database" in shown
    assert twin.connections == 0


def test_without_the_runner_the_sidecar_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="TEST_RUNNER"):
        sidecar()


def test_the_fixtures_type_can_be_imported() -> None:
    assert keyside.testing.Twin is Twin
    with pytest.raises(AttributeError, match="Twim"):
        _ = keyside.testing.Twim


def test_the_column_that_is_looked_at(database: str) -> None:
    GoldCard.objects.create(number="1", limit=1, club="chess")
    assert assert_encrypted(GoldCard, "club") == assert_encrypted(GoldCard, "number") == 1, "in its parent's table"
    with pytest.raises(ValueError, match="GoldCard has no column 'clubs'; it has card_ptr, club, club_index"):
        assert_encrypted(GoldCard, "clubs")
