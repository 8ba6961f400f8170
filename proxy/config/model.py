"""The whole configuration: one frozen object, made only by `proxy.config.load` and `proxy.config.parse`."""

from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, PrivateAttr, field_validator, model_validator

from proxy.config.sections import Admin, Budget, Cache, Keystore, Limits, Log, Policy, Section, Socket, Workers


class Config(Section):
    """Every setting, with defaults filled in, paths absolute, accounts as numbers, times in ms and sizes in bytes."""

    model_config = ConfigDict(title="configuration")

    socket: Socket
    admin: Admin
    keystore: Keystore
    hsm: dict[str, Any] = Field(repr=False)  # in operators' vocabulary, typed by providers/; it may hold credentials
    cache: Cache
    workers: Workers
    limits: Limits
    policy: Policy
    budget: Budget
    log: Log

    _base: Path = PrivateAttr()

    @property
    def base(self) -> Path:
        """The folder that relative paths start from: the one of the configuration file."""
        return self._base

    def model_post_init(self, context: Any, /) -> None:
        self._base = context["base"]

    @model_validator(mode="before")
    @classmethod
    def _absent_means_default(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        given = {name: value for name, value in raw.items() if value is not None}
        return {name: {} for name in cls.model_fields} | given

    @field_validator("hsm", mode="before")
    @classmethod
    def _default_provider(cls, hsm: Any) -> Any:
        return hsm or {"provider": "LOCAL", "keyFile": "data/root.key"}

    def unbuilt(self) -> list[str]:
        """One line for each setting that is accepted and that this release does not act on."""
        from providers import unbuilt

        return unbuilt(self.hsm)
