"""Where a partition's value comes from when no column holds it: the code that runs.

    with keyside.context(tenant="acme"):
        session.scalars(select(Patient))        # columns with partition=from_context("tenant")

Values follow the code that set them into tasks and threads as context variables do (PEP 567).
"""

from __future__ import annotations

import enum
import uuid
from collections.abc import Mapping
from contextvars import ContextVar, Token
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple

from keyside.values import InvalidValue

_current: ContextVar[Mapping[str, Any]] = ContextVar("keyside.context", default=MappingProxyType({}))


class FromContext(NamedTuple):
    """A partition that `keyside.context` names."""

    name: str

    def deconstruct(self) -> tuple[str, list[str], dict[str, str]]:
        """What a migration of Django writes in its place."""
        return "keyside.fields.from_context", [self.name], {}


def from_context(name: str) -> FromContext:
    """For `partition=`: the value that the surrounding `with keyside.context(name=…)` gives."""
    return FromContext(name)


class context:  # noqa: N801  read as a statement: with keyside.context(tenant=42)
    """While the block runs, partitions of these names have these values, on top of those of outer blocks."""

    def __init__(self, **values: Any) -> None:
        for value in values.values():
            partition_text(value)  # found where it is set, not in the first query
        self._values = values
        self._tokens: list[Token[Mapping[str, Any]]] = []

    def __enter__(self) -> None:
        self._tokens.append(_current.set(MappingProxyType({**_current.get(), **self._values})))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.reset(self._tokens.pop())


def current(name: str) -> Any:
    """The value of a name, None when no block sets it."""
    return _current.get().get(name)


def partition_text(value: Any) -> str:
    """The partition that a value chooses (docs/spec/values.md). Raises InvalidValue."""
    if type(value) is str or (isinstance(value, str) and not isinstance(value, enum.Enum)):
        return str(value)
    if isinstance(value, enum.Enum):
        return partition_text(value.value) if isinstance(value, str | int) else value.name
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, uuid.UUID):
        return str(value)
    raise InvalidValue(f"a {type(value).__name__} cannot choose a partition; use a str, int, UUID or Enum")
