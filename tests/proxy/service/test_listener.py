"""Socket files: their mode and group, what is in the way, and whose they are when the sidecar ends."""

import os
import socket
import stat
from pathlib import Path

import pytest

from proxy.exits import Exit
from proxy.listener import SocketInTheWay, adopt, check_free, listen, serving_process


def test_mode_and_group_are_set(home: Path) -> None:
    listener = listen(home / "deep" / "er" / "s", 0o620, os.getegid())
    found = (home / "deep" / "er" / "s").stat()
    assert stat.S_IMODE(found.st_mode) == 0o620
    assert found.st_gid == os.getegid()
    assert serving_process(listener.path) == os.getpid()
    assert not listener.socket.getblocking()
    listener.close()
    assert not listener.path.exists()


def test_a_stale_file_is_replaced_and_a_live_socket_never(home: Path) -> None:
    path = home / "s"
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(str(path))
    assert serving_process(path) is None
    listener = listen(path, 0o600, None)
    with pytest.raises(SocketInTheWay, match=f"pid {os.getpid()}") as refused:
        listen(path, 0o600, None)
    assert refused.value.exit_code == Exit.TRY_LATER
    assert serving_process(path) == os.getpid()
    listener.close()


def test_a_full_backlog_is_alive(home: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(str(home / "s"))
        busy.listen(0)
        first.connect(str(home / "s"))
        with pytest.raises(SocketInTheWay, match="another process"):
            check_free(home / "s")


def test_the_file_of_another_process_is_not_removed(home: Path) -> None:
    ours = listen(home / "s", 0o600, None)
    (home / "s").unlink()
    theirs = listen(home / "s", 0o600, None)
    ours.close()
    assert serving_process(home / "s") == os.getpid()
    theirs.close()


def test_the_file_of_a_passed_socket_stays(home: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(home / "s"))
        opened.listen()
        adopt(opened, home / "s").close()
    assert (home / "s").exists()


@pytest.mark.parametrize("length", [107, 108])
def test_the_longest_path(home: Path, length: int) -> None:
    path = home / ("x" * (length - len(bytes(home)) - 1))
    assert len(bytes(path)) == length
    if length == 107:
        listen(path, 0o600, None).close()
        return
    with pytest.raises(SocketInTheWay, match="108 bytes long"):
        listen(path, 0o600, None)


def test_a_folder_in_the_way_is_named(home: Path) -> None:
    (home / "file").write_text("")
    with pytest.raises(SocketInTheWay, match="not a socket"):
        listen(home / "file", 0o600, None)
    with pytest.raises(SocketInTheWay) as refused:
        listen(home / "file" / "s", 0o600, None)
    assert refused.value.exit_code == Exit.CANNOT_CREATE
    assert (home / "file").exists()
