"""Opening the configured provider: at start, where what may pass by itself is waited for, and on reload, where the old
one serves on unless the new one surely can.

ReplacementRefused(Exception)   the provider in use stays; the message says why, for one line of the log
"""

from typing import Final, NamedTuple

from providers import (
    ConfigurationInvalid,
    CredentialsInvalid,
    Denied,
    ForeignWrap,
    NotFound,
    Provider,
    ProviderError,
    RetryableError,
    create,
)
from providers.wiping import wipe
from proxy.config import Config
from proxy.exits import Exit
from proxy.keyring import DataKey
from proxy.keys.wrapping import Wrapping
from proxy.keystore import Keystore, KeystoreError
from proxy.startup import StartupError

EMBEDDED: Final = "LOCAL"
"""The provider that is in this process: what is wrong with its files stays wrong until somebody mends them."""


class Opened(NamedTuple):
    """A provider, and what is wrong with it where that may pass without a restart."""

    provider: Provider
    trouble: str | None


class ReplacementRefused(Exception):
    """The provider in use stays in use."""


async def open_provider(config: Config) -> Opened:
    """Make the configured provider and open it. Raises StartupError for what no waiting will mend.

    A back end that is away is waited for: the first data key that is asked for opens it. So are credentials that
    another machine refuses: they are renewed from outside, and a process that ends and is started again would offer
    them again and again, until the token locks.
    """
    try:
        provider = create(config.hsm, config.base)
    except ConfigurationInvalid as error:
        raise StartupError(str(error), Exit.CONFIG) from error
    try:
        await provider.initialize()
    except RetryableError as error:
        return Opened(provider, f"the provider cannot be reached yet: {error}")
    except ProviderError as error:
        if isinstance(error, CredentialsInvalid) and provider.name != EMBEDDED:
            return Opened(provider, f"the provider does not accept the credentials yet: {error}")
        await provider.close()
        raise StartupError(str(error), Exit.CONFIG) from error
    return Opened(provider, None)


async def try_unwrapping(store: Keystore, provider: Provider, config: Config) -> str | None:
    """Unwrap one stored data key: a wrong root key is found now, and not by the first request. Raises StartupError."""
    try:
        key = await store.any_key(provider.name)
    except KeystoreError as error:
        raise StartupError(str(error), Exit.STORAGE) from error
    if key is None:
        return None
    try:
        await _unwrap(key, provider, config)
    except (NotFound, ForeignWrap, CredentialsInvalid, Denied) as error:
        raise StartupError(f"the provider cannot unwrap what the keystore holds: {error}", Exit.CONFIG) from error
    except ProviderError as error:
        # this key alone may be damaged or disabled, or the provider busy: the others may still serve
        return f"data key {key.id:016x} cannot be unwrapped: {error}"
    return None


async def open_replacement(store: Keystore, config: Config, in_use: str) -> Opened:
    """Make and open the provider of a configuration that was read anew. Raises ReplacementRefused.

    It must unwrap what the keystore holds, except where it is another provider than the one `in_use`: data keys of that
    one are out of its reach, which is `trouble`.
    """
    try:
        provider = create(config.hsm, config.base)
    except ConfigurationInvalid as error:
        raise ReplacementRefused(str(error)) from error
    try:
        await provider.initialize()
        return Opened(provider, await _out_of_reach(store, provider, config, in_use))
    except (ProviderError, KeystoreError) as error:
        await provider.close()
        raise ReplacementRefused(str(error)) from error
    except BaseException:
        await provider.close()
        raise


async def _out_of_reach(store: Keystore, provider: Provider, config: Config, in_use: str) -> str | None:
    key = await store.any_key(provider.name)
    if key is None:
        return None
    if any(wrap.provider == provider.name for wrap in key.wraps):
        await _unwrap(key, provider, config)
        return None
    if provider.name == in_use:
        return None  # out of its reach before, too
    return f"data keys that {in_use} wrapped cannot be unwrapped while {provider.name} is configured"


async def _unwrap(key: DataKey, provider: Provider, config: Config) -> None:
    wipe(await Wrapping(provider).unwrap(key, config.limits.park_timeout / 1000))
