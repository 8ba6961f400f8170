"""For tests of applications: a sidecar in plain Python that speaks the real wire protocol, and assertions.

    def test_list(keyside_sidecar): ...            the pytest plugin's fixture: a sidecar in this process, a Twin
    with assert_round_trips(max=1): ...            what the hooks may ask of it
    assert_encrypted(Patient, "ssn")               no stored value of the column is plaintext

`envelope`, `frames`, `server` and `faults` are written from docs/spec alone and share no code with the client and the
service: they are the oracle that both are tested against. They need `cryptography` (the extra `keyside[testing]`).
Nothing here is fast, hides secrets or is for production: the keys are fixed.
"""

from typing import TYPE_CHECKING, Any

from keyside.testing.assertions import assert_encrypted, assert_round_trips

if TYPE_CHECKING:
    from keyside.testing.server import Twin

__all__ = ["Twin", "assert_encrypted", "assert_round_trips"]


def __getattr__(name: str) -> Any:
    if name == "Twin":  # asked for by tests with a sidecar alone, for it needs `cryptography`
        from keyside.testing.server import Twin

        return Twin
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
