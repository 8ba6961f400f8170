"""A narrow client of one transit mount: each method is one operation, and raises the errors of `providers.errors`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from providers.errors import Denied, KeyDisabled, NotFound, ProviderError, Tampered
from providers.http import Method
from providers.vault.answers import Unexplained, data, document, failure
from providers.vault.identity import Identity
from providers.vault.server import Answer, Server
from providers.vault.transit import (
    KeyVersion,
    TransitKey,
    decrypt_body,
    encrypt_body,
    plaintext_of,
    versioned,
)
from providers.wiping import wipe

_HEALTH: Final = "sys/health?standbyok=true&perfstandbyok=true"


class Engine:
    """The mount at `mount`; keys are named without it."""

    def __init__(self, server: Server, identity: Identity, mount: str) -> None:
        self._server = server
        self._identity = identity
        self.mount = mount

    async def read_key(self, name: str) -> TransitKey:
        """What the server says of a key. Raises NotFound, Denied."""
        path = f"{self.mount}/keys/{name}"
        answer = await self._identity.call("GET", path)
        if answer.status == 404:
            raise NotFound(
                f"there is no key {path}: make it (bao write -f {path} type=aes256-gcm96), or see hsm.kek, hsm.mount "
                "and hsm.namespace"
            )
        return TransitKey.parse(name, data(answer, f"reading {path}"), f"reading {path}")

    async def encrypt(
        self, name: str, plaintext: bytes | bytearray, associated_data: bytes
    ) -> tuple[KeyVersion, bytes]:
        """Encrypt under the latest version. Raises NotFound, KeyDisabled, Denied."""
        about, body = f"encrypting under {self.mount}/{name}", encrypt_body(plaintext, associated_data)
        try:
            answer = await self._identity.call("POST", f"{self.mount}/encrypt/{name}", body)
        finally:
            wipe(body)
        if answer.status != 200:
            raise await self._explained(failure(answer, about), about, name)
        version, blob = versioned(data(answer, about), "ciphertext", about)
        return KeyVersion(self.mount, name, version), blob

    async def decrypt(self, key: KeyVersion, blob: bytes, associated_data: bytes) -> bytearray:
        """Undo `encrypt`; the caller wipes the result. Raises Tampered, NotFound, KeyDisabled, Denied."""
        about, body = f"decrypting under {key}", decrypt_body(key.version, blob, associated_data)
        answer = await self._identity.call("POST", f"{self.mount}/decrypt/{key.key}", body)
        if answer.status != 200:
            raise await self._explained(failure(answer, about), about, key.key, key.version)
        return plaintext_of(answer, about)

    async def sign(self, name: str, request: Mapping[str, str]) -> tuple[KeyVersion, bytes]:
        """Sign with the latest version. Raises NotFound, KeyDisabled, Denied, InputRefused."""
        about = f"signing with {self.mount}/{name}"
        answer = await self.ask("POST", f"sign/{name}", request)
        version, blob = versioned(data(answer, about), "signature", about)
        return KeyVersion(self.mount, name, version), blob

    async def verify(self, key: KeyVersion, request: Mapping[str, str]) -> None:
        """Raise Tampered unless the signature is good."""
        about = f"verifying with {key}"
        answer = await self.ask("POST", f"verify/{key.key}", request)
        if answer.status != 200:
            raise await self._explained(failure(answer, about), about, key.key, key.version)
        if data(answer, about).get("valid") is not True:
            raise Tampered(f"{about}: the signature is not of this data by this key")

    async def ask(self, method: Method, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """One request below the mount that holds no key."""
        coded = None if body is None else json.dumps(body).encode()
        return await self._identity.call(method, f"{self.mount}/{path}", coded)

    async def who(self) -> str:
        """A line about the token: name, policies, seconds left. Raises Denied, CredentialsInvalid."""
        answer = await self._identity.call("GET", "auth/token/lookup-self", doubting=False)
        if answer.status == 403:
            return "a token that may not look itself up"
        found = data(answer, "looking up the token")
        policies, seconds = found.get("policies"), found.get("ttl")
        names = ", ".join(str(policy) for policy in policies) if isinstance(policies, list) else "unknown"
        ends = f"{seconds} s left" if isinstance(seconds, int) and seconds > 0 else "without an end"
        renewable = ", renewable" if found.get("renewable") is True else ""
        return f"{found.get('display_name') or 'token'}, policies {names}, {ends}{renewable}"

    async def capabilities(self, name: str) -> tuple[frozenset[str], frozenset[str]]:
        """What the token may do with `encrypt/NAME` and `decrypt/NAME`. Raises Denied when it may not ask."""
        paths = [f"{self.mount}/{operation}/{name}" for operation in ("encrypt", "decrypt")]
        body = json.dumps({"paths": paths}).encode()
        answer = await self._identity.call("POST", "sys/capabilities-self", body, doubting=False)
        found = data(answer, "asking for the token's permissions (sys/capabilities-self, in the policy `default`)")
        encrypting, decrypting = (frozenset(found.get(path) or ()) for path in paths)
        return encrypting, decrypting

    async def server_version(self) -> str:
        """The release of a server that serves. Raises Unavailable when it is sealed or not initialised."""
        # its health belongs to the whole server and is asked for outside of any namespace, without a token
        answer = await self._server.call("GET", _HEALTH, in_namespace=False)
        if answer.status == 501:
            raise NotFound("the server is not initialised: bao operator init")
        return str(document(answer, "asking for the server's health").get("version", "unknown"))

    async def _explained(
        self, error: ProviderError, about: str, name: str, version: int | None = None
    ) -> ProviderError:
        """The same error, or a better one found by looking at the key: releases word their refusals differently.

        A token that may only update is denied an unknown key, since encrypting would make it.
        """
        if not isinstance(error, Denied | Unexplained):
            return error
        try:
            key = await self.read_key(name)
        except NotFound as missing:
            return missing
        except ProviderError:
            return error
        if key.soft_deleted:
            return KeyDisabled(f"{about}: the key is soft-deleted: restore it")
        if isinstance(error, Denied) or version is None:
            return error
        if version < key.oldest_usable:
            return KeyDisabled(f"{about}: below the key's min_decryption_version {key.oldest_usable}: lower it")
        if version > key.latest:
            return NotFound(f"{about}: the key has no such version: was it deleted and made anew?")
        return Tampered(f"{about}: it does not authenticate, though its key is good: restore that row from a backup")


def updates(capabilities: frozenset[str]) -> bool:
    """Whether they let a token use an operation."""
    return bool(capabilities & {"update", "root"})


def creates(capabilities: frozenset[str]) -> bool:
    """Whether encrypting to a key that is not there would make it."""
    return bool(capabilities & {"create", "root"})
