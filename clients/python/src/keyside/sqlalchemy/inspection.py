"""What conditions cannot say: whatever reaches a ciphertext or a blind index without its comparator is found in the
statement, before its parameters are logged or sent.

A list of what is allowed, not of what is not: a ciphertext may be selected, counted and tested for NULL; a blind index
also be grouped, sorted and compared with values and with indexes of the same kind.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from weakref import WeakSet

from sqlalchemy import Delete, Insert, Select, Update
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import (
    BinaryExpression,
    BindParameter,
    Case,
    Cast,
    ClauseElement,
    ClauseList,
    ColumnClause,
    ColumnElement,
    Grouping,
    Label,
    Null,
    Tuple,
    TypeCoerce,
    UnaryExpression,
    _label_reference,
)
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import (
    CompoundSelect,
    Exists,
    Join,
    ScalarSelect,
    SelectBase,
    SelectStatementGrouping,
    _CompoundSelectKeyword,
)

from keyside.fields import NotSearchable
from keyside.sqlalchemy.assignments import assigned, column_of, is_target, upserted
from keyside.sqlalchemy.given import clause
from keyside.sqlalchemy.lineage import sources
from keyside.sqlalchemy.search import ADVICE, EQUALITY, MEMBERSHIP, NULL_TESTS, refuse
from keyside.sqlalchemy.texts import check_texts
from keyside.sqlalchemy.types import BlindIndex, Encrypted, SearchedIndex
from keyside.sqlalchemy.unencrypted import StoredPlaintext

_checked: WeakSet[Any] = WeakSet()
_ORDER = (operators.desc_op, operators.asc_op, operators.nulls_first_op, operators.nulls_last_op)
_WITH_DUPLICATES = (
    _CompoundSelectKeyword.UNION_ALL,
    _CompoundSelectKeyword.INTERSECT_ALL,
    _CompoundSelectKeyword.EXCEPT_ALL,
)
_ONE_KIND = (
    "no row tells which of them it holds; select them by statements of their own, or give both columns the same "
    "keyring, type and context="
)
_NOT_COMPARABLE = "compare it with values, or with a blind index of the same keyring, normalisation and context"


def check_searchable(compiled: Any) -> None:
    """Raise NotSearchable for a use of ciphertext as if it were the value. Once for every cached statement."""
    statement = getattr(compiled, "statement", None)
    if statement is None or compiled in _checked:
        return
    check_expression(statement)
    # with the joins, criteria and orderings that the ORM puts in
    resolved = getattr(getattr(compiled, "compile_state", None), "statement", statement)
    if resolved is not statement and isinstance(resolved, ClauseElement):
        check_expression(resolved)
    _check_selected(resolved)
    _check_parameters(compiled)
    _checked.add(compiled)


def check_expression(root: ClauseElement) -> None:
    """Raise NotSearchable for what the database cannot answer in a statement or a part of one."""
    # of count(), and of bundles of columns
    transparent: set[int] = set()
    for element in visitors.iterate(root):
        if isinstance(element, ClauseElement):
            _check(element, transparent)
        upsert: Any = getattr(element, "_post_values_clause", None)
        for name in ("update_whereclause", "inferred_target_whereclause"):
            if isinstance(criterion := getattr(upsert, name, None), ClauseElement):
                check_expression(criterion)


def _check_selected(statement: Any) -> None:
    """Raise NotSearchable for selected columns that hold ciphertexts of one column in some rows, and other things, or
    ciphertexts of another column, in the rest: no row tells which."""
    for columns in zip(*_branches(statement), strict=False):
        _check_sources(columns)


def _branches(statement: Any) -> list[list[Any]]:
    """What a statement selects: a union, once in each branch."""
    while isinstance(statement, SelectStatementGrouping):
        statement = statement.element
    if isinstance(statement, CompoundSelect):
        return [columns for one in statement.selects for columns in _branches(one)]
    return [list(statement.selected_columns)] if isinstance(statement, Select) else []


def _check_sources(columns: Iterable[Any], what: str = "a union with another column") -> None:
    given = [source for column in columns for source in sources(column)]
    kept: Any = next((source for source in given if _is_kept(source)), None)
    if kept is not None and not all(_is_kept(source) and _same_kind(kept.type, source.type) for source in given):
        refuse(kept, what, _ONE_KIND)


def _is_kept(source: Any) -> bool:
    """Whether it is a column of ciphertexts, or a blind index."""
    type_ = getattr(source, "type", None)
    return isinstance(type_, Encrypted | BlindIndex) and type_.column is not None


def searches(statement: Any) -> bool:
    """Whether the conditions of an UPDATE or DELETE look for values in a blind index."""
    return any(
        isinstance(element, BindParameter) and isinstance(element.type, SearchedIndex)
        for criterion in statement._where_criteria
        for element in visitors.iterate(criterion)
    )


def encrypted_column(element: Any) -> ColumnElement[Any] | None:
    """The element as a column of an Encrypted type; None for anything else."""
    while isinstance(element, Grouping | Label):
        element = element.element
    own = getattr(element, "type", None)
    if isinstance(own, Encrypted) and own.column is not None and getattr(element, "table", None) is not None:
        found: ColumnElement[Any] = element
        return found
    return None


def concealed(element: Any) -> ColumnElement[Any] | None:
    """What gives ciphertexts or blind indexes in an expression that stands for its value; None when nothing does."""
    while not isinstance(element, StoredPlaintext):
        type_ = getattr(element, "type", None)
        if isinstance(element, ColumnElement) and isinstance(type_, Encrypted | BlindIndex):
            return element if type_.column is not None and not isinstance(type_, SearchedIndex) else None
        if isinstance(element, SelectBase) and not isinstance(element, SelectStatementGrouping):
            return next(
                (found for column in element.selected_columns if (found := concealed(column)) is not None), None
            )
        if isinstance(element, Grouping | Label | ScalarSelect | SelectStatementGrouping | _label_reference):
            element = element.element
        elif isinstance(element, TypeCoerce):
            element = element.clause
        else:
            return None
    return None


def _is_index(column: ColumnElement[Any]) -> bool:
    return isinstance(column.type, BlindIndex)


def _check(element: Any, transparent: set[int]) -> None:
    if isinstance(element, Select):
        _check_select(element, transparent)
    elif isinstance(element, CompoundSelect):
        _check_compound(element)
    elif isinstance(element, Insert | Update | Delete):
        _check_written(element)
    elif isinstance(element, Join):
        _refuse_any([element.onclause], "a join condition", ADVICE["expression"])
        check_texts(element, [element.onclause], concealed)
    elif isinstance(element, FunctionElement):
        if getattr(element, "name", "") == "count":
            transparent.add(id(element.clauses))
        else:
            _refuse_any(element.clauses, "a function", ADVICE["other"])
    elif isinstance(element, BinaryExpression):
        _check_comparison(element)
    elif isinstance(element, Exists):
        return
    elif isinstance(element, UnaryExpression):
        _check_unary(element)
    elif isinstance(element, Case):
        whens = [when for when, _ in element.whens]
        _refuse_any([element.value, *whens], "CASE", ADVICE["expression"])
        values = [then for _, then in element.whens] + ([] if element.else_ is None else [element.else_])
        _check_sources(values, "CASE with another value")
    elif isinstance(element, ClauseList):
        _check_list(element, transparent)
    elif isinstance(element, Cast):
        _refuse_any([element.clause], "CAST", ADVICE["other"])
    elif isinstance(element, ColumnElement) and not isinstance(
        element, Grouping | Label | ScalarSelect | TypeCoerce | ColumnClause | _label_reference
    ):
        _refuse_any(element.get_children(), "an expression", ADVICE["other"])


def _refuse_any(elements: Any, what: str, advice: str, indexes: bool = True) -> None:
    """Raise for a ciphertext among the elements, and for a blind index unless those are allowed there."""
    for element in elements:
        column = concealed(element)
        if column is not None and (indexes or not _is_index(column)):
            refuse(column, what, advice)
        if column is not None:
            _check_sources([column])


def _check_select(statement: Select[Any], transparent: set[int]) -> None:
    transparent |= {id(raw) for raw in statement._raw_columns if isinstance(raw, ClauseList)}
    criteria = [*statement._where_criteria, *statement._having_criteria]
    _refuse_any(criteria, "a condition", ADVICE["expression"])
    _refuse_any(statement._order_by_clauses, "ORDER BY", ADVICE["order"], indexes=False)
    _refuse_any(statement._group_by_clauses, "GROUP BY", ADVICE["group"], indexes=False)
    _refuse_any(statement._distinct_on, "DISTINCT", ADVICE["group"], indexes=False)
    if statement._distinct and not statement._distinct_on:
        _check_distinct(list(statement.selected_columns), "DISTINCT")
    check_texts(statement, criteria, concealed)


def _check_compound(statement: CompoundSelect[Any]) -> None:
    _refuse_any(statement._order_by_clauses, "ORDER BY", ADVICE["order"], indexes=False)
    if statement.keyword not in _WITH_DUPLICATES:
        for one in statement.selects:
            if isinstance(one, SelectBase):
                _check_distinct(list(one.selected_columns), statement.keyword.name)
    check_texts(statement, (), concealed)


def _check_distinct(selected: list[Any], what: str) -> None:
    """Rows are told apart by their ciphertexts, which is right only where their keys tell them apart as well."""
    for element in selected:
        column = concealed(element)
        if column is None or _is_index(column):
            continue
        keys = column.type.column.table.primary_key  # type: ignore[attr-defined]  # an Encrypted type
        if not any(other.shares_lineage(key) for key in keys for other in selected):
            refuse(column, what, ADVICE["group"])


def _check_written(statement: Any) -> None:
    criteria = getattr(statement, "_where_criteria", ())
    _refuse_any(criteria, "a condition", ADVICE["expression"])
    check_texts(statement, criteria, concealed)
    pairs = [] if isinstance(statement, Delete) else [*assigned(statement), *upserted(statement)]
    for target, value in pairs:
        if not isinstance(value, BindParameter) and not is_target(column_of(statement, target)):
            _refuse_any(
                [clause(value)],
                "writing it to another column",
                "it would store ciphertext; write the value from Python",
            )
    source = getattr(statement, "select", None)
    if source is not None:
        advice = "it would store ciphertext; insert the rows from Python"
        _refuse_any([source], "INSERT … FROM SELECT", advice, indexes=False)


def _check_unary(element: UnaryExpression[Any]) -> None:
    ordering = element.modifier in _ORDER
    distinct = element.operator is operators.distinct_op
    what, advice = (
        ("ORDER BY", "order") if ordering else ("DISTINCT", "other") if distinct else ("an operator", "other")
    )
    _refuse_any([element.element], what, ADVICE[advice], indexes=not (ordering or distinct))


def _check_list(element: ClauseList, transparent: set[int]) -> None:
    if id(element) in transparent:
        return
    if isinstance(element, Tuple):
        _refuse_any(element.clauses, "a tuple", "compare each column by itself and join the conditions with and_()")
    # a list of what is grouped or sorted by, in a window; conditions that and_() and or_() join stand for themselves
    conditions = element.operator in (operators.and_, operators.or_)
    what = "a condition" if conditions else "ORDER BY or PARTITION BY"
    _refuse_any(element.clauses, what, ADVICE["expression" if conditions else "group"], indexes=conditions)


def _check_comparison(element: BinaryExpression[Any]) -> None:
    for one, other in ((element.left, element.right), (element.right, element.left)):
        column = concealed(one)
        if column is None or (isinstance(other, Null) and element.operator in (*NULL_TESTS, *EQUALITY)):
            continue
        if not _is_index(column):
            refuse(column, "a comparison with an expression", ADVICE["expression"])
        _check_sources([column])
        if element.operator not in EQUALITY or not _comparable(column.type, other, element.operator in MEMBERSHIP):
            refuse(column, "a comparison with an expression", _NOT_COMPARABLE)


def _comparable(index: Any, other: Any, membership: bool) -> bool:
    """Whether an expression gives values of the same index: what `typed` made, or a column of the same kind."""
    while isinstance(other, Grouping | ScalarSelect | SelectStatementGrouping):
        other = other.element
    if isinstance(other, BindParameter):
        return isinstance(other.type, SearchedIndex) and _same_kind(index, other.type)
    if isinstance(other, ClauseList) and membership:
        return all(isinstance(one, Null) or _comparable(index, one, membership=False) for one in other.clauses)
    if isinstance(other, SelectBase):
        selected = list(other.selected_columns)
        return len(selected) == 1 and _comparable(index, selected[0], membership=False)
    column = concealed(other)
    return column is not None and _is_index(column) and _same_kind(index, column.type)


def _same_kind(one: Any, other: Any) -> bool:
    """Whether equal values have equal indexes in both, or ciphertexts of one open as those of the other do."""
    if isinstance(one, Encrypted) or isinstance(other, Encrypted):
        return type(one) is type(other) and _opened_alike(one) == _opened_alike(other)
    # the type's normalisation: an index's own prepares values of its column's type first
    return one.normalize == other.normalize and all(
        getattr(one.index(), name) == getattr(other.index(), name) for name in ("keyring", "partition", "prefix")
    )


def _opened_alike(type_: Any) -> tuple[Any, ...]:
    return (
        *(type_.keyring, type_.context, type_.partition, type_.bind),
        *(type_.stored_as_text, type_.migrating, type_.on_error, type(type_.inner)),
    )


def _check_parameters(compiled: Any) -> None:
    """A parameter of one name has one type, and a value that is looked for must not share it with another column."""
    kinds: dict[str, Any] = {}
    for parameter, name in (getattr(compiled, "bind_names", None) or {}).items():
        known = kinds.setdefault(name, parameter.type)
        if known is not parameter.type and isinstance(known, SearchedIndex) is not isinstance(
            parameter.type, SearchedIndex
        ):
            raise NotSearchable(f"bindparam({name!r}) is compared with columns of different types; give it two names")
