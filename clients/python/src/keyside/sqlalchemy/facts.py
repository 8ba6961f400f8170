"""What a compiled statement says about the rows that it writes: which parameter is which column of which row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NoReturn
from weakref import WeakKeyDictionary

from sqlalchemy import Column, Insert, TextClause, TextualSelect, Update
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, Null
from sqlalchemy.sql.selectable import SelectBase

from keyside.fields import BindingMissing, Field, NotSearchable, Placeholder
from keyside.fields.declaration import Place
from keyside.sqlalchemy.assignments import (
    assigned,
    assigned_rows,
    column_of,
    indexes_of,
    is_target,
    of_table,
    tables_of,
    target_table,
    upserted,
)
from keyside.sqlalchemy.checking import check_text, check_written, writes_of
from keyside.sqlalchemy.flushing import equalities
from keyside.sqlalchemy.given import ParameterName, clause
from keyside.sqlalchemy.indexing import Following
from keyside.sqlalchemy.kinds import Convert, as_read, compares_loosely
from keyside.sqlalchemy.placeholders import SearchPlaceholder
from keyside.sqlalchemy.types import BlindIndex, Encrypted

UNKNOWN: Final = ""
"""In place of a parameter's name: the column is set to what the database computes."""

NULL: Final = "\0"
"""In place of a parameter's name: the column is set to NULL."""

Values = Mapping[str, Any]


class Row:
    """A row that a statement writes, or all of those that an UPDATE writes."""

    def __init__(self, columns: Any, names: dict[str, str], where: dict[str, list[str]] | None, dialect: Any) -> None:
        self.names = names
        """Parameters of the columns that are set."""
        self.loose: set[str] = set()
        """Columns whose values in WHERE may be other spellings than the row's own."""
        self.is_update = where is not None
        self._where = where or {}
        self._columns = columns
        self._dialect = dialect
        self._conversions: dict[str, Convert] = {}

    def value(self, key: str, parameters: Values) -> Any:
        """A column's value after the statement, None when it does not tell."""
        name = self.names.get(key)
        found = [name] if name is not None else self._where.get(key, ())
        given = next((parameters[name] for name in found if name in parameters), None)
        if given is not None and name is None and key in self.loose:
            self._raise_loose(self._columns[key])
        return None if given is None else self._conversion(key)(given)

    def _raise_loose(self, column: Column[Any]) -> NoReturn:
        raise BindingMissing(
            f"values are bound to {column.key}, whose collation finds other spellings too, so that the row might not "
            "open; declare it with a binary collation, String(20, collation=…), or change objects of a Session",
            column.table.name,
            column.name,
        )

    def _conversion(self, key: str) -> Convert:
        convert = self._conversions.get(key)
        if convert is None:
            convert = self._conversions[key] = as_read(self._columns[key], self._dialect)
        return convert

    def tell(self, placeholder: Placeholder, parameters: Values, keys: dict[Any, Any]) -> None:
        """Tell a placeholder the key and the partition of its row."""
        place = placeholder.place
        if isinstance(place, Field) and place.bind:
            known = (id(self), place.bind)
            if known not in keys:
                keys[known] = tuple([self.value(name, parameters) for name in place.bind])
            placeholder.key = keys[known]
        if place.partition_column:
            placeholder.partition = self.value(place.partition_column, parameters)
            if placeholder.partition is None and not isinstance(placeholder, SearchPlaceholder):
                self._check_untold(place, place.partition_column)

    def _check_untold(self, place: Place, name: str) -> None:
        """Raise BindingMissing for a row whose partition keyside.context does not tell either."""
        computed = self.names.get(name) == UNKNOWN
        if computed:
            message = f"which is computed only as this statement is executed; set {name} to a value"
        elif self.is_update:
            message = (
                "which this statement does not tell, and keyside.context does not say whose rows it changes; compare "
                f"{name} with one value in WHERE, or set it to one"
            )
        if computed or self.is_update:
            raise BindingMissing(f"its partition is the value of {name}, {message}", place.table, place.column)


class StatementFacts:
    """Worked out once for every compiled, hence cached, statement. Raises FieldError for what must not run."""

    def __init__(self, compiled: Any) -> None:
        self.rows: dict[str, Row] = {}
        """The row of each parameter that is written to an encrypted column or an index."""
        self.follows: list[tuple[str, str]] = []
        """Parameters of indexes, and those of the columns whose values they have in the end."""
        self._searched: dict[str, Row] = {}
        """What the conditions of an UPDATE say of the rows that they look for, by parameter."""
        self._unknown: Row | None = None
        """In place of the row of a parameter that a statement writes nobody knows where."""
        self._compiled = compiled
        self._names: dict[str, str] = {_own_key(parameter): name for parameter, name in compiled.bind_names.items()}
        statement = compiled.statement
        if isinstance(statement, TextClause | TextualSelect):
            self._text()
        for write, nested in writes_of(compiled):
            self._unknown = Row({}, {}, {}, compiled.dialect)
            check_written(write, nested, compiled)
            for table in tables_of(write):
                self._table(write, table, nested)

    def row_of(self, name: str, placeholder: Placeholder) -> Row | None:
        """The row that tells a placeholder its key and partition."""
        if isinstance(placeholder, SearchPlaceholder):
            # a list has a parameter for each of its values, with its own name and a number
            return self._searched.get(name) or self._searched.get(name.rstrip("0123456789"))
        return self.rows.get(name, self._unknown)

    def column_of(self, name: str) -> Column[Any]:
        """The column that an encrypted parameter is of."""
        column: Column[Any] = self._compiled.binds[name].type.column
        return column

    def _table(self, statement: Any, table: Any, nested: bool) -> None:
        where = None
        if isinstance(statement, Update):
            where = self._where(statement, table)
            searched = Row(table.c, {}, where, self._compiled.dialect)
            self._searched |= dict.fromkeys(self._looked_for(statement, table), searched)
        rows = self._rows(statement, table, nested)
        targets = [column for column in table.c if is_target(column)]
        for names in rows:
            row = Row(table.c, names, where, self._compiled.dialect)
            row.loose |= self._loose(table, where or {})
            self.rows |= {name: row for column in targets if (name := names.get(column.key))}
            for column in targets:
                self._check_type(names.get(column.key), column)
            for source, of_source in indexes_of(table).items():
                for key in of_source:
                    if names.get(source) and names.get(key) and (nested or self._is_following(names[key])):
                        self.follows.append((names[key], names[source]))
        row = Row(table.c, rows[0], None, self._compiled.dialect)
        updated = of_table(statement, table, upserted(statement))
        of_update = {
            key: self._names.get(_own_key(value)) for key, value in updated.items() if isinstance(value, BindParameter)
        }
        for key, name in of_update.items():
            if name and is_target(table.c[key]):
                self.rows[name] = row
                self._check_type(name, table.c[key])
        for source, of_source in indexes_of(table).items():
            for key in of_source:
                index, column = of_update.get(key), of_update.get(source)
                if index and column and (nested or self._is_following(index)):
                    self.follows.append((index, column))

    def _check_type(self, name: str | None, column: Column[Any]) -> None:
        """Raise NotSearchable for a parameter that is somewhere else as well, and has the type of that place."""
        parameter = self._compiled.binds.get(name) if name else None
        if parameter is not None and getattr(parameter.type, "column", None) is not column.type.column:  # type: ignore[attr-defined]  # a target
            message = "its parameter is used in another place of the statement as well; give it a name of its own"
            raise NotSearchable(message, column.table.name, column.name)

    def _where(self, statement: Any, table: Any) -> dict[str, list[str]]:
        where: dict[str, list[str]] = {}
        for key, parameter in equalities(statement._where_criteria, table):
            name = self._names.get(_own_key(parameter))
            if name is not None:
                where.setdefault(key, []).append(name)
        return where

    def _loose(self, table: Any, where: Mapping[str, list[str]]) -> set[str]:
        """Columns that WHERE compares loosely. A flush names parameters by columns' labels, and has what rows hold."""
        return {
            key
            for key, names in where.items()
            if names[0] != table.c[key]._label and compares_loosely(table.c[key], self._compiled.dialect)
        }

    def _looked_for(self, statement: Any, table: Any) -> Iterator[str]:
        """Names of the parameters that are compared with indexes of the rows that an UPDATE changes: not with those of
        an alias, or of another row that a query looks at."""
        for element in _outside_queries(statement._where_criteria):
            if not isinstance(element, BinaryExpression):
                continue
            sides = element.left, element.right
            if any(
                isinstance(one, Column) and isinstance(one.type, BlindIndex) and one.table == table for one in sides
            ):
                for parameter in _outside_queries(sides):
                    if isinstance(parameter, BindParameter) and (name := self._names.get(_own_key(parameter))):
                        yield f"{name}_" if parameter.expanding else name

    def _rows(self, statement: Any, table: Any, nested: bool) -> list[dict[str, str]]:
        """Names of the parameters of each row."""
        compiled = self._compiled
        several = assigned_rows(statement)
        if several:
            return [self._several(statement, table, row, number) for number, row in enumerate(several)]
        if not nested and table == target_table(statement):
            given = (*(compiled.column_keys or ()), *prefetched(compiled, table))
            names = {key: key for key in given if key in table.c}
        else:
            names = dict.fromkeys(_with_defaults(statement, table), UNKNOWN)
        names |= dict.fromkeys(getattr(statement, "_select_names", None) or (), UNKNOWN)
        # of parameters that values() names, and not of others, are those that are given by the name of the column
        set_ = of_table(statement, table, assigned(statement))
        return [names | {key: self._name(value, key) for key, value in set_.items()}]

    def _several(self, statement: Any, table: Any, row: Mapping[Any, Any], number: int) -> dict[str, str]:
        """As SQLAlchemy names the parameters of `.values([…, …])`."""
        names = {key: f"{key}_m{number}" if number else key for key in prefetched(self._compiled, table)}
        for name, value in row.items():
            column = column_of(statement, name)
            if column is not None:
                names[column.key] = self._name(value, f"{column.key}_m{number}")
        return names

    def _name(self, value: Any, usual: str) -> str:
        value = clause(value)
        if isinstance(value, BindParameter):
            return self._names.get(_own_key(value), UNKNOWN)
        if isinstance(value, Null):
            return NULL
        return UNKNOWN if hasattr(value, "_compiler_dispatch") else usual

    def _is_following(self, name: str) -> bool:
        parameter = self._compiled.binds.get(name)
        return parameter is not None and isinstance(parameter.value, Following)

    def _text(self) -> None:
        """Parameters of text(), each named after its column, or after nothing."""
        by_column: dict[Column[Any], list[str]] = {}
        for parameter, name in self._compiled.bind_names.items():
            column: Column[Any] | None = getattr(parameter.type, "column", None)
            if column is not None and is_target(column):
                by_column.setdefault(column, []).append(name)
        check_text(by_column)
        for column, names in by_column.items():
            # an UPDATE for all that is known
            row = Row(column.table.c, {}, {c.key: [c.key] for c in column.table.c}, self._compiled.dialect)
            self.rows |= dict.fromkeys(names, row)
            if isinstance(column.type, Encrypted):
                for key in indexes_of(column.table).get(column.key, ()):
                    self.follows.append((by_column[column.table.c[key]][0], names[0]))


def _own_key(parameter: BindParameter[Any]) -> str:
    """Parameters that the application gives by one name are several in the statement."""
    key = parameter.key
    return f"{key}\0{key.apply_map({})}" if isinstance(key, ParameterName) else str(key)


def _outside_queries(elements: Iterable[Any]) -> Iterator[Any]:
    """The elements and what they consist of, but for what is in a subquery."""
    for element in elements:
        if not isinstance(element, SelectBase):
            yield element
            yield from _outside_queries(element.get_children())


def prefetched(compiled: Any, table: Any) -> list[str]:
    """Keys of the table's columns whose values Python computes when the statement is executed."""
    columns = (*(getattr(compiled, "insert_prefetch", ()) or ()), *(getattr(compiled, "update_prefetch", ()) or ()))
    # of the rows of `.values([…, …])`, each has its own, made of the column
    return [str(column.key) for column in columns if getattr(column, "original", column).table == table]


def _with_defaults(statement: Any, table: Any) -> list[str]:
    """Keys of the columns that get a value when the statement does not name them."""
    kind = "default" if isinstance(statement, Insert) else "onupdate"
    return [column.key for column in table.c if getattr(column, kind, None) is not None]


_facts: WeakKeyDictionary[Any, StatementFacts] = WeakKeyDictionary()


def statement_facts(compiled: Any) -> StatementFacts | None:
    """None for what is no statement of SQLAlchemy's. Raises FieldError for what must not run."""
    if getattr(compiled, "bind_names", None) is None or compiled.statement is None:
        return None
    facts = _facts.get(compiled)
    if facts is None:
        facts = _facts[compiled] = StatementFacts(compiled)
    return facts
