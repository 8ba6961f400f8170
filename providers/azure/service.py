"""An open vault: its client, the key-encryption key in use, and the wraps that are made with it.

This module imports the SDK and is imported when the provider opens.
"""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path
from typing import Final

from providers.azure import bundles
from providers.azure.bundles import EXPIRES_SOON_SECONDS, Bundle
from providers.azure.connections import Direct, PooledTransport, proxy_of
from providers.azure.identity import is_managed_identity, source
from providers.azure.key_vault import KeyVault
from providers.azure.names import KeyName
from providers.azure.options import OAEP, SIGNED_OAEP, AzureOptions
from providers.azure.signatures import Signatures
from providers.azure.tokens import Tokens
from providers.azure.wraps import Wraps
from providers.errors import NotFound, Tampered
from providers.interface import DATA_KEY_BYTES, HealthStatus
from providers.tls import client_context
from providers.wiping import wipe
from providers.wrap_context import WrapContext

ENTRA: Final = "https://login.microsoftonline.com"
CHALLENGE_CONNECTIONS: Final = 2  # of the SDK's client, beside the direct ones
IDENTITY_CONNECTIONS: Final = 2  # one is enough: tokens are asked for one at a time
PROBE: Final = WrapContext(0, "keyside-health-check", None, "field")

_log = logging.getLogger(__name__)


class Service:
    """Made by `connect`; used from one event loop."""

    def __init__(self, options: AzureOptions, vault: KeyVault) -> None:
        self.vault = vault
        self.mechanism = options.wraps_with
        self._options = options
        self._signatures = Signatures(vault, options.signing)
        accept_unsigned = options.accept_unsigned or self.mechanism == OAEP
        self.wraps = Wraps(vault, self._signatures, accept_unsigned=accept_unsigned)
        self._kek: Bundle | None = None
        self._signing: KeyName | None = None
        self._probe: tuple[KeyName, bytes, bytes] | None = None  # under which version, the wrap, the 32 bytes

    @property
    def kek(self) -> KeyName:
        """The version that wraps now."""
        assert self._kek is not None
        return self._kek.name

    @property
    def signs(self) -> bool:
        """Whether new wraps carry a signature."""
        return self.mechanism == SIGNED_OAEP

    async def find_keys(self) -> bool:
        """Find the current versions of the key-encryption key and, where wraps are signed, of the signing key.

        Returns whether anything changed. Raises what `look` does.
        """
        before = self._kek, self._signing
        await self.look()
        if self.signs:
            self._signing = await self._find_signing_key()
        return before != (self._kek, self._signing)

    async def _find_signing_key(self) -> KeyName:
        try:
            return await self._signatures.open()
        except NotFound as error:
            raise NotFound(
                f"the signing key {self._options.signing} was not found: make a P-256 key of that name with the "
                "operations sign and verify, or name one in hsm.signingKey (what for: docs/providers/azure.md)"
            ) from error

    async def look(self) -> Bundle:
        """Ask for the key-encryption key; follow its rotation. Raises NotFound, KeyDisabled, ConfigurationInvalid."""
        found = await bundles.look(self.vault, self._options.key)
        bundles.require_fit(found, self.mechanism)
        if self._kek is not None and self._kek.name != found.name:
            _log.info("AZURE_KEY_VAULT: %s was rotated: %s wraps from now on", found.name.at(None), found.name.version)
        self._kek = found
        return found

    async def find(self, key: KeyName) -> Bundle:
        """Ask for any key of the vault. Raises NotFound, Denied, KeyDisabled."""
        return await bundles.look(self.vault, key)

    def mechanism_of(self, bundle: Bundle) -> str:
        """What a key that is not the configured one encrypts with."""
        return bundles.default_mechanism(bundle, self.mechanism)

    def at_this_vault(self, kid: str) -> tuple[KeyName, KeyName]:
        """The key version that something was made with, and the same at this vault. Raises NotFound for other vaults.

        No request ever goes to a host that only a row of the keystore names.
        """
        try:
            named = KeyName.parse(kid, "")
        except ValueError:
            raise NotFound(f"{kid!r} is not the URL of a key of Azure Key Vault with its version") from None
        if named.vault not in (self.vault.url, *self._options.former_endpoints) or named.version is None:
            raise NotFound(
                f"{kid} is not a key version of {self.vault.url}: if the backup of another vault was restored there, "
                "name the old one in hsm.formerEndpoints"
            )
        return named, KeyName(self.vault.url, named.name, named.version)

    async def unwrap(self, kek: str, mechanism: str, blob: bytes, context: WrapContext) -> bytearray:
        """Unwrap a row. Raises NotFound for a key that is not, and was not, the key-encryption key."""
        named, asked = self.at_this_vault(kek)
        if named.name not in {self._options.key.name, *self._options.retired}:
            raise NotFound(f"{kek} is not the key-encryption key {self._options.key.name}: name it in hsm.retiredKeks")
        return await self.wraps.unseal(mechanism, named, blob, context.authenticated(), asked)

    async def check(self) -> tuple[HealthStatus, str]:
        """The key as the service sees it, and an unwrap of 32 bytes of our own."""
        await self.find_keys()
        await self.unwrap_probe()
        found = self._kek
        assert found is not None
        left = found.left
        if left is not None and left < EXPIRES_SOON_SECONDS:
            return HealthStatus.DEGRADED, (
                f"{found.name} stops wrapping in {max(0, left) / 86_400:.0f} days: rotate it; it will still unwrap"
            )
        return HealthStatus.OK, f"{found.name}, {self.mechanism}"

    async def wrap_probe(self) -> None:
        """Wrap 32 random bytes, kept with their wrap for `unwrap_probe`."""
        expected = os.urandom(DATA_KEY_BYTES)
        blob = await self.wraps.seal(self.mechanism, self.kek, expected, PROBE.authenticated())
        self._probe = (self.kek, blob, expected)

    async def unwrap_probe(self) -> None:
        """Unwrap them: needs the permission that every cold data key needs. Raises what unwrapping does."""
        if self._probe is None or self._probe[0] != self.kek:
            await self.wrap_probe()
        assert self._probe is not None
        kek, blob, expected = self._probe
        found = await self.unwrap(str(kek), self.mechanism, blob, PROBE)
        if found != expected:
            self._probe = None
            raise Tampered(f"{kek} did not give back what it wrapped: let nothing new be wrapped, and see the vault")
        wipe(found)

    async def close(self) -> None:
        """End connections."""
        await self.vault.close()


async def connect(options: AzureOptions, base: Path) -> Service:
    """Read the TLS files, prepare the credentials, find the keys; leaves nothing open when it raises."""
    performance, audience = options.performance, options.cloud.audience
    size, max_age = performance.connection_pool_size, performance.connection_max_age
    tls, to_proxy = client_context(options.connection.tls, base), proxy_of(options.vault)
    # the SDK's client alone knows its way through a proxy
    direct = None if to_proxy else Direct(options.vault, tls, size, max_age)
    to_vault = PooledTransport(tls, size if direct is None else CHALLENGE_CONNECTIONS, max_age, proxy=to_proxy)
    # a managed identity's endpoint is this machine's own: no proxy leads there
    proxy = None if is_managed_identity(options.cloud) else proxy_of(options.cloud.authority or ENTRA)
    to_identity = PooledTransport(_identity_tls(options, base), IDENTITY_CONNECTIONS, max_age, proxy=proxy)
    tokens = Tokens(source(options.cloud, base, to_identity), audience, to_identity)
    service = Service(options, KeyVault(options.vault, tokens, to_vault, direct, pinned=audience is not None))
    try:
        await service.find_keys()
    except BaseException:
        await service.close()
        raise
    return service


def _identity_tls(options: AzureOptions, base: Path) -> ssl.SSLContext:
    """For the token endpoint: Azure's own has a public certificate, where the vault may have a private one."""
    if options.cloud.authority is not None:
        return client_context(options.connection.tls.model_copy(update={"certificate_file": None}), base)
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if options.connection.tls.ca_file is not None:
        context.load_verify_locations(base / options.connection.tls.ca_file)
    return context
