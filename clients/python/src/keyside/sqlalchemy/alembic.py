"""Alembic operations, registered by importing this module (in env.py, or in the migration):

    op.keyside_backfill(column)              encrypt what is plaintext; source=… for a plain column beside it
    op.keyside_reencrypt(column)             put everything under the active data keys
    op.keyside_decrypt_column(column)        write plaintext back; into=… for a plain column beside it

and, for `context.configure(render_item=render_item)` in env.py, what a generated migration writes for their types.

`column` is a column of a Table with an `Encrypted` type. They run inside the migration's transaction, a page at a time;
a table too large for one transaction is better left to `keyside-orm`, which can be killed and started again.
"""

from __future__ import annotations

from typing import Any, Literal

from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import _repr_type
from alembic.operations import MigrateOperation, Operations
from sqlalchemy import Column

from keyside.client import Client
from keyside.living import Options
from keyside.sqlalchemy.living import backfill, decrypt_column, reencrypt
from keyside.sqlalchemy.types import BlindIndex, Encrypted


def render_item(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:
    """The type that is stored in place of an Encrypted or BlindIndex type, so that a migration stands without keyrings;
    False, which leaves it to Alembic, for anything else."""
    if kind != "type" or not isinstance(item, Encrypted | BlindIndex):
        return False
    return _repr_type(item.stored_type(context.dialect), context)


class _ColumnOperation(MigrateOperation):
    """An operation on one encrypted column."""

    def __init__(
        self,
        column: Column[Any],
        other: Column[Any] | None = None,
        client: Client | None = None,
        options: Options = Options(),  # noqa: B008  frozen
    ) -> None:
        if not isinstance(column, Column):
            kind = type(column).__name__
            raise TypeError(f"expected a column of the application's models (Patient.__table__.c.email), not a {kind}")
        self.column = column
        self.other = other
        self.client = client
        self.options = options

    def run(self, operations: Operations, function: Any, **named: Any) -> None:
        """Call a function of `keyside.sqlalchemy.living` with the migration's connection."""
        if operations.get_context().as_sql:
            raise ValueError("encrypted columns cannot be migrated offline (--sql): the sidecar must see the values")
        if self.client is not None:
            function(operations.get_bind(), self.column, self.client, self.options, **named)
            return
        with Client() as client:
            function(operations.get_bind(), self.column, client, self.options, **named)


@Operations.register_operation("keyside_backfill")
class BackfillOperation(_ColumnOperation):
    """`op.keyside_backfill`."""

    @classmethod
    def keyside_backfill(
        cls, operations: Operations, column: Column[Any], source: Column[Any] | None = None, **options: Any
    ) -> None:
        """Encrypt what is still plaintext in a column, or in the plain column `source`."""
        operations.invoke(cls(column, source, **options))


@Operations.register_operation("keyside_reencrypt")
class ReencryptOperation(_ColumnOperation):
    """`op.keyside_reencrypt`."""

    @classmethod
    def keyside_reencrypt(cls, operations: Operations, column: Column[Any], **options: Any) -> None:
        """Put every value under the active data key of its scope."""
        operations.invoke(cls(column, **options))


@Operations.register_operation("keyside_decrypt_column")
class DecryptOperation(_ColumnOperation):
    """`op.keyside_decrypt_column`."""

    @classmethod
    def keyside_decrypt_column(
        cls, operations: Operations, column: Column[Any], into: Column[Any] | None = None, **options: Any
    ) -> None:
        """Write plaintext back, into the column itself or the plain column `into`."""
        operations.invoke(cls(column, into, **options))


@Operations.implementation_for(BackfillOperation)
def _backfill(operations: Operations, operation: BackfillOperation) -> None:
    operation.run(operations, backfill, source=operation.other)


@Operations.implementation_for(ReencryptOperation)
def _reencrypt(operations: Operations, operation: ReencryptOperation) -> None:
    operation.run(operations, reencrypt)


@Operations.implementation_for(DecryptOperation)
def _decrypt(operations: Operations, operation: DecryptOperation) -> None:
    operation.run(operations, decrypt_column, into=operation.other)
