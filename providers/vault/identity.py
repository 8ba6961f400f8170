"""Who this process is to the server: its token, kept alive, and calls that carry it."""

from __future__ import annotations

import asyncio
import logging
import time
from hashlib import sha256
from typing import Final

from providers.errors import CredentialsInvalid, ProviderError
from providers.http import Method
from providers.refused import Refused
from providers.vault.answers import document
from providers.vault.login import Lease, Login, granted
from providers.vault.server import Answer, Server

REFRESH_AT: Final = 2 / 3
"""Share of a lease after which it is renewed, or another one is obtained."""

TRUST_SECONDS: Final = 5.0
"""How long a token that was found good is not doubted again."""

RETRY_SECONDS: Final = 1.0
REVOKE_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


class Identity:
    """Calls with a token that is renewed or replaced before it ends, and once when the server has forgotten it."""

    def __init__(self, server: Server, login: Login | None, patience: float) -> None:
        """`login` None: an agent adds the token. `patience`: seconds for a renewal, which no caller waits for."""
        self._server = server
        self._login = login
        self._patience = patience
        self._lease: Lease | None = None
        self._replacing = asyncio.Lock()
        self._trusted_until = 0.0
        # the base class keeps calls to come from sending what was refused; this, calls under way and the renewal
        self._refused = Refused()
        self._timer: asyncio.TimerHandle | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._closed = False

    async def call(
        self, method: Method, path: str, body: bytes | bytearray | None = None, *, doubting: bool = True
    ) -> Answer:
        """One request with the token; a second one when the first was refused and another token could be had.

        Raises what `Server.call` and the login raise. A 403 that is the answer is about permissions, not the token;
        `doubting` False says so beforehand, for what a good token may well be refused.
        """
        token = await self._token()
        answer = await self._server.call(method, path, token, body)
        if answer.status == 403 and doubting and token is not None and await self._replaced(token):
            answer = await self._server.call(method, path, await self._token(), body)
        return answer

    async def close(self) -> None:
        """Stop renewing; end the token when it was made for this process, should the server answer soon."""
        self._closed = True
        self._unschedule()
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
        lease, self._lease = self._lease, None
        if lease is None or self._login is None or not self._login.revocable:
            return
        try:
            async with asyncio.timeout(REVOKE_SECONDS):
                await self._server.call("POST", "auth/token/revoke-self", lease.token, b"{}")
        except (ProviderError, TimeoutError):
            _log.info("VAULT_TRANSIT: the token could not be revoked and ends by itself")

    async def _token(self) -> str | None:
        if self._login is None:
            return None
        if (token := self._good()) is not None:
            return token
        async with self._replacing:
            return self._good() or self._adopt(await self._log_in(self._login)).token

    def _good(self) -> str | None:
        lease = self._lease
        if lease is None or (lease.left is not None and lease.left <= 0):
            return None
        return lease.token

    async def _replaced(self, token: str) -> bool:
        """Whether there is another token now than `token`, which the server refused something to.

        False: it is good, and merely lacks the permission. Raises CredentialsInvalid when no other can be had.
        """
        if self._login is None:
            return False
        async with self._replacing:
            if self._lease is not None and self._lease.token != token:
                return True
            if time.monotonic() < self._trusted_until:
                return False
            if (await self._server.call("GET", "auth/token/lookup-self", token)).status != 403:
                self._trusted_until = time.monotonic() + TRUST_SECONDS
                return False
            self._lease = None
            lease = await self._log_in(self._login)
            if lease.token == token:
                refusal = CredentialsInvalid(
                    "the token is refused: it has expired, was revoked, or has no policy that allows this: put a good "
                    "one where hsm.credentials.data says"
                )
                self._refused.note(self._digest(token), refusal)
                raise refusal
            self._adopt(lease)
            # a login that is refused at once again lacks permission: no second one for the same reason
            self._trusted_until = time.monotonic() + TRUST_SECONDS
            return True

    async def _log_in(self, login: Login) -> Lease:
        secret = await login.secret()
        digest = self._digest(secret)
        self._refused.check(digest)
        try:
            return await login.log_in(secret)
        except CredentialsInvalid as error:
            self._refused.note(digest, error)
            raise

    def _adopt(self, lease: Lease) -> Lease:
        self._lease = lease
        self._unschedule()
        if lease.seconds is not None and not self._closed:
            self._schedule(lease.seconds * REFRESH_AT)
        return lease

    def _schedule(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(max(RETRY_SECONDS, seconds), self._refresh_soon)

    def _unschedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refresh_soon(self) -> None:
        self._refreshing = asyncio.get_running_loop().create_task(self._refresh())

    async def _refresh(self) -> None:
        """Renew the lease or get another, before it ends; try again while it lasts."""
        async with self._replacing:
            lease = self._lease
            if lease is None or self._login is None:
                return
            try:
                async with asyncio.timeout(self._patience):
                    self._adopt(await self._renewed(lease) or await self._log_in(self._login))
            except (ProviderError, TimeoutError) as error:
                _log.warning("VAULT_TRANSIT: the token was not renewed (%s)", str(error) or "no answer in time")
                if lease.left is not None and lease.left > 0:
                    self._schedule(lease.left / 4)

    async def _renewed(self, lease: Lease) -> Lease | None:
        """The same token for longer; None when it cannot be renewed, or not for much longer."""
        if not lease.renewable:
            return None
        since, about = time.monotonic(), "renewing the token"
        answer = await self._server.call("POST", "auth/token/renew-self", lease.token, b"{}")
        if 400 <= answer.status < 500 and answer.status != 429:
            return None
        renewed = granted(document(answer, about), since, about)
        assert lease.seconds is not None  # what has no end is not renewed
        return renewed if renewed.seconds is None or renewed.seconds >= lease.seconds / 2 else None

    def _digest(self, secret: str) -> bytes:
        # the certificate that the handshake shows is part of what is refused
        return sha256(f"{self._server.tls_files()}{secret}".encode()).digest()
