"""What systemd offers a service: sockets it opened (socket activation) and a line to report to it (sd_notify).

Written out because both protocols are a few environment variables and one datagram; see sd_listen_fds(3), sd_notify(3).
Without systemd every function here is a no-op.
"""

import os
import socket
import time
from collections.abc import MutableMapping
from contextlib import ExitStack, suppress
from pathlib import Path

FIRST_FD = 3


class ActivationError(Exception):
    """systemd handed over descriptors that the sidecar cannot use; the message names the unit setting to change."""


def listen_sockets(environ: MutableMapping[str, str], paths: dict[str, Path]) -> dict[str, socket.socket]:
    """Take the sockets that systemd opened, keyed as in `paths` (`data`, `admin`); empty without socket activation.

    A socket is recognised by its name (`FileDescriptorName=data`), or else by the path it listens on. The variables are
    removed, so that no child of this process takes them for its own. Raises ActivationError.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdigit():
        return {}
    taken: dict[str, socket.socket] = {}
    with ExitStack() as refused:
        for index, descriptor in enumerate(range(FIRST_FD, FIRST_FD + int(count))):
            opened = refused.enter_context(_open(descriptor))
            _check_listening(opened, descriptor)
            role = _role(opened, names[index] if index < len(names) else "", paths)
            if role in taken:
                raise ActivationError(f"systemd passed two {role} sockets; keep one ListenStream= with that name")
            taken[role] = opened
        refused.pop_all()
    return taken


def _open(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        return socket.socket(fileno=descriptor)
    except OSError as error:
        raise ActivationError(
            f"LISTEN_FDS promises a socket as descriptor {descriptor}, and there is none; start by the .socket unit"
        ) from error


def _check_listening(opened: socket.socket, descriptor: int) -> None:
    stream = opened.family == socket.AF_UNIX and opened.type == socket.SOCK_STREAM
    if not stream or not opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ActivationError(
            f"descriptor {descriptor} from systemd is no listening Unix stream socket; "
            "use ListenStream=/path and Accept=no"
        )
    opened.setblocking(False)


def _role(opened: socket.socket, name: str, paths: dict[str, Path]) -> str:
    if name in paths:
        return name
    bound = Path(os.fsdecode(opened.getsockname()))
    for role, path in paths.items():
        if bound == path:
            return role
    raise ActivationError(
        f"systemd passed a socket at {bound} named {name!r}, which is neither data nor admin; "
        "set FileDescriptorName=data or FileDescriptorName=admin in its .socket unit"
    )


class Notifier:
    """Reports to the service manager named by $NOTIFY_SOCKET. A report that cannot be sent never fails the service."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self._address = environ.pop("NOTIFY_SOCKET", "")
        self.watchdog_interval = _watchdog_interval(environ)
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]

    def ready(self, status: str) -> None:
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        # MONOTONIC_USEC lets Type=notify-reload tell this reload from one that was already under way
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        self._send("STOPPING=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        self._send(f"STATUS={status}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        message = "\n".join(line.replace("\n", " ") for line in lines)
        # a manager that is restarting reads none of it, and the service must go on all the same
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
            line.setblocking(False)
            line.sendto(message.encode(), self._address)


def _watchdog_interval(environ: MutableMapping[str, str]) -> float | None:
    """Seconds between signs of life: half of what systemd allows, as sd_watchdog_enabled(3) advises."""
    microseconds, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
    if not microseconds.isdigit() or int(microseconds) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(microseconds) / 2_000_000
