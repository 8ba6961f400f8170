"""Access tokens: fetched on a thread, once for all callers, renewed ahead of their end.

The SDK would fetch them inside gRPC, where a refusal comes out as an unreachable service. Credentials are google-auth's
own: service account keys (self-signed JWT), workload identity federation, metadata server, impersonation.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import google.auth
from google.auth import aws, environment_vars, exceptions, identity_pool, impersonated_credentials, jwt
from google.auth.credentials import Credentials
from google.auth.transport.requests import Request
from google.oauth2 import service_account

from providers.errors import CredentialsInvalid, Denied, NotFound, ProviderError, Unavailable
from providers.gcp.options import AccessTokenGiven, AmbientData, GcpOptions, IamRole, KeyFileData, ServicePrincipal
from providers.secrets import SecretSource

SCOPES: Final = ("https://www.googleapis.com/auth/cloudkms", "https://www.googleapis.com/auth/cloud-platform")
AUDIENCE: Final = "https://cloudkms.googleapis.com/"
AHEAD: Final = 225.0  # seconds before its end that a token is renewed, as google-auth does
PAUSE: Final = 10.0  # seconds between attempts to renew a token that still works
LEAST_AGE: Final = 1.0  # seconds; a younger token that is refused will not get better by another one

_KEY_FILE: Final = "the key file that `gcloud iam service-accounts keys create` writes"
_POOL_FILE: Final = "the file that `gcloud iam workload-identity-pools create-cred-config` writes"
_AWS_TOKEN: Final = "urn:ietf:params:aws:token-type:aws4_request"  # noqa: S105  # the name of a type

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Issued:
    """An access token."""

    token: str = field(repr=False)
    expires_at: float  # time.time()
    principal: str  # whose it is, as far as known
    project: str | None
    issued_at: float = field(default_factory=time.time)


class Issuer(Protocol):
    """Where tokens come from. Called on a thread, by one at a time."""

    def issue(self) -> Issued:
        """Get a new one, reading everything anew. Raises ProviderError."""


class GivenToken:
    """A token that somebody else renews, where it lies."""

    def __init__(self, source: SecretSource, base: Path) -> None:
        self._source = source
        self._base = base

    def issue(self) -> Issued:
        token = self._source.text(self._base).strip()
        if not token.isascii() or not token.isprintable() or " " in token:
            raise CredentialsInvalid("the token holds what no access token does: see what wrote it")
        return Issued(token, float("inf"), "the access token that was given", None)


class GoogleIssuer:
    """Tokens by google-auth."""

    def __init__(self, load: Callable[[Request], tuple[Credentials, str | None]], timeout: float) -> None:
        self._load = load
        self._request = BoundedRequest(timeout)

    def issue(self) -> Issued:
        try:
            credentials, project = self._load(self._request)
            credentials.refresh(self._request)
        except exceptions.GoogleAuthError as error:
            raise refusal(error) from None
        # google-auth's times are UTC and do not say so
        expires = credentials.expiry.replace(tzinfo=UTC).timestamp() if credentials.expiry else float("inf")
        token = credentials.token.decode() if isinstance(credentials.token, bytes) else str(credentials.token)
        return Issued(token, expires, _principal(credentials), project)


class BoundedRequest(Request):  # type: ignore[misc]  # google-auth's transports are untyped
    """HTTP for google-auth: without this a request may take two minutes."""

    def __init__(self, timeout: float) -> None:
        super().__init__()
        self._timeout = timeout

    def __call__(self, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        return super().__call__(*args, timeout=min(timeout or self._timeout, self._timeout), **kwargs)


class AccessToken:
    """The token in use. Used from one event loop."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._current: Issued | None = None
        self._renewing: asyncio.Task[Issued] | None = None
        self._renew_after = 0.0  # time.monotonic()

    async def get(self) -> Issued:
        """A token that works, as far as known. Raises what the issuer does."""
        current, now = self._current, time.time()
        if current is None or current.expires_at <= now:
            return await asyncio.shield(self._renewal())
        if current.expires_at - now < AHEAD and time.monotonic() >= self._renew_after:
            self._renewal()
        return current

    def refused(self, token: Issued) -> bool:
        """The service did not accept `token`. Returns whether asking again with another one makes sense."""
        if self._current is token:
            self._current = None
            return time.time() - token.issued_at >= LEAST_AGE
        return True

    async def close(self) -> None:
        """Stop renewing. A fetch under way ends on its thread within its own timeout."""
        if self._renewing is not None:
            self._renewing.cancel()

    def _renewal(self) -> asyncio.Task[Issued]:
        if self._renewing is None:
            self._renewing = asyncio.get_running_loop().create_task(self._renew())
            self._renewing.add_done_callback(self._renewed)
        return self._renewing

    async def _renew(self) -> Issued:
        return await asyncio.to_thread(self._issuer.issue)

    def _renewed(self, task: asyncio.Task[Issued]) -> None:
        self._renewing = None
        if task.cancelled():
            return
        if (error := task.exception()) is None:
            self._current = task.result()
        else:
            self._renew_after = time.monotonic() + PAUSE
            _log.warning("GCP_KMS: no new access token (%s)", type(error).__name__)


def issuer(options: GcpOptions, base: Path) -> Issuer:
    """The source of tokens that the configuration names; without one, whatever the machine is."""
    timeout = options.performance.request_timeout / 1000
    credentials = options.credentials
    if isinstance(credentials, AccessTokenGiven):
        return GivenToken(credentials.data.token, base)
    if isinstance(credentials, ServicePrincipal):
        return GoogleIssuer(partial(_from_key, credentials.data, base), timeout)
    ambient = credentials.data if isinstance(credentials, IamRole) else AmbientData()
    return GoogleIssuer(partial(_ambient, ambient, base), timeout)


def _from_key(data: KeyFileData, base: Path, request: Request) -> tuple[Credentials, str | None]:
    info = _json(data.service_account_key.text(base), "service_account", _KEY_FILE)
    try:
        if data.service_account is None:
            # a JWT that the key signs is a token in itself, no endpoint has to be asked: https://google.aip.dev/auth/4111
            credentials = jwt.Credentials.from_service_account_info(info, audience=AUDIENCE)
        else:
            credentials = service_account.Credentials.from_service_account_info(info, scopes=SCOPES)
    except (ValueError, TypeError, exceptions.MalformedError):
        raise CredentialsInvalid(f"this is not {_KEY_FILE}: some of it is missing or damaged") from None
    return _acting_as(credentials, data.service_account), info.get("project_id")


def _ambient(data: AmbientData, base: Path, request: Request) -> tuple[Credentials, str | None]:
    named = data.credential_file or _federation_in_environment()
    if named is None:
        credentials, project = google.auth.default(scopes=SCOPES, request=request)
    else:
        credentials, project = _federated(base / named), None
    return _acting_as(credentials, data.service_account), project


def _federation_in_environment() -> str | None:
    """GOOGLE_APPLICATION_CREDENTIALS, for federation: google-auth would ask a further service what the project is."""
    named = os.environ.get(environment_vars.CREDENTIALS)
    try:
        info = json.loads(Path(named).read_text()) if named else None
    except (OSError, ValueError):
        return None  # google-auth says what is wrong with it
    return named if isinstance(info, dict) and info.get("type") == "external_account" else None


def _federated(path: Path) -> Credentials:
    """Workload identity federation: a token of the workload's own platform is exchanged for one of Google's."""
    try:
        content = path.read_text()
    except (OSError, UnicodeDecodeError):
        raise NotFound(f"there is no readable file {path}: correct hsm.credentials.data.credentialFile") from None
    info = _json(content, "external_account", _POOL_FILE)
    kind = aws if info.get("subject_token_type") == _AWS_TOKEN else identity_pool
    try:
        return kind.Credentials.from_info(info, scopes=SCOPES)
    except (ValueError, TypeError, exceptions.MalformedError):
        raise CredentialsInvalid(f"{path} is not {_POOL_FILE}: some of it is missing or damaged") from None


def _json(content: str, kind: str, what: str) -> dict[str, Any]:
    """A credential file of the expected `type`: one of another type may name any address to send secrets to."""
    try:
        info = json.loads(content)
    except ValueError:
        info = None
    if not isinstance(info, dict) or info.get("type") != kind:
        raise CredentialsInvalid(f"this is not {what} (JSON with type {kind})")
    return info


def _acting_as(credentials: Credentials, account: str | None) -> Credentials:
    if account is None:
        return credentials
    return impersonated_credentials.Credentials(credentials, target_principal=account, target_scopes=list(SCOPES))


def refusal(error: exceptions.GoogleAuthError) -> ProviderError:
    """Our error for what google-auth raised; its own message may quote an endpoint's answer and is left out."""
    kind = type(error).__name__
    causes = (error, error.__cause__, *error.args)
    if error.retryable or any(isinstance(cause, exceptions.TransportError) for cause in causes):
        return Unavailable(f"no access token: its endpoint cannot be reached or is failing ({kind}); it is tried again")
    if isinstance(error, exceptions.DefaultCredentialsError):
        return CredentialsInvalid(
            "no Google credentials: this machine has no metadata server, and neither hsm.credentials nor "
            "GOOGLE_APPLICATION_CREDENTIALS names a file that can be used"
        )
    if "PERMISSION_DENIED" in str(error):
        return Denied(
            "no access token: grant roles/iam.serviceAccountTokenCreator on the service account to act as, or "
            "roles/iam.workloadIdentityUser to the workload"
        )
    return CredentialsInvalid(f"no access token: its endpoint refuses the credentials of hsm.credentials ({kind})")


def _principal(credentials: Credentials) -> str:
    names = (getattr(credentials, name, None) for name in ("service_account_email", "signer_email"))
    return str(next((name for name in names if name), "a federated workload"))
