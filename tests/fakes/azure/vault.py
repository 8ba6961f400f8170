"""The keys of one vault or Managed HSM: versions, attributes, rotation, soft delete."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa

from tests.fakes.azure import algorithms
from tests.fakes.azure.algorithms import Json, Material
from tests.fakes.azure.refusals import Refused, bad_parameter, disabled, expired, not_found, not_permitted

RECOVERABLE_DAYS: Final = 90
DAY: Final = 86_400
OPERATIONS: Final = {
    "RSA": ["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"],
    "EC": ["sign", "verify"],
    "oct": ["encrypt", "decrypt", "wrapKey", "unwrapKey"],
}
CALLS: Final[dict[str, tuple[str, Callable[[Material, Json], Json]]]] = {
    "encrypt": ("encrypt", lambda material, body: algorithms.encrypt(material, body, wrapping=False)),
    "decrypt": ("decrypt", lambda material, body: algorithms.decrypt(material, body, wrapping=False)),
    "wrapkey": ("wrapKey", lambda material, body: algorithms.encrypt(material, body, wrapping=True)),
    "unwrapkey": ("unwrapKey", lambda material, body: algorithms.decrypt(material, body, wrapping=True)),
    "sign": ("sign", algorithms.sign),
    "verify": ("verify", algorithms.verify),
}
USABLE_WHEN_EXPIRED: Final = {"decrypt", "unwrapKey", "verify"}  # about-keys-details, date-time controlled operations


class Version:
    """One version of a key."""

    def __init__(self, kid: str, kty: str, material: Material, body: Json, platform: str) -> None:
        self.kid = kid
        self.kty = kty
        self.material = material
        self.operations: list[str] = body.get("key_ops") or list(OPERATIONS[kty.removesuffix("-HSM")])
        self.tags: dict[str, str] = body.get("tags") or {}
        now = int(time.time())
        self.attributes: Json = {
            "enabled": True, "exportable": False, **(body.get("attributes") or {}), "created": now, "updated": now,
            "recoveryLevel": "Recoverable", "recoverableDays": RECOVERABLE_DAYS, "hsmPlatform": platform,
        }  # fmt: skip

    def bundle(self) -> Json:
        jwk = {"kid": self.kid, "kty": self.kty, "key_ops": self.operations, **algorithms.public(self.material)}
        return {"key": jwk, "attributes": self.attributes, "tags": self.tags}

    def allow(self, operation: str) -> None:
        if not self.attributes["enabled"]:
            raise disabled(operation)
        now = time.time()
        outside = self.attributes.get("nbf", 0) > now or self.attributes.get("exp", now + 1) <= now
        if outside and operation not in USABLE_WHEN_EXPIRED:
            raise expired(operation)
        if operation not in self.operations:
            raise not_permitted(operation)


class Vault:
    """`kind` is `vault` (premium) or `hsm`."""

    def __init__(self, url: str, kind: str, purge_protection: bool = True) -> None:
        self.url = url
        self.kind = kind
        self.purge_protection = purge_protection
        self.keys: dict[str, list[Version]] = {}
        self.deleted: dict[str, list[Version]] = {}
        self.policies: dict[str, Json] = {}

    def create(self, name: str, body: Json) -> Json:
        kty = str(body.get("kty"))
        self._check_kind(kty)
        return self._add(name, kty, algorithms.make(kty, body), body)

    def bring(self, name: str, body: Json) -> Json:
        jwk = body.get("key") or {}
        if not jwk.get("kty", "").endswith("-HSM"):
            raise bad_parameter("Only transfer blobs are taken.")
        self._check_kind(jwk["kty"])
        return self._add(name, jwk["kty"], algorithms.brought(jwk, self._exchange), {**body, "key_ops": jwk["key_ops"]})

    def get(self, name: str, version: str | None) -> Json:
        found = self.version(name, version)
        if not found.attributes["enabled"]:
            raise disabled("get")
        return found.bundle()

    def operate(self, name: str, version: str | None, call: str, body: Json) -> Json:
        operation, run = CALLS[call]
        found = self.version(name, version)
        found.allow(operation)
        return {"kid": found.kid, **run(found.material, body)}

    def update(self, name: str, version: str | None, body: Json) -> Json:
        found = self.version(name, version)
        found.attributes |= body.get("attributes") or {}
        found.operations = body.get("key_ops") or found.operations
        found.tags = body.get("tags") or found.tags
        return found.bundle()

    def rotate(self, name: str) -> Json:
        last = self.version(name, None)
        material = last.material
        size = len(material) * 8 if isinstance(material, bytes) else material.key_size
        return self.create(name, {"kty": last.kty, "key_size": size, "key_ops": last.operations, "tags": last.tags,
                                  "crv": algorithms.public(material).get("crv")})  # fmt: skip

    def policy(self, name: str, body: Json | None) -> Json:
        self.version(name, None)
        if body is not None:
            self.policies[name] = body
        return {"id": f"{self.url}/keys/{name}/rotationpolicy", **self.policies.get(name, {"lifetimeActions": []})}

    def delete(self, name: str) -> Json:
        last = self.version(name, None)
        self.deleted[name] = self.keys.pop(name)
        return self._deleted(name, last)

    def get_deleted(self, name: str) -> Json:
        if name not in self.deleted:
            raise not_found(name)
        return self._deleted(name, self.deleted[name][-1])

    def recover(self, name: str) -> Json:
        self.get_deleted(name)
        self.keys[name] = self.deleted.pop(name)
        return self.keys[name][-1].bundle()

    def purge(self, name: str) -> None:
        self.get_deleted(name)
        if self.purge_protection:
            raise Refused(403, "Forbidden", "Operation purge is not allowed because purge protection is enabled.")
        del self.deleted[name]

    def version(self, name: str, version: str | None) -> Version:
        for found in reversed(self.keys.get(name, [])):
            if not version or found.kid.endswith("/" + version):
                return found
        raise not_found(f"{name}/{version}" if version else name)

    def _add(self, name: str, kty: str, material: Material, body: Json) -> Json:
        if name in self.deleted:
            message = f"Key {name} is currently in a deleted but recoverable state, and its name cannot be reused."
            raise Refused(409, "Conflict", message, "ObjectIsDeletedButRecoverable")
        kid = f"{self.url}/keys/{name}/{secrets.token_hex(16)}"
        platform = "2" if kty.endswith("-HSM") else "0"
        self.keys.setdefault(name, []).append(Version(kid, kty, material, body, platform))
        return self.keys[name][-1].bundle()

    def _check_kind(self, kty: str) -> None:
        if kty.startswith("oct") and self.kind == "vault":
            raise bad_parameter("Symmetric keys are for Managed HSM alone.")
        if not kty.endswith("-HSM") and self.kind == "hsm":
            raise bad_parameter("A Managed HSM has HSM keys alone.")

    def _exchange(self, kid: str) -> rsa.RSAPrivateKey:
        name, version = kid.rsplit("/", 2)[1:]
        found = self.version(name, version)
        if found.operations != ["import"] or not isinstance(found.material, rsa.RSAPrivateKey):
            raise bad_parameter("The key exchange key must be RSA-HSM with the operation import alone.")
        return found.material

    def _deleted(self, name: str, last: Version) -> Json:
        now = int(time.time())
        extra: dict[str, Any] = {"deletedDate": now, "scheduledPurgeDate": now + RECOVERABLE_DAYS * DAY}
        return {**last.bundle(), "recoveryId": f"{self.url}/deletedkeys/{name}", **extra}
