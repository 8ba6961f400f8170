"""Writing and searching: the values of a statement are encrypted in one round trip, just before the driver is called.

Until then their placeholders stand in the parameters, so what SQLAlchemy logs and quotes in errors is `<encrypted>`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn
from weakref import WeakKeyDictionary

from sqlalchemy import Column, Insert, Table, Update
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, BooleanClauseList

from keyside.fields import BindingMissing, Field, FieldError, NotSearchable, Placeholder, Send, seal
from keyside.sqlalchemy.placeholders import SearchPlaceholder
from keyside.sqlalchemy.types import Encrypted

_SEVERAL: Final = re.compile(r"_m\d+$")
"""How SQLAlchemy names the parameters of further rows of insert().values([…])."""


def holds_placeholders(parameters: Any) -> bool:
    """Whether any parameter of one or several rows is a placeholder."""
    for row in _rows(parameters):
        for value in _values(row):
            if isinstance(value, Placeholder):
                return True
    return False


def substituted(parameters: Any, context: Any, send: Send) -> Any:
    """The parameters with what the database is to get. Raises FieldError; then nothing was sent."""
    _seal_all(context, parameters, send)
    dbapi = context.dialect.dbapi
    binary = bytes if dbapi is None else dbapi.Binary
    if isinstance(parameters, list):
        return [_sealed(row, binary) for row in parameters]
    return _sealed(parameters, binary)


def _rows(parameters: Any) -> Any:
    return parameters if isinstance(parameters, list) else (parameters,)


def _values(row: Any) -> Any:
    return row.values() if isinstance(row, dict) else row


def _sealed(row: Any, binary: Any) -> Any:
    if isinstance(row, dict):
        return {name: _stored(v, binary) if isinstance(v, Placeholder) else v for name, v in row.items()}
    return tuple([_stored(v, binary) if isinstance(v, Placeholder) else v for v in row])


def _stored(placeholder: Placeholder, binary: Any) -> Any:
    sealed = placeholder.sealed
    if type(sealed) is bytes:
        # as LargeBinary does: psycopg2 and MariaDB's drivers want to be told that bytes are binary
        return binary(sealed)
    if type(sealed) is str:
        return sealed
    if isinstance(sealed, FieldError):
        raise sealed
    if sealed is None and isinstance(placeholder, SearchPlaceholder):
        _raise_no_index(placeholder.place)
    return sealed


def _raise_no_index(place: Any) -> NoReturn:
    raise NotSearchable(
        f"the value has no index under the normalisation {place.normalize.name!r}, so no row can be found by it; catch "
        "NotSearchable and treat it as no result, or check values before the search. Rows that hold such values have "
        "NULL in this column",
        place.table,
        place.column,
    )


def _seal_all(context: Any, parameters: Any, send: Send) -> None:
    """Encrypt every value of the statement that is not encrypted yet, the rows of later batches included."""
    rows = context.parameters
    facts: Sequence[Mapping[str, Any]] = context.compiled_parameters or ()
    unsealed: list[Placeholder] = []
    if len(rows) == len(facts):
        for row, known in zip(rows, facts, strict=True):
            of_row = [v for v in _values(row) if isinstance(v, Placeholder) and v.sealed is None]
            if any(placeholder.place.needs_row for placeholder in of_row):
                _tell_all(context, row, known)
            unsealed += of_row
    told = set(map(id, unsealed))
    for row in _rows(parameters):
        for value in _values(row):
            if isinstance(value, Placeholder) and value.sealed is None and id(value) not in told:
                told.add(id(value))
                unsealed.append(value)
    seal(unsealed, send)


def _tell_all(context: Any, row: Any, known: Mapping[str, Any]) -> None:
    """Tell the placeholders of a row what the statement says of it."""
    facts = statement_facts(context.compiled)
    rows: dict[str, _Row] = {}
    for name, placeholder in _named(row, context):
        if placeholder.place.needs_row:
            several = _SEVERAL.search(name) if name[-1:].isdigit() else None
            suffix = several[0] if several else ""
            if suffix not in rows:
                rows[suffix] = _Row(facts, known, suffix)
            rows[suffix].tell(placeholder)


def _named(row: Any, context: Any) -> Iterator[tuple[str, Placeholder]]:
    """The placeholders of a row with the names of their parameters, as far as a positional style tells them."""
    if isinstance(row, dict):
        names: Sequence[str] = list(row)
    else:
        names = getattr(context.compiled, "positiontup", None) or ()
        names = names if len(names) == len(row) else [""] * len(row)
    for name, value in zip(names, _values(row), strict=True):
        if isinstance(value, Placeholder):
            yield name, value


class _Row:
    """What a statement tells of a row that values are written to, by column."""

    def __init__(self, facts: StatementFacts, parameters: Mapping[str, Any], suffix: str) -> None:
        self._facts = facts
        self._parameters = parameters
        self._suffix = suffix
        self._keys: dict[tuple[str, ...], tuple[Any, ...]] = {}

    def tell(self, placeholder: Placeholder) -> None:
        place = placeholder.place
        if isinstance(place, Field):
            self._facts.check(place)
            if place.bind:
                key = self._keys.get(place.bind)
                if key is None:
                    key = self._keys[place.bind] = tuple([self._value(name) for name in place.bind])
                placeholder.key = key
        if place.partition_column:
            placeholder.partition = self._value(place.partition_column)

    def _value(self, column: str) -> Any:
        if not self._suffix and column in self._parameters:
            return self._parameters[column]
        for name in (f"{column}{self._suffix}", column, *self._facts.equal_to.get(column, ())):
            if name in self._parameters:
                return self._parameters[name]
        return None


class StatementFacts:
    """What an INSERT or UPDATE says about its rows, beyond its parameters."""

    def __init__(self, compiled: Any) -> None:
        statement = getattr(compiled, "statement", None)
        self.equal_to: dict[str, list[str]] = {}
        """Columns that the WHERE clause holds to one value, and the names of its parameter."""
        self._upsert: Any = None
        if isinstance(statement, Update):
            for criterion in statement._where_criteria:
                for column, parameter in _equalities(criterion, statement.table):
                    name = compiled.bind_names.get(parameter)
                    if name is not None:
                        self.equal_to.setdefault(column, []).append(name)
        elif isinstance(statement, Insert):
            self._upsert = getattr(statement, "_post_values_clause", None)

    def check(self, field: Field) -> None:
        """Raises BindingMissing for an upsert that may change another row than the one that its values are bound to."""
        if self._upsert is None:
            return
        written = _upserted(self._upsert)
        if field.column not in written:
            return
        target = {str(name) for name in getattr(self._upsert, "inferred_target_elements", None) or ()}
        target = {name.rpartition(".")[2] for name in target}
        needed = set(field.bind) | ({field.partition_column} if field.partition_column else set())
        if not needed <= target | written:
            raise BindingMissing(
                f"an upsert that updates it must find the row by {', '.join(sorted(needed))}, which it is bound to; "
                "otherwise the row that exists gets a ciphertext of another row. Update such rows one by one",
                field.table,
                field.column,
            )


def _upserted(clause: Any) -> set[str]:
    """Names of the columns that ON CONFLICT DO UPDATE or ON DUPLICATE KEY UPDATE sets."""
    values = getattr(clause, "update_values_to_set", None) or getattr(clause, "update", None) or ()
    pairs = values.items() if isinstance(values, Mapping) else values
    return {str(getattr(column, "key", column)) for column, _ in pairs}


def _equalities(criterion: Any, table: Any) -> Iterator[tuple[str, BindParameter[Any]]]:
    if isinstance(criterion, BooleanClauseList) and criterion.operator is operators.and_:
        for clause in criterion.clauses:
            yield from _equalities(clause, table)
    elif isinstance(criterion, BinaryExpression) and criterion.operator is operators.eq:
        left, right = criterion.left, criterion.right
        if isinstance(left, BindParameter):
            left, right = right, left
        own = table.c.get(getattr(left, "key", None) or "")
        if isinstance(right, BindParameter) and own is not None and left.shares_lineage(own):
            yield str(left.key), right


_facts: WeakKeyDictionary[Any, StatementFacts] = WeakKeyDictionary()


def statement_facts(compiled: Any) -> StatementFacts:
    """Worked out once for every compiled, hence cached, statement."""
    facts = _facts.get(compiled)
    if facts is None:
        facts = _facts[compiled] = StatementFacts(compiled)
    return facts


def changed_bindings(table: Table, written: set[str]) -> list[Column[Any]]:
    """Encrypted columns that would no longer open if `written` columns alone were updated."""
    lost: list[Column[Any]] = []
    for column in table.c:
        if isinstance(column.type, Encrypted) and column.key not in written:
            needed = {*column.type.bind, *([column.type.partition] if isinstance(column.type.partition, str) else ())}
            if needed & written:
                lost.append(column)
    return lost
