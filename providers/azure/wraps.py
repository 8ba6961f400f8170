"""How each mechanism wraps a key and binds it to its context: docs/spec/wrap.md, Azure Key Vault."""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import Final

from providers.azure.key_vault import KeyVault, binary
from providers.azure.names import KeyName
from providers.azure.options import A256GCM, A256KW, MECHANISMS, OAEP, SIGNED_OAEP
from providers.azure.signatures import HEAD_BYTES, UNSIGNED, Signatures
from providers.errors import ForeignWrap, Tampered, Unavailable
from providers.wiping import wipe

NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
DIGEST_BYTES: Final = 32
SECRET_BYTES: Final = 32  # what is wrapped: a data key, or the key of a directly encrypted value
OAEP_BYTES: Final = (256, 384, 512)  # RSA-2048, -3072, -4096
KW_BYTES: Final = DIGEST_BYTES + SECRET_BYTES + 8

_REFUSED: Final = (
    "the wrap does not authenticate: its bytes were changed, or it belongs to another data key, keyring, partition or "
    "purpose; restore that keystore row from a backup"
)


class Wraps:
    """Wraps 32 bytes under any key of one vault. Every operation on secret bytes is the service's."""

    def __init__(self, vault: KeyVault, signatures: Signatures, *, accept_unsigned: bool) -> None:
        self._vault = vault
        self._signatures = signatures
        self._accept_unsigned = accept_unsigned

    async def seal(self, mechanism: str, kek: KeyName, secret: bytes | bytearray, context: bytes) -> bytes:
        """Wrap `secret` under a version of a key."""
        if mechanism == A256GCM:
            return await self.gcm_seal(kek, secret, context)
        payload = bytearray(sha256(context).digest()) + secret
        try:
            alg = A256KW if mechanism == A256KW else OAEP
            sealed = binary(await self._vault.operate(kek, "wrapkey", alg, payload), "value")
        finally:
            wipe(payload)
        if len(sealed) not in ((KW_BYTES,) if mechanism == A256KW else OAEP_BYTES):
            raise Unavailable(f"{kek} answered with a wrap of {len(sealed)} bytes: is the endpoint a vault?")
        return (await self._signatures.sign(kek, context, sealed) if mechanism == SIGNED_OAEP else b"") + sealed

    async def unseal(self, mechanism: str, kek: KeyName, blob: bytes, context: bytes, asked: KeyName) -> bytearray:
        """Undo `seal`; the caller wipes the result. `kek` is the name in the row, `asked` that key at the endpoint.

        Raises ForeignWrap, Tampered.
        """
        match mechanism:
            case "A256GCM":
                return await self.gcm_unseal(asked, blob, context)
            case "A256KW":
                payload = await self._unwrap(asked, A256KW, blob, (KW_BYTES,))
            case "RSA-OAEP-256+ES256":
                head, sealed = blob[:HEAD_BYTES], blob[HEAD_BYTES:]
                if len(sealed) not in OAEP_BYTES:
                    raise Tampered(UNSIGNED)
                await self._signatures.check(kek, context, head, sealed)
                payload = await self._unwrap(asked, OAEP, sealed, OAEP_BYTES)
            case "RSA-OAEP-256":
                self._require_unsigned_accepted()
                payload = await self._unwrap(asked, OAEP, blob, OAEP_BYTES)
            case _:
                raise ForeignWrap(
                    f"AZURE_KEY_VAULT wraps with {', '.join(MECHANISMS)} and not with {mechanism!r}: was this made by "
                    "a later release?"
                )
        return _bound_secret(payload, context)

    async def gcm_seal(self, kek: KeyName, plaintext: bytes | bytearray, associated_data: bytes) -> bytes:
        """Encrypt inside: nonce (12 bytes, the service's own), ciphertext, tag (16 bytes)."""
        answer = await self._vault.operate(kek, "encrypt", A256GCM, plaintext, aad=associated_data)
        nonce, sealed, tag = (binary(answer, name) for name in ("iv", "value", "tag"))
        if (len(nonce), len(sealed), len(tag)) != (NONCE_BYTES, len(plaintext), TAG_BYTES):
            raise Unavailable(f"{kek} answered with a ciphertext of another size: is the endpoint a Managed HSM?")
        return nonce + sealed + tag

    async def gcm_unseal(self, kek: KeyName, blob: bytes, associated_data: bytes) -> bytearray:
        """Undo `gcm_seal`. Raises Tampered."""
        if len(blob) < NONCE_BYTES + TAG_BYTES:
            raise Tampered(_REFUSED)
        nonce, sealed, tag = blob[:NONCE_BYTES], blob[NONCE_BYTES:-TAG_BYTES], blob[-TAG_BYTES:]
        return await self._vault.reveal(kek, "decrypt", A256GCM, sealed, iv=nonce, tag=tag, aad=associated_data)

    async def _unwrap(self, kek: KeyName, alg: str, sealed: bytes, sizes: tuple[int, ...]) -> bytearray:
        if len(sealed) not in sizes:
            raise Tampered(_REFUSED)
        return await self._vault.reveal(kek, "unwrapkey", alg, sealed)

    def _require_unsigned_accepted(self) -> None:
        if not self._accept_unsigned:
            raise Tampered(
                f"the wrap has no signature, so that whoever has the public key could have made it: where {OAEP} was "
                f"in use before {SIGNED_OAEP}, set hsm.acceptUnsigned until all data keys are wrapped anew"
            )


def _bound_secret(payload: bytearray, context: bytes) -> bytearray:
    """Check the digest of the context in front of the secret, and return the secret. Wipes `payload`."""
    try:
        if len(payload) != DIGEST_BYTES + SECRET_BYTES or not hmac.compare_digest(
            payload[:DIGEST_BYTES], sha256(context).digest()
        ):
            raise Tampered(_REFUSED)
        secret = bytearray(SECRET_BYTES)
        with memoryview(payload) as view:
            secret[:] = view[DIGEST_BYTES:]
        return secret
    finally:
        wipe(payload)
