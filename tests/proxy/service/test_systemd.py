"""sd_listen_fds(3) and sd_notify(3), as their manual pages have them."""

import os
import socket
from pathlib import Path

import pytest

from proxy.systemd import ActivationError, Notifier, listen_sockets

PATHS = {"data": Path("/run/keyside/keyside.sock"), "admin": Path("/run/keyside/admin.sock")}


def test_reports_go_to_a_path_and_to_an_abstract_name(home: Path) -> None:
    for address, variable in ((str(home / "n"), str(home / "n")), (f"\0ks{os.getpid()}", f"@ks{os.getpid()}")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(address)
            manager.settimeout(5)
            environ = {"NOTIFY_SOCKET": variable}
            notifier = Notifier(environ)
            notifier.ready("serving\nREADY=0")
            assert manager.recv(1000) == b"READY=1\nSTATUS=serving READY=0"
            notifier.stopping("draining")
            assert manager.recv(1000) == b"STOPPING=1\nSTATUS=draining"
            assert environ == {}


def test_reporting_never_fails_the_service(home: Path) -> None:
    Notifier({}).ready("nobody listens")
    Notifier({"NOTIFY_SOCKET": str(home / "gone")}).alive()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_shown_life_twice_as_often_as_it_asks(environ: dict[str, str], seconds: float | None) -> None:
    assert Notifier(environ).watchdog_interval == seconds


@pytest.mark.parametrize(
    "environ", [{}, {"LISTEN_FDS": "1"}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_PID": str(os.getpid())}]
)
def test_descriptors_for_somebody_else_are_left_alone(environ: dict[str, str]) -> None:
    assert listen_sockets(environ, PATHS) == {}
    assert environ == {}


def given(monkeypatch: pytest.MonkeyPatch, *opened: socket.socket, names: str = "") -> dict[str, str]:
    """An environment that passes duplicates of these sockets, from whichever descriptor is free in this process."""
    first = 900
    for place, one in enumerate(opened):
        os.dup2(one.fileno(), first + place)
    monkeypatch.setattr("proxy.systemd.FIRST_FD", first)
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(opened)), "LISTEN_FDNAMES": names}


def listening(path: Path) -> socket.socket:
    opened = socket.socket(socket.AF_UNIX)
    opened.bind(str(path))
    opened.listen()
    return opened


def test_a_socket_is_known_by_name_or_by_path(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {"data": home / "d", "admin": home / "a"}
    with listening(home / "other") as named, listening(home / "d") as by_path:
        taken = listen_sockets(given(monkeypatch, named, by_path, names="admin:keyside.socket"), paths)
    with taken["admin"] as admin, taken["data"] as data:
        assert admin.getsockname() == str(home / "other")
        assert data.getsockname() == str(home / "d")
        assert not data.getblocking()
        assert not os.get_inheritable(data.fileno())


def test_sockets_that_cannot_be_served_are_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = socket.socketpair()
    with left, right, pytest.raises(ActivationError, match="Accept=no"):
        listen_sockets(given(monkeypatch, left, names="data"), PATHS)
    with listening(home / "x") as unknown, pytest.raises(ActivationError, match="FileDescriptorName="):
        listen_sockets(given(monkeypatch, unknown, names="web"), PATHS)
    with listening(home / "y") as one, listening(home / "z") as two, pytest.raises(ActivationError, match="two data"):
        listen_sockets(given(monkeypatch, one, two, names="data:data"), PATHS)
    monkeypatch.setattr("proxy.systemd.FIRST_FD", 950)
    with pytest.raises(ActivationError, match="there is none"):
        listen_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}, PATHS)
