"""Fresh and migrated databases are the same; newer ones are left alone; a migration that fails leaves no trace."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, create_mock_engine, inspect
from sqlalchemy.schema import ExecutableDDLElement

from proxy.keystore import Keystore, KeystoreCorrupt, KeystoreMissing, KeystoreTooNew, versions
from proxy.keystore.schema import SCHEMA_VERSION, metadata
from proxy.keystore.sqlite import WRITES, SqliteFile

SECOND = """
from alembic import op
import sqlalchemy as sa

revision = "0002"
down_revision = "0001"


def upgrade():
    op.add_column("keyrings", sa.Column("colour", sa.String(8)))
    op.execute("UPDATE keyrings SET colour = 'green'")
    {then}
"""


def engine(path: Path) -> Engine:
    file = SqliteFile(path, 1.0)
    file.create()
    return file.engine()


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    made = engine(tmp_path / "k.sqlite")
    with made.connect() as connected:
        connected.execution_options(**{WRITES: True})
        yield connected
    made.dispose()


def shape(connection: Connection) -> dict[str, object]:
    found = inspect(connection)
    return {
        table: (
            [(c["name"], str(c["type"]), c["nullable"]) for c in found.get_columns(table)],
            found.get_pk_constraint(table),
            found.get_foreign_keys(table),
            sorted(found.get_unique_constraints(table), key=str),
            sorted(found.get_check_constraints(table), key=str),
            sorted(
                (
                    index["name"],
                    index["column_names"],
                    index["unique"],
                    str(index["dialect_options"].get("sqlite_where")),
                )
                for index in found.get_indexes(table)
            ),
        )
        for table in sorted(found.get_table_names())
    }


def test_migrating_from_nothing_makes_the_schema_of_the_metadata(tmp_path: Path) -> None:
    shapes = []
    for name, make in (("a", versions.create_schema), ("b", versions.migrate)):
        made = engine(tmp_path / name)
        with made.connect() as connected, connected.begin():
            make(connected)
            assert versions.found_version(connected) == SCHEMA_VERSION
            shapes.append(shape(connected))
        made.dispose()
    assert shapes[0] == shapes[1]
    assert set(shapes[0]) == set(metadata.tables)


@pytest.fixture
def next_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A release that knows schema 0002; returns the file of its migration."""
    folder = tmp_path / "100% migrations"
    shutil.copytree(versions.MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    script = folder / "versions" / "0002_colour.py"
    script.write_text(SECOND.format(then=""))
    monkeypatch.setattr(versions, "SCHEMA_VERSION", "0002")
    monkeypatch.setattr(versions.migrate, "__defaults__", ("0002", folder))
    return script


async def test_an_older_keystore_is_brought_up_to_date(
    store: Keystore, url: str, tmp_path: Path, next_release: Path
) -> None:
    await store.close()
    again = Keystore.open(url)
    assert len(await again.keyrings()) == 2
    await again.close()
    with sqlite3.connect(tmp_path / "keystore.sqlite") as raw:
        assert raw.execute("SELECT DISTINCT colour FROM keyrings").fetchall() == [("green",)]
        assert raw.execute("SELECT * FROM alembic_version").fetchall() == [("0002",)]
    raw.close()


def break_half_way(script: Path) -> None:
    script.write_text(SECOND.format(then="raise ValueError('half-way')"))


async def test_a_failing_migration_leaves_the_old_schema(
    store: Keystore, url: str, tmp_path: Path, next_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.close()
    break_half_way(next_release)
    with pytest.raises(ValueError, match="half-way"):
        Keystore.open(url)
    monkeypatch.undo()
    again = Keystore.open(url)  # the lock was given back, and this release still knows the schema
    await again.close()
    with sqlite3.connect(tmp_path / "keystore.sqlite") as raw:
        assert "colour" not in str(raw.execute("SELECT sql FROM sqlite_master").fetchall())
    raw.close()


async def test_a_newer_schema_is_left_alone(store: Keystore, url: str, tmp_path: Path) -> None:
    await store.close()
    with sqlite3.connect(tmp_path / "keystore.sqlite") as raw:
        raw.execute("UPDATE alembic_version SET version_num = '0007'")
    raw.close()
    with pytest.raises(KeystoreTooNew, match=r"schema 0007 .* knows 0001: run"):
        Keystore.open(url)


@pytest.mark.parametrize("table", ["people", "alembic_version"])
def test_another_programs_database_is_left_alone(url: str, tmp_path: Path, table: str) -> None:
    with sqlite3.connect(tmp_path / "keystore.sqlite") as raw:
        raw.execute(f"CREATE TABLE {table} (version_num TEXT)")
    raw.close()
    (tmp_path / "keystore.sqlite").chmod(0o600)
    for create in (False, True):
        with pytest.raises(KeystoreCorrupt, match="no keystore"):
            Keystore.open(url, create=create)


def test_an_empty_file_is_a_loss_unless_one_is_being_made(url: str, tmp_path: Path) -> None:
    (tmp_path / "keystore.sqlite").touch(0o600)
    with pytest.raises(KeystoreMissing, match="keyside init"):
        Keystore.open(url)


def test_alembic_is_not_imported_while_nothing_needs_migrating(url: str) -> None:
    program = (
        "import asyncio, sys\n"
        "from proxy.keystore import Keystore\n"
        f"for create in (True, False): asyncio.run(Keystore.open({url!r}, create=create).close())\n"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('alembic', 'mako', 'psycopg')))\n"
        "print('sqlalchemy.orm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "False"]


def test_the_schema_is_good_postgresql() -> None:
    statements: list[str] = []

    def note(statement: ExecutableDDLElement, *_: object, **__: object) -> None:
        statements.append(str(statement.compile(dialect=mock.dialect)))

    mock = create_mock_engine("postgresql://", note)
    metadata.create_all(mock, checkfirst=False)
    text = "".join(statements)
    assert "TIMESTAMP WITH TIME ZONE" in text
    assert "id BIGINT NOT NULL" in text
    assert "WHERE state = 'active'" in text
