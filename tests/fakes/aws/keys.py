"""Symmetric keys, their states and aliases, and what AWS KMS does with them."""

from __future__ import annotations

import base64
import json
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

REGION: Final = "eu-west-1"
ACCOUNT: Final = "111122223333"
MAX_PLAINTEXT: Final = 4096
MAX_CIPHERTEXT: Final = 6144

_ID_BYTES: Final = 16
_NONCE_BYTES: Final = 12

Body = Mapping[str, Any]


class Refused(Exception):
    """An error of the API, by its code."""


@dataclass
class Key:
    """One key."""

    id: uuid.UUID
    sealing: AESGCM = field(repr=False)
    enabled: bool = True

    @property
    def arn(self) -> str:
        """As the service answers with it."""
        return f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{self.id}"


class Keys:
    """All of them. `answer` is the service."""

    def __init__(self) -> None:
        self._keys: dict[str, Key] = {}
        self._aliases: dict[str, str] = {}
        self._operations: Final[Mapping[str, Callable[[Body], Body]]] = {
            "CreateAlias": self._point,
            "CreateKey": self._create,
            "Decrypt": self._decrypt,
            "DescribeKey": lambda body: {"KeyMetadata": _metadata(self._named(body))},
            "DisableKey": self._disable,
            "Encrypt": self._encrypt,
            "UpdateAlias": self._point,
        }

    def answer(self, operation: str, body: Body) -> Body:
        """What the API answers. Raises Refused."""
        if operation not in self._operations:
            raise Refused("UnsupportedOperationException")
        return self._operations[operation](body)

    def _create(self, _body: Body) -> Body:
        key = Key(uuid.uuid4(), AESGCM(os.urandom(32)))
        self._keys[str(key.id)] = key
        return {"KeyMetadata": _metadata(key)}

    def _point(self, body: Body) -> Body:
        self._aliases[body["AliasName"]] = str(self._named({"KeyId": body["TargetKeyId"]}).id)
        return {}

    def _disable(self, body: Body) -> Body:
        self._named(body).enabled = False
        return {}

    def _encrypt(self, body: Body) -> Body:
        key = self._usable(body)
        plaintext = base64.b64decode(body["Plaintext"])
        if not 0 < len(plaintext) <= MAX_PLAINTEXT:
            raise Refused("ValidationException")
        _dry_run_ends(body)
        nonce = os.urandom(_NONCE_BYTES)
        sealed = key.sealing.encrypt(nonce, plaintext, _associated(body))
        blob = base64.b64encode(key.id.bytes + nonce + sealed).decode()
        return {"KeyId": key.arn, "CiphertextBlob": blob, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}

    def _decrypt(self, body: Body) -> Body:
        key = self._usable(body)
        if "IGNORE_CIPHERTEXT" in body.get("DryRunModifiers", []):
            _dry_run_ends(body)
        blob = base64.b64decode(body["CiphertextBlob"])
        if not 0 < len(blob) <= MAX_CIPHERTEXT:
            raise Refused("ValidationException")
        if blob[:_ID_BYTES] != key.id.bytes:
            known = blob[:_ID_BYTES].hex() in {other.id.hex for other in self._keys.values()}
            raise Refused("IncorrectKeyException" if known else "InvalidCiphertextException")
        nonce, sealed = blob[_ID_BYTES : _ID_BYTES + _NONCE_BYTES], blob[_ID_BYTES + _NONCE_BYTES :]
        try:
            plaintext = key.sealing.decrypt(nonce, sealed, _associated(body))
        except (InvalidTag, ValueError):
            raise Refused("InvalidCiphertextException") from None
        _dry_run_ends(body)
        encoded = base64.b64encode(plaintext).decode()
        return {"KeyId": key.arn, "Plaintext": encoded, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}

    def _named(self, body: Body) -> Key:
        name = str(body.get("KeyId", ""))
        key = self._keys.get(self._aliases.get(name, name.rpartition("/")[2]))
        if key is None:
            raise Refused("NotFoundException")
        return key

    def _usable(self, body: Body) -> Key:
        key = self._named(body)
        if not key.enabled:
            raise Refused("DisabledException")
        return key


def _dry_run_ends(body: Body) -> None:
    if body.get("DryRun"):
        raise Refused("DryRunOperationException")


def _associated(body: Body) -> bytes:
    return json.dumps(body.get("EncryptionContext", {}), sort_keys=True).encode()


def _metadata(key: Key) -> dict[str, object]:
    return {
        "Arn": key.arn,
        "KeyId": str(key.id),
        "KeyState": "Enabled" if key.enabled else "Disabled",
        "Enabled": key.enabled,
        "KeyUsage": "ENCRYPT_DECRYPT",
        "KeySpec": "SYMMETRIC_DEFAULT",
        "Origin": "AWS_KMS",
        "MultiRegion": False,
    }
