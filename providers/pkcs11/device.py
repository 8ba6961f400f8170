"""One opened token: logged in, its mechanism chosen and tried, its sessions made for the threads that ask."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from pkcs11 import KeyType, PKCS11Error, Session, Token

from providers.errors import (
    ConfigurationInvalid,
    ForeignWrap,
    InputRefused,
    KeyDisabled,
    NotFound,
    Problem,
    ProviderError,
    Tampered,
    Unavailable,
)
from providers.options import SECTION
from providers.pkcs11 import keys
from providers.pkcs11.failures import ALTERED, STALE, meaning, settled
from providers.pkcs11.library import Login, SharedLibrary
from providers.pkcs11.mechanisms import FindKey, Sealing, sealing
from providers.pkcs11.names import KeyName
from providers.pkcs11.token import RefusedPins, close_quietly, find_token, forget_login, log_in, log_out
from providers.pkcs11.vendors import PREFERENCE, Mechanism, Vendor
from providers.pkcs11.workers import Seat
from providers.wiping import wipe

T = TypeVar("T")

_log = logging.getLogger(__name__)

_CANARY_CONTEXT: Final = b"keyside pkcs11 canary"
_OTHER_CONTEXT: Final = b"keyside pkcs11 no canary"
_CANARY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Choice:
    """What the configuration says about the token."""

    vendor: Vendor
    slot: int | None
    label: str | None
    kek: str  # a label, or a whole name
    mechanism: Mechanism | None  # None: the best that works
    session_seconds: float


@dataclass(slots=True)
class Held:
    """A session that one thread keeps, and the keys that it found there."""

    device: Device
    session: Session
    opened_at: float
    found: dict[tuple[str, KeyType], Any] = field(default_factory=dict)

    def key(self, name: str, key_type: KeyType) -> Any:
        """A key's object in this session; looked up once."""
        if (key := self.found.get((name, key_type))) is None:
            key = self.found[name, key_type] = keys.find_key(self.session, name, key_type)
        return key

    def retire(self, seat: Seat[Held]) -> None:
        """Close the session at its thread's end, where the library still knows it."""
        try:
            with self.device.shared.calling() as generation:
                self.drop(seat, generation)
        except Unavailable:
            return  # the library does not come back: it took the session with it

    def drop(self, seat: Seat[Held], generation: int) -> None:
        """The same, inside the library."""
        seat.holding = None
        self.found.clear()
        if generation == self.device.generation:
            close_quietly([self.session])


class Device:
    """A token of one generation of its library. Every method runs in a worker's thread."""

    def __init__(self, shared: SharedLibrary, choice: Choice, generation: int, token: Token, login: Login) -> None:
        self.shared = shared
        self.choice = choice
        self.generation = generation
        self.token = token
        self.kek = ""
        self.broken = False
        self._login = login
        self._offered = {int(number) for number in token.slot.get_mechanisms()}
        self._sealings: dict[str, Sealing] = {}
        self._sealing: Sealing | None = None
        self._canary = b""
        self._seen: frozenset[tuple[str, KeyType]] = frozenset()  # the keys that were there when it was opened

    @property
    def sealing(self) -> Sealing:
        """The mechanism that wraps."""
        assert self._sealing is not None
        return self._sealing

    def prepare(self) -> None:
        """Find the key-encryption key and a mechanism that really works with it. Raises ProviderError."""
        session = self.token.open()
        held = Held(self, session, time.monotonic())
        try:
            label = self.choice.kek
            self.kek = label if "#" in label else self._current(session)
            self._sealing, self._canary = self._working(held)
            self._seen = frozenset(held.found)
        finally:
            close_quietly([session])

    def _current(self, session: Session) -> str:
        capable = [name for name in self._considered if self._candidate(name) is not None]
        return keys.current_name(session, self.choice.kek, paired=capable == [keys.PAIRED])

    def first_offered(self) -> Mechanism:
        """The best mechanism that the token offers, whatever its keys allow. Raises ConfigurationInvalid."""
        for name in self._considered:
            if self._candidate(name) is not None:
                return name
        raise ConfigurationInvalid(
            [Problem(f"{SECTION}.mechanism", f"token {self.token.label!r} offers no mechanism that authenticates")]
        )

    def _working(self, held: Held) -> tuple[Sealing, bytes]:
        reasons = []
        for name in self._considered:
            candidate = self._candidate(name)
            if candidate is None:
                reasons.append(f"{name}: not offered")
                continue
            try:
                return candidate, self._tried(held, candidate)
            except (KeyDisabled, NotFound) as error:
                reasons.append(f"{name}: {error}")
            except PKCS11Error as error:
                if isinstance(error, STALE):
                    raise
                reasons.append(f"{name}: {type(error).__name__}")
        raise ConfigurationInvalid(
            [
                Problem(
                    f"{SECTION}.mechanism",
                    f"token {self.token.label!r} ({self.token.model}) has no mechanism that wraps with key {self.kek} "
                    f"and authenticates ({'; '.join(reasons)})",
                )
            ]
        )

    @property
    def _considered(self) -> Sequence[Mechanism]:
        return (self.choice.mechanism,) if self.choice.mechanism else PREFERENCE

    def _candidate(self, name: Mechanism) -> Sealing | None:
        """The mechanism, where the token offers it for all that it is needed for."""
        found = sealing(name, self._offered, self.choice.vendor)
        if found is None:
            return None
        flags = self.token.slot.get_mechanism_info(found.ckm).flags
        return found if found.needs & flags == found.needs else None

    def _tried(self, held: Held, candidate: Sealing) -> bytes:
        probe = os.urandom(_CANARY_BYTES)

        def find(key_type: KeyType) -> Any:
            return held.key(self.kek, key_type)

        canary = candidate.seal(held.session, find, probe, _CANARY_CONTEXT)
        opened = candidate.open(held.session, find, canary, _CANARY_CONTEXT)
        if opened != probe:
            raise PKCS11Error("what the token opens is not what it sealed")
        try:
            wipe(candidate.open(held.session, find, canary, _OTHER_CONTEXT))
        except STALE:
            raise  # says nothing about the mechanism
        except (PKCS11Error, ProviderError):
            return canary
        raise PKCS11Error("the token opens it in any context: it ignores the associated data")

    def seal(self, held: Held, name: str, secret: bytes | bytearray, associated: bytes) -> bytes:
        """Seal under the key of that name by the mechanism in use."""
        return self.sealing.seal(held.session, self._finder(held, name), secret, associated)

    def open(self, held: Held, name: str, mechanism: str, blob: bytes, associated: bytes) -> bytearray:
        """Open what was sealed, by this mechanism or another. Raises Tampered, ForeignWrap, NotFound."""
        opener = self.sealing if mechanism == self.sealing.name else self._other(mechanism)
        try:
            return opener.open(held.session, self._finder(held, name), blob, associated)
        except PKCS11Error as error:
            if settled(error):
                raise
            if self.well(held):
                raise Tampered(ALTERED) from error
            raise Unavailable(
                f"the token opens nothing any more, a wrap known to be good included ({type(error).__name__}): it is "
                "opened anew"
            ) from error

    def guard(self, session: Session, name: KeyName) -> None:
        """Refuse to destroy the key that wraps, or that will at the next opening. Raises InputRefused."""
        in_use = {self.kek}
        if self.choice.kek == name.label:
            in_use.add(self._current(session))
        if str(name) in in_use:
            raise InputRefused(f"{name} is in use: make a newer key and let it take over first")

    def _finder(self, held: Held, name: str) -> FindKey:
        def find(key_type: KeyType) -> Any:
            try:
                return held.key(name, key_type)
            except NotFound as error:
                if (name, key_type) in self._seen or not self.well(held):
                    raise Unavailable("the token does not show its keys any more: it is opened anew") from error
                return held.key(name, key_type)  # somebody logged in meanwhile, or it is really not there

        return find

    def well(self, held: Held) -> bool:
        """Whether this session opens a wrap that is known to be good: free of charge, and needs the permission."""
        try:
            self.check(held)
        except (PKCS11Error, ProviderError):
            return False
        return True

    def check(self, held: Held) -> None:
        """Open the known wrap. Raises what the token answered."""

        def find(key_type: KeyType) -> Any:
            return held.key(self.kek, key_type)

        wipe(self.sealing.open(held.session, find, self._canary, _CANARY_CONTEXT))

    def _other(self, mechanism: str) -> Sealing:
        if (known := self._sealings.get(mechanism)) is not None:
            return known
        name = next((name for name in PREFERENCE if name == mechanism), None)
        found = sealing(name, self._offered, self.choice.vendor) if name else None
        if found is None:
            raise ForeignWrap(
                f"token {self.token.label!r} has no mechanism {mechanism!r}: did another token or release wrap this?"
            )
        return self._sealings.setdefault(mechanism, found)

    def serve(self, seat: Seat[Held], call: Callable[[Held], T]) -> T:
        """Run `call` on this thread's session. Raises ProviderError; `broken` says whether to open the token anew."""
        held: Held | None = None
        self._enter()
        try:
            held = self._held(seat)
            return call(held)
        except (PKCS11Error, Unavailable) as error:
            if held is not None:
                held.drop(seat, self.generation)
            raise self._ours(error) from error
        finally:
            self.shared.leave_call()

    def _held(self, seat: Seat[Held]) -> Held:
        """The session that this thread keeps, made anew when it is old or another token's."""
        held = seat.holding
        if held is not None:
            if held.device is self and time.monotonic() - held.opened_at < self.choice.session_seconds:
                return held
            held.drop(seat, self.generation)
        seat.holding = Held(self, self.token.open(), time.monotonic())
        return seat.holding

    def write(self, call: Callable[[Session], T]) -> T:
        """Run `call` on a session of its own that may make and destroy keys. Raises ProviderError."""
        self._enter()
        try:
            session = self.token.open(rw=True)
            try:
                return call(session)
            finally:
                close_quietly([session])
        except (PKCS11Error, Unavailable) as error:
            raise self._ours(error) from error
        finally:
            self.shared.leave_call()

    def _enter(self) -> None:
        if self.shared.enter_call() != self.generation:
            self.shared.leave_call()
            self.broken = True
            raise Unavailable("the library was initialised anew: the token is opened again")

    def _ours(self, error: PKCS11Error | Unavailable) -> ProviderError:
        if isinstance(error, STALE):
            forget_login(self.shared, self._login)
        ours = meaning(error) if isinstance(error, PKCS11Error) else error
        self.broken = self.broken or isinstance(ours, Unavailable)
        return ours

    def end_session(self, session: Session) -> None:
        """Close a session that was made beside the threads' own, where the library still knows it."""
        if self.shared.generation == self.generation:
            close_quietly([session])

    def close(self) -> None:
        """Give up the login; sessions are their threads'."""
        with self.shared.calling() as generation:
            if generation == self.generation:
                log_out(self.shared, self._login)


def open_device(shared: SharedLibrary, choice: Choice, pin: bytearray, refused: RefusedPins) -> Device:
    """Find the token, log in, and try its mechanism; once more on a library initialised anew where that may help.

    A token that vanished and came back is seen by nothing less. Others who are served by the library are left alone.
    Raises ProviderError.
    """
    before = shared.generation
    shared.ready()
    fresh = shared.generation != before
    seen = shared.generation
    try:
        return _attempt(shared, choice, pin, refused)
    except (Unavailable, NotFound):
        if fresh or not shared.renew(seen):
            raise
    _log.info("%s was initialised anew", shared.path)
    return _attempt(shared, choice, pin, refused)


def make_first_key(
    shared: SharedLibrary,
    choice: Choice,
    pin: bytearray,
    refused: RefusedPins,
    make: Callable[[Session, Mechanism], str],
) -> str:
    """Run `make` on a token that has no key-encryption key yet, and so cannot be opened. Raises ProviderError."""
    shared.ready()
    with shared.calling() as generation:
        try:
            token = find_token(shared.native, choice.slot, choice.label)
            login = log_in(shared, generation, token, pin, refused)
            try:
                session = token.open(rw=True)
                try:
                    return make(session, Device(shared, choice, generation, token, login).first_offered())
                finally:
                    close_quietly([session])
            finally:
                log_out(shared, login)
        except PKCS11Error as error:
            raise meaning(error) from error


def _attempt(shared: SharedLibrary, choice: Choice, pin: bytearray, refused: RefusedPins) -> Device:
    with shared.calling() as generation:
        try:
            token = find_token(shared.native, choice.slot, choice.label)
            login = log_in(shared, generation, token, pin, refused)
            try:
                device = Device(shared, choice, generation, token, login)
                device.prepare()
            except BaseException:
                log_out(shared, login)
                raise
        except PKCS11Error as error:
            raise meaning(error) from error
    return device
