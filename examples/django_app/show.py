"""What the example shows, one act after the other."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection, transaction
from django.test import Client
from keyside.fields import FieldUnreadable, NotSearchable
from keyside.testing import assert_encrypted, assert_round_trips

from demo import people
from examples.django_app import register
from examples.django_app.models import Person


def persons() -> Iterator[Person]:
    """The table of the demo as an application would import it; days of birth still in plaintext."""
    for person in people.load():
        yield Person(
            country=person.country,
            first_name=person.first_name,
            last_name=person.last_name,
            born_plain=person.born,
            weight=int(person.weight) if person.weight else None,
        )


def store() -> None:
    """Import the table."""
    call_command("migrate", verbosity=0)
    began = time.perf_counter()
    register.add_all(persons())
    count = Person.objects.count()
    print(f"stored {count:,} persons in {time.perf_counter() - began:.1f} s; source: {people.ATTRIBUTION}")


def use() -> None:
    """What a user of the application sees."""
    with assert_round_trips(max=2):
        found = register.called("ROBINSON")
    print(f"{len(found)} are called Robinson, for example {found[0].first_name}: one lookup, one chunk")
    print(f"{register.ending('son')} last names end in -son")
    heaviest = register.heaviest("Japan")
    assert heaviest is not None
    print(f"the heaviest of Japan weighs {heaviest.weight} lb; logs would show {heaviest!r}")


def attack() -> None:
    """What fails, and how."""
    try:
        Person.objects.filter(last_name__startswith="Rob").count()
    except NotSearchable as error:
        print(f"refused: {error}")
    one, other = Person.objects.values_list("id", flat=True)[:2]
    with contextlib.suppress(_Undone), transaction.atomic():
        _copy_last_name(one.hex, other.hex)
        try:
            Person.objects.get(id=other)
        except FieldUnreadable as error:
            print(f"refused: {error}")
        raise _Undone


class _Undone(Exception):
    """Rolls a transaction back."""


def _copy_last_name(one: str, other: str) -> None:
    table = Person._meta.db_table
    with connection.cursor() as cursor:
        source = f"(SELECT last_name FROM {table} WHERE id = %s)"  # noqa: S608  a name of the model's own
        cursor.execute(f"UPDATE {table} SET last_name = {source} WHERE id = %s", [one, other])  # noqa: S608  as above


def administrate() -> None:
    """The admin finds a person by the whole last name, and shows nothing of it."""
    User.objects.create_superuser("root")
    browser = Client(headers={"host": "localhost"})
    browser.force_login(User.objects.get())
    page = browser.get("/admin/register/person/?q=ohtani").content.decode()
    assert "&lt;encrypted&gt;" in page
    assert "Shohei" not in page
    print(f"the admin finds {page.count('action-select')} Ohtani, masked")


def encrypt_a_column() -> None:
    """`born_plain` into `born`, while the application could go on."""
    call_command("keyside_backfill", "register.Person.born", "--from", "born_plain")
    Person.objects.update(born_plain=None)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM")  # freed pages still hold what they held
    call_command("keyside_status", "register.Person.born", "register.Person.weight")
    print(f"{assert_encrypted(Person, 'born'):,} days of birth are encrypted")


def grep(folder: Path) -> None:
    """Fails when a file of the database holds a name in plaintext."""
    for file in folder.glob("register.sqlite*"):
        held = file.read_bytes().lower()
        for name in (b"robinson", b"shohei", b"1994-07-05"):
            assert name not in held, f"{file.name} holds {name.decode()}"
    print("the database's files hold no name and no day of birth in plaintext")
