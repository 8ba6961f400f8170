"""From the configuration's peers to the small table that every worker checks for each request."""

from collections.abc import Sequence
from typing import Final

from fastpath.dataplane import Rule
from proxy.config import Config, Operation

OPERATION_CODES: Final[dict[Operation, int]] = {"encrypt": 1, "decrypt": 2, "blind_index": 3, "reencrypt": 4}
"""Numbers of docs/spec/wire.md."""


def compile_policy(config: Config) -> tuple[Rule, ...]:
    """One rule a peer, in the order of the file. Account names were resolved when the configuration was read."""
    return tuple(
        Rule(
            uid=peer.uid,
            gid=peer.gid,
            keyrings=peer.keyrings,
            operations=operation_mask(peer.operations),
            rate=peer.rate or 0,
        )
        for peer in config.policy.peers
    )


def operation_mask(operations: Sequence[Operation]) -> int:
    """Bit `1 << op` for each operation."""
    return sum(1 << OPERATION_CODES[operation] for operation in set(operations))
