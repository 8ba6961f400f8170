"""Who may have a token: client secrets, certificates and federated tokens at Entra ID; managed identities."""

from __future__ import annotations

import base64
import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

Json = dict[str, Any]
ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass
class Application:
    """A registered application, or a managed identity (which has neither secret nor certificate)."""

    client_id: str
    secret: str | None = None
    certificate: x509.Certificate | None = None
    federated_token: str | None = None


@dataclass
class Issued:
    """A token that was given out."""

    client_id: str
    audience: str
    expires: float


class Refusal(Exception):  # named for what happened
    """Entra's error codes: AADSTS..."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(description)
        self.code = code


@dataclass
class Entra:
    """One tenant. Tokens are opaque here, for the vault asks this object about them."""

    tenant: str
    url: str = ""
    lifetime: int = 3600
    applications: dict[str, Application] = field(default_factory=dict)
    system_identity: str | None = None
    tokens: dict[str, Issued] = field(default_factory=dict)

    def grant(self, tenant: str, form: dict[str, str]) -> Json:
        """POST /{tenant}/oauth2/v2.0/token with grant_type client_credentials."""
        if tenant != self.tenant:
            raise Refusal("invalid_request", f"AADSTS90002: Tenant '{tenant}' not found.")
        if form.get("grant_type") != "client_credentials" or not form.get("scope", "").endswith("/.default"):
            raise Refusal("invalid_request", "AADSTS900144: grant_type and scope are required.")
        application = self.applications.get(form.get("client_id", ""))
        if application is None:
            raise Refusal("unauthorized_client", "AADSTS700016: Application was not found in the directory.")
        if form.get("client_assertion_type") == ASSERTION:
            self._check_assertion(application, form.get("client_assertion", ""))
        elif application.secret is None or form.get("client_secret") != application.secret:
            raise Refusal("invalid_client", "AADSTS7000215: Invalid client secret provided.")
        return self._issue(application.client_id, form["scope"].removesuffix("/.default"))

    def managed(self, resource: str, client_id: str | None) -> Json:
        """What IMDS and App Service give the machine they run on."""
        chosen = client_id or self.system_identity
        if chosen is None or chosen not in self.applications:
            raise Refusal("invalid_request", "Identity not found")
        issued = self._issue(chosen, resource)
        expires_on = int(time.time()) + self.lifetime
        return {**issued, "expires_on": str(expires_on), "expires_in": str(self.lifetime), "resource": resource}

    def bearer(self, token: str, audience: str) -> str | None:
        """The client id whose valid token this is."""
        issued = self.tokens.get(token)
        good = issued is not None and issued.audience == audience and issued.expires > time.time()
        return issued.client_id if issued and good else None

    def revoke(self) -> None:
        self.tokens.clear()

    def _issue(self, client_id: str, audience: str) -> Json:
        token = "eyJ0eXAi." + secrets.token_urlsafe(32)
        self.tokens[token] = Issued(client_id, audience, time.time() + self.lifetime)
        return {
            "token_type": "Bearer",
            "expires_in": self.lifetime,
            "ext_expires_in": self.lifetime,
            "access_token": token,
        }

    def _check_assertion(self, application: Application, assertion: str) -> None:
        if application.federated_token is not None:
            if assertion != application.federated_token:
                raise Refusal("invalid_client", "AADSTS700213: No matching federated identity record found.")
            return
        certificate = application.certificate
        if certificate is None:
            raise Refusal("invalid_client", "AADSTS700027: The certificate is not registered.")
        signed, _, signature = assertion.rpartition(".")
        header, payload = (json.loads(_decoded(part)) for part in signed.split("."))
        thumbprint = base64.urlsafe_b64encode(certificate.fingerprint(hashes.SHA256())).decode().rstrip("=")
        fits = header["x5t#S256"].rstrip("=") == thumbprint and header["alg"] == "PS256"
        fits = (
            fits and payload["aud"].startswith(self.url) and payload["iss"] == payload["sub"] == application.client_id
        )
        if not (fits and payload["nbf"] - 300 <= time.time() < payload["exp"]):
            raise Refusal("invalid_client", "AADSTS700027: Client assertion failed signature validation.")
        key = certificate.public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
        try:
            key.verify(_decoded(signature), signed.encode(), pss, hashes.SHA256())
        except InvalidSignature as error:
            raise Refusal("invalid_client", "AADSTS700027: Client assertion failed signature validation.") from error


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
