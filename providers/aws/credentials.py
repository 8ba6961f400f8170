"""Sessions of the SDK, by type of credentials. Imports the SDK and reads its descriptions of services: on a thread."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioCredentialResolver, AioDeferredRefreshableCredentials
from aiobotocore.session import AioSession
from botocore import UNSIGNED

from providers.aws.names import region_of
from providers.aws.options import AccessKey, AccessKeyData, AwsOptions, RoleData, endpoint_problem
from providers.errors import ConfigurationInvalid, CredentialsInvalid, Problem

_MODELS: Final = ("service-2", "endpoint-rule-set-1")
_COMMON_DATA: Final = ("_retry", "endpoints", "partitions", "sdk-default-configuration")

ASSUME_ROLE: Final = "assume-role"
WEB_IDENTITY: Final = "assume-role-with-web-identity"


def _descriptions() -> Any:
    """botocore's descriptions of services, read once a process: later clients open in milliseconds."""
    loader = AioSession().get_component("data_loader")
    for kind in _MODELS:
        loader.load_service_model("kms", kind)
    for name in _COMMON_DATA:
        loader.load_data(name)
    return loader


_LOADER: Final = _descriptions()


def open_session(options: AwsOptions, base: Path) -> AioSession:
    """A session that signs as `hsm.credentials` says. Secrets are read now, roles are taken on at the first call.

    Raises NotFound, Denied, CredentialsInvalid, Unavailable for secrets that cannot be read.
    """
    if isinstance(options.credentials, AccessKey):
        return _with_access_key(options.credentials.data, base)
    data, whole = options.credentials.data, _session(lean=False)
    source: _DefaultChain | _Role = _DefaultChain(whole)
    if data.role_arn is not None:
        source = _Role(
            _Assuming(whole, options, data, base), WEB_IDENTITY if data.web_identity_token_file else ASSUME_ROLE
        )
    session = _session()
    session.register_component("credential_provider", AioCredentialResolver([source]))
    return session


def home(options: AwsOptions) -> str | None:
    """The region to call; None leaves it to the environment and the AWS profile."""
    return options.connection.region or region_of(options.kek)


def quick(options: AwsOptions, **settings: Any) -> AioConfig:
    """The SDK's own retries off and its patience that of one of our calls: `BoundedCalls` sees to both."""
    patience = options.performance.request_timeout / 1000
    return AioConfig(
        connect_timeout=patience,
        read_timeout=patience,
        retries={"total_max_attempts": 1, "mode": "standard"},
        **settings,
    )


def authorities(options: AwsOptions, base: Path) -> str | None:
    """The file of authorities to trust, for clients that have the SDK's own HTTP session."""
    name = options.connection.tls.ca_file
    return None if name is None else str(base / name)


class _Assuming:
    """Asks STS for the role's credentials."""

    def __init__(self, session: AioSession, options: AwsOptions, data: RoleData, base: Path) -> None:
        self._session = session
        self._options = options
        self._data = data
        self._base = base

    async def __call__(self) -> dict[str, str]:
        """Credentials as botocore's refreshable ones take them."""
        data = self._data
        request: dict[str, object] = {
            "RoleArn": data.role_arn,
            "RoleSessionName": data.session_name,
            "DurationSeconds": data.duration,
        }
        unsigned = data.web_identity_token_file is not None
        config = quick(self._options, **({"signature_version": UNSIGNED} if unsigned else {}))
        async with self._session.create_client(
            "sts",
            region_name=home(self._options),
            endpoint_url=data.sts_endpoint,
            verify=authorities(self._options, self._base),
            config=config,
        ) as sts:
            if problem := endpoint_problem(sts.meta.endpoint_url):  # of AWS_ENDPOINT_URL or an AWS profile
                raise ConfigurationInvalid([Problem("hsm.credentials.data.stsEndpoint", problem)])
            if unsigned:
                answer = await sts.assume_role_with_web_identity(**request, WebIdentityToken=self._token())
            else:
                answer = await sts.assume_role(**request, **self._external_id())
        issued = answer["Credentials"]
        return {
            "access_key": issued["AccessKeyId"],
            "secret_key": issued["SecretAccessKey"],
            "token": issued["SessionToken"],
            "expiry_time": issued["Expiration"].isoformat(),
        }

    def _token(self) -> str:
        # not read_private: Kubernetes lets the pod's group, or everybody in it, read the tokens that it projects
        assert self._data.web_identity_token_file is not None
        path = self._base / self._data.web_identity_token_file
        try:
            return path.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CredentialsInvalid(
                f"the web identity token {path} cannot be read ({type(error).__name__}): see webIdentityTokenFile"
            ) from None

    def _external_id(self) -> dict[str, str]:
        source = self._data.external_id
        return {} if source is None else {"ExternalId": source.text(self._base)}


class _DefaultChain:
    """A credential provider in botocore's sense: what the SDK finds by itself in `session`."""

    METHOD = "default-chain"

    def __init__(self, session: AioSession) -> None:
        self._session = session

    async def load(self) -> Any:
        return await self._session.get_credentials()


class _Role:
    """A credential provider in botocore's sense: one role, renewed before its credentials expire."""

    def __init__(self, renew: Callable[[], Awaitable[dict[str, str]]], method: str) -> None:
        self._renew = renew
        self.METHOD = method

    async def load(self) -> AioDeferredRefreshableCredentials:
        return AioDeferredRefreshableCredentials(refresh_using=self._renew, method=self.METHOD)


def _session(*, lean: bool = True) -> AioSession:
    """`lean`: without the SDK's handlers for other services' oddities, which run at every call (a tenth of its CPU)."""
    session = AioSession(include_builtin_handlers=not lean)
    session.register_component("data_loader", _LOADER)
    return session


def _with_access_key(data: AccessKeyData, base: Path) -> AioSession:
    session = _session()
    token = None if data.session_token is None else data.session_token.text(base)
    session.set_credentials(data.access_key_id.text(base), data.secret_access_key.text(base), token)
    return session
