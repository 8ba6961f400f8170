"""The example from end to end, with a sidecar and a database of its own: python -m examples.sqlalchemy_app"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import keyside.orm
from keyside import Client
from keyside.fields import FieldUnreadable, NotSearchable
from keyside.sqlalchemy import install
from keyside.testing import assert_encrypted, assert_round_trips
from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.orm import Session

from demo import people
from examples.sidecar import sidecar
from examples.sqlalchemy_app import register
from examples.sqlalchemy_app.models import Base, Person

KEYRINGS = {"persons": True, "measures": False}


def rows() -> list[dict[str, object]]:
    """The table of the demo as an application would import it."""
    return [
        {
            "country": person.country or "unknown",
            "first_name": person.first_name,
            "last_name": person.last_name,
            "born": person.born,
            "weight": int(person.weight) if person.weight else None,
        }
        for person in people.load()
    ]


def use(session: Session) -> None:
    """What a user of the application sees."""
    persons = rows()
    began = time.perf_counter()
    register.add_all(session, persons)
    print(f"stored {len(persons):,} persons in {time.perf_counter() - began:.1f} s; source: {people.ATTRIBUTION}")
    with assert_round_trips(max=2):
        found = register.called(session, "ROBINSON")
    print(f"{len(found)} are called Robinson, for example {found[0].first_name}: one lookup, one chunk")
    print(f"{register.ending(session, 'son')} last names end in -son")
    heaviest = register.heaviest(session, "Japan")
    assert heaviest is not None
    print(f"the heaviest of Japan weighs {heaviest.weight} lb; logs would show {heaviest!r}")


def attack(session: Session) -> None:
    """What fails, and how."""
    try:
        session.scalars(select(Person).where(Person.last_name.like("Rob%")))
    except NotSearchable as error:
        print(f"refused: {error}")
    one, other = session.scalars(select(Person.id).limit(2))
    session.execute(
        text("UPDATE persons SET born = (SELECT born FROM persons WHERE id = :one) WHERE id = :other"),
        {"one": one.hex, "other": other.hex},
    )
    try:
        session.scalars(select(Person.born).where(Person.id == other)).all()
    except FieldUnreadable as error:
        print(f"refused: {error}")
    session.rollback()


def grep(folder: Path) -> None:
    """Fails when a file of the database holds a name in plaintext."""
    for file in folder.glob("register.sqlite*"):
        held = file.read_bytes().lower()
        for name in (b"robinson", b"ohtani", b"williams"):
            assert name not in held, f"{file.name} holds a name"
    print("the database's files hold no name in plaintext")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="keyside-example-") as name, sidecar(Path(name), KEYRINGS) as path:
        url = f"sqlite:///{name}/register.sqlite"
        engine: Engine = create_engine(url)
        with Client(path) as client:
            install(engine, client, unbatched="error")
            Base.metadata.create_all(engine)
            with Session(engine) as session:
                use(session)
                attack(session)
                assert_encrypted(Person, "last_name", bind=session)
        engine.dispose()
        grep(Path(name))
        return keyside.orm.main(["status", "examples.sqlalchemy_app.models:Base", "persons.weight", "--url", url])


if __name__ == "__main__":
    sys.exit(main())
