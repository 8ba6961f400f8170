"""Overwriting key material that this package made, as soon as it is not needed."""

from __future__ import annotations

import ctypes

_BYTES_HEADER = bytes.__basicsize__ - 1  # CPython: the characters of a bytes object start here; one more is its NUL


def wipe(secret: bytearray | bytes) -> None:
    """Overwrite `secret` with zeros where it lies.

    A `bytes` must be one that nobody else holds and no constant: libraries that answer with `bytes` leave no other way
    to clear what they made. Objects of fewer than two bytes are shared by the interpreter and left alone.
    """
    if isinstance(secret, bytearray):
        secret[:] = bytes(len(secret))
    elif len(secret) > 1:
        ctypes.memset(id(secret) + _BYTES_HEADER, 0, len(secret))
