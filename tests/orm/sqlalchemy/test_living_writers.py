"""Jobs on living data beside those who write the same rows, and beside those who wrote past the hooks."""

from __future__ import annotations

from datetime import date

import pytest
import sqlalchemy as sa
from keyside import Client
from keyside.fields import FieldUnreadable
from keyside.living import Changes, Options, Progress
from keyside.orm import main
from keyside.sqlalchemy import Encrypted, living
from keyside.sqlalchemy.living import backfill, decrypt_column, status
from keyside.testing.server import Twin

from tests.orm.sqlalchemy.test_living import BORN, MODELS, NAME, NAMES, engine, people, read

__all__ = ["engine"]  # the fixture

bare = sa.table("people", *[sa.column(name) for name in ("region", "id", "tenant", "name", "born_plain")])


def change(engine: sa.Engine, statement: sa.Update) -> None:
    with engine.begin() as connection:
        connection.execute(statement)


def test_a_plaintext_that_moved_to_another_partition_is_encrypted_there(engine: sa.Engine, client: Client) -> None:
    def move(progress: Progress) -> None:
        if progress.seen == 100:
            # not those of the first page, which the application would have encrypted anew
            change(engine, sa.update(bare).where(bare.c.id > 201).values(tenant=bare.c.tenant + 7))

    done = backfill(engine, NAME, client, Options(batch=100), move)
    assert status(engine, NAME).plaintext == 0
    assert done.missed == 0
    assert read(engine, NAME) == NAMES


def test_a_blank_at_the_end_and_a_capital_are_another_value(engine: sa.Engine, client: Client) -> None:
    rows = living._Rows(engine, NAME)
    with rows.transaction():
        page = rows.page(("name",), None, 10)
        there = [row for row, name in enumerate(page.stored["name"]) if name]
        keys, held = [page.keys[row] for row in there], [page.stored["name"][row] for row in there]
        for others in ([name + " " for name in held], [name.upper() for name in held]):
            rows.write(Changes(keys, {"name": others}, {"name": ["lost"] * len(keys)}))
        assert rows.page(("name",), None, 10).stored == page.stored
        rows.write(Changes(keys, {"name": held}, {"name": ["won"] * len(keys)}))
        assert rows.page(("name",), None, 10).stored["name"].count("won") == len(keys)


def test_what_the_application_writes_into_the_plain_column_stays(engine: sa.Engine, client: Client) -> None:
    backfill(engine, BORN, client, source=people.c.born_plain)
    change(engine, sa.update(bare).values(born_plain=None))
    fresh = date(2026, 1, 1)

    def write(progress: Progress) -> None:
        if progress.seen == 100:
            change(engine, sa.update(bare).values(born_plain=fresh))

    decrypt_column(engine, BORN, client, Options(batch=100), write, people.c.born_plain)
    assert set(read(engine, people.c.born_plain)) == {fresh}


def test_a_plaintext_in_an_encrypted_column_is_reported_and_not_encrypted(engine: sa.Engine, client: Client) -> None:
    declared = sa.Table(
        "people",
        sa.MetaData(),
        sa.Column("region", sa.String(2), primary_key=True),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("tenant", sa.Integer),
        sa.Column("name", Encrypted(sa.String, "users", partition="tenant", bind=("region", "id"), storage="text")),
    )
    backfill(engine, NAME, client)
    change(engine, sa.update(bare).where(bare.c.id == 7).values(name="planted"))
    with pytest.raises(FieldUnreadable, match=r"people\.name of row \('eu', 7\): holds no ciphertext") as caught:
        backfill(engine, declared.c.name, client)
    assert "planted" not in str(caught.value)
    with engine.connect() as connection:
        assert connection.scalar(sa.select(bare.c.name).where(bare.c.id == 7)) == "planted"


def test_the_command_says_that_rows_are_left(
    engine: sa.Engine, twin: Twin, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(living._Rows, "write", lambda rows, changes: 0)
    where = ["--url", engine.url.render_as_string(hide_password=False), "--socket", twin.path]
    assert main(["backfill", MODELS, "people.name", *where]) == 75
    assert "people.name: others kept changing 245 rows; run the same command again" in capsys.readouterr().err
