"""The gRPC methods, made of the official messages.

Pages: https://cloud.google.com/kms/docs/reference/rpc/google.cloud.kms.v1 and .../kms/docs/data-integrity-guidelines
(a checksum that does not fit is INVALID_ARGUMENT, naming the field), https://cloud.google.com/kms/docs/resource-hierarchy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import google_crc32c
import grpc
from google.cloud.kms_v1.types import resources, service
from google.iam.v1 import iam_policy_pb2, policy_pb2

from tests.fakes.gcp.faults import Fault, Faults, Refusal
from tests.fakes.gcp.identity import Identity
from tests.fakes.gcp.keys import Keys

_KMS: Final = "google.cloud.kms.v1.KeyManagementService"
_IAM: Final = "google.iam.v1.IAMPolicy"
_MAX_PLAINTEXT: Final = 64 * 1024
_MAX_HSM: Final = 8 * 1024  # plaintext and associated data together


def crc32c(data: bytes) -> int:
    return int(google_crc32c.value(data))


@dataclass(frozen=True)
class Method:
    """One method: the permission it needs, on which field of the request, and what it does."""

    request: Any
    permission: str | None
    resource: str
    run: Callable[[Any], Any]


class KmsService:
    """Answers calls. `calls` counts them by method."""

    def __init__(self, keys: Keys, identity: Identity, faults: Faults) -> None:
        self.calls: dict[str, int] = {}
        self.peers: set[str] = set()
        self.busy = 0
        self.most_busy = 0
        self._keys = keys
        self._identity = identity
        self._faults = faults
        self._policies: dict[str, Any] = {}

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        kms = {name: self._handler(name, method) for name, method in self._methods().items()}
        iam = {name: self._handler(name, method) for name, method in self._iam_methods().items()}
        return (
            grpc.method_handlers_generic_handler(_KMS, kms),
            grpc.method_handlers_generic_handler(_IAM, iam),
        )

    def _handler(self, name: str, method: Method) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(
            self._answering(name, method),
            request_deserializer=method.request.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    def _answering(self, name: str, method: Method) -> Callable[[Any, Any], Awaitable[Any]]:
        async def answer(request: Any, context: Any) -> Any:
            self.calls[name] = self.calls.get(name, 0) + 1
            self.peers.add(context.peer())
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
            began = asyncio.get_running_loop().time()
            try:
                answer = await self._answer(name, method, request, context)
                await self._faults.last(began)
                return answer
            except Refusal as refusal:
                await context.abort(refusal.code, refusal.message, refusal.trailers())
            finally:
                self.busy -= 1

        return answer

    async def _answer(self, name: str, method: Method, request: Any, context: Any) -> Any:
        metadata = dict(context.invocation_metadata())
        principal = self._identity.caller(metadata.get("authorization", ""))
        resource = getattr(request, method.resource)
        routing = f"{method.resource}={resource.replace('/', '%2F')}"
        if metadata.get("x-goog-request-params") not in (routing, routing.replace("%2F", "/")):
            raise Refusal("INVALID_ARGUMENT", "The routing header is missing: calls must name their resource in it.")
        fault = self._faults.take(name)
        if fault is not None and fault.kind == "status":
            raise Refusal(**fault.status)
        if fault is not None and fault.kind == "hang":
            await asyncio.Event().wait()
        if method.permission is not None:
            self._identity.demand(principal, method.permission, resource)
        if name == "TestIamPermissions":
            return self._test_permissions(principal, request)
        answer = method.run(request)
        if fault is not None:
            damage(answer, fault)
        return answer

    def _methods(self) -> dict[str, Method]:
        versions = "cloudkms.cryptoKeyVersions"
        types = service
        rows: dict[str, tuple[Any, str, str, Callable[[Any], Any]]] = {
            "Encrypt": (types.EncryptRequest, f"{versions}.useToEncrypt", "name", self._encrypt),
            "Decrypt": (types.DecryptRequest, f"{versions}.useToDecrypt", "name", self._decrypt),
            "AsymmetricSign": (types.AsymmetricSignRequest, f"{versions}.useToSign", "name", self._sign),
            "GetPublicKey": (types.GetPublicKeyRequest, f"{versions}.viewPublicKey", "name", self._public_key),
            "GetCryptoKey": (types.GetCryptoKeyRequest, "cloudkms.cryptoKeys.get", "name", self._get_key),
            "GetCryptoKeyVersion": (types.GetCryptoKeyVersionRequest, f"{versions}.get", "name", self._get_version),
            "ListCryptoKeyVersions": (types.ListCryptoKeyVersionsRequest, f"{versions}.list", "parent", self._list),
            "CreateCryptoKey": (types.CreateCryptoKeyRequest, "cloudkms.cryptoKeys.create", "parent", self._create),
            "CreateImportJob": (types.CreateImportJobRequest, "cloudkms.importJobs.create", "parent", self._create_job),
            "GetImportJob": (types.GetImportJobRequest, "cloudkms.importJobs.get", "name", self._get_job),
            "ImportCryptoKeyVersion": (
                types.ImportCryptoKeyVersionRequest,
                "cloudkms.importJobs.useToImport",
                "parent",
                self._import,
            ),
            "UpdateCryptoKeyPrimaryVersion": (
                types.UpdateCryptoKeyPrimaryVersionRequest,
                "cloudkms.cryptoKeys.update",
                "name",
                self._set_primary,
            ),
            "DestroyCryptoKeyVersion": (
                types.DestroyCryptoKeyVersionRequest,
                f"{versions}.destroy",
                "name",
                self._destroy,
            ),
        }
        return {name: Method(row[0].pb(), *row[1:]) for name, row in rows.items()}

    def _iam_methods(self) -> dict[str, Method]:
        iam = iam_policy_pb2
        keys = "cloudkms.cryptoKeys"
        return {
            "TestIamPermissions": Method(iam.TestIamPermissionsRequest, None, "resource", lambda request: None),
            "GetIamPolicy": Method(iam.GetIamPolicyRequest, f"{keys}.getIamPolicy", "resource", self._get_policy),
            "SetIamPolicy": Method(iam.SetIamPolicyRequest, f"{keys}.setIamPolicy", "resource", self._set_policy),
        }

    def _encrypt(self, request: Any) -> Any:
        _check(request, "plaintext", "additional_authenticated_data")
        name, _, version = request.name.partition("/cryptoKeyVersions/")
        assert not version, "the provider encrypts with a key's primary version"
        key = self._keys.key(name)
        together = len(request.plaintext) + len(request.additional_authenticated_data)
        hsm = key.shown.version_template.protection_level == resources.ProtectionLevel.HSM
        if len(request.plaintext) > _MAX_PLAINTEXT or (hsm and together > _MAX_HSM):
            raise Refusal("INVALID_ARGUMENT", "The plaintext is too long.")
        used, ciphertext = key.encrypt(request.plaintext, request.additional_authenticated_data)
        answer = service.EncryptResponse.pb()(
            name=used.shown.name,
            ciphertext=ciphertext,
            verified_plaintext_crc32c=request.HasField("plaintext_crc32c"),
            verified_additional_authenticated_data_crc32c=request.HasField("additional_authenticated_data_crc32c"),
            protection_level=used.shown.protection_level,
        )
        answer.ciphertext_crc32c.value = crc32c(ciphertext)
        return answer

    def _decrypt(self, request: Any) -> Any:
        _check(request, "ciphertext", "additional_authenticated_data")
        key = self._keys.key(request.name)
        used, plaintext = key.decrypt(request.ciphertext, request.additional_authenticated_data)
        answer = service.DecryptResponse.pb()(
            plaintext=plaintext, used_primary=used is key.primary, protection_level=used.shown.protection_level
        )
        answer.plaintext_crc32c.value = crc32c(plaintext)
        return answer

    def _sign(self, request: Any) -> Any:
        digest = request.digest.sha256
        if request.HasField("digest_crc32c") and request.digest_crc32c.value != crc32c(digest):
            raise _mismatch("digest")
        version = self._keys.version(request.name).usable()
        answer = service.AsymmetricSignResponse.pb()(
            name=request.name,
            signature=version.digest_signature(digest),
            verified_digest_crc32c=request.HasField("digest_crc32c"),
            protection_level=version.shown.protection_level,
        )
        answer.signature_crc32c.value = crc32c(answer.signature)
        return answer

    def _public_key(self, request: Any) -> Any:
        version = self._keys.version(request.name).usable()
        pem = version.public_pem()
        answer = resources.PublicKey.pb()(name=request.name, pem=pem.decode(), algorithm=version.shown.algorithm)
        answer.pem_crc32c.value = crc32c(pem)
        return answer

    def _get_key(self, request: Any) -> Any:
        return self._keys.key(request.name).message()

    def _get_version(self, request: Any) -> Any:
        return self._keys.version(request.name).shown

    def _list(self, request: Any) -> Any:
        """In pages of two, so that whoever reads the first page alone is found out."""
        versions = [version.shown for version in self._keys.key(request.parent).versions]
        start = int(request.page_token or 0)
        answer = service.ListCryptoKeyVersionsResponse.pb()(
            crypto_key_versions=versions[start : start + 2], total_size=len(versions)
        )
        if start + 2 < len(versions):
            answer.next_page_token = str(start + 2)
        return answer

    def _create(self, request: Any) -> Any:
        skip = request.skip_initial_version_creation
        return self._keys.create(request.parent, request.crypto_key_id, request.crypto_key, skip).message()

    def _create_job(self, request: Any) -> Any:
        return self._keys.create_job(request.parent, request.import_job_id, request.import_job).shown

    def _get_job(self, request: Any) -> Any:
        return self._keys.job(request.name).shown

    def _import(self, request: Any) -> Any:
        job = self._keys.job(request.import_job)
        material = job.unwrap(request.wrapped_key or request.rsa_aes_wrapped_key)
        return self._keys.key(request.parent).add_version(request.algorithm, material, request.import_job).shown

    def _set_primary(self, request: Any) -> Any:
        key = self._keys.key(request.name)
        name = f"{request.name}/cryptoKeyVersions/{request.crypto_key_version_id}"
        key.primary = self._keys.version(name).usable()
        return key.message()

    def _destroy(self, request: Any) -> Any:
        version = self._keys.version(request.name)
        self._keys.destroy(version)
        return version.shown

    def _test_permissions(self, principal: str, request: Any) -> Any:
        """An unknown resource answers with no permissions, not with NOT_FOUND, as the messages' description says."""
        known = request.resource in self._keys.keys
        granted = [name for name in request.permissions if known and self._identity.may(principal, name)]
        return iam_policy_pb2.TestIamPermissionsResponse(permissions=granted)

    def _get_policy(self, request: Any) -> Any:
        self._keys.key(request.resource)
        return self._policies.get(request.resource, policy_pb2.Policy(etag=b"none"))

    def _set_policy(self, request: Any) -> Any:
        self._keys.key(request.resource)
        self._policies[request.resource] = request.policy
        return request.policy


def _check(request: Any, *fields: str) -> None:
    for field in fields:
        sent = f"{field}_crc32c"
        if request.HasField(sent) and getattr(request, sent).value != crc32c(getattr(request, field)):
            raise _mismatch(field)


def _mismatch(field: str) -> Refusal:
    return Refusal("INVALID_ARGUMENT", f"The checksum in field {field}_crc32c did not match the data in field {field}.")


def damage(answer: Any, fault: Fault) -> None:
    """What a broken line, or a liar, makes of an answer."""
    field = next(name for name in ("plaintext", "ciphertext", "signature", "pem") if hasattr(answer, name))
    content = getattr(answer, field)
    if fault.kind == "crc":
        getattr(answer, f"{field}_crc32c").value ^= 1
    elif fault.kind == "no crc":
        answer.ClearField(f"{field}_crc32c")
    elif fault.kind == "truncate":
        setattr(answer, field, content[:-1])
    elif fault.kind == "flip":
        setattr(answer, field, bytes([content[0] ^ 1]) + content[1:])
    elif fault.kind == "short":  # consistent in itself, and no data key
        setattr(answer, field, content[:16])
        getattr(answer, f"{field}_crc32c").value = crc32c(content[:16])
    elif fault.kind == "unverified":
        for descriptor in answer.DESCRIPTOR.fields:
            if descriptor.name.startswith("verified_"):
                setattr(answer, descriptor.name, False)
    elif fault.kind == "other key":
        answer.name = answer.name.replace("/cryptoKeys/", "/cryptoKeys/other-")
    elif fault.kind == "oversized":
        setattr(answer, field, bytes(8 << 20))
    else:
        raise AssertionError(f"no such fault: {fault.kind}")
