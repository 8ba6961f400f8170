"""Access tokens: one request at a time, however many calls need one, and a new one before the old one ends."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol

from azure.core.credentials import AccessTokenInfo, TokenRequestOptions
from azure.core.exceptions import AzureError, HttpResponseError
from azure.identity import CredentialUnavailableError

from providers.azure.connections import PooledTransport
from providers.errors import CredentialsInvalid, ProviderError, Throttled, Unavailable

REFRESH_BEFORE_SECONDS: Final = 300  # the SDK asks for another token from then on, too
USABLE_SECONDS: Final = 10  # a token that ends sooner is not sent
PAUSE_SECONDS: Final = 10.0  # between attempts to refresh a token that is still good

_log = logging.getLogger(__name__)

_ENTRA_CODE: Final = re.compile(r"AADSTS\d{4,8}")
_REMEDIES: Final = {
    "AADSTS7000215": "the client secret is wrong: put its value, not its id, where the configuration says",
    "AADSTS7000222": "the client secret has expired: make a new one in Entra ID and put it in its place",
    "AADSTS700016": "no application with this clientId is in the tenant: correct clientId or tenantId",
    "AADSTS90002": "there is no such tenant: correct tenantId or authority",
    "AADSTS700027": "the certificate is not the application's: add it there, or correct certificateFile",
    "AADSTS700213": "no federated credential fits the token's issuer and subject: see those of the application",
    "AADSTS500011": "the tenant does not know the audience: correct hsm.credentials.data.audience",
}
_SEE: Final = "see the network, hsm.credentials.data.authority, and whether this machine has a managed identity"
_OTHERWISE: Final = "see the application and its credentials in Entra ID"


class Source(Protocol):
    """What azure-identity's credentials have in common."""

    async def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AccessTokenInfo: ...

    async def close(self) -> None: ...


class Tokens:
    """Stands between the SDK's clients and one of its credentials; the SDK sees a credential.

    `make` reads the secrets, so a credential that is made anew has the present ones. `audience`, where the
    configuration names one, is what tokens are for, whatever the vault's challenge says.
    """

    def __init__(self, make: Callable[[], Source], audience: str | None, transport: PooledTransport) -> None:
        self._make = make
        self._transport = transport
        self._audience = audience
        self._source: Source | None = None
        self._token: AccessTokenInfo | None = None
        self._asked: tuple[tuple[str, ...], TokenRequestOptions | None] = (), None  # for `_token`
        self._accepted = False
        self._turn = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed_at = 0.0

    async def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AccessTokenInfo:
        """The SDK's question. Raises CredentialsInvalid, NotFound, Denied, Throttled, Unavailable."""
        if self._audience is not None:
            scopes = (f"{self._audience}/.default",)
        claims = (options or {}).get("claims")
        # not the tenant of the vault's challenge: the SDK keeps a challenge for good, and one that was false once (a
        # proxy's, a vault that moved) would leave no way back
        wanted: TokenRequestOptions = {"enable_cae": True}
        if claims:
            wanted["claims"] = claims
        if (token := self._token) is not None and not claims and _left(token) > USABLE_SECONDS:
            if _wants_refresh(token):
                self._refresh_behind(scopes, wanted)
            return token
        async with self._turn:  # others who came meanwhile find the token that the first one got
            if (token := self._token) is None or claims or _left(token) <= USABLE_SECONDS:
                token = await self._request(scopes, wanted)
            return token

    def known(self) -> str | None:
        """A token that this vault has taken and that can be sent again; None: let the SDK ask for one."""
        token = self._token
        if token is None or not self._accepted or _left(token) <= USABLE_SECONDS:
            return None
        if _wants_refresh(token):
            self._refresh_behind(*self._asked)
        return token.token

    def accepted(self) -> None:
        """The vault took the token."""
        self._accepted = True

    async def refused(self, sent: str | None) -> bool:
        """The vault did not take the Authorization header `sent`. True when asking again makes sense.

        It does when another call has got or is getting another token, or when the vault took this one before: it was
        revoked.
        """
        if self._token is None or sent != f"Bearer {self._token.token}":
            return True
        return await self._forget()

    async def _forget(self) -> bool:
        again, self._accepted, self._token = self._accepted, False, None
        source, self._source = self._source, None  # with the SDK's own cache of the token
        if source is not None:
            await source.close()
        return again

    async def close(self) -> None:
        """End connections to the token endpoint."""
        if self._refreshing is not None:
            self._refreshing.cancel()
        await self._forget()
        await self._transport.shut()

    async def __aenter__(self) -> Tokens:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """The provider closes what it made, not the SDK's client."""

    async def _request(self, scopes: tuple[str, ...], options: TokenRequestOptions | None) -> AccessTokenInfo:
        if self._source is None:
            self._source = await asyncio.to_thread(self._make)
        self._asked = scopes, options
        try:
            self._token = await self._source.get_token_info(*scopes, options=options)
        except ProviderError:
            raise
        except AzureError as error:
            raise _translated(error) from None  # its text may quote what was sent
        except Exception as error:  # whatever azure-identity stumbles over in an answer that is not Entra's
            raise Unavailable(f"the token endpoint's answer makes no sense ({type(error).__name__}): {_SEE}") from None
        return self._token

    def _refresh_behind(self, scopes: tuple[str, ...], options: TokenRequestOptions | None) -> None:
        now = time.monotonic()
        if self._refreshing is None and now - self._refreshed_at > PAUSE_SECONDS:
            self._refreshed_at = now
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh(scopes, options))

    async def _refresh(self, scopes: tuple[str, ...], options: TokenRequestOptions | None) -> None:
        try:
            async with self._turn:
                await self._request(scopes, options)
        except ProviderError as error:
            _log.warning("AZURE_KEY_VAULT: the access token ends soon and could not be renewed: %s", error)
        finally:
            self._refreshing = None


def _left(token: AccessTokenInfo) -> float:
    return token.expires_on - time.time()


def _wants_refresh(token: AccessTokenInfo) -> bool:
    return _left(token) < REFRESH_BEFORE_SECONDS or bool(token.refresh_on and token.refresh_on <= time.time())


def _translated(error: AzureError) -> ProviderError:
    """The error of asking for a token."""
    answer = error if isinstance(error, HttpResponseError) else None
    cause = error.__cause__
    if answer is not None and answer.status_code is None and isinstance(cause, HttpResponseError):
        answer = cause  # a managed identity's endpoint answered, and azure-identity says that there is no identity
    status = answer.status_code if answer is not None else None
    if status == 429:
        return Throttled("the token endpoint asks for fewer requests")
    if status is not None and status < 500:
        found = _ENTRA_CODE.search(str(answer))
        code = found[0] if found else f"HTTP status {status}"
        return CredentialsInvalid(f"no access token ({code}): {_REMEDIES.get(code, _OTHERWISE)}")
    if isinstance(error, CredentialUnavailableError) and status is None and cause is None:
        return CredentialsInvalid("no access token: nothing here says that this machine has a managed identity")
    return Unavailable(f"the token endpoint cannot be reached or is failing: {_SEE}")
