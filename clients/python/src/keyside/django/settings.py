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

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from keyside.client import Client
from keyside.fields import Send, Unbatched, sender

OPTIONS: Final = {"SOCKET": "path", "TIMEOUT": "timeout", "POOL_SIZE": "pool_size", "RETRIES": "retries"}
POLICIES: Final = ("warn", "error", "allow")

_lock = threading.Lock()
_made: tuple[dict[str, Any], Client] | None = None
_instead: str | None = None
"""Where a test's sidecar listens, whatever the setting says."""


def configured() -> dict[str, Any]:
    """The setting. Raises ImproperlyConfigured."""
    found = getattr(settings, "KEYSIDE", {})
    known = {*OPTIONS, "UNBATCHED"}
    if not isinstance(found, dict) or set(found) - known:
        raise ImproperlyConfigured(f"KEYSIDE: expected a dict with the keys {', '.join(sorted(known))}")
    return found


def unbatched() -> Unbatched:
    """What happens to a value that takes a round trip of its own. Raises ImproperlyConfigured."""
    policy: Unbatched = configured().get("UNBATCHED", "warn")
    if policy not in POLICIES:
        raise ImproperlyConfigured(f"KEYSIDE: UNBATCHED is one of {', '.join(POLICIES)}")
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
            try:
                fresh = Client(**(options | {"path": path}))
            except (TypeError, ValueError) as error:
                raise ImproperlyConfigured(f"KEYSIDE: {error}") from error
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


def send() -> Send:
    """The way to the sidecar that the settings name."""
    return sender(client())
