"""The sections of the configuration file, typed; docs/configuration.md describes each setting.

Checks that look at two settings sit on the later one, so that a fault elsewhere in the section does not hide them.
"""

from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from proxy.config.quantities import Bytes, FilePath, Gid, Milliseconds, Mode, SocketPath, Uid, auto_or_int

MAX_MESSAGES_PER_KEY: Final = 2**32
"""NIST SP 800-38D, 8.3: messages under one AES-GCM key with random 96-bit nonces."""

MAX_WORKERS: Final = 64
"""As proxy.startup.MOST_WORKERS, which must not be imported with pydantic."""

Operation = Literal["encrypt", "decrypt", "blind_index", "reencrypt"]
ALL_OPERATIONS: Final[tuple[Operation, ...]] = ("encrypt", "decrypt", "blind_index", "reencrypt")


def _somebody(gid: int | None, info: ValidationInfo) -> int | None:
    if gid is None and info.data.get("uid", 0) is None:
        raise ValueError("say who: give uid, gid or both")
    return gid


class Section(BaseModel):
    """Base of every section: frozen, exact types, nothing unknown. An empty section means its defaults."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", validate_default=True, hide_input_in_errors=True, allow_inf_nan=False
    )


class Socket(Section):
    """The data socket, for applications."""

    path: SocketPath = Path("run/keyside.sock")
    mode: Mode = "0660"  # type: ignore[assignment]  # validate_default turns the text operators write into bits
    group: Gid | None = None


class AdminPeer(Section):
    """Who else may use the admin socket, besides root and the uid that runs the sidecar."""

    name: str | None = None
    uid: Uid | None = None
    gid: Gid | None = None

    _someone = field_validator("gid")(_somebody)


class Admin(Section):
    """The admin socket, for operators."""

    path: SocketPath = Path("run/admin.sock")
    mode: Mode = "0600"  # type: ignore[assignment]  # as above
    peers: Annotated[tuple[AdminPeer, ...], Field(strict=False)] = ()


class Keystore(Section):
    """The database of keyrings, data keys and wraps."""

    url: str | None = None
    path: FilePath = Path("data/keystore.sqlite")

    @field_validator("url")
    @classmethod
    def _known_dialect(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith("sqlite:////"):
            raise ValueError("this release has SQLite alone: write sqlite:////absolute/path, or use keystore.path")
        return url

    @property
    def location(self) -> str:
        """The database URL: `url` where it is given, else SQLite at `path`."""
        return self.url or f"sqlite:///{quote(str(self.path))}"


class Cache(Section):
    """Unwrapped data keys in locked memory. Times in milliseconds."""

    keys: Annotated[Literal["auto"] | int, auto_or_int(64, 1 << 26)] = "auto"
    ttl: Annotated[Milliseconds, Field(ge=1_000, le=30 * 86_400_000)] = "1h"  # type: ignore[assignment]  # as above
    refresh_ahead: Annotated[float, Field(gt=0, lt=1, strict=False)] = 0.8
    negative_ttl: Annotated[Milliseconds, Field(ge=10, le=3_600_000)] = "2s"  # type: ignore[assignment]  # as above
    on_low_lock_limit: Literal["refuse", "degrade"] = "refuse"


class Workers(Section):
    """Native threads that serve the data socket."""

    count: Annotated[Literal["auto"] | int, auto_or_int(1, MAX_WORKERS)] = "auto"
    pin: bool = True


class Limits(Section):
    """How much and how long the data plane puts up with. Sizes in bytes, times in milliseconds."""

    max_frame: Annotated[Bytes, Field(ge=1 << 10, le=(1 << 28) - 1)] = "8MiB"  # type: ignore[assignment]  # as above
    max_connections: Annotated[int, Field(ge=1, le=1 << 20)] = 16384
    idle_timeout: Annotated[Milliseconds, Field(ge=100, le=1 << 40)] = "10m"  # type: ignore[assignment]  # as above
    stall_timeout: Annotated[Milliseconds, Field(ge=100, le=1 << 40)] = "30s"  # type: ignore[assignment]  # as above
    park_timeout: Annotated[Milliseconds, Field(ge=10, le=1 << 40)] = "5s"  # type: ignore[assignment]  # as above
    park_requests: Annotated[int, Field(ge=1, le=1 << 30)] = 65_536
    park_bytes: Annotated[Bytes, Field(ge=1 << 10, le=1 << 40)] = "64MiB"  # type: ignore[assignment]  # as above
    buffer_bytes: Annotated[Bytes, Field(ge=1 << 10, le=1 << 40)] = "512MiB"  # type: ignore[assignment]  # as above

    @field_validator("buffer_bytes")
    @classmethod
    def _holds_a_frame(cls, buffer_bytes: int, info: ValidationInfo) -> int:
        if buffer_bytes < info.data.get("max_frame", 0):
            raise ValueError("is smaller than limits.max_frame: no whole frame would ever fit")
        return buffer_bytes


class Peer(Section):
    """One rule of the policy: whoever has this uid and this gid (each where given) may do these operations there."""

    name: str | None = None
    uid: Uid | None = None
    gid: Gid | None = None
    keyrings: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    operations: Annotated[tuple[Operation, ...], Field(strict=False, min_length=1)]
    rate: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None

    _someone = field_validator("gid")(_somebody)

    @field_validator("keyrings")
    @classmethod
    def _names(cls, globs: tuple[str, ...]) -> tuple[str, ...]:
        for glob in globs:
            if not glob or not glob.isprintable() or len(glob.encode()) > 200:
                raise ValueError("a glob is 1 to 200 bytes of printable text, such as users/*")
        return globs

    @field_validator("operations", mode="before")
    @classmethod
    def _spelt_out(cls, operations: object) -> object:
        if operations == "all":
            return ALL_OPERATIONS
        if not isinstance(operations, list):
            raise ValueError(f"write all, or a list of {', '.join(ALL_OPERATIONS)}")
        return operations


class Policy(Section):
    """Who may do what. No rule that fits: refused."""

    peers: Annotated[tuple[Peer, ...], Field(strict=False, max_length=4096)] = ()


class Budget(Section):
    """How many messages a data key may encrypt, and in what blocks a sidecar leases them from the keystore."""

    messages_per_key: Annotated[int, Field(ge=1 << 18, le=MAX_MESSAGES_PER_KEY)] = MAX_MESSAGES_PER_KEY
    lease: Annotated[int, Field(ge=1, le=MAX_MESSAGES_PER_KEY)] = 65_536
    lease_max: Annotated[int, Field(ge=1, le=MAX_MESSAGES_PER_KEY)] = 4_194_304

    @field_validator("lease")
    @classmethod
    def _below_the_budget(cls, lease: int, info: ValidationInfo) -> int:
        if lease > info.data.get("messages_per_key", lease):
            raise ValueError("is more than budget.messages_per_key")
        return lease

    @field_validator("lease_max")
    @classmethod
    def _not_below_the_first(cls, lease_max: int, info: ValidationInfo) -> int:
        if lease_max < info.data.get("lease", 0):
            raise ValueError("is less than budget.lease")
        return lease_max


class Log(Section):
    """What is logged, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
