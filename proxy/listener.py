"""The Unix sockets the sidecar listens on: their mode is right before anyone connects."""

import errno
import grp
import os
import socket
import stat
import struct
from pathlib import Path
from typing import Final

from proxy.exits import Exit
from proxy.startup import StartupError

# sockaddr_un.sun_path holds 108 bytes and a terminating zero (unix(7))
LONGEST_PATH: Final = 107
BACKLOG: Final = 4096
_CREDENTIALS = struct.Struct("3i")


class SocketInTheWay(StartupError):
    """The socket cannot be listened on."""


class Listener:
    """A listening, non-blocking Unix stream socket, and the file it is reached by."""

    def __init__(self, opened: socket.socket, path: Path, made_here: bool) -> None:
        self.socket = opened
        self.path = path
        # systemd owns the files of sockets it passes in, and connects to them while the sidecar restarts
        self._identity = _identity(path) if made_here else None

    def unlink(self) -> None:
        """Remove the file, so that nobody new connects, unless another process has put its own there since."""
        if self._identity is not None and _identity(self.path) == self._identity:
            self.path.unlink(missing_ok=True)
        self._identity = None

    def close(self) -> None:
        """Stop listening, and remove the file."""
        self.unlink()
        self.socket.close()


def check_free(path: Path) -> None:
    """Raise SocketInTheWay when `path` cannot become a socket: too long, another file, or served by a live process."""
    length = len(os.fsencode(path))
    if length > LONGEST_PATH:
        raise SocketInTheWay(
            f"the socket path {path} is {length} bytes long, and the kernel takes {LONGEST_PATH}; "
            "set a shorter one, such as /run/keyside/keyside.sock",
            Exit.CONFIG,
        )
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return  # making the folders will tell
    except OSError as error:
        raise SocketInTheWay(
            f"{path} cannot be looked at: {error.strerror}; check the folder's owner and mode", Exit.CANNOT_CREATE
        ) from error
    if not stat.S_ISSOCK(mode):
        raise SocketInTheWay(f"{path} exists and is not a socket; move it away or set another path", Exit.CANNOT_CREATE)
    if (pid := serving_process(path)) is not None:
        raise SocketInTheWay(
            f"another process (pid {pid}) is serving on {path}; stop it first, or give this sidecar paths of its own",
            Exit.TRY_LATER,
        )


def serving_process(path: Path) -> int | None:
    """Pid of the process listening on `path` (0: in another pid namespace); None when nobody does (stale)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return None
        except FileNotFoundError:
            return None
        except BlockingIOError:
            return 0  # somebody's backlog is full: alive, and busy
        except OSError as error:
            raise SocketInTheWay(
                f"cannot tell whether another process serves on {path}: {error.strerror}; check its owner and mode",
                Exit.CANNOT_CREATE,
            ) from error
        pid: int = _CREDENTIALS.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[0]
        return pid


def listen(path: Path, mode: int, group: str | int | None) -> Listener:
    """Listen on `path` with the given file mode and group, replacing a stale file. Raises SocketInTheWay."""
    check_free(path)
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        # bound with no permissions at all, so that nobody connects before owner and mode are right
        before = os.umask(0o777)
        try:
            opened.bind(os.fspath(path))
        finally:
            os.umask(before)
        if group is not None:
            os.chown(path, -1, _group_id(group))
        path.chmod(mode)
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        raise SocketInTheWay(
            f"cannot listen on {path}: {error.strerror}; {_remedy(error)}", Exit.CANNOT_CREATE
        ) from error
    except SocketInTheWay:
        opened.close()
        raise
    return Listener(opened, path, made_here=True)


def adopt(opened: socket.socket, path: Path) -> Listener:
    """A socket that systemd made."""
    return Listener(opened, path, made_here=False)


def _group_id(group: str | int) -> int:
    if isinstance(group, int):
        return group
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise SocketInTheWay(
            f"socket.group: there is no group {group!r}; create it or name another", Exit.CONFIG
        ) from error


def _remedy(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"uid {os.geteuid()} needs to be able to write in its folder, and to be a member of socket.group"
    if error.errno == errno.EADDRINUSE:
        return "another process has just taken it"
    return "check that its folder exists on a file system that holds sockets"


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
