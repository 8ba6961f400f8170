"""From an empty or older database to the schema of this release."""

from pathlib import Path
from typing import Final

from sqlalchemy import Connection, insert, inspect, select

from proxy.keystore.errors import KeystoreCorrupt, KeystoreMissing, KeystoreTooNew
from proxy.keystore.schema import SCHEMA_VERSION, metadata, schema_version

MIGRATIONS: Final = Path(__file__).with_name("migrations")


def found_version(connection: Connection) -> str | None:
    """The schema's version, None for an empty database. Raises KeystoreCorrupt for one that is something else."""
    tables = inspect(connection).get_table_names()
    if not tables:
        return None
    version = connection.scalar(select(schema_version.c.version_num)) if schema_version.name in tables else None
    if version is None:
        raise KeystoreCorrupt("the database holds tables that are no keystore's: point keystore.path elsewhere")
    return str(version)


def create_schema(connection: Connection) -> None:
    """Make all tables of this release in an empty database."""
    metadata.create_all(connection)
    connection.execute(insert(schema_version).values(version_num=SCHEMA_VERSION))


def bring_up_to_date(connection: Connection, *, create: bool) -> None:
    """Leave `connection`'s database at SCHEMA_VERSION. Raises KeystoreMissing, KeystoreTooNew, KeystoreCorrupt.

    `create`: fill an empty database; otherwise it is KeystoreMissing, for an empty file where a keystore was is a loss.
    """
    version = found_version(connection)
    if version is None and not create:
        raise KeystoreMissing(
            "the keystore is empty: restore it from a backup, or begin a new installation with `keyside init` in an "
            "empty folder"
        )
    if version is None:
        create_schema(connection)
    elif version > SCHEMA_VERSION:
        raise KeystoreTooNew(
            f"the keystore has schema {version} and this release knows {SCHEMA_VERSION}: run the release that wrote "
            "it, or a newer one"
        )
    elif version < SCHEMA_VERSION:
        migrate(connection)


def migrate(connection: Connection, target: str = SCHEMA_VERSION, folder: Path = MIGRATIONS) -> None:
    """Run the migrations in `folder` up to `target`, inside the connection's transaction: all of them or none."""
    # imported here alone: a sidecar whose keystore is up to date, which is nearly every start, never pays for Alembic
    from alembic.command import upgrade
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.attributes["connection"] = connection
    upgrade(config, target)
