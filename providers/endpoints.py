"""Where a back end is: `https://HOST:PORT`, nothing looser, since its spelling decides whether there is TLS."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

_ORIGIN: Final = re.compile(r"https?://[!-~]+")
_AFTER_HOST: Final = frozenset("?#@\\")


def is_origin(text: str) -> bool:
    """Whether it is `https://HOST`, `http://HOST` or either with a port, in printable ASCII, and no more.

    The scheme is in lower case: urlsplit would forgive capitals, blanks and tabs that other readers do not.
    """
    if not _ORIGIN.fullmatch(text) or not _AFTER_HOST.isdisjoint(text):
        return False
    try:
        url = urlsplit(text)
        return bool(url.hostname) and url.port != 0 and url.path in ("", "/")
    except ValueError:
        return False


def is_tls(origin: str) -> bool:
    """Whether what is sent to an origin is protected by TLS."""
    return urlsplit(origin).scheme == "https"


def is_in_clear(origin: str) -> bool:
    """Whether what is sent to an origin crosses a network in the clear: it is `http` to another machine."""
    return not is_tls(origin) and not is_loopback(origin)


def is_loopback(origin: str) -> bool:
    """Whether an origin is on this machine."""
    host = urlsplit(origin).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
