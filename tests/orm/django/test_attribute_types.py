"""A type checker that knows Django's types sees in an encrypted attribute what it sees without encryption.

make installs it (`.venv/.django-types`): mypy with the plugin of django-stubs.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKER = Path(sys.prefix, "django-types", "bin", "python")

FIELDS = {
    "ssn": "models.CharField(max_length=11)",
    "notes": "models.TextField(null=True)",
    "born": "models.DateField(null=True)",
    "weight": "models.DecimalField(max_digits=5, decimal_places=1)",
    "seen": "models.DateTimeField()",
    "active": "models.BooleanField(default=True)",
    "scan": "models.JSONField(null=True)",
    "photo": "models.BinaryField()",
    "token": "models.UUIDField()",
}

SETTINGS = """
INSTALLED_APPS = ["keyside.django", "clinic"]
KEYSIDE = {"SOCKET": "/run/keyside/keyside.sock"}
"""

CONFIGURATION = """
[mypy]
strict = true
plugins = mypy_django_plugin.main
[mypy-keyside.*]
follow_imports = silent
[mypy.plugins.django-stubs]
django_settings_module = settings
"""

MODELS = """
from django.db import models

from keyside.django import BlindIndex, EncryptedField


class Plain(models.Model):
    {plain}


class Encrypted(models.Model):
    {encrypted}
    number = EncryptedField(models.IntegerField(), keyring="patients", blind_index=BlindIndex(unique=True))


def annotated(field: EncryptedField) -> EncryptedField[int, int]:
    return field
"""

USE = """
from clinic.models import Encrypted, Plain


def use(plain: Plain, encrypted: Encrypted) -> None:
    {revealed}
"""


@pytest.fixture
def checked(tmp_path: Path) -> Path:
    application = tmp_path / "clinic"
    application.mkdir()
    (application / "__init__.py").touch()
    models = MODELS.format(
        plain="\n    ".join(f"{name} = {field}" for name, field in FIELDS.items()),
        encrypted="\n    ".join(
            f'{name} = EncryptedField({field}, keyring="patients")' for name, field in FIELDS.items()
        ),
    )
    (application / "models.py").write_text(models)
    (tmp_path / "settings.py").write_text(SETTINGS)
    (tmp_path / "mypy.ini").write_text(CONFIGURATION)
    return tmp_path


def check(project: Path, *lines: str) -> list[tuple[int, str]]:
    """What mypy says of these lines, by their number from 0."""
    (project / "use.py").write_text(USE.format(revealed="\n    ".join(lines)))
    said = subprocess.run(
        [CHECKER, "-m", "mypy", "clinic", "use.py"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert said.returncode in (0, 1), said.stdout + said.stderr
    found = re.findall(r"^(\S+):(\d+): \w+: (.*)$", said.stdout, re.MULTILINE)
    assert {path for path, _, _ in found} <= {"use.py"}, said.stdout
    first = USE.split("\n").index("    {revealed}") + 1
    return [(int(number) - first, text) for _, number, text in found]


@pytest.mark.timeout(300)
def test_an_attribute_has_the_type_of_the_field_inside(checked: Path) -> None:
    pairs = [f"reveal_type({row}.{name})" for name in FIELDS for row in ("plain", "encrypted")]
    said = [text for _, text in check(checked, *pairs)]
    assert len(said) == len(pairs)
    types = dict(zip(FIELDS, zip(said[::2], said[1::2], strict=True), strict=True))
    for name, (plain, encrypted) in types.items():
        assert encrypted == plain, name
    assert types["ssn"][1] == 'Revealed type is "str"'
    assert types["born"][1] == 'Revealed type is "datetime.date | None"'


@pytest.mark.timeout(300)
def test_wrong_types_are_found_and_right_ones_pass(checked: Path) -> None:
    lines = (
        "encrypted.ssn = '123'",
        "encrypted.ssn = object()",
        "encrypted.born = None",
        "encrypted.seen = None",
        "Encrypted.objects.create(weight=1)",
        "Encrypted.objects.create(weight=object())",
        "Encrypted.objects.filter(number=3)",
        "reveal_type(Encrypted.objects.values_list('born', flat=True).get())",
    )
    said = check(checked, *lines)
    assert [number for number, _ in said] == [1, 3, 5, 7], said
    assert said[-1][1] == 'Revealed type is "datetime.date | None"'
