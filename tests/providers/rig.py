"""What a back end's test module can do to its back end, so that one suite tests them all."""

from __future__ import annotations

import asyncio
import base64
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

from providers import Provider, WrapContext, WrappedKey
from providers.backend import Backend

Fault = Callable[[], Awaitable[None]]


class Rig(ABC):
    """One back end under test. Methods for rows that a back end does not have may be left as they are."""

    @abstractmethod
    def make(self, **performance: object) -> Provider:
        """A new provider, not initialised, with these `performance` settings."""

    @abstractmethod
    def secrets(self) -> list[bytes]:
        """Key material, passphrases and tokens that must never be seen."""

    @abstractmethod
    def unknown_kek(self, wrapped: WrappedKey) -> WrappedKey:
        """The same wrap, naming a key-encryption key that does not exist."""

    def rotate(self) -> None:
        """Give the back end a new key-encryption key (or version); the old one still unwraps."""
        raise AssertionError("declare the row in not_applicable, with a reason")

    def disable(self) -> None:
        """Disable the key-encryption key."""
        raise AssertionError("declare the row in not_applicable, with a reason")

    def unplugged(self) -> AbstractContextManager[None]:
        """While it lasts the back end is away: server down, token pulled."""
        raise AssertionError("declare the row in not_applicable, with a reason")

    def without_credentials(self) -> AbstractContextManager[None]:
        """While it lasts a new provider finds no usable credentials or key."""
        raise AssertionError("declare the row in not_applicable, with a reason")

    @contextmanager
    def faulty(self, provider: Provider, fault: Fault) -> Iterator[None]:
        """While it lasts every unwrap of `provider` meets `fault` where it would reach the back end."""
        assert isinstance(provider, Backend)
        good = provider._unwrap

        async def unwrap(wrapped: WrappedKey, context: WrapContext) -> bytearray:
            await fault()
            return await good(wrapped, context)

        provider._unwrap = unwrap  # type: ignore[method-assign]  # the seam that every back end has
        try:
            yield
        finally:
            provider._unwrap = good  # type: ignore[method-assign]  # as above


class Failing:
    """A fault that raises the given errors in turn, then no more, and counts its calls."""

    def __init__(self, errors: Iterable[Exception]) -> None:
        self._errors = iter(errors)
        self.calls = 0

    async def __call__(self) -> None:
        self.calls += 1
        for error in self._errors:
            raise error


class Hanging:
    """A back end that never answers."""

    async def __call__(self) -> None:
        await asyncio.Event().wait()


def seen(secret: bytes, text: str) -> bool:
    """Whether `text` shows `secret` raw, in hex, in base64 or as Python prints it."""
    forms = (
        secret.hex(),
        base64.b64encode(secret).decode().rstrip("=")[:-1],
        base64.urlsafe_b64encode(secret).decode().rstrip("=")[:-1],
        secret.decode("latin-1"),
        repr(secret)[2:-1],
    )
    return any(form.lower() in text.lower() for form in forms)
