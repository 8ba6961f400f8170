"""load_only() and defer() beside bound columns: what these are bound to is loaded all the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import exc, inspect
from sqlalchemy.orm import Load

from keyside.sqlalchemy.types import Encrypted, encrypted_columns

_DEFERRED = ("deferred", True)


def loading_what_is_needed(statement: Any) -> Any:
    """The statement, loading what bound columns need where its options leave that out."""
    kept: list[Any] = []
    added: dict[Any, Any] = {}
    for option in statement._with_options:
        if _DEFERRED in (getattr(option, "strategy", None) or ()):
            # defer("*"): of every entity that is selected
            for described in statement.column_descriptions:
                if described["entity"] is not None:
                    _add(added, inspect(described["entity"]), [])
        deferring = [one for one in getattr(option, "context", ()) if _DEFERRED in (one.strategy or ())]
        for element in deferring:
            path = list(element.path.natural_path[:-1])
            _add(added, path[0], path[1:])
        kept.append(_without(option, [one for one in deferring if _is_needed(one)]))
    if not added:
        return statement
    statement = statement._generate()
    statement._with_options = tuple(kept)
    return statement.options(*added.values())


def _is_needed(element: Any) -> bool:
    """Whether an option defers, by its name, an attribute that a bound column needs."""
    *_, parent, attribute = element.path.natural_path
    return attribute in needed_attributes(parent.mapper)


def _without(option: Any, elements: list[Any]) -> Any:
    """An option of which some elements are taken back: SQLAlchemy refuses options that contradict each other."""
    if not elements:
        return option
    option = option._generate()
    option.context = tuple(one for one in option.context if not any(one is other for other in elements))
    return option


def needed_attributes(mapper: Any) -> Iterator[Any]:
    """The mapped attributes that bound columns of a mapper need."""
    for table in mapper.tables:
        for column in encrypted_columns(table):
            assert isinstance(column.type, Encrypted)
            for name in column.type.needs:
                needed = table.c.get(name)
                yield from (one for one in mapper.column_attrs if needed is not None and needed in one.columns)


def _add(options: dict[Any, Any], root: Any, path: list[Any]) -> None:
    """Note the option for an entity, reached from `root` over relationships with the mappers between them."""
    place = (root, *path)
    target = place[-1]
    try:
        loader, entity = Load(root.entity), root
        for relationship, following in zip(path[::2], path[1::2], strict=True):
            loader = loader.defaultload(getattr(entity.entity, relationship.key))
            entity = following
        for attribute in needed_attributes(target.mapper):
            loader = loader.undefer(getattr(target.entity, attribute.key))
            options[place] = loader
    except (AttributeError, ValueError, exc.SQLAlchemyError):
        return  # a path of another form: reading says what is missing
