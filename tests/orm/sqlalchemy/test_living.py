"""Columns that are encrypted, re-encrypted, counted and decrypted while the application runs."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import keyside
import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from keyside import Client
from keyside.fields import FieldUnavailable, FieldUnreadable
from keyside.living import Changes, Options, Progress
from keyside.orm import main
from keyside.sqlalchemy import BlindIndex, Encrypted, alembic, from_context, install, living
from keyside.sqlalchemy.living import backfill, decrypt_column, encrypted_columns_of, reencrypt, status
from keyside.testing import faults
from keyside.testing.frames import Code
from keyside.testing.server import Twin

from tests.orm.sqlalchemy.conftest import url

ROWS = 250


def table_in(stage: str, metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "people",
        metadata,
        sa.Column("region", sa.String(2), primary_key=True),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("tenant", sa.Integer),
        sa.Column("updated_at", sa.DateTime, onupdate=sa.func.now()),
        sa.Column(
            "name",
            Encrypted(sa.String, "users", partition="tenant", bind=("region", "id"), storage="text", migrating=stage),
        ),
        sa.Column("name_index", BlindIndex("name", normalize="casefold")),
        sa.Column("born_plain", sa.Date),
        sa.Column("data_plain", sa.JSON),
        sa.Column("born", Encrypted(sa.Date, "notes")),
        sa.Column("data", Encrypted(sa.JSON, "notes")),
    )


metadata, before = sa.MetaData(), sa.MetaData()
people = table_in("plaintext", metadata)
PLAIN = table_in("plain", before).c.name
NAME, BORN, DATA = people.c.name, people.c.born, people.c.data
NAMES = [None if n % 50 == 9 else f"Name {n}" for n in range(ROWS)]


@pytest.fixture(params=["sqlite", "psycopg", "pymysql"])
def engine(request: pytest.FixtureRequest, client: Client, tmp_path: Path) -> Iterator[sa.Engine]:
    """People in plaintext, as an application without Keyside left them."""
    engine = sa.create_engine(url(request.param, request, tmp_path))
    metadata.drop_all(engine)
    metadata.create_all(engine)
    plain = sa.table(
        "people", *[sa.column(c.name, None if isinstance(c.type, Encrypted) else c.type) for c in people.c]
    )
    rows = [
        {
            "region": "eu" if n % 2 else "us",
            "id": n,
            "tenant": n % 3,
            "name": name,
            "born_plain": date(2000, 1, 1 + n % 28),
            "data_plain": {"n": n},
        }
        for n, name in enumerate(NAMES)
    ]
    with engine.begin() as connection:
        connection.execute(sa.insert(plain), rows)
    install(engine, client, unbatched="error")
    yield engine
    engine.dispose()


def read(engine: sa.Engine, column: sa.Column[Any]) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.scalars(sa.select(column).order_by(people.c.id)))


@pytest.mark.parametrize("engine", ["sqlite", "psycopg", "psycopg2"], indirect=True)
def test_a_column_from_plain_to_encrypted_and_back(engine: sa.Engine, client: Client, twin: Twin) -> None:
    first = status(engine, NAME)
    assert (first.plaintext, first.encrypted, first.nulls) == (ROWS - 5, 0, 5)
    dry = backfill(engine, NAME, client, Options(batch=100, dry_run=True))
    assert (dry.seen, dry.changed) == (ROWS, ROWS - 5)
    assert status(engine, NAME) == first
    reports: list[int] = []
    done = backfill(engine, NAME, client, Options(batch=100), lambda progress: reports.append(progress.seen))
    assert (done.seen, done.changed) == (ROWS, ROWS - 5)
    assert reports[:3] == [100, 200, 250]
    after = status(engine, NAME)
    assert (after.plaintext, after.encrypted, after.nulls) == (0, ROWS - 5, 5)
    assert len(after.by_key) == 3
    assert read(engine, NAME) == NAMES
    with engine.connect() as connection:
        assert connection.scalars(sa.select(people.c.id).where(people.c.name == "NAME 7")).all() == [7]
        assert set(connection.scalars(sa.select(people.c.updated_at))) == {None}
    assert backfill(engine, NAME, client).changed == 0

    twin.vault.rotate("users/1")
    assert reencrypt(engine, NAME, client, Options(batch=60)).changed == sum(
        1 for n, name in enumerate(NAMES) if n % 3 == 1 and name
    )
    assert read(engine, NAME) == NAMES
    assert len(status(engine, NAME).by_key) == 3
    assert set(status(engine, NAME).by_key) != set(after.by_key)
    assert reencrypt(engine, NAME, client).changed == 0

    with pytest.raises(ValueError, match="still writes ciphertext"):
        decrypt_column(engine, NAME, client)
    assert decrypt_column(engine, PLAIN, client).changed == ROWS - 5
    with pytest.raises(ValueError, match="still writes plaintext"):
        backfill(engine, PLAIN, client)
    assert status(engine, NAME).plaintext == ROWS - 5
    with engine.connect() as connection:
        assert list(connection.execute(sa.text("SELECT name FROM people ORDER BY id")).scalars()) == NAMES


@pytest.mark.parametrize(("column", "plain"), [(BORN, people.c.born_plain), (DATA, people.c.data_plain)], ids=str)
def test_a_column_of_any_type_moves_through_one_beside_it(
    engine: sa.Engine, client: Client, column: sa.Column[Any], plain: sa.Column[Any]
) -> None:
    want = read(engine, plain)
    assert backfill(engine, column, client, Options(batch=99), source=plain).changed == ROWS
    assert read(engine, column) == want
    assert backfill(engine, column, client, source=plain).changed == 0
    with engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE people SET {plain.name} = NULL"))
    assert decrypt_column(engine, column, client, into=plain).changed == ROWS
    assert read(engine, plain) == want


def test_a_concurrent_writer_wins(engine: sa.Engine, client: Client) -> None:
    """Between reading and writing a page, somebody else writes a row of it."""
    table = sa.table("people", sa.column("id"), sa.column("name"))

    def interfere(progress: Progress) -> None:
        if progress.seen == 100:
            with engine.begin() as connection:
                connection.execute(sa.update(table).where(table.c.id > 200).values(name="meanwhile"))

    backfill(engine, NAME, client, Options(batch=100), interfere)
    assert status(engine, NAME).plaintext == 0
    assert read(engine, NAME)[201:] == ["meanwhile"] * 49
    rows = living._Rows(engine, NAME)
    with rows.transaction():
        page = rows.page(("name", "name_index"), None, 10)
    count = len(page.keys)
    changes = Changes(page.keys, {"name": ["what nobody holds"] * count}, {"name": ["lost"] * count})
    with rows.transaction():
        assert not rows.write(changes)
    assert "lost" not in read(engine, NAME)


def test_a_state_file_spares_what_was_done(engine: sa.Engine, client: Client, twin: Twin, tmp_path: Path) -> None:
    state = tmp_path / "state"

    def fail(progress: Progress) -> None:
        if progress.seen == 150:
            twin.faults.extend([faults.refuse(Code.OVERLOADED)] * 40)

    with pytest.raises(FieldUnavailable):
        backfill(engine, NAME, client, Options(batch=50, state=state), fail)
    twin.faults.clear()
    left = status(engine, NAME).plaintext
    assert left in (50, 100), "the next page may have been encrypted already"
    assert state.exists()
    done = backfill(engine, NAME, client, Options(batch=50, state=state))
    assert done.seen == left
    assert not state.exists()
    assert status(engine, NAME).plaintext == 0
    assert read(engine, NAME) == NAMES
    state.write_text('{"after": "nonsense", "seen": 1, "missed": 0}')
    with pytest.raises(ValueError, match="remove it to begin anew"):
        backfill(engine, NAME, client, Options(state=state))


def test_a_pace_is_kept_and_options_are_checked(engine: sa.Engine, client: Client) -> None:
    began = time.monotonic()
    backfill(engine, NAME, client, Options(batch=125, rate=1000, dry_run=True))
    assert time.monotonic() - began >= 0.24
    for wrong in ({"batch": 0}, {"rate": 0}):
        with pytest.raises(ValueError, match="expected"):
            Options(**wrong)  # type: ignore[arg-type]  # what is tested


def test_what_cannot_be_read_stops_the_job_and_names_the_row(engine: sa.Engine, client: Client) -> None:
    backfill(engine, NAME, client)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE people SET name = (SELECT name FROM people WHERE id = 4) WHERE id = 5"))
    with pytest.raises(FieldUnreadable, match=r"people\.name of row \('eu', 5\)"):
        reencrypt(engine, NAME, client)


def test_alembic_operations(engine: sa.Engine, client: Client, twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYSIDE_SOCKET", twin.path)
    with engine.begin() as connection:
        op: Any = Operations(MigrationContext.configure(connection))
        op.keyside_backfill(NAME)
        op.keyside_backfill(BORN, source=people.c.born_plain, client=client)
        op.keyside_reencrypt(NAME, options=Options(batch=70))
    assert status(engine, NAME).plaintext == 0
    assert status(engine, BORN).encrypted == ROWS
    with engine.begin() as connection:
        op = Operations(MigrationContext.configure(connection))
        op.keyside_decrypt_column(PLAIN)
    assert status(engine, NAME).encrypted == 0
    offline: Any = Operations(MigrationContext.configure(dialect_name="sqlite", opts={"as_sql": True}))
    with pytest.raises(ValueError, match="offline"):
        offline.keyside_backfill(NAME)
    with pytest.raises(TypeError, match="expected a column of the application's models"):
        offline.keyside_backfill("people.name")
    assert alembic.BackfillOperation is not None


MODELS = "tests.orm.sqlalchemy.test_living:metadata"
BEFORE = "tests.orm.sqlalchemy.test_living:before"


def test_the_command(engine: sa.Engine, twin: Twin, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--url", engine.url.render_as_string(hide_password=False)]
    run = [MODELS, "people.name", *where, "--socket", twin.path]
    assert main(["status", MODELS, *where]) == 0
    assert "people.name (dual): 0 encrypted, 245 plaintext, 5 NULL" in capsys.readouterr().out
    assert main(["backfill", *run, "--dry-run"]) == 0
    assert main(["backfill", *run, "--batch", "90"]) == 0
    assert "250 of 250 rows seen, 245 changed" in capsys.readouterr().err
    assert main(["backfill", MODELS, "people.born", *where, "--socket", twin.path, "--from", "born_plain"]) == 0
    assert main(["reencrypt", *run]) == 0
    assert main(["status", MODELS, "people.name", *where]) == 0
    assert capsys.readouterr().out.count("data key") == 3
    assert main(["status", MODELS, "people.name", *where, "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["column"], told["stage"], told["encrypted"], len(told["by_data_key"])) == (
        "people.name",
        "dual",
        245,
        3,
    )
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE people SET name_index = NULL WHERE id < 4")
    assert main(["status", MODELS, "people.name", *where]) == 0
    assert "    without name_index: 4 (keyside-orm backfill" in capsys.readouterr().out
    assert status(engine, NAME).unindexed == {"name_index": 4}
    assert main(["backfill", *run]) == 0
    assert status(engine, NAME).unindexed == {"name_index": 0}
    assert main(["decrypt-column", *run, "--no-input"]) == 1
    assert 'declare migrating="plain" and deploy first' in capsys.readouterr().err
    run[0] = BEFORE
    assert main(["backfill", *run]) == 1
    assert 'declare migrating="plaintext" and deploy first' in capsys.readouterr().err
    assert status(engine, NAME).plaintext == 0
    assert main(["decrypt-column", *run, "--no-input", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["rows_seen"], told["rows_changed"], told["dry_run"]) == (250, 245, False)
    assert status(engine, NAME).plaintext == 245


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("answer", "code"), [("yes", 0), ("y", 1), ("", 1)])
def test_nobody_decrypts_by_accident(
    engine: sa.Engine,
    client: Client,
    twin: Twin,
    answer: str,
    code: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backfill(engine, NAME, client)
    where = ["--url", str(engine.url), "--socket", twin.path]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{answer}\n" if answer else ""))
    assert main(["decrypt-column", BEFORE, "people.name", *where, "--dry-run"]) == 0
    assert main(["decrypt-column", BEFORE, "people.name", *where]) == code
    assert "This writes the plaintext of people.name to the database sqlite" in capsys.readouterr().err
    assert status(engine, NAME).plaintext == (245 if code == 0 else 0)
    with pytest.raises(SystemExit) as left:
        main(["decrypt-column", BEFORE, *where])
    assert left.value.code == 2


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_the_command_gives_the_partition(
    engine: sa.Engine, twin: Twin, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = sa.MetaData()
    type_ = Encrypted(sa.String, "notes", partition=from_context("tenant"))
    table = sa.Table("notes", other, sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", type_))
    table.append_column(sa.Column("plain", sa.String))
    other.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(table), {"id": 1, "plain": "a"})
    monkeypatch.setattr("tests.orm.sqlalchemy.test_living.metadata", other)
    words = [MODELS, "notes.text", "--url", str(engine.url), "--socket", twin.path, "--from", "plain"]
    assert main(["backfill", *words]) == 1
    assert "keyside.context(tenant=" in capsys.readouterr().err
    assert main(["backfill", *words, "--context", "tenant=acme"]) == 0
    with engine.connect() as connection, keyside.context(tenant="acme"):
        assert connection.scalar(sa.select(table.c.text)) == "a"
    with pytest.raises(SystemExit):
        main(["backfill", *words, "--context", "tenant"])
    assert "expected NAME=VALUE" in capsys.readouterr().err


AWAY = [
    "postgresql+psycopg://test@/postgres?host=/nowhere",
    "postgresql+psycopg2://test@/postgres?host=/nowhere",
    "mysql+pymysql://root@127.0.0.1:1/test",
    "sqlite:////nowhere/at/all.sqlite",
]


@pytest.mark.parametrize("away", AWAY, ids=lambda address: address.partition(":")[0])
def test_a_database_that_is_away_is_worth_another_try(away: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", MODELS, "people.name", "--url", away]) == 75
    told = capsys.readouterr().err
    assert told.startswith("keyside-orm: ")
    assert told.count("\n") == 1


def test_a_table_that_is_not_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", MODELS, "people.name", "--url", "sqlite://"]) == 1
    assert "no such table" in capsys.readouterr().err


def test_a_sidecar_that_is_away_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = f"sqlite:///{tmp_path}/t.sqlite"
    engine = sa.create_engine(path)
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO people (region, id, tenant, name) VALUES ('eu', 1, 1, 'Ann')"))
    engine.dispose()
    assert main(["backfill", MODELS, "people.name", "--url", path, "--socket", str(tmp_path / "none")]) == 75


def test_an_interrupted_command_says_how_it_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("keyside.sqlalchemy.commands.run", interrupted)
    assert main(["status", MODELS]) == 130
    assert "what is done stays done, and the same command goes on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([MODELS, "nobody.name", "--url", "sqlite://"], "no encrypted column nobody.name"),
        ([MODELS], "which database"),
        (["tests.nothing:Base"], "cannot import"),
        (["tests.orm.sqlalchemy.test_living:ROWS"], "neither a declarative base"),
        ([MODELS, "--url", "sqlite+aiosqlite://"], "aiosqlite is for asyncio"),
        ([MODELS, "--url", "mysql+nobody://"], "nobody"),
        ([MODELS, "--url", "oracle+cx_oracle://"], "driver cx_Oracle is not installed"),
    ],
)
def test_the_command_says_what_is_wrong(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert main(["status", *words]) == 1
    assert told in capsys.readouterr().err
    with pytest.raises(LookupError):
        encrypted_columns_of(sa.MetaData())


def test_a_killed_backfill_goes_on(engine: sa.Engine, twin: Twin) -> None:
    words = [sys.executable, "-m", "keyside.orm", "backfill", MODELS, "people.name"]
    words += ["--url", engine.url.render_as_string(hide_password=False), "--socket", twin.path, "--batch", "10"]
    process = subprocess.Popen([*words, "--rate", "100"], stderr=subprocess.PIPE, env=os.environ | {"DATABASE_URL": ""})
    try:
        deadline = time.monotonic() + 30
        while not 0 < status(engine, NAME).encrypted < 200 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    finally:
        process.communicate()
    halfway = status(engine, NAME)
    assert 0 < halfway.encrypted < ROWS - 5
    assert halfway.encrypted + halfway.plaintext == ROWS - 5
    assert subprocess.run(words, capture_output=True, check=True).returncode == 0
    assert status(engine, NAME).encrypted == ROWS - 5
    assert read(engine, NAME) == NAMES


def test_a_reader_that_goes_away_is_no_error_of_the_command(engine: sa.Engine) -> None:
    words = [sys.executable, "-m", "keyside.orm", "status", MODELS]
    words += ["--url", engine.url.render_as_string(hide_password=False)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    told = process.stderr.read()
    process.stderr.close()
    assert (process.wait(60), told) == (0, b"")


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
@pytest.mark.parametrize("apart", [False, True])
def test_what_does_not_open_is_not_decrypted_to_nothing(engine: sa.Engine, client: Client, apart: bool) -> None:
    drafts = sa.Table(
        "drafts",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("text", Encrypted(sa.String, "notes", storage="text", on_error="none", migrating="plaintext")),
        sa.Column("plain", sa.String),
    )
    text = Encrypted(sa.String, "notes", storage="text", on_error="none", migrating="plain", context="drafts.text")
    plain = sa.Table("drafts", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", text))
    drafts.create(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(drafts).values(id=1, text="a"))
        moved = connection.exec_driver_sql("SELECT text FROM drafts").scalar_one()
        broken = moved[:-4] + ("AAAA" if moved[-4:] != "AAAA" else "BBBB")
        connection.exec_driver_sql("UPDATE drafts SET text = ?", (broken,))
    column, into = (drafts.c.text, drafts.c.plain) if apart else (plain.c.text, None)
    with pytest.raises(FieldUnreadable):
        decrypt_column(engine, column, client, into=into)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT text FROM drafts").scalar_one() == broken
