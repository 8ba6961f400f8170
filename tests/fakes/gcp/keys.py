"""Key rings, keys, versions and import jobs.

Pages: https://cloud.google.com/kms/docs/object-hierarchy, .../key-states, .../key-rotation, .../key-wrapping (import).
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.cloud.kms_v1.types import resources

from tests.fakes.gcp.faults import Refusal

Version = resources.CryptoKeyVersion
State = Version.CryptoKeyVersionState
Algorithm = Version.CryptoKeyVersionAlgorithm
Purpose = resources.CryptoKey.CryptoKeyPurpose

_RING = re.compile(r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+")
_ID = re.compile(r"[a-zA-Z0-9_-]{1,63}")
_MAGIC = b"\x0a\x24\x00"
_DEFAULT_DELAY = timedelta(days=30)


@dataclass
class KeyVersion:
    """A version: what the service shows of it, and its key material."""

    shown: Any  # CryptoKeyVersion, the protobuf message
    aead: AESGCM | None = None
    private: ec.EllipticCurvePrivateKey | None = None

    def usable(self) -> KeyVersion:
        """Itself, when it is enabled."""
        if self.shown.state != State.ENABLED:
            state = State(self.shown.state).name
            raise Refusal(
                "FAILED_PRECONDITION",
                f"{self.shown.name} is not enabled, current state is: {state}.",
                violation=f"KEY_{state}",
                subject=self.shown.name,
            )
        return self

    def digest_signature(self, digest: bytes) -> bytes:
        if self.private is None:
            raise Refusal("INVALID_ARGUMENT", f"{self.shown.name} cannot be used for signing.")
        return self.private.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))

    def public_pem(self) -> bytes:
        if self.private is None:
            raise Refusal("INVALID_ARGUMENT", f"{self.shown.name} has no public key.")
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


@dataclass
class Key:
    """A CryptoKey with its versions."""

    shown: Any  # CryptoKey, without its primary
    tag: bytes = field(default_factory=lambda: secrets.token_bytes(4))
    versions: list[KeyVersion] = field(default_factory=list)
    primary: KeyVersion | None = None

    def message(self) -> Any:
        """The key as GetCryptoKey answers it."""
        shown = type(self.shown)()
        shown.CopyFrom(self.shown)
        if self.primary is not None:
            shown.primary.CopyFrom(self.primary.shown)
        return shown

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> tuple[KeyVersion, bytes]:
        if self.shown.purpose != Purpose.ENCRYPT_DECRYPT or self.primary is None:
            raise Refusal("FAILED_PRECONDITION", f"{self.shown.name} has no primary version to encrypt with.")
        version = self.primary.usable()
        assert version.aead is not None
        nonce = os.urandom(12)
        number = self.versions.index(version).to_bytes(2, "big")
        sealed = version.aead.encrypt(nonce, plaintext, associated_data)
        return version, _MAGIC + self.tag + number + nonce + sealed

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> tuple[KeyVersion, bytes]:
        head, number = ciphertext[:7], int.from_bytes(ciphertext[7:9], "big")
        if head != _MAGIC + self.tag or len(ciphertext) < 37 or number >= len(self.versions):
            raise Refusal("INVALID_ARGUMENT", "Decryption failed: verify that 'name' refers to the correct CryptoKey.")
        version = self.versions[number].usable()
        assert version.aead is not None
        try:
            return version, version.aead.decrypt(ciphertext[9:21], ciphertext[21:], associated_data)
        except InvalidTag:
            raise Refusal("INVALID_ARGUMENT", "Decryption failed: the ciphertext is invalid.") from None

    def add_version(self, algorithm: int, imported: bytes | None = None, job: str = "") -> KeyVersion:
        shown = Version.pb()(
            name=f"{self.shown.name}/cryptoKeyVersions/{len(self.versions) + 1}",
            state=State.ENABLED,
            protection_level=self.shown.version_template.protection_level,
            algorithm=algorithm,
            import_job=job,
        )
        now = datetime.now(UTC)
        shown.create_time.FromDatetime(now)
        (shown.generate_time if imported is None else shown.import_time).FromDatetime(now)
        if shown.protection_level == resources.ProtectionLevel.HSM and imported is None:
            shown.attestation.format = resources.KeyOperationAttestation.AttestationFormat.CAVIUM_V2_COMPRESSED
            shown.attestation.content = b"attested"
        version = KeyVersion(shown)
        if algorithm == Algorithm.GOOGLE_SYMMETRIC_ENCRYPTION:
            version.aead = AESGCM(imported or os.urandom(32))
        else:
            version.private = _signing_key(imported)
        self.versions.append(version)
        return version


def _signing_key(imported: bytes | None) -> ec.EllipticCurvePrivateKey:
    if imported is None:
        return ec.generate_private_key(ec.SECP256R1())
    try:
        key = serialization.load_der_private_key(imported, None)
    except ValueError:
        raise Refusal("INVALID_ARGUMENT", "The imported key material is not a PKCS #8 private key.") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Refusal("INVALID_ARGUMENT", "The imported key material does not fit the algorithm.")
    return key


@dataclass
class ImportJob:
    """A wrapping key whose private half stays here."""

    shown: Any
    private: rsa.RSAPrivateKey
    polls_until_active: int = 1  # the key is being generated when the job was just made

    def unwrap(self, wrapped: bytes) -> bytes:
        """RSA_OAEP_3072_SHA256_AES_256: an AES-256 key by RSA-OAEP, then the material by AES-KWP (RFC 5649)."""
        size = self.private.key_size // 8
        try:
            kek = self.private.decrypt(
                wrapped[:size], padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
            )
            return keywrap.aes_key_unwrap_with_padding(kek, wrapped[size:])
        except (ValueError, keywrap.InvalidUnwrap):
            raise Refusal("INVALID_ARGUMENT", "The wrapped key material could not be unwrapped.") from None


class Keys:
    """Everything stored; rings come into being with the first key in them unless `strict`."""

    def __init__(self) -> None:
        self.rings: set[str] = set()
        self.keys: dict[str, Key] = {}
        self.jobs: dict[str, ImportJob] = {}

    def key(self, name: str) -> Key:
        if (key := self.keys.get(name)) is None:
            raise Refusal("NOT_FOUND", f"CryptoKey {name} not found.")
        return key

    def version(self, name: str) -> KeyVersion:
        key = self.key(name.rpartition("/cryptoKeyVersions/")[0])
        for version in key.versions:
            if version.shown.name == name:
                return version
        raise Refusal("NOT_FOUND", f"CryptoKeyVersion {name} not found.")

    def create(self, ring: str, key_id: str, asked: Any, skip_version: bool) -> Key:
        name = self._new_name(ring, "cryptoKeys", key_id, self.keys)
        key = Key(type(asked)())
        key.shown.CopyFrom(asked)
        key.shown.name = name
        key.shown.create_time.FromDatetime(datetime.now(UTC))
        if not key.shown.HasField("destroy_scheduled_duration"):
            key.shown.destroy_scheduled_duration.FromTimedelta(_DEFAULT_DELAY)
        template = key.shown.version_template
        template.protection_level = template.protection_level or resources.ProtectionLevel.SOFTWARE
        template.algorithm = template.algorithm or Algorithm.GOOGLE_SYMMETRIC_ENCRYPTION
        if not skip_version:
            version = key.add_version(template.algorithm)
            key.primary = version if key.shown.purpose == Purpose.ENCRYPT_DECRYPT else None
        self.keys[name] = key
        return key

    def create_job(self, ring: str, job_id: str, asked: Any) -> ImportJob:
        name = self._new_name(ring, "importJobs", job_id, self.jobs)
        if asked.import_method != resources.ImportJob.ImportMethod.RSA_OAEP_3072_SHA256_AES_256:
            raise Refusal("INVALID_ARGUMENT", "This server has one import method: RSA_OAEP_3072_SHA256_AES_256.")
        shown = type(asked)()
        shown.CopyFrom(asked)
        shown.name = name
        shown.state = resources.ImportJob.ImportJobState.PENDING_GENERATION
        job = ImportJob(shown, rsa.generate_private_key(65537, 3072))
        self.jobs[name] = job
        return job

    def job(self, name: str) -> ImportJob:
        if (job := self.jobs.get(name)) is None:
            raise Refusal("NOT_FOUND", f"ImportJob {name} not found.")
        if job.polls_until_active:
            job.polls_until_active -= 1
        else:
            job.shown.state = resources.ImportJob.ImportJobState.ACTIVE
            job.shown.public_key.pem = (
                job.private.public_key()
                .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
                .decode()
            )
        return job

    def destroy(self, version: KeyVersion) -> None:
        """Schedule destruction; the delay is the key's."""
        if version.shown.state not in (State.ENABLED, State.DISABLED):
            version.usable()
        key = self.key(version.shown.name.rpartition("/cryptoKeyVersions/")[0])
        version.shown.state = State.DESTROY_SCHEDULED
        version.shown.destroy_time.FromDatetime(datetime.now(UTC) + key.shown.destroy_scheduled_duration.ToTimedelta())

    def of_ring(self, ring: str) -> Iterator[Key]:
        return (key for name, key in self.keys.items() if name.startswith(f"{ring}/cryptoKeys/"))

    def _new_name(self, ring: str, kind: str, new_id: str, taken: dict[str, Any]) -> str:
        if not _RING.fullmatch(ring) or not _ID.fullmatch(new_id):
            raise Refusal("INVALID_ARGUMENT", f"Resource name [{ring}/{kind}/{new_id}] is malformed.")
        if ring not in self.rings:
            raise Refusal("NOT_FOUND", f"KeyRing {ring} not found.")
        name = f"{ring}/{kind}/{new_id}"
        if name in taken:
            raise Refusal("ALREADY_EXISTS", f"{name} already exists.")
        return name
