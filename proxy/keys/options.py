"""What operators may set about data keys in memory and their message budgets."""

from dataclasses import dataclass
from typing import Self

from proxy.config import Config


@dataclass(frozen=True, slots=True)
class KeyOptions:
    """Times in milliseconds, budgets in messages."""

    ttl: int  # how long an unwrapped data key may serve
    refresh_ahead: float  # share of ttl after which a key in use is unwrapped anew
    negative_ttl: int  # how long a refusal is answered from memory
    messages_per_key: int  # what all sidecars together may encrypt under one data key
    lease: int  # block taken from that at first
    lease_max: int  # and at most
    patience: int  # how long a call may wait for its turn at the provider: nobody waits longer for its outcome

    @classmethod
    def of(cls, config: Config) -> Self:
        """The options that a configuration asks for."""
        return cls(
            ttl=config.cache.ttl,
            refresh_ahead=config.cache.refresh_ahead,
            negative_ttl=config.cache.negative_ttl,
            messages_per_key=config.budget.messages_per_key,
            lease=config.budget.lease,
            lease_max=config.budget.lease_max,
            patience=config.limits.park_timeout,
        )

    @property
    def refresh_within(self) -> int:
        """How near its end a key in use is refreshed, in milliseconds."""
        return max(1, round(self.ttl * (1 - self.refresh_ahead)))
