"""Rules as the native gate takes them."""

from pathlib import Path

from fastpath.dataplane import Rule
from proxy.config import parse
from proxy.policy import compile_policy


def test_a_rule_a_peer_in_order() -> None:
    config = parse(
        """
policy:
  peers:
    - {uid: 0, keyrings: ["*"], operations: all}
    - {gid: 5, keyrings: [users, "users/*"], operations: [decrypt, encrypt, decrypt], rate: 10}
    - {uid: 7, gid: 8, keyrings: [x], operations: [blind_index]}
    - {uid: 9, keyrings: [x], operations: [reencrypt]}
""",
        base=Path("/"),
    )
    assert compile_policy(config) == (
        Rule(0, None, ("*",), 0b11110, 0),
        Rule(None, 5, ("users", "users/*"), 0b00110, 10),
        Rule(7, 8, ("x",), 0b01000, 0),
        Rule(9, None, ("x",), 0b10000, 0),
    )


def test_nobody_is_no_rule() -> None:
    assert compile_policy(parse("", base=Path("/"))) == ()
