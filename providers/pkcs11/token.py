"""Which token, and who is logged in to it.

A login belongs to the process: the first provider that comes logs in, the others share it, and the last that goes logs
out (a logout on any session ends the login of all). PINs are counted by tokens and lock after a few wrong ones, so one
that was refused is never tried again by the same provider.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Final

import pkcs11.exceptions as ck
from pkcs11 import PKCS11Error, Session, Token, TokenFlag

from providers.errors import ConfigurationInvalid, CredentialsInvalid, Problem, Unavailable
from providers.options import SECTION
from providers.pkcs11.failures import meaning
from providers.pkcs11.library import Login, LoginKey, SharedLibrary, ThreadSafeLibrary

_UNLOCK: Final = "have the security officer reset it, then correct hsm.credentials and reload"


def find_token(library: ThreadSafeLibrary, slot: int | None, label: str | None) -> Token:
    """The token in `slot`, or the one labelled `label`, or the only one.

    Raises Unavailable when it is not there (it may come), ConfigurationInvalid when the choice is not one.
    """
    present = _present(library)
    fitting = [token for token in present if slot in (None, token.slot.slot_id) and label in (None, token.label)]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(f"{token.label!r} in slot {token.slot.slot_id}" for token in present) or "none"
    if not fitting:
        wanted = " and ".join(
            text for text in (f"slot {slot}" if slot is not None else "", f"label {label!r}" if label else "") if text
        )
        raise Unavailable(
            f"there is no token {'with ' + wanted if wanted else 'at all'}; present: {names}. Correct "
            "hsm.connection.slot or hsm.connection.partition, or see why the HSM's client does not show it"
        )
    raise ConfigurationInvalid(
        [Problem(f"{SECTION}.connection.partition", f"several tokens fit: {names}. Name one by label or slot")]
    )


def _present(library: ThreadSafeLibrary) -> list[Token]:
    tokens = []
    for slot in library.get_slots(token_present=True):
        try:
            token = slot.get_token()
        except (ck.TokenNotPresent, ck.TokenNotRecognised):
            continue
        if TokenFlag.TOKEN_INITIALIZED in token.flags:
            tokens.append(token)
    return tokens


class RefusedPins:
    """The PINs that a token refused, as digests under a key of this process."""

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._digests: set[bytes] = set()

    def add(self, pin: bytearray) -> None:
        """Never try this one again."""
        self._digests.add(self._digest(pin))

    def __contains__(self, pin: bytearray) -> bool:
        return self._digest(pin) in self._digests

    def _digest(self, pin: bytearray) -> bytes:
        return hashlib.blake2b(pin, key=self._key, digest_size=32).digest()


def log_in(shared: SharedLibrary, generation: int, token: Token, pin: bytearray, refused: RefusedPins) -> Login:
    """Log the process in, or share the login that is there. Raises CredentialsInvalid, or what the token answered.

    Where another provider is logged in already its login is shared and `pin` is not tried: a token does not check the
    PIN of somebody who is logged in. Give it back with `log_out`.
    """
    key = LoginKey(generation, token.slot.slot_id)
    with shared.logging_in:
        if (login := shared.logins.get(key)) is not None:
            login.users += 1
        else:
            login = shared.logins[key] = Login(key, _session_of(token, pin, refused))
    return login


def log_out(shared: SharedLibrary, login: Login) -> None:
    """Give a login back; the last user ends it."""
    with shared.logging_in:
        login.users -= 1
        if login.users or shared.logins.get(login.key) is not login:
            return
        del shared.logins[login.key]
        close_quietly([login.session])


def forget_login(shared: SharedLibrary, login: Login) -> None:
    """The token says that nobody is logged in: let the next one log in anew.

    The session of the login that is lost is left alone: closing it would log out whoever logged in since.
    """
    with shared.logging_in:
        if shared.logins.get(login.key) is login:
            del shared.logins[login.key]


def close_quietly(sessions: Sequence[Session]) -> None:
    """Close what can be closed: a token that went away took its sessions with it."""
    for session in sessions:
        try:
            session.close()
        except PKCS11Error:
            continue


def _session_of(token: Token, pin: bytearray, refused: RefusedPins) -> Session:
    if pin in refused:
        raise CredentialsInvalid(
            "the token refused this PIN before, and it is not tried again, because tokens lock after a few wrong "
            "ones: correct hsm.credentials"
        )
    flags = token.flags
    if TokenFlag.USER_PIN_LOCKED in flags:
        raise CredentialsInvalid(f"the PIN of token {token.label!r} is locked: {_UNLOCK}")
    if TokenFlag.USER_PIN_FINAL_TRY in flags:
        raise CredentialsInvalid(
            f"one more wrong PIN locks token {token.label!r}, so this one is not tried: log in once with the maker's "
            "tool, which sets the count back, then reload"
        )
    try:
        return token.open(user_pin=pin.decode())
    except ck.UserAlreadyLoggedIn:
        return token.open()  # by somebody else in this process: their login serves as well as ours
    except PKCS11Error as error:
        if isinstance(error, (ck.PinIncorrect, ck.PinLenRange, ck.PinInvalid, ck.PinExpired, ck.PinLocked)):
            refused.add(pin)
        raise meaning(error) from error
