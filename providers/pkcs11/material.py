"""Key material on its way from a caller, who may give up, to a thread, which may be in the middle of using it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from providers.errors import Unavailable
from providers.wiping import wipe


class Material:
    """A copy of some bytes that is whole for as long as a thread uses it, and wiped by whoever is last.

    Wiping what a thread is about to encrypt would bring in a key of zeros.
    """

    def __init__(self, original: bytearray) -> None:
        self._lying_here = [bytearray(original)]  # `pop` and `append` are atomic: one side has it at a time
        self._given_up = False

    @contextmanager
    def in_use(self) -> Iterator[bytearray]:
        """The bytes, for a thread; several times where an attempt is repeated. Raises Unavailable after `give_up`."""
        if not self._lying_here:
            raise Unavailable("the caller gave up before its key was brought in")
        secret = self._lying_here.pop()
        try:
            yield secret
        finally:
            if self._given_up:
                wipe(secret)
            else:
                self._lying_here.append(secret)

    def give_up(self) -> None:
        """The caller is through: wipe it, or have the thread do it that is using it."""
        self._given_up = True
        while self._lying_here:
            wipe(self._lying_here.pop())
