"""The configured provider for one command: opened, asked, closed; and exit codes for what it answers instead."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from proxy.cli.failure import Failure
from proxy.cli.options import read_config
from proxy.exits import Exit

if TYPE_CHECKING:
    from providers import Capability, Provider

T = TypeVar("T")
Interface = TypeVar("Interface")


def with_provider(config_path: Path, work: "Callable[[Provider], Awaitable[T]]") -> T:
    """Run `work` with the provider of a configuration, and close it. Raises Failure for what the provider answers."""
    from providers import ProviderError
    from proxy import log

    config = read_config(config_path)
    log.configure("warning", "text")

    async def run() -> T:
        async with _configured(config.hsm, config.base) as provider:
            return await work(provider)

    try:
        return asyncio.run(run())
    except ProviderError as error:
        raise Failure(str(error), exit_of(error)) from error


def offered(provider: "Provider", interface: "Callable[..., Interface]", capability: "Capability") -> Interface:
    """`provider` as that interface. Raises Failure with the reason why it lacks it."""
    found = provider.capability(interface)
    if found is None:
        said = (capability.name or "").lower().replace("_", " ")
        raise Failure(f"{provider.name} does not offer this ({said}): {provider.lacks[capability]}", Exit.FAILED)
    return found


def exit_of(error: Exception) -> Exit:
    """The exit code for what a provider raised."""
    from providers import (
        ConfigurationInvalid,
        CredentialsInvalid,
        Denied,
        InputRefused,
        KeyDisabled,
        NotFound,
        ProviderError,
        RetryableError,
    )

    match error:
        case Denied():
            return Exit.DENIED
        case RetryableError():
            return Exit.TRY_LATER
        case InputRefused():
            return Exit.DATA
        case ConfigurationInvalid() | CredentialsInvalid() | NotFound() | KeyDisabled():
            return Exit.CONFIG
        case ProviderError():
            return Exit.FAILED
        case _:
            return Exit.DEFECT


@asynccontextmanager
async def _configured(hsm: dict[str, object], base: Path) -> "AsyncIterator[Provider]":
    from providers import create

    provider = create(hsm, base)
    try:
        yield provider
    finally:
        await provider.close()
