"""What the setting KEYSIDE says, and the client that the process has.

KEYSIDE = {
    "SOCKET": "/run/keyside/keyside.sock",   default: $KEYSIDE_SOCKET, else this path
    "TIMEOUT": 10.0,                         seconds a call may take
    "POOL_SIZE": 8,                          connections at most
    "RETRIES": 3,                            how often a retryable refusal is tried again
    "UNBATCHED": "warn",                     "error" or "allow": a value that takes a round trip of its own
}
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from keyside.client import Client
from keyside.fields import Sender, Unbatched

OPTIONS: Final = {"SOCKET": "path", "TIMEOUT": "timeout", "POOL_SIZE": "pool_size", "RETRIES": "retries"}
POLICIES: Final = ("warn", "error", "allow")


def _is_count(least: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and value >= least


RIGHT: Final[dict[str, tuple[str, Callable[[Any], bool]]]] = {
    "SOCKET": ("the path of a socket", lambda value: value is None or isinstance(value, str | os.PathLike)),
    "TIMEOUT": (
        "a number of seconds, more than 0 and at most a day",
        lambda value: type(value) in (int, float) and 0 < value <= 86_400,
    ),
    "POOL_SIZE": ("a number, at least 1", _is_count(1)),
    "RETRIES": ("a number, 0 or more", _is_count(0)),
    "UNBATCHED": (f"one of {', '.join(POLICIES)}", lambda value: value in POLICIES),
}
"""What each key must be, in words and as a test."""

_lock = threading.Lock()
_made: tuple[dict[str, Any], Client] | None = None
_sound: dict[str, Any] | None = None
"""The setting that was looked at last, and found right."""
_instead: str | None = None
"""Where a test's sidecar listens, whatever the setting says."""


def faults_of(found: Any) -> list[str]:
    """What is wrong with a setting, and what is right; empty when nothing is."""
    known = {*OPTIONS, "UNBATCHED"}
    if not isinstance(found, dict) or set(found) - known:
        return [f"expected a dict with the keys {', '.join(sorted(known))}"]
    return [f"{name} is {RIGHT[name][0]}" for name, value in found.items() if not RIGHT[name][1](value)]


def configured() -> dict[str, Any]:
    """The setting. Raises ImproperlyConfigured."""
    global _sound
    found: Any = getattr(settings, "KEYSIDE", {})
    if found != _sound or type(found) is not dict:
        faults = faults_of(found)
        if faults:
            raise ImproperlyConfigured(f"KEYSIDE: {'; '.join(faults)}")
        _sound = dict(found)
    return found  # type: ignore[no-any-return]  # a dict, as was looked at


def unbatched() -> Unbatched:
    """What happens to a value that takes a round trip of its own. Raises ImproperlyConfigured."""
    policy: Unbatched = configured().get("UNBATCHED", "warn")
    return policy


def client() -> Client:
    """The client of this process, made at the first call and anew when the settings change.

    A forked child opens connections of its own. Raises ImproperlyConfigured.
    """
    global _made
    found = configured()
    options = {OPTIONS[name]: value for name, value in found.items() if name in OPTIONS}
    if _instead is not None:
        options["path"] = _instead
    made = _made
    if made is not None and made[0] == options:
        return made[1]
    with _lock:
        if _made is None or _made[0] != options:
            path = options.get("path") or None
            fresh = Client(**(options | {"path": path}))
            if _made is not None:
                _made[1].close()
            _made = (options, fresh)
        return _made[1]


@contextmanager
def sidecar_at(path: str) -> Iterator[None]:
    """For tests: while the block runs, SOCKET of the setting is not believed, so that none of them finds real keys."""
    global _instead
    before, _instead = _instead, path
    try:
        yield
    finally:
        _instead = before


def send() -> Sender:
    """The way to the sidecar that the settings name."""
    return Sender(client())
