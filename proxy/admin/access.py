"""Who may use the admin socket: the sidecar's own uid, root and the configured peers, as the kernel sees them."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from aiohttp import web

from proxy.peers import Peer, peer_of


@dataclass(frozen=True)
class AdminRule:
    """Matches a peer when each of uid and gid that is given matches; gid: any group of the peer."""

    uid: int | None
    gid: int | None

    def matches(self, peer: Peer) -> bool:
        if self.uid is None and self.gid is None:
            return False
        by_uid = self.uid is None or self.uid == peer.uid
        by_gid = self.gid is None or self.gid == peer.gid or self.gid in peer.groups
        return by_uid and by_gid


class AdminPeers:
    """The rule set; `replace` takes effect for open connections too. `own`: the uid that runs the sidecar."""

    def __init__(self, rules: Iterable[AdminRule] = (), own: int | None = None) -> None:
        self._always = {0, os.geteuid() if own is None else own}
        self._rules = tuple(rules)

    def replace(self, rules: Iterable[AdminRule]) -> None:
        self._rules = tuple(rules)

    def admits(self, peer: Peer) -> bool:
        return peer.uid in self._always or any(rule.matches(peer) for rule in self._rules)


def peer_of_request(request: web.Request) -> Peer | None:
    """The process that sent a request; None when its connection is gone already."""
    connected = request.transport.get_extra_info("socket") if request.transport else None
    if connected is None or connected.fileno() < 0:
        return None
    return peer_of(connected.fileno())
