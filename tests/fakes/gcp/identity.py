"""Who calls, and what they may do: access tokens, self-signed JWTs, IAM permissions.

Pages: https://developers.google.com/identity/protocols/oauth2/service-account#jwt-auth (a JWT instead of a token),
https://cloud.google.com/iam/docs/reference/sts/rest, https://cloud.google.com/kms/docs/reference/permissions-and-roles.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.fakes.gcp.faults import Refusal

PROJECT: Final = "keyside-test"
SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform", "https://www.googleapis.com/auth/cloudkms")
AUDIENCE: Final = "https://cloudkms.googleapis.com/"
_EXPIRED: Final = "Request had invalid authentication credentials. Expected OAuth 2 access token."


@dataclass
class Issued:
    """An access token that the token endpoints gave out."""

    principal: str
    expires_at: float


class Identity:
    """Principals, their tokens and their permissions. Who is not named in `permissions` may do everything."""

    def __init__(self) -> None:
        self.token_seconds = 3600
        self.permissions: dict[str, frozenset[str]] = {}
        self.tokens: dict[str, Issued] = {}
        self.seen: set[str] = set()
        self._verified: dict[str, tuple[str, float]] = {}  # JWTs whose signature was good, and their ends
        self._revoked: set[str] = set()
        self._accounts: dict[str, rsa.RSAPublicKey] = {}
        self.subject_token = secrets.token_urlsafe(24)  # what a workload's own platform gave it

    def issue(self, principal: str) -> dict[str, Any]:
        """A new access token, as a token endpoint answers it."""
        token = f"ya29.{secrets.token_urlsafe(32)}"
        self.tokens[token] = Issued(principal, time.time() + self.token_seconds)
        return {"access_token": token, "expires_in": self.token_seconds, "token_type": "Bearer"}

    def revoke_all(self) -> None:
        """Every token given out or seen so far stops working, as if it had expired."""
        self._revoked |= self.seen
        self.tokens.clear()

    def new_account(self, token_uri: str) -> dict[str, str]:
        """A service account's key file."""
        email = f"keyside-{len(self._accounts)}@{PROJECT}.iam.gserviceaccount.com"
        key = rsa.generate_private_key(65537, 2048)
        self._accounts[email] = key.public_key()
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": secrets.token_hex(20),
            "private_key": pem.decode(),
            "client_email": email,
            "client_id": "100000000000000000001",
            "token_uri": token_uri,
            "universe_domain": "googleapis.com",
        }

    def caller(self, authorization: str) -> str:
        """The principal of an `authorization` header. Raises Refusal."""
        scheme, _, token = authorization.partition(" ")
        if not token or scheme.lower() != "bearer":
            raise Refusal("UNAUTHENTICATED", _EXPIRED, reason="CREDENTIALS_MISSING")
        self.seen.add(token)
        if token in self._revoked:
            raise Refusal("UNAUTHENTICATED", _EXPIRED, reason="ACCESS_TOKEN_EXPIRED")
        if (issued := self.tokens.get(token)) is not None:
            if issued.expires_at < time.time():
                raise Refusal("UNAUTHENTICATED", _EXPIRED, reason="ACCESS_TOKEN_EXPIRED")
            return issued.principal
        email, expires_at = self._verified.get(token) or self._account_of(token)
        if expires_at < time.time():
            raise Refusal("UNAUTHENTICATED", _EXPIRED, reason="ACCESS_TOKEN_EXPIRED")
        self._verified[token] = email, expires_at
        return email

    def may(self, principal: str, permission: str) -> bool:
        granted = self.permissions.get(principal, self.permissions.get("*"))
        return granted is None or permission in granted

    def demand(self, principal: str, permission: str, resource: str) -> None:
        """Raise what IAM answers when the permission is missing."""
        if not self.may(principal, permission):
            raise Refusal(
                "PERMISSION_DENIED",
                f"Permission '{permission}' denied on resource '{resource}' (or it may not exist).",
                reason="IAM_PERMISSION_DENIED",
            )

    def restrict(self, permissions: Iterable[str] | None) -> None:
        """Everybody has these permissions and no others; None: everybody may do everything."""
        self.permissions = {} if permissions is None else {"*": frozenset(permissions)}

    def _account_of(self, token: str) -> tuple[str, float]:
        """The service account that signed `token`, a JWT with our audience or scopes, and its end."""
        try:
            signed, _, signature = token.rpartition(".")
            claims = json.loads(_decoded(signed.partition(".")[2]))
            email = claims["iss"]
            self._accounts[email].verify(_decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        except (ValueError, KeyError, TypeError, InvalidSignature):
            raise Refusal("UNAUTHENTICATED", _EXPIRED, reason="ACCESS_TOKEN_TYPE_UNSUPPORTED") from None
        scoped = bool(set(claims.get("scope", "").split()) & set(SCOPES))
        if not (scoped or claims.get("aud") == AUDIENCE):
            raise Refusal("UNAUTHENTICATED", _EXPIRED, reason="ACCESS_TOKEN_TYPE_UNSUPPORTED")
        return str(email), float(claims["exp"])


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
