"""AWS_KMS: the key-encryption key lives in AWS KMS."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from providers.aws import custody, trail
from providers.aws.names import account_of, addressed, is_key_arn, recorded
from providers.aws.options import AwsOptions
from providers.aws.refusals import wrong_kind_of_key
from providers.aws.transport import Transport
from providers.backend import Backend
from providers.capabilities import (
    MAX_PLAINTEXT_BYTES,
    AuditRecord,
    Capability,
    Ciphertext,
    ComplianceInfo,
    DeletesKeys,
    Encrypts,
    GeneratesKeys,
    ImportsKeys,
    KeepsAuditLogs,
    KeyReference,
    KeySpecification,
    ReportsCompliance,
    Signature,
    Signs,
)
from providers.errors import (
    CredentialsInvalid,
    ForeignWrap,
    InputRefused,
    KeyDisabled,
    NotFound,
    Tampered,
    Unavailable,
)
from providers.interface import HealthStatus, Probe, WrappedKey
from providers.pool import PoolUsage
from providers.sdk import sdk_missing
from providers.wiping import wipe
from providers.wrap_context import WrapContext

if TYPE_CHECKING:
    from providers.aws.client import KeyFacts, KmsClient

MECHANISM: Final = "SYMMETRIC_DEFAULT"
EMPTY: Final = "SYMMETRIC_DEFAULT of nothing"  # KMS encrypts one byte at least
SIGNING: Final = "ECDSA_SHA_256"
MAX_BLOB_BYTES: Final = 6144

Answer = TypeVar("Answer")

_log = logging.getLogger(__name__)


class AwsProvider(Backend, Encrypts, Signs, GeneratesKeys, ImportsKeys, DeletesKeys, KeepsAuditLogs, ReportsCompliance):
    """Every wrap is an Encrypt and every unwrap a Decrypt of AWS KMS, the context of the wrap its encryption context.

    GenerateDataKey is not used: the data key exists before its wrap does (the data plane drew it in locked memory), so
    a wrap is one call either way, and with GenerateDataKey a key could not be wrapped by several back ends.
    """

    name: ClassVar[str] = "AWS_KMS"
    capabilities: Capability = ~Capability.SESSIONS
    lacks: Mapping[Capability, str] = {
        Capability.SESSIONS: "each request to AWS KMS is signed by itself: there is nothing to log in to"
    }

    def __init__(self, options: AwsOptions, base: Path) -> None:
        super().__init__(options, base)
        self._options = options
        self._base = base
        self._transport = Transport(
            size=options.performance.connection_pool_size, max_age=options.performance.connection_max_age
        )
        self._retired = frozenset(recorded(arn) for arn in options.retired_keks)
        self._kms: KmsClient | None = None
        self._kek: str | None = None

    async def _open(self) -> None:
        client = await asyncio.to_thread(_sdk)
        kms: KmsClient = await client.KmsClient.open(self._options, self._base, self._transport)
        facts = await kms.describe(self._options.kek)
        if (facts.usage, facts.spec) != ("ENCRYPT_DECRYPT", MECHANISM):
            raise wrong_kind_of_key(self._options.kek, facts.usage, facts.spec)
        self._kms = kms
        self._adopt(facts)

    async def _check(self) -> tuple[HealthStatus, str]:
        facts = await self._ask(lambda kms: kms.describe(self._options.kek))
        _require_enabled(facts)
        self._adopt(facts)
        try:
            await self._ask(lambda kms: kms.may_decrypt(facts.kek))
        except InputRefused:
            return HealthStatus.OK, f"{facts.kek} is enabled; whether Decrypt is permitted this endpoint cannot tell"
        return HealthStatus.OK, f"{facts.kek} is enabled, and Decrypt is permitted"

    async def _wrap(self, key: bytes | bytearray, context: WrapContext) -> WrappedKey:
        kek = self._in_use()
        sealed = await self._ask(lambda kms: kms.encrypt(kek, key, context.as_strings()))
        return WrappedKey(self.name, sealed.kek, MECHANISM, sealed.blob)

    async def _unwrap(self, wrapped: WrappedKey, context: WrapContext) -> bytearray:
        if wrapped.mechanism != MECHANISM:
            raise ForeignWrap(
                f"AWS_KMS wraps with {MECHANISM} alone, not {wrapped.mechanism!r}: was it a later release?"
            )
        _require_blob(wrapped.blob)
        self._require_ours(wrapped.kek)
        return await self._ask(lambda kms: kms.decrypt(wrapped.kek, wrapped.blob, context.as_strings()))

    async def encrypt(
        self, plaintext: bytes | bytearray, associated_data: bytes = b"", *, key: str | None = None
    ) -> Ciphertext:
        """Encrypt at most 4,096 bytes in AWS KMS. Raises InputRefused, NotFound."""
        if len(plaintext) > MAX_PLAINTEXT_BYTES:
            raise InputRefused(f"at most {MAX_PLAINTEXT_BYTES} bytes: encrypt longer values under a data key")
        mechanism = MECHANISM if plaintext else EMPTY

        async def call() -> Ciphertext:
            context = _value_context(mechanism, associated_data)
            sealed = await self._ask(lambda kms: kms.encrypt(key or self._in_use(), plaintext or b"\0", context))
            return Ciphertext(sealed.kek, mechanism, sealed.blob)

        return await self.bounded("encrypt", call)

    async def decrypt(self, ciphertext: Ciphertext, associated_data: bytes = b"") -> bytearray:
        """Undo `encrypt`; the caller wipes the result. Raises Tampered, NotFound, ForeignWrap."""
        if ciphertext.mechanism not in (MECHANISM, EMPTY):
            raise ForeignWrap(f"AWS_KMS encrypts with {MECHANISM} alone: this came from elsewhere")
        _require_blob(ciphertext.blob)

        async def call() -> bytearray:
            context = _value_context(ciphertext.mechanism, associated_data)
            plaintext = await self._ask(lambda kms: kms.decrypt(ciphertext.kek, ciphertext.blob, context))
            return plaintext if ciphertext.mechanism == MECHANISM else bytearray()

        return await self.bounded("decrypt", call)

    async def sign(self, data: bytes, *, key: str) -> Signature:
        """Sign with ECDSA on P-256 and SHA-256; only the digest is sent. Raises NotFound, KeyDisabled, InputRefused."""
        digest = hashlib.sha256(data).digest()
        return await self.bounded("sign", lambda: self._ask(lambda kms: custody.sign(kms, key, digest)))

    async def verify(self, data: bytes, signature: Signature) -> None:
        """Let AWS KMS verify a signature that it made. Raises Tampered, ForeignWrap, NotFound."""
        if signature.algorithm != SIGNING:
            raise ForeignWrap(f"AWS_KMS signs with {SIGNING} alone: this signature came from elsewhere")
        digest = hashlib.sha256(data).digest()
        await self.bounded("verify", lambda: self._ask(lambda kms: custody.verify(kms, signature, digest)))

    async def generate_key(self, specification: KeySpecification) -> KeyReference:
        """Make a key, and `alias/LABEL` for it. Raises InputRefused, Denied, and ProviderError for a doubtful end."""
        return await self.bounded(
            "generate_key",
            lambda: self._ask(lambda kms: custody.generate(kms, specification)),
            making=custody.tagged(specification),
        )

    async def import_key(self, specification: KeySpecification, material: bytearray) -> KeyReference:
        """Bring in 32 bytes, or a P-256 key as DER PKCS #8; `material` is wiped. Raises InputRefused, Denied."""
        try:
            return await self.bounded(
                "import_key",
                lambda: self._ask(lambda kms: custody.bring_in(kms, specification, material)),
                making=custody.tagged(specification),
            )
        finally:
            wipe(material)

    async def delete_key(self, key: str) -> None:
        """Have a key deleted after `hsm.deletionWindow` days; AWS KMS can cancel it until then.

        Raises NotFound; InputRefused for a key that is configured, since it would serve no more from that moment on.
        """
        window = self._options.deletion_window

        async def call(kms: KmsClient) -> None:
            await custody.schedule_deletion(kms, key, window, frozenset({self._in_use(), *self._retired}))

        await self.bounded("delete_key", lambda: self._ask(call))

    async def get_audit_logs(self, since: datetime, until: datetime, limit: int = 1000) -> Sequence[AuditRecord]:
        """CloudTrail's events about the key, minutes late; what this process recorded where they may not be read."""

        async def call() -> Sequence[AuditRecord] | None:
            return await self._ask(lambda kms: trail.events(kms, self._in_use(), since, until, limit))

        events = await self.bounded("get_audit_logs", call)
        return self.recorded(since, until, limit) if events is None else events

    async def get_compliance_info(self) -> ComplianceInfo:
        """What AWS KMS says of the key, and what AWS publishes of its HSMs."""
        return await self.bounded(
            "get_compliance_info", lambda: self._ask(lambda kms: custody.claims(kms, self._in_use()))
        )

    def probes(self) -> Sequence[Probe]:
        """Who we are, the key, and the two permissions that serving needs."""
        return [
            Probe("credentials", lambda: self.bounded("identity", lambda: self._ask(_who))),
            Probe("key-encryption key", lambda: self.bounded("describe", self._described)),
            Probe(
                "permission to wrap", lambda: self._permitted("Encrypt", lambda kms: kms.may_encrypt(self._in_use()))
            ),
            Probe(
                "permission to unwrap", lambda: self._permitted("Decrypt", lambda kms: kms.may_decrypt(self._in_use()))
            ),
        ]

    def pool_usage(self) -> PoolUsage | None:
        """The HTTP connections to AWS KMS."""
        return self._transport.usage

    def _wraps_with(self) -> tuple[str | None, str]:
        return self._kek, MECHANISM

    async def _close(self) -> None:
        self._kms = None
        self._kek = None
        await self._transport.close()

    async def _ask(self, call: Callable[[KmsClient], Awaitable[Answer]]) -> Answer:
        """Call, and have refused credentials read or fetched anew: by a retry of this call if they were good before."""
        kms = self._kms
        assert kms is not None  # operations run on an open back end
        try:
            return await call(kms)
        except CredentialsInvalid as error:
            if self._kms is kms:
                self._invalidate()
            if kms.proven:
                raise Unavailable(
                    f"credentials that were good are refused now, new ones are fetched: {error}"
                ) from None
            raise

    async def _described(self) -> str:
        facts = await self._ask(lambda kms: kms.describe(self._options.kek))
        _require_enabled(facts)
        return f"{facts.kek}, {facts.spec}, origin {facts.origin}, {facts.state}"

    async def _permitted(self, operation: str, call: Callable[[KmsClient], Awaitable[None]]) -> str:
        await self.bounded(operation, lambda: self._ask(call))
        return f"kms:{operation} is permitted"

    def _require_ours(self, kek: str) -> None:
        """Whoever can write the keystore could otherwise name a key of their own account, and a data key they know."""
        # an alias would mean another key tomorrow, and the answer could not be held against it
        named = is_key_arn(addressed(kek, "any-region-1"))
        if named and (account_of(kek) == account_of(self._in_use()) or kek in self._retired):
            return
        raise NotFound(
            f"this data key was wrapped under {kek}, which is no key of the account of {self._in_use()}: name its ARN "
            "in hsm.retiredKeks if it is yours"
        )

    def _adopt(self, facts: KeyFacts) -> None:
        if facts.kek != self._kek:
            _log.info("AWS_KMS: key-encryption key %s (%s)", facts.kek, self._options.kek)
        self._kek = facts.kek

    def _in_use(self) -> str:
        assert self._kek is not None
        return self._kek


def _sdk() -> Any:
    try:
        return import_module("providers.aws.client")
    except ModuleNotFoundError as error:
        raise sdk_missing("AWS_KMS", "aws", error) from error


async def _who(kms: KmsClient) -> str:
    return await kms.identity()


def _require_blob(blob: bytes) -> None:
    if not 0 < len(blob) <= MAX_BLOB_BYTES:
        raise Tampered(f"a ciphertext of AWS KMS has 1 to {MAX_BLOB_BYTES} bytes: this one was changed")


def _require_enabled(facts: KeyFacts) -> None:
    match facts.state:
        case "Enabled" | "Updating":
            return
        case "Creating" | "Unavailable":
            raise Unavailable(f"{facts.kek} is not ready ({facts.state}): see its key store")
        case "PendingDeletion" | "PendingReplicaDeletion":
            when = f" on {facts.deletion_at:%Y-%m-%d}" if facts.deletion_at else ""
            raise KeyDisabled(
                f"{facts.kek} will be deleted{when}, and every data key under it be lost: cancel the deletion"
            )
        case state:
            raise KeyDisabled(f"{facts.kek} is in state {state}: enable it, or import its material")


def _value_context(mechanism: str, associated_data: bytes) -> dict[str, str]:
    """The encryption context of a value that is encrypted directly: docs/spec/wrap.md."""
    return {
        "keyside:version": "1",
        "keyside:purpose": "value" if mechanism == MECHANISM else "empty-value",
        "keyside:associated-data": hashlib.sha256(associated_data).hexdigest(),
    }
