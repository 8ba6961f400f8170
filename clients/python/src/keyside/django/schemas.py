"""What a model's options and keys say of encrypted columns, which no database can do with ciphertexts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django.db import models
from django.db.models.expressions import F

from keyside.django.telling import bindings, field_named


def refuse_hidden_bindings(model: type[models.Model]) -> None:
    """Raises ValueError when a ciphertext would depend on an encrypted column: errors name rows by their keys."""
    for field in model._meta.local_fields:
        if hasattr(field, "keyring"):
            for name in bindings(field):
                local = field_named(model, name)
                if local is not None and is_hidden(local):
                    raise ValueError(
                        f"{model.__name__}.{field.name} depends on {name!r}, which is encrypted itself, and would stand"
                        " in messages: name a plain field of the row's key"
                    )


def is_hidden(field: Any) -> bool:
    """Whether it is an encrypted field or a blind index."""
    return hasattr(field, "keyring") or hasattr(field, "normalize")


def uses(field: Any) -> Iterator[str]:
    """Where a model's options name an encrypted field as if it had an order, or ever repeated."""
    meta = field.model._meta
    for names in meta.unique_together:
        if field.name in names:
            yield "'unique_together'"
    for option in (*meta.constraints, *meta.indexes):
        if field.name in {name for name, _ in _named(_parts(option))}:
            yield f"{type(option).__name__} {option.name!r}"
    for name in ("ordering", "get_latest_by"):
        told = getattr(meta, name) or ()
        if field.name in {used for used, _ in _named([told] if isinstance(told, str) else told)}:
            yield f"{name!r}"
    for local in meta.local_fields:
        if getattr(local, "generated", False) and field.name in {used for used, _ in _named([local.expression])}:
            yield f"the generated field {local.name!r}"


def compared_indexes(field: Any) -> Iterator[str]:
    """Where a schema compares an index of the field with a value."""
    own = {index.name for index, _ in field.indexes}
    for option in (*field.model._meta.constraints, *field.model._meta.indexes):
        if own & {name for name, compared in _named(_parts(option)) if compared}:
            yield f"{type(option).__name__} {option.name!r}"


def keyed_by(field: Any) -> Iterator[str]:
    """Where rows are found by ciphertexts, or by an index whose values in Python are plaintext."""
    own = [field, *[index for index, _ in field.indexes]]
    if any(one in own for one in field.model._meta.pk_fields):
        yield f"the primary key of {field.model.__name__}"
    for relation in field.model._meta.related_objects:
        if any(one in own for one in getattr(relation.field, "foreign_related_fields", ())):
            yield f"{relation.field.model.__name__}.{relation.field.name}"


def _parts(option: Any) -> list[Any]:
    """All that a constraint or an index says of fields: their names, expressions and conditions."""
    parts: list[Any] = []
    for name in ("fields", "include", "expressions", "condition", "check"):
        told = option.__dict__.get(name)  # not the deprecated alias of a condition
        if told is not None:
            parts += told if isinstance(told, list | tuple) else [told]
    return parts


def _named(parts: Iterable[Any]) -> Iterator[tuple[str, bool]]:
    """Names of fields, and whether each is compared with a value. What is asked of NULL alone is left out."""
    for part in parts:
        if isinstance(part, str):
            yield part.lstrip("-").partition("__")[0], False
        elif isinstance(part, F):
            yield part.name.partition("__")[0], False
        elif isinstance(part, models.Q):
            yield from _named_in_condition(part)
        elif isinstance(part, list | tuple):  # of an ExclusionConstraint: an expression and its operator
            yield from _named(part[:1])
        elif hasattr(part, "get_source_expressions"):
            yield from _named(part.get_source_expressions())


def _named_in_condition(condition: models.Q) -> Iterator[tuple[str, bool]]:
    for child in condition.children:
        if isinstance(child, tuple):
            name, _, lookup = child[0].partition("__")
            if lookup != "isnull":
                yield name, not hasattr(child[1], "resolve_expression")
            yield from _named([child[1]] if hasattr(child[1], "resolve_expression") else [])
        else:
            yield from _named([child])
