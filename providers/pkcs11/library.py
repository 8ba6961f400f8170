"""One PKCS #11 library, shared by every provider of the process that uses it.

C_Initialize and C_Finalize belong to the process, not to a provider: the first that comes initialises, the last that
goes finalises. A token that vanished and came back is seen only after C_Finalize and C_Initialize, which end every
session; `generation` counts them, so that everybody can tell a session of before.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from pkcs11 import PKCS11Error
from pkcs11._pkcs11 import lib

from providers.errors import ConfigurationInvalid, Problem, Unavailable
from providers.options import SECTION

DRAIN_SECONDS: Final = 0.5  # how long a renewal waits for calls that are inside the library
GATE_SECONDS: Final = 5.0  # how long a call waits for a renewal that is under way
HANGING_SECONDS: Final = 5.0  # after a renewal failed because of calls that hang, the next is not tried for so long

_OK: Final = 0x000
_OS_LOCKING_OK: Final = 0x002
_CRYPTOKI_NOT_INITIALIZED: Final = 0x190
_CRYPTOKI_ALREADY_INITIALIZED: Final = 0x191


class _InitializeArguments(ctypes.Structure):
    """CK_C_INITIALIZE_ARGS: four callbacks for locking that we leave to the library, flags, a reserved pointer."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("create", "destroy", "lock", "unlock")),
        ("flags", ctypes.c_ulong),
        ("reserved", ctypes.c_void_p),
    )


class _Head(ctypes.Structure):
    """The beginning of CK_FUNCTION_LIST, which is the same in every version."""

    _fields_ = (
        ("version", ctypes.c_ubyte * 2),
        ("initialize", ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)),
        ("finalize", ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)),
    )


class ThreadSafeLibrary(lib):
    """python-pkcs11's library, initialised for use by several threads.

    As shipped it calls C_Initialize(NULL), which promises the library one thread, and then lets threads in by
    releasing the GIL: crashes and hangs follow. Here CKF_OS_LOCKING_OK is passed (PKCS #11 v3.1, 5.4).
    """

    def __init__(self, so: str) -> None:
        self._head = _head(so)
        super().__init__(so)

    def initialize(self) -> None:
        arguments = _InitializeArguments(flags=_OS_LOCKING_OK)
        _require(self._head.initialize(ctypes.addressof(arguments)), _CRYPTOKI_ALREADY_INITIALIZED)

    def finalize(self) -> None:
        _require(self._head.finalize(None), _CRYPTOKI_NOT_INITIALIZED)


def _head(so: str) -> Any:
    """Where C_Initialize and C_Finalize are. Raises OSError or AttributeError for what is no PKCS #11 library."""
    head = ctypes.POINTER(_Head)()
    if (code := int(ctypes.CDLL(so).C_GetFunctionList(ctypes.byref(head)))) != _OK:
        raise OSError(f"C_GetFunctionList answered 0x{code:x}")
    return head.contents


def _require(code: int, also_good: int) -> None:
    if code not in (_OK, also_good):
        raise PKCS11Error(f"the library answered 0x{code:x}")


class LoginKey(NamedTuple):
    """What a login belongs to: one token of one generation."""

    generation: int
    slot: int


class Login:
    """The session that keeps the process logged in to one token, and how many use it."""

    def __init__(self, key: LoginKey, session: Any) -> None:
        self.key = key
        self.session = session
        self.users = 1


class SharedLibrary:
    """The library at one path: who uses it, which calls are inside, and when it was initialised anew."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.generation = 0
        self.logins: dict[LoginKey, Login] = {}
        self.logging_in = threading.Lock()
        self._native: ThreadSafeLibrary | None = None
        self._initialized = False
        self._lock = threading.Lock()
        self._turn = threading.Condition(self._lock)
        self._inside = 0
        self._renewing = False
        self._users = 0
        self._open_devices = 0
        self._hanging_until = 0.0

    @property
    def native(self) -> ThreadSafeLibrary:
        """The library itself; for calls made inside `calling`."""
        assert self._native is not None
        return self._native

    def join(self) -> None:
        """Count one more user."""
        with self._lock:
            self._users += 1

    def leave(self) -> None:
        """Count one less; the last one finalises, unless a call hangs inside."""
        with self._lock:
            self._users -= 1
            if self._users or self._inside or self._renewing or not self._initialized:
                return
            self._renewing = True
        try:
            self._finalize()
        finally:
            self._reopen_gate()

    def device_opened(self) -> None:
        """Note that one more user is served."""
        with self._lock:
            self._open_devices += 1

    def device_gone(self) -> None:
        """Note that it is no more."""
        with self._lock:
            self._open_devices -= 1

    def enter_call(self) -> int:
        """Hold off finalisation until `leave_call`; gives the generation. Raises Unavailable when it is going on."""
        with self._lock:
            if self._renewing and not self._turn.wait_for(lambda: not self._renewing, GATE_SECONDS):
                raise Unavailable(f"{self.path} does not finish initialising: see whether the HSM's client is healthy")
            self._inside += 1
            return self.generation

    def leave_call(self) -> None:
        """Undo `enter_call`."""
        with self._lock:
            self._inside -= 1
            if self._renewing:
                self._turn.notify_all()

    @contextmanager
    def calling(self) -> Iterator[int]:
        """Both, around a block; gives the generation."""
        generation = self.enter_call()
        try:
            yield generation
        finally:
            self.leave_call()

    def ready(self) -> None:
        """Load and initialise the library where that is still to be done."""
        if not self._initialized:
            self.renew(self.generation)

    def renew(self, seen: int) -> bool:
        """C_Finalize and C_Initialize, unless that happened since generation `seen` or others are served by it.

        Says whether the library is newer than `seen`. Raises Unavailable when calls hang inside the library or it does
        not initialise, ConfigurationInvalid when it cannot be loaded.
        """
        with self._lock:
            if self._renewing:
                self._turn.wait_for(lambda: not self._renewing, GATE_SECONDS)
            if self.generation != seen:
                return True
            if self._initialized and self._open_devices:
                return False
            self._renewing = True
        try:
            self._drain()
            self._finalize()
            self._initialize()
        finally:
            self._reopen_gate()
        return True

    def _drain(self) -> None:
        with self._lock:
            patience = DRAIN_SECONDS if time.monotonic() >= self._hanging_until else 0
            if not self._turn.wait_for(lambda: not self._inside, patience):
                self._hanging_until = time.monotonic() + HANGING_SECONDS
                raise Unavailable(
                    f"{self._inside} calls hang inside {self.path}, so it cannot be initialised anew: see whether the "
                    "HSM answers; if it does and this goes on, restart the sidecar"
                )

    def _finalize(self) -> None:
        if self._initialized:
            self._initialized = False
            self.logins.clear()
            self.native.finalize()

    def _initialize(self) -> None:
        try:
            if self._native is None:
                _head(self.path)  # python-pkcs11 does not tell what cannot be loaded from what does not initialise
                self._native = ThreadSafeLibrary(self.path)
                # never to be freed: python-pkcs11's destructor fails when the interpreter has half ended
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._native))
            else:
                self._native.initialize()
        except (OSError, AttributeError) as error:
            raise ConfigurationInvalid(
                [Problem(f"{SECTION}.connection.libraryPath", f"{self.path} is no PKCS #11 library ({error})")]
            ) from error
        except PKCS11Error as error:
            raise Unavailable(
                f"{self.path} does not initialise ({error}): see whether the HSM's client is configured and running"
            ) from error
        self._initialized = True
        self.generation += 1

    def _reopen_gate(self) -> None:
        with self._lock:
            self._renewing = False
            self._turn.notify_all()


_loaded: dict[str, SharedLibrary] = {}
_loading = threading.Lock()


def shared(path: str) -> SharedLibrary:
    """The one SharedLibrary of this process for `path`; the caller joins and leaves it."""
    with _loading:
        return _loaded.setdefault(path, SharedLibrary(path))
