"""Which dialect has a Keyside client. Types know their dialect and nothing else of the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, ref

from sqlalchemy import Engine
from sqlalchemy.engine import Dialect

from keyside.fields import NotInstalled, Send, Unbatched


@dataclass
class Installation:
    """What `install` made of an engine."""

    send: Send
    unbatched: Unbatched
    batching: bool
    """False when the self-check found internals other than expected: every value takes a round trip of its own."""
    engine: ref[Engine]
    listeners: list[tuple[Any, str, Any]] = field(default_factory=list)
    in_binary: WeakSet[Any] = field(default_factory=WeakSet)
    """Compiled statements whose results may come in PostgreSQL's binary format (keyside.fields.formats)."""


_installations: WeakKeyDictionary[Dialect, Installation] = WeakKeyDictionary()


def installation_of(dialect: Dialect) -> Installation | None:
    return _installations.get(dialect)


def register(dialect: Dialect, installation: Installation) -> None:
    _installations[dialect] = installation


def forget(dialect: Dialect) -> Installation | None:
    return _installations.pop(dialect, None)


def installed_engine() -> Engine:
    """The engine that has a client. Raises NotInstalled when there is none, or more than one."""
    engines = [engine for found in _installations.values() if (engine := found.engine()) is not None]
    if len(engines) != 1:
        advice = (
            "say which is meant (bind=engine)" if engines else "call keyside.sqlalchemy.install(engine, client) first"
        )
        raise NotInstalled(f"{len(engines)} engines have a Keyside client; {advice}")
    return engines[0]
