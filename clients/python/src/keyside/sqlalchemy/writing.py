"""Writing and searching: the values of a statement are encrypted in one round trip, just before the driver is called.

Until then their placeholders stand in the parameters, so what SQLAlchemy logs and quotes in errors is `<encrypted>`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from sqlalchemy.orm.exc import StaleDataError

from keyside.fields import FieldError, NotSearchable, Placeholder, Send, seal
from keyside.sqlalchemy.facts import StatementFacts, statement_facts
from keyside.sqlalchemy.placeholders import SearchPlaceholder


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


def execute_counted(cursor: Any, statement: str, rows: Sequence[Any], context: Any) -> None:
    """An UPDATE for each row. Raises StaleDataError when one is not found, which drivers that do not count the rows of
    several updates would not tell."""
    for row in rows:
        context.dialect.do_execute(cursor, statement, row, context)
        if cursor.rowcount != 1:
            table = context.compiled.statement.table.description
            raise StaleDataError(f"UPDATE statement on table {table!r} found no row with this key and partition")


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
    parameters_by_name: Sequence[Mapping[str, Any]] = context.compiled_parameters or ()
    facts = statement_facts(context.compiled)
    unsealed: list[Placeholder] = []
    names: Sequence[str] = ()
    if len(rows) == len(parameters_by_name):
        for row, known in zip(rows, parameters_by_name, strict=True):
            of_row = [v for v in _values(row) if isinstance(v, Placeholder) and v.sealed is None]
            if facts is not None and (facts.follows or any(placeholder.place.needs_row for placeholder in of_row)):
                names = names or _names(context, row)
                _tell_all(zip(names, _values(row), strict=True), known, facts)
            unsealed += filter(_is_open, of_row) if facts is not None and facts.follows else of_row
    told = set(map(id, unsealed))
    for row in _rows(parameters):
        for value in _values(row):
            if (
                isinstance(value, Placeholder)
                and value.sealed is None
                and value.value is not None
                and id(value) not in told
            ):
                told.add(id(value))
                unsealed.append(value)
    seal(unsealed, send)


def _is_open(placeholder: Placeholder) -> bool:
    """Whether it is to be encrypted; an index that follows a column that is NULL is not."""
    return placeholder.sealed is None and placeholder.value is not None


def _tell_all(named: Iterable[tuple[str, Any]], known: Mapping[str, Any], facts: StatementFacts) -> None:
    """Tell the placeholders of a row what the statement says of it."""
    placeholders = [(name, value) for name, value in named if isinstance(value, Placeholder)]
    keys: dict[Any, Any] = {}
    for name, placeholder in placeholders:
        if placeholder.sealed is None and placeholder.place.needs_row:
            of_row = facts.row_of(name, placeholder)
            if of_row is not None:
                of_row.tell(placeholder, known, keys)
    by_name = dict(placeholders) if facts.follows else {}
    for index, source in facts.follows:
        value = known.get(source)
        if index in by_name:
            by_name[index].value = value
        elif value is not None:
            message = "an index has another value than its column; leave it out"
            column = facts.column_of(index)
            raise NotSearchable(message, column.table.name, column.name)


def _names(context: Any, row: Any) -> Sequence[str]:
    """The names of a row's parameters, in the order of the row; empty where they cannot be told."""
    compiled = context.compiled
    if isinstance(row, dict):
        unescaped: dict[Any, str] = {shown: name for name, shown in (compiled.escaped_bind_names or {}).items()}
        return [str(unescaped.get(name, name)) for name in row]
    expanded = context._expanded_parameters
    literal = {compiled.bind_names[parameter] for parameter in compiled.literal_execute_params}
    given = [name for name in compiled.positiontup or () if name not in literal]
    if compiled._numeric_binds:
        # numbers that were given once stay; those of lists come after them
        given = sorted(given, key=lambda name: name in expanded)
    names = [one for name in given for one in expanded.get(name, (name,))]
    return names if len(names) == len(row) else [""] * len(row)
