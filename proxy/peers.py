"""Who is at the other end of a Unix socket, as the kernel says (unix(7): SO_PEERCRED, SO_PEERGROUPS)."""

import array
import socket
import struct
from typing import Final, NamedTuple

SO_PEERGROUPS: Final = 59  # not in Python's socket module
_CREDENTIALS: Final = struct.Struct("iII")
_GROUPS_BYTES: Final = 1024  # the most that Python's getsockopt takes: 256 groups


class Peer(NamedTuple):
    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...]  # supplementary ones; empty when there are more than 256


def peer_of(descriptor: int) -> Peer:
    """The process that connected. Raises OSError when `descriptor` is no connected Unix socket."""
    # socket.socket(fileno=) takes ownership, and the descriptor is the caller's
    borrowed = socket.socket(fileno=descriptor)
    try:
        pid, uid, gid = _CREDENTIALS.unpack(
            borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        return Peer(pid, uid, gid, _groups(borrowed))
    finally:
        borrowed.detach()


def _groups(connected: socket.socket) -> tuple[int, ...]:
    try:
        found = connected.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError:
        # more groups than fit, or a kernel before 4.13: a rule for a supplementary group then does not match, which
        # refuses
        return ()
    return tuple(array.array("I", found))
