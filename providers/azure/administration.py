"""Making, bringing in and deleting keys."""

from __future__ import annotations

import base64
import logging
import os
import re
import secrets
from collections.abc import Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding

from providers.azure import bundles
from providers.azure.bundles import OPERATIONS, Bundle
from providers.azure.key_vault import KeyVault, base64url, binary
from providers.azure.names import KeyName
from providers.azure.options import A256GCM, SIGNED_OAEP, AzureOptions
from providers.capabilities import KeySpecification
from providers.errors import InputRefused, NotFound, ProviderError, RetryableError, Throttled
from providers.http import Method
from providers.wiping import wipe

EXCHANGE_BITS: Final = 4096  # of the key that carries a key into the HSM

_log = logging.getLogger(__name__)

_ALGORITHM: Final = re.compile(r"(?P<kind>AES|RSA|EC)-(?P<size>P?\d{2,4})")
_SIZES: Final = {"AES": ("256",), "RSA": ("2048", "3072", "4096"), "EC": ("P256", "P384", "P521")}
_SIGNING: Final = ("sign", "verify")


async def generate(vault: KeyVault, options: AzureOptions, specification: KeySpecification) -> Bundle:
    """Make a key that stays inside, with the operations of its use alone. Raises InputRefused when it exists."""
    kind, parameters = _parameters(specification, options)
    key = KeyName.parse(_label(specification), vault.url)
    await _require_new(vault, key)
    hsm = "-HSM" if options.key_protection == "HSM" else ""
    body = {
        "kty": kind + hsm,
        **parameters,
        "key_ops": _operations(kind, specification, options),
        **_management(specification),
    }
    made = await _make(vault, key, "POST", f"{key.path}/create", "create", body)
    if specification.use == "wrap" and options.rotate_after is not None:
        await _rotate_after(vault, made.name, options.rotate_after)
    return made


async def bring(vault: KeyVault, options: AzureOptions, specification: KeySpecification, material: bytearray) -> Bundle:
    """Import a key by the service's BYOK protocol: AES as raw bytes, RSA and EC as PKCS#8.

    The caller wipes `material`, once no attempt follows: a wiped key must never be what the next one imports.
    """
    kind, _ = _parameters(specification, options)
    if kind == "oct" and len(material) != 32:
        raise InputRefused("an AES-256 key has 32 bytes")
    if not any(material):
        raise InputRefused("the key is all zeros: was it wiped, or never filled in?")
    key = KeyName.parse(_label(specification), vault.url)
    await _require_new(vault, key)
    exchange = KeyName(vault.url, f"keyside-import-{secrets.token_hex(8)}")
    body = {"kty": "RSA-HSM", "key_size": EXCHANGE_BITS, "key_ops": ["import"]}
    made = await vault.ask("POST", f"{exchange.path}/create", "create", body)
    try:
        blob = transfer_blob(str(bundles.read(made, exchange).name), _public(made), material)
        jwk = {
            "kty": f"{kind}-HSM",
            "key_ops": _operations(kind, specification, options),
            "key_hsm": base64url(blob).decode(),
        }
        return await _make(vault, key, "PUT", key.path, "import", {"key": jwk, **_management(specification)})
    finally:
        vault.afterwards(_discard(vault, exchange))  # not in the caller's time, which may be over


async def delete(vault: KeyVault, options: AzureOptions, key: KeyName) -> None:
    """Delete a key with all its versions. The service keeps it, recoverable, until the date that is logged.

    Raises InputRefused for a version's name and for keys without which stored wraps do not open.
    """
    if key.version is not None:
        raise InputRefused(
            f"the service deletes all versions of a key at once, and never {key} alone: disable that version, or name "
            "the key without a version"
        )
    serving = {options.key.name, options.signing.name, *options.retired}
    if key.name.lower() in {name.lower() for name in serving}:  # the service's names know no case
        raise InputRefused(
            f"{key} is in use: wraps under it are lost with it; take it out of hsm.kek, hsm.signingKey and "
            "hsm.retiredKeks first"
        )
    answer = await vault.ask("DELETE", key.path, "delete")
    recovery = (answer.get("attributes") or {}).get("recoveryLevel")
    _log.warning(
        "AZURE_KEY_VAULT: deleted %s, recoverable until %s (Unix time), recovery level %s",
        key,
        answer.get("scheduledPurgeDate"),
        recovery,
    )


def transfer_blob(kid: str, exchange: rsa.RSAPublicKey, material: bytes | bytearray) -> bytes:
    """A key in transit (Azure: byok-specification): CKM_RSA_AES_KEY_WRAP in the service's JSON."""
    wrapping = os.urandom(32)
    # SHA-1 is the protocol's; OAEP does not lean on its collision resistance
    oaep = padding.OAEP(padding.MGF1(SHA1()), SHA1(), None)  # noqa: S303
    try:
        sealed = exchange.encrypt(wrapping, oaep) + aes_key_wrap_with_padding(wrapping, material)
    finally:
        wipe(wrapping)
    header = f'{{"kid":"{kid}","alg":"dir","enc":"CKM_RSA_AES_KEY_WRAP"}}'
    ciphertext = base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()
    return f'{{"schema_version":"1.0.0","header":{header},"ciphertext":"{ciphertext}","generator":"Keyside"}}'.encode()


async def _discard(vault: KeyVault, exchange: KeyName) -> None:
    try:
        await vault.ask("DELETE", exchange.path, "delete")
    except ProviderError as error:
        _log.warning("AZURE_KEY_VAULT: %s, which carried a key into the vault, was not deleted: %s", exchange, error)


async def _require_new(vault: KeyVault, key: KeyName) -> None:
    try:
        await bundles.look(vault, key)
    except NotFound:
        return
    raise InputRefused(f"{key} exists, and making it again would make a new version of it: choose another label")


async def _make(vault: KeyVault, key: KeyName, method: Method, path: str, what: str, body: Mapping[str, Any]) -> Bundle:
    """Send what makes `key`. An answer that was lost is not retried: the key may be there, and would be refused."""
    try:
        return bundles.read(await vault.ask(method, path, what, body), key)
    except Throttled:
        raise  # before anything was made
    except RetryableError as error:
        raise ProviderError(
            f"whether {key} was made is not known ({error}): see whether it is there; if so, use it, or delete it and "
            "choose another label"
        ) from error


async def _rotate_after(vault: KeyVault, made: KeyName, time: str) -> None:
    action = {"trigger": {"timeAfterCreate": time}, "action": {"type": "Rotate"}}
    path = f"{made.at(None).path}/rotationpolicy"
    try:
        await vault.ask("PUT", path, "rotationpolicy", {"lifetimeActions": [action]})
    except ProviderError as error:
        raise ProviderError(
            f"{made} was made, but has no rotation policy ({error}): set one (az keyvault key rotation-policy update), "
            "or delete the key"
        ) from error


def _label(specification: KeySpecification) -> str:
    if not re.fullmatch(r"[0-9a-zA-Z-]{1,127}", specification.label):
        raise InputRefused("a label has 1 to 127 letters, digits and dashes")
    if specification.administrators or specification.users or specification.multi_region:
        raise InputRefused(
            "who may use a key is said by role assignments, and in which regions it is by the vault: neither can be "
            "set with a key"
        )
    return specification.label


def _parameters(specification: KeySpecification, options: AzureOptions) -> tuple[str, dict[str, Any]]:
    found = _ALGORITHM.fullmatch(specification.algorithm)
    if found is None or found["size"] not in _SIZES[found["kind"]]:
        raise InputRefused("algorithms are AES-256, RSA-2048, RSA-3072, RSA-4096, EC-P256, EC-P384 and EC-P521")
    kind, size = found["kind"], found["size"]
    if (kind == "EC") != (specification.use == "sign") and not (kind == "RSA" and specification.use == "sign"):
        raise InputRefused("AES and RSA keys wrap, EC and RSA keys sign")
    if kind == "AES":
        return "oct", {"key_size": int(size)}
    return kind, {"crv": f"P-{size[1:]}"} if kind == "EC" else {"key_size": int(size)}


def _operations(kind: str, specification: KeySpecification, options: AzureOptions) -> list[str]:
    if specification.use == "sign":
        return list(_SIGNING)
    by_default = A256GCM if kind == "oct" else SIGNED_OAEP
    return list(OPERATIONS[options.mechanism or by_default if kind == "oct" else by_default])


def _management(specification: KeySpecification) -> Mapping[str, Any]:
    return {"attributes": {"enabled": True, "exportable": False}, "tags": dict(specification.tags)}


def _public(made: Mapping[str, Any]) -> rsa.RSAPublicKey:
    n, e = (int.from_bytes(binary(made["key"], name), "big") for name in ("n", "e"))
    return rsa.RSAPublicNumbers(e, n).public_key()
