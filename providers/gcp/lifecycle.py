"""Keys made, brought in and destroyed.

Import is the service's BYOK protocol, https://cloud.google.com/kms/docs/wrapping-a-key: an import job's RSA key of
3,072 bits wraps an AES-256 key by OAEP with SHA-256, and that key wraps the material by AES-KWP (RFC 5649). The steps
are calls of their own, each within requestTimeout; between them the service is asked until it is ready.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from google.cloud.kms_v1.types import CryptoKey, CryptoKeyVersion, CryptoKeyVersionTemplate, ImportJob, ProtectionLevel
from google.iam.v1 import policy_pb2

from providers.capabilities import KeyReference, KeySpecification
from providers.errors import InputRefused, NotFound, Timeout, Unavailable
from providers.gcp import names
from providers.gcp.options import GcpOptions
from providers.gcp.service import CloudKms
from providers.wiping import wipe

READY_WITHIN: Final = 120.0  # seconds that an import job or version may take to be made
ASK_EVERY: Final = 0.25  # seconds

Bounded = Callable[[str, Callable[[], Awaitable[Any]], str | None], Awaitable[Any]]  # Backend.bounded

_Algorithm = CryptoKeyVersion.CryptoKeyVersionAlgorithm
_State = CryptoKeyVersion.CryptoKeyVersionState
_METHOD: Final = ImportJob.ImportMethod.RSA_OAEP_3072_SHA256_AES_256
_USERS: Final = {"wrap": "roles/cloudkms.cryptoKeyEncrypterDecrypter", "sign": "roles/cloudkms.signerVerifier"}
_ADMINISTRATORS: Final = "roles/cloudkms.admin"
_BEING_MADE: Final = (_State.PENDING_GENERATION, _State.PENDING_IMPORT)
_GONE: Final = (_State.DESTROYED, _State.DESTROY_SCHEDULED)


class _Kind(NamedTuple):
    purpose: CryptoKey.CryptoKeyPurpose
    algorithm: CryptoKeyVersion.CryptoKeyVersionAlgorithm


_KINDS: Final = {
    ("wrap", "AES-256"): _Kind(CryptoKey.CryptoKeyPurpose.ENCRYPT_DECRYPT, _Algorithm.GOOGLE_SYMMETRIC_ENCRYPTION),
    ("sign", "EC-P256"): _Kind(CryptoKey.CryptoKeyPurpose.ASYMMETRIC_SIGN, _Algorithm.EC_SIGN_P256_SHA256),
}


class KeyLifecycle:
    """Makes and ends keys of one key ring. Each call runs through `bounded`."""

    def __init__(
        self, service: CloudKms, ring: str, options: GcpOptions, bounded: Bounded, in_use: frozenset[str]
    ) -> None:
        self._service = service
        self._in_use = in_use
        self._ring = ring
        self._options = options
        self._bounded = bounded

    async def generate(self, specification: KeySpecification) -> KeyReference:
        """Make a key with its first version. Raises InputRefused, Denied."""
        key = self._described(specification)
        if specification.use == "wrap":
            period = timedelta(days=self._options.rotation_period)
            key.rotation_period = period
            key.next_rotation_time = datetime.now(UTC) + period
        made = await self._create(specification, key, without_version=False)
        await self._grant(specification, made.name)
        return _reference(f"{made.name}/cryptoKeyVersions/1", specification, made.create_time)

    async def bring_in(self, specification: KeySpecification, material: bytearray) -> KeyReference:
        """Import `material`: 32 bytes to wrap with, or a P-256 key as PKCS #8 DER. Raises InputRefused, Denied."""
        if specification.use == "wrap" and len(material) != 32:
            raise InputRefused("an AES-256 key has 32 bytes")
        key = self._described(specification)
        key.import_only = True
        made = await self._create(specification, key, without_version=True)
        await self._grant(specification, made.name)
        job = await self._import_job()
        request = {
            "parent": made.name,
            "algorithm": _KINDS[specification.use, specification.algorithm].algorithm,
            "import_job": job.name,
            "wrapped_key": wrap_material(job.public_key.pem.encode(), material),
        }
        version = await self._call("import_crypto_key_version", request)
        version = await self._until(
            "get_crypto_key_version", version, lambda found: found.state not in _BEING_MADE, "the imported version"
        )
        if version.state != _State.ENABLED:
            raise InputRefused(
                f"Cloud KMS could not import the key: {version.import_failure_reason or 'no reason given'}"
            )
        if specification.use == "wrap":
            number = version.name.rpartition("/")[2]
            await self._call("update_crypto_key_primary_version", {"name": made.name, "crypto_key_version_id": number})
        return _reference(version.name, specification, version.import_time)

    async def destroy(self, key: str) -> None:
        """Schedule the end of one version, or of all versions when `key` names none. Raises NotFound."""
        name = names.crypto_key(key, self._ring)
        if key in self._in_use or (name in self._in_use and not names.has_version(key)):
            raise InputRefused(f"{key} is configured: data keys under it would be lost; take it out of hsm first")
        if names.has_version(key):
            await self._call("destroy_crypto_key_version", {"name": key})
            return
        versions = await self._bounded("delete_key", lambda: self._living(name), None)
        if not versions:
            raise NotFound(f"{name} has no version left to destroy")
        for version in versions:
            await self._call("destroy_crypto_key_version", {"name": version})

    async def _living(self, key: str) -> list[str]:
        """The versions that are not destroyed yet, all pages of them."""
        found: list[str] = []
        request = {"parent": key, "page_size": 1000, "page_token": ""}
        while True:
            page = await self._service.call("list_crypto_key_versions", request, key)
            found += [version.name for version in page.crypto_key_versions if version.state not in _GONE]
            if not page.next_page_token:
                return found
            request["page_token"] = page.next_page_token

    def _described(self, specification: KeySpecification) -> CryptoKey:
        kind = _KINDS.get((specification.use, specification.algorithm))
        if kind is None:
            known = ", ".join(f"{algorithm} to {use}" for use, algorithm in _KINDS)
            raise InputRefused(f"no {specification.algorithm!r} key to {specification.use} here: choose {known}")
        if not names.is_short(specification.label):
            raise InputRefused(
                "a label has 1 to 63 letters, digits, hyphens and underscores: it becomes the key's name"
            )
        if specification.multi_region and self._single_region():
            raise InputRefused(
                f"keys of {self._ring} live in one region: set hsm.connection.region to a multi-region (europe, us, "
                "eur4) or to global"
            )
        return CryptoKey(
            purpose=kind.purpose,
            version_template=CryptoKeyVersionTemplate(
                algorithm=kind.algorithm, protection_level=ProtectionLevel[self._options.protection_level]
            ),
            labels=dict(specification.tags),
            destroy_scheduled_duration=timedelta(days=self._options.destroy_after),
        )

    def _single_region(self) -> bool:
        """Regions end in a number and contain a hyphen (`europe-west1`); multi-regions do not (`europe`, `eur4`)."""
        return "-" in self._ring.split("/")[3]

    async def _create(self, specification: KeySpecification, key: CryptoKey, *, without_version: bool) -> Any:
        return await self._call(
            "create_crypto_key",
            {
                "parent": self._ring,
                "crypto_key_id": specification.label,
                "crypto_key": key,
                "skip_initial_version_creation": without_version,
            },
            making=names.crypto_key(specification.label, self._ring),
        )

    async def _grant(self, specification: KeySpecification, key: str) -> None:
        """Give the named people and services their role on this key alone. The key is new: nobody has one yet."""
        roles = {_ADMINISTRATORS: specification.administrators, _USERS[specification.use]: specification.users}
        bindings = [policy_pb2.Binding(role=role, members=members) for role, members in roles.items() if members]
        if not bindings:
            return
        policy = await self._call("get_iam_policy", {"resource": key})
        policy.bindings.extend(bindings)
        await self._call("set_iam_policy", {"resource": key, "policy": policy})

    async def _import_job(self) -> Any:
        """A new job, ready: jobs end by themselves after three days and cannot be deleted."""
        asked = ImportJob(import_method=_METHOD, protection_level=ProtectionLevel[self._options.protection_level])
        request = {"parent": self._ring, "import_job_id": f"keyside-{secrets.token_hex(8)}", "import_job": asked}
        job = await self._call("create_import_job", request)
        ready = ImportJob.ImportJobState.ACTIVE
        return await self._until("get_import_job", job, lambda found: found.state == ready, "the import job")

    async def _until(self, method: str, found: Any, done: Callable[[Any], bool], what: str) -> Any:
        """Ask for `found` anew until it is `done`. Raises Timeout after READY_WITHIN seconds."""
        name = found.name
        try:
            async with asyncio.timeout(READY_WITHIN):
                while not done(found):
                    await asyncio.sleep(ASK_EVERY)
                    found = await self._call(method, {"name": name})
        except TimeoutError as error:
            raise Timeout(f"{what} {name} is still not ready after {READY_WITHIN:g} s: import anew later") from error
        return found

    async def _call(self, method: str, request: Mapping[str, Any], making: str | None = None) -> Any:
        resource = next(str(request[part]) for part in ("name", "parent", "resource") if part in request)
        return await self._bounded(method, lambda: self._service.call(method, request, resource), making)


def wrap_material(public_key: bytes, material: bytearray) -> bytes:
    """RSA_OAEP_3072_SHA256_AES_256: an ephemeral AES-256 key by OAEP, 384 bytes, then the material by AES-KWP.

    Raises Unavailable when `public_key` is no RSA key of 3,072 bits.
    """
    key = serialization.load_pem_public_key(public_key)
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size != 3072:
        raise Unavailable("the import job's public key is not RSA of 3,072 bits: its method asked for that")
    ephemeral, copy = os.urandom(32), bytes(memoryview(material))
    try:
        wrapped = keywrap.aes_key_wrap_with_padding(ephemeral, copy)
        return key.encrypt(ephemeral, padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)) + wrapped
    finally:
        wipe(ephemeral)
        wipe(copy)


def _reference(version: str, specification: KeySpecification, made: datetime | None) -> KeyReference:
    return KeyReference(version, specification.algorithm, made)
