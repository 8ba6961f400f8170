"""A model's table as jobs on living data see it: plain SQL, past managers, query logs and execute wrappers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from typing import Any

from django.db import connections, models, transaction

from keyside.django import arrays
from keyside.django.fields import EncryptedField
from keyside.living import Changes, Page
from keyside.living.running import EXACT_COLLATION
from keyside.living.status import HEAD_BYTES, HEAD_CHARACTERS

Convert = Callable[[Any], Any]


class TableRows:
    """`keyside.living.Rows` of the table that holds an encrypted field.

    `plain`: the plain column of a job that has one. Raises LookupError, when the row key is not in the table.
    """

    def __init__(self, field: EncryptedField, alias: str, plain: models.Field | None = None) -> None:
        self._connection = connections[alias]
        self._field = field
        self._plain = plain
        self._text_storage = field.declaration.storage == "text"
        meta = field.model._meta
        self._table = self._quoted(meta.db_table)
        self._keys: list[models.Field] = list(meta.pk_fields)
        declared = field.declaration
        self._plain_keys = all(self.reader(key) is _same for key in self._keys)
        self._bound = [self._local(name) for name in declared.bind]
        chooser = declared.partition_column
        self._chooser = [self._local(chooser)] if chooser is not None else []
        beside = enumerate([*self._bound, *self._chooser])
        self._beside = {one.column: (number, one) for number, one in beside if one not in self._keys}
        """What chooses context and partition, and where it stands behind the other columns of a page."""

    def count(self) -> int:
        return int(self._fetch(f"SELECT COUNT(*) FROM {self._table}")[0][0])  # noqa: S608  own names, quoted

    def transaction(self) -> nullcontext[None]:
        """None: compare-and-set needs none around the reading, and the sidecar is not waited for inside one."""
        return nullcontext()

    def heads(self, indexes: Sequence[str] = ()) -> list[tuple[Any, ...]]:
        """The beginnings of the values, as far as `status_of` needs them, how often each occurs, and how often without
        each of these indexes."""
        size = HEAD_CHARACTERS if self._text_storage else HEAD_BYTES
        head = f"SUBSTR({self._quoted(self._field.column)}, 1, {size})"
        # collations of MySQL and MariaDB take data keys for one whose ids differ in case alone
        as_hexadecimal = self._text_storage and self._connection.vendor == "mysql"
        head = f"HEX({head})" if as_hexadecimal else head
        counts = ["COUNT(*)", *[f"COUNT(*) - COUNT({self._quoted(name)})" for name in indexes]]
        found = self._fetch(f"SELECT {head}, {', '.join(counts)} FROM {self._table} GROUP BY {head}")  # noqa: S608  own names
        if as_hexadecimal:
            found = [(None if head is None else bytes.fromhex(head).decode(), *told) for head, *told in found]
        return [(_held(value), *map(int, told)) for value, *told in found]

    def page(self, columns: tuple[str, ...], after: tuple[Any, ...] | None, limit: int) -> Page:
        beside = [*self._bound, *self._chooser]
        keys = [self._quoted(key.column) for key in self._keys]
        selected = [*keys, *[self._read(name) for name in columns], *[self._quoted(one.column) for one in beside]]
        where, parameters = self._beyond(after) if after is not None else ("", [])
        rows = self._fetch(
            f"SELECT {', '.join(selected)} FROM {self._table}{where} ORDER BY {', '.join(keys)} LIMIT {limit:d}",  # noqa: S608  own names
            parameters,
        )
        by_column = list(zip(*rows, strict=True)) or [()] * len(selected)
        first, last = len(keys), len(keys) + len(columns)
        told = [self._values(one, held) for one, held in zip(beside, by_column[last:], strict=True)]
        bound = told[: len(self._bound)]
        return Page(
            list(zip(*[self._values(*pair) for pair in zip(self._keys, by_column, strict=False)], strict=True)),
            {name: _all_held(held) for name, held in zip(columns, by_column[first:last], strict=True)},
            list(zip(*bound, strict=True)) if bound else None,
            list(told[-1]) if self._chooser else None,
            {name: list(told[number]) for name, (number, _) in self._beside.items()},
        )

    def write(self, changes: Changes) -> int:
        with transaction.atomic(using=self._connection.alias):
            return sum(self._write_alike(part) for part in changes.alike())

    def _write_alike(self, changes: Changes) -> int:
        """As one statement: a row that somebody changed meanwhile is left alone."""
        absent = [name for name, held in changes.before.items() if held[0] is None]
        names, compared = list(changes.after), [name for name in changes.before if name not in absent]
        absent = [f"{self._read(name)} IS NULL" for name in absent]
        keys = changes.keys if self._plain_keys else [self._prepared(key) for key in changes.keys]
        held = [self._given(name, changes.before[name]) for name in compared]
        rows = list(zip(*changes.after.values(), *zip(*keys, strict=True), *held, strict=True))
        one_by_one = self._update_one(names, compared, absent)
        with self._cursor() as cursor:
            if self._connection.vendor != "postgresql":
                cursor.executemany(one_by_one, rows)
                return int(cursor.rowcount)
            columns = [arrays.parameter(column) for column in zip(*rows, strict=True)]
            statement = self._update_joined(names, compared, absent, [stands for stands, _ in columns])
            cursor.execute(statement, [*[given for _, given in columns], keys[0][0], keys[-1][0]])
            return int(cursor.rowcount)

    def _update_one(self, names: list[str], compared: list[str], absent: list[str]) -> str:
        values = ", ".join(f"{self._quoted(name)} = %s" for name in names)
        conditions = [f"{self._quoted(key.column)} = %s" for key in self._keys]
        conditions += [self._exactly(name, "%s") for name in compared]
        return f"UPDATE {self._table} SET {values} WHERE {' AND '.join([*conditions, *absent])}"  # noqa: S608  own names

    def _update_joined(self, names: list[str], compared: list[str], absent: list[str], columns: list[str]) -> str:
        """An UPDATE of many rows, given as an array a column, which PostgreSQL parses and plans once.

        They lie between the first and the last of a page, which spares the server the rest of the table, whatever it
        thinks of its size.
        """
        keys = [key.column for key in self._keys]
        types = [self._type(name) for name in [*names, *keys]]
        types += ["text" if self._is_document(name) else self._type(name) for name in compared]
        given = [f"v{number}" for number in range(len(types))]
        told = ", ".join(f"{stands}::{one}[]" for stands, one in zip(columns, types, strict=True))
        values = [f"{self._quoted(name)} = given.{v}" for name, v in zip(names, given, strict=False)]
        conditions = [
            self._exactly(name, f"given.{v}") for name, v in zip([*keys, *compared], given[len(names) :], strict=True)
        ]
        first = self._quoted(keys[0])
        conditions += [f"{self._table}.{first} >= %s", f"{self._table}.{first} <= %s"]
        return (
            f"UPDATE {self._table} SET {', '.join(values)} FROM UNNEST({told})"  # noqa: S608  own names
            f" AS given ({', '.join(given)}) WHERE {' AND '.join([*conditions, *absent])}"
        )

    def _type(self, column: str) -> str:
        """A column's type without a length, to which a cast would cut values silently."""
        field = next(one for one in self._field.model._meta.local_concrete_fields if one.column == column)
        return re.sub(r"\s*\([^)]*\)", "", field.db_type(self._connection))

    def reader(self, field: models.Field) -> Convert:
        """What makes Python values of what the driver returns for a plain field, NULL aside."""
        column = field.get_col(field.model._meta.db_table)
        connection = self._connection
        converters = [*connection.ops.get_db_converters(column), *column.get_db_converters(connection)]

        def read(value: Any) -> Any:
            for convert in converters:
                value = convert(value, column, connection)
            return value

        return read if converters else _same

    def writer(self, field: models.Field) -> Convert:
        """What makes parameters of a plain field's Python values."""
        return lambda value: field.get_db_prep_save(value, self._connection)

    def _local(self, name: str) -> models.Field:
        """A field of the table by its name, its attribute's name (`clinic_id`) or its column."""
        meta = self._field.model._meta
        for field in meta.local_concrete_fields:
            if name in (field.name, field.attname, field.column):
                return field
        raise LookupError(f"{meta.label}.{self._field.name} depends on {name}, which is no field of its table")

    def _quoted(self, name: str) -> str:
        return str(self._connection.ops.quote_name(name)).replace("%", "%%")  # "%s" is a parameter

    def _is_document(self, name: str) -> bool:
        return self._plain is not None and name == self._plain.column and isinstance(self._plain, models.JSONField)

    def _read(self, name: str) -> str:
        """A column as it is read and compared; a JSON document as its text, which every database can compare."""
        if self._is_document(name):
            return f"CAST({self._quoted(name)} AS {models.TextField().cast_db_type(self._connection)})"
        return self._quoted(name)

    def _exactly(self, name: str, given: str) -> str:
        """Equality that tells `Abc` from `abc` and from `abc `, whatever the column's collation."""
        held = self._read(name)
        if not self._is_text(name):
            return f"{held} = {given}"
        if self._connection.vendor == "mysql":
            return " = ".join(f"CAST(CONVERT({one} USING utf8mb4) AS BINARY)" for one in (held, given))
        collation = EXACT_COLLATION.get(self._connection.vendor)
        return f'{held} = {given} COLLATE "{collation}"' if collation else f"{held} = {given}"

    def _is_text(self, name: str) -> bool:
        if name == self._field.column:
            return self._text_storage
        plain = self._plain if self._plain is not None and name == self._plain.column else None
        field = plain or (self._beside[name][1] if name in self._beside else None)
        return self._is_document(name) or isinstance(field, models.CharField | models.TextField)

    def _given(self, name: str, held: list[Any]) -> list[Any]:
        """Values of a column as parameters: most are what the driver returned, as it is."""
        if name not in self._beside:
            return held
        field = self._beside[name][1]
        return [field.get_db_prep_value(value, self._connection) for value in held]

    def _beyond(self, after: tuple[Any, ...]) -> tuple[str, list[Any]]:
        """Rows behind a primary key, spelled out since not every database compares rows."""
        conditions: list[str] = []
        parameters: list[Any] = []
        prepared = self._prepared(after)
        for number, key in enumerate(self._keys):
            same = [f"{self._quoted(earlier.column)} = %s" for earlier in self._keys[:number]]
            conditions.append(" AND ".join([*same, f"{self._quoted(key.column)} > %s"]))
            parameters += prepared[: number + 1]
        return f" WHERE ({') OR ('.join(conditions)})", parameters

    def _prepared(self, key: Sequence[Any]) -> Sequence[Any]:
        """A primary key as parameters; most are what the driver returned, as it is."""
        if self._plain_keys:
            return key
        return [field.get_db_prep_value(value, self._connection) for field, value in zip(self._keys, key, strict=True)]

    def _values(self, field: models.Field, held: Sequence[Any]) -> Sequence[Any]:
        read = self.reader(field)
        return held if read is _same else [None if value is None else read(value) for value in held]

    def _fetch(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        with self._cursor() as cursor:
            cursor.execute(statement, parameters)
            return list(cursor.fetchall())

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        """A cursor of the back end without the layer that logs parameters, which are plaintext here."""
        self._connection.ensure_connection()
        with self._connection.wrap_database_errors, closing(self._connection.create_cursor()) as cursor:
            yield cursor


def _same(value: Any) -> Any:
    return value


def _all_held(values: Sequence[Any]) -> list[Any]:
    return list(values) if not {memoryview, bytearray} & set(map(type, values)) else [_held(one) for one in values]


def _held(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview | bytearray) else value
