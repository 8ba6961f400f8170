"""Migrations that Alembic writes from the models: they run, and leave nothing to migrate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata, produce_migrations, render_python_code
from alembic.migration import MigrationContext
from alembic.operations import Operations
from keyside.sqlalchemy import BlindIndex, Encrypted
from keyside.sqlalchemy.alembic import render_item

from tests.orm.sqlalchemy.conftest import url

metadata = sa.MetaData()
subscribers = sa.Table(
    "subscribers",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("mail", Encrypted(sa.String(320), keyring="k"), nullable=False),
    sa.Column("mail_index", BlindIndex("mail", normalize="casefold"), unique=True),
    sa.Column("mail_domain", BlindIndex("mail", normalize="domain")),
    sa.Column("iban", Encrypted(sa.String(34), keyring="k", storage="text")),
    sa.Column("phone", Encrypted(sa.String(20), keyring="k", storage=sa.String(600))),
    sa.Column("plain", sa.String(20)),
)


@pytest.fixture(params=["sqlite", "psycopg", "pymysql"])
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url(request.param, request, tmp_path))
    metadata.drop_all(engine)
    with engine.begin() as connection:
        yield connection
    metadata.drop_all(engine)
    engine.dispose()


def test_a_generated_migration_runs_and_leaves_nothing_to_do(connection: sa.Connection) -> None:
    options = {"compare_type": True, "include_name": include, "render_item": render_item}
    context = MigrationContext.configure(connection, opts=options)
    produced = produce_migrations(context, metadata).upgrade_ops
    assert produced is not None
    code = render_python_code(produced, render_item=render_item, migration_context=context)
    assert "keyside" not in code
    assert "sa.String(length=600)" in code
    assert "ix_subscribers_mail_domain" in code
    names: dict[str, Any] = {"sa": sa, "op": Operations(context)}
    exec("def upgrade():\n" + code, names)
    names["upgrade"]()
    assert [difference for difference in compare_metadata(context, metadata) if "subscribers" in str(difference)] == []
    columns = {one["name"]: one["type"] for one in sa.inspect(connection).get_columns("subscribers")}
    assert isinstance(columns["mail"], sa.LargeBinary | sa.types.BLOB)
    assert not isinstance(columns["iban"], sa.LargeBinary)


def include(name: str | None, kind: str, parents: Any) -> bool:
    """Other tests leave tables in the same database."""
    return kind != "table" or name == "subscribers"
